"""The commands put together, and how one call of the program runs."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import shell_complete

from sandbox.cli import changes, looks, removal
from sandbox.cli.completion import VARIABLE, completion
from sandbox.cli.ending import calmly

__all__ = ["ALIASES", "gaib", "run"]

ALIASES = {
    "ls": "list",
    "new": "create",
    "env": "connect",
    "link": "register-guild",
    "unlink": "unregister-guild",
    "rm": "destroy",
}
"""The short names, and the commands that they stand for."""

_DISTRIBUTION = "arrakis-runbooks"


class _Aliased(click.Group):
    """A group whose commands have short names too."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shorts = {name: short for short, name in ALIASES.items()}
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (f"{name}, {shorts[name]}" if name in shorts else name, command.get_short_help_str(60))
                    for name, command in self.commands.items()
                ]
            )


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version(_DISTRIBUTION)
        except PackageNotFoundError:
            number = "(run from its sources)"
        print(f"gaib {number}")
        ctx.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def gaib() -> None:
    """Sandboxes of Arrakis: isolated copies of its services' data, for a developer, for a while."""


@gaib.group(cls=_Aliased)
def sandbox() -> None:
    """Create, look at, connect to, extend and destroy sandboxes."""


_COMMANDS: Sequence[click.Command] = (
    looks.list_,
    changes.create,
    looks.status,
    changes.register_guild,
    changes.unregister_guild,
    looks.connect,
    removal.destroy,
    changes.extend,
)
for _command in _COMMANDS:
    sandbox.add_command(_command)
gaib.add_command(completion)


def run(arguments: Sequence[str] | None) -> int:
    """Run one command and return its exit code, or answer a shell that asks for completions."""
    _prepare_output()
    if instruction := os.environ.get(VARIABLE):
        try:
            return shell_complete(gaib, {}, "gaib", VARIABLE, instruction)
        except Exception:  # somebody is typing: a message would land in the middle of their line
            return 1
    given = list(sys.argv[1:] if arguments is None else arguments)
    return calmly(lambda: _invoke(given), json="--json" in given)


def _prepare_output() -> None:
    # Where one is closed, print() would take the other, and eval would run what was meant for a person.
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            # A name that the terminal's encoding lacks is no reason to fail.
            reconfigure(errors="backslashreplace")


def _invoke(arguments: list[str]) -> int:
    # Not `gaib.main()`: it answers Ctrl-C and a closed pipe in its own way.
    with gaib.make_context("gaib", arguments) as context:
        result: Any = gaib.invoke(context)
    return int(result or 0)
