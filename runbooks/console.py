"""How a task meets its operator: the target, the questions, the output, and how it ends."""

import json as jsonlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit as Stop

if TYPE_CHECKING:
    from runbooks.engine.environment import Environment
    from runbooks.engine.model import Plan, Runbook
    from runbooks.engine.operate import Operator

__all__ = ["Session", "asking", "calmly", "choice", "note", "number"]

_ENVIRONMENTS = Path(__file__).resolve().parent.parent / "environments"


class Session:
    """One call of a task: the target, where output goes, and how it ends."""

    def __init__(self, name: str, *, env: str, json: bool, timeout: str = "10", report: str = "") -> None:
        self.name, self.env, self.json, self.timeout, self.report = name, env, json, timeout, report
        self.environment: Environment | None = None

    def diagnose(
        self,
        runbook: "Callable[[], Runbook]",
        *,
        apply: bool,
        yes: bool,
        max_targets: str,
        options: "Callable[[], dict[str, Any]]" = dict,
        about: "Mapping[str, Any]" = MappingProxyType({}),
        trial: bool = False,
    ) -> None:
        """Diagnose and plan; with `apply` go on to apply the plan. `options` returns, or refuses, the runbook's own.

        `about` is what the runbook is asked about; with `trial` it tries out for real what it can.
        """
        from runbooks.reports import document, terminal

        def work() -> int:
            limit, wanted = number("--max-targets", max_targets), options()
            operator, procedure = self._operator(), runbook()
            tried = asking(yes) if trial else None
            found = operator.diagnose(procedure, about=about, trial=tried, **wanted)
            text = terminal.diagnosis(found, colour=not self.json and _colour(), width=_width())
            if not apply or found.plan is None:
                self._print(text, document.diagnosed(found))
                return int(found.exit)
            print(text, file=sys.stderr if self.json else sys.stdout)
            outcome = operator.apply(found.plan, procedure, ask=asking(yes), max_targets=limit)
            return self._finish(outcome)

        self._run(work)

    def change(self, change: "Callable[[Operator], Any]") -> None:
        """Do something that changes the target, and print what became of it."""
        self._run(lambda: self._finish(change(self._operator())))

    def look(self, look: "Callable[[Operator], tuple[str, Any]]") -> None:
        """Print something of the journal."""

        def work() -> int:
            text, data = look(self._operator())
            print(jsonlib.dumps(data, indent=1) if self.json else text)
            return 0

        self._run(work)

    def job(self, job: "Callable[[Callable[[], Environment], str, float], int]") -> None:
        """Run a scheduled job, which does its own talking: it is given how to get the target, its name, a time-out in s."""
        named = self.env or os.environ.get("ARRAKIS_ENV") or "custom"
        self._run(lambda: int(job(self._resolved, named, self._seconds())))

    def _operator(self) -> "Operator":
        from runbooks.engine.operate import Operator
        from runbooks.reports.terminal import progress

        return Operator(
            self._resolved(),
            timeout=self._seconds(),
            progress=lambda result: note(progress(result)),
            tell=note,
        )

    def _seconds(self) -> int:
        return number("--timeout", self.timeout) or 10

    def _resolved(self) -> "Environment":
        from runbooks.engine.environment import resolve

        self.environment = resolve(self.env or None, os.environ, _ENVIRONMENTS, _state_dir())
        return self.environment

    def _finish(self, outcome: Any) -> int:
        from runbooks.engine.environment import command
        from runbooks.reports import document, terminal

        assert self.environment is not None
        text = terminal.applied(
            outcome,
            lab=self.environment.lab,
            base=command(self.environment),
            colour=not self.json and _colour(),
            width=_width(),
        )
        self._print(text, document.applied(outcome))
        return int(outcome.exit)

    def _print(self, text: str, data: Any) -> None:
        print(jsonlib.dumps(data, indent=1) if self.json else text)
        if self.report:
            from runbooks.reports import markdown

            try:
                note(f"report: {markdown.write(data, Path(self.report))}")
            except OSError as error:
                note(f"the report cannot be written to {self.report}: {error.strerror}")

    def _run(self, work: Callable[[], int]) -> None:
        from runbooks.reports import document

        def failed(error: Any) -> None:
            if self.json:
                name = self.environment.name if self.environment else None
                print(jsonlib.dumps(document.failed(error, runbook=self.name, environment=name), indent=1))

        calmly(work, failed=failed)


def calmly(work: Callable[[], int | None], *, failed: Callable[[Any], None] = lambda _: None) -> None:
    """Do it and exit; whatever goes wrong is one line and a next step. The traceback goes to a debug log."""
    from runbooks.reports.document import exit_of
    from sandbox.errors import ArrakisError
    from sandbox.text import clean

    try:
        code = work()
    except KeyboardInterrupt:
        raise Stop(
            "interrupted. `history` names the run, if one was begun; `resume --run` takes it up", 1
        ) from None
    except Exception as error:
        known = error if isinstance(error, ArrakisError) else _surprise(error)
        failed(known)
        hint = f"\n  next: {clean(known.hint)}" if known.hint else ""
        raise Stop(f"{clean(known)}{hint}", int(exit_of(known))) from None
    if code:
        raise Stop(code=code)


def _surprise(error: Exception) -> Any:
    """A fault of ours: keep the traceback for whoever mends it, and say where it is."""
    from sandbox.errors import ArrakisError

    log = _state_dir() / "debug.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as file:
            traceback.print_exception(error, file=file)
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
            raise Refused(f"not confirmed: {why}", hint="run it in a terminal" if yes else "or say --yes")
        for accepted in wanted or [("y", "yes")]:
            prompt = "Type " + " or ".join(map(repr, accepted)) + " to go on: " if wanted else "Apply? [y/N] "
            print(prompt, end="", file=sys.stderr, flush=True)
            if sys.stdin.readline().strip() not in accepted:
                raise Refused("not confirmed by the operator", hint="nothing was changed")

    return ask


def number(option: str, text: str) -> int | None:
    """Read a number here, because invoke answers a malformed one with a traceback."""
    from sandbox.errors import ArrakisError

    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise ArrakisError(f"{option} takes a whole number above 0, not {text!r}", hint=f"say {option} 10")
    return int(text)


def choice(option: str, text: str, allowed: tuple[str, ...]) -> str:
    """Return what was chosen. Raises ArrakisError for what is not among the allowed."""
    from sandbox.errors import ArrakisError

    if text not in allowed:
        raise ArrakisError(
            f"{option} takes {' or '.join(allowed)}, not {text!r}", hint=f"say {option} {allowed[0]}"
        )
    return text


def _state_dir() -> Path:
    if named := os.environ.get("RUNBOOKS_STATE_DIR"):
        return Path(named)
    from platformdirs import user_state_path

    return user_state_path("arrakis-runbooks")


def note(text: str) -> None:
    """Print a line for the operator on stderr, so that stdout holds the answer alone."""
    print(text, file=sys.stderr, flush=True)


def _width() -> int:
    return os.get_terminal_size().columns if sys.stdout.isatty() else 1_000


def _colour() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
