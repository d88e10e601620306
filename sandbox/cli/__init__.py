"""gaib, the developers' command line for sandboxes: parse, call the library, print, exit. Nothing else is done here."""

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, of the program's own arguments where none are given, and return its exit code."""
    try:
        from sandbox.cli.app import run  # in here, so that Ctrl-C is quiet while it loads, too

        return run(arguments)
    except KeyboardInterrupt:
        return 130
