"""What is said to whoever called a task, and asked of them: the confirmation, one line for what goes wrong, notes beside the answer."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit as Stop

if TYPE_CHECKING:
    from runbooks.engine.environment import Environment
    from runbooks.engine.model import Plan

__all__ = ["INTERRUPTED", "asking", "calmly", "colour", "note", "width"]


INTERRUPTED = "interrupted. `history` names the run, if one was begun; `resume --run` takes it up"
"""What is said after Ctrl-C by whoever may have changed something."""


def calmly(
    work: Callable[[], int | None],
    *,
    failed: Callable[[Any], None] = lambda _: None,
    interrupted: str = INTERRUPTED,
) -> None:
    """Do it and exit; whatever goes wrong is one line and a next step. The traceback goes to a debug log.

    Raises BrokenPipeError where nobody reads the answer any more.
    """
    from runbooks.reports.document import exit_of
    from sandbox.errors import ArrakisError
    from sandbox.text import clean

    try:
        code = work()
    except KeyboardInterrupt:
        raise Stop(interrupted, 1) from None
    except BrokenPipeError:
        raise
    except Exception as error:
        known = error if isinstance(error, ArrakisError) else _surprise(error)
        failed(known)
        hint = f"\n  next: {clean(known.hint)}" if known.hint else ""
        raise Stop(f"{clean(known)}{hint}", int(exit_of(known))) from None
    if code:
        raise Stop(code=code)


def _surprise(error: Exception) -> Any:
    """A fault of ours: keep the traceback for whoever mends it, and say where it is."""
    from runbooks.engine.environment import state_folder
    from sandbox.errors import ArrakisError
    from sandbox.private import make_folder, opened
    from sandbox.secrets import concealed

    log = state_folder(os.environ) / "debug.log"
    try:
        make_folder(log.parent)
        with os.fdopen(opened(log, os.O_WRONLY | os.O_APPEND), "a") as file:
            file.write(concealed("".join(traceback.format_exception(error))))
    except OSError:
        return ArrakisError(f"{type(error).__name__}, and {log} cannot be written")
    return ArrakisError(
        f"something unexpected went wrong ({type(error).__name__})", hint=f"the details are in {log}"
    )


def asking(yes: bool) -> "Callable[[Environment, Plan, str], None]":
    """Return how to confirm: typed for what cannot be undone and in production, y/N elsewhere, `--yes` for machines."""

    def ask(environment: "Environment", plan: "Plan", scope: str) -> None:
        from runbooks.engine.errors import Refused
        from runbooks.engine.guards import phrases

        where = plan.environment
        note(f"{environment.name}: account {where.account}, region {where.region}, database {where.database}")
        if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
            note(f"AWS endpoint overridden: {endpoint}")
        note(scope)
        wanted: list[tuple[str, ...]] = [(environment.name,)] if environment.typed else []
        if phrases(plan):
            wanted.append(phrases(plan))
        if yes and not wanted:
            return
        if not sys.stdin.isatty():
            why = "it cannot be undone or is production" if yes else "there is no terminal to ask on"
            raise Refused(
                f"not confirmed: {why}", hint="run it in a terminal" + ("" if yes else ", or say --yes")
            )
        for accepted in wanted or [("y", "yes")]:
            prompt = "Type " + " or ".join(map(repr, accepted)) + " to go on: " if wanted else "Apply? [y/N] "
            print(prompt, end="", file=sys.stderr, flush=True)
            if sys.stdin.readline().strip() not in accepted:
                raise Refused("not confirmed by the operator", hint="nothing was changed")

    return ask


def note(text: str) -> None:
    """Print a line for the operator on stderr, so that stdout holds the answer alone."""
    sys.stderr.write(f"{text}\n")  # at once: several threads have something to say
    sys.stderr.flush()


def width() -> int:
    """Return the terminal's columns; a pipe has no end of them."""
    return os.get_terminal_size().columns if sys.stdout.isatty() else 1_000


def colour() -> bool:
    """Whether colour is wanted."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
