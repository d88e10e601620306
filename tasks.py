"""The tasks that an on-call engineer calls. Parse, call, print, exit: nothing else is done here."""

import json as jsonlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit as Stop
from invoke.tasks import task

if TYPE_CHECKING:
    from runbooks.engine.environment import Environment
    from runbooks.engine.model import Plan, Runbook
    from runbooks.engine.operate import Operator

ROOT = Path(__file__).resolve().parent
LAB_HOME = Path(os.environ.get("RUNBOOKS_LAB", ROOT / ".lab"))
_HELP = {
    "env": "the environment, a file under environments/ (or ARRAKIS_ENV)",
    "apply": "confirm and apply the plan in one go",
    "drop": "delete for good instead of putting into quarantine",
    "json": "print one JSON document",
    "max_targets": "raise the blast radius to this many targets",
    "timeout": "seconds that the diagnosis and each call may take",
    "yes": "do not ask (outside production, and only for what can be undone)",
    "report": "also write the result as JSON and Markdown into this folder",
}


def _help(*names: str) -> dict[str, str]:
    return {name.replace("_", "-"): _HELP[name] for name in names}


@task(
    name="rb-sb-003",
    auto_shortflags=False,
    help=_help("env", "apply", "drop", "json", "max_targets", "timeout", "yes", "report"),
)
def rb_sb_003(
    c: Context,
    env: str = "",
    apply: bool = False,
    drop: bool = False,
    json: bool = False,
    max_targets: str = "",
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
) -> None:
    """Find orphaned schemas and keys; propose to put them into quarantine."""
    session = _Session("rb-sb-003", env=env, json=json, timeout=timeout, report=report)
    session.diagnose("rb-sb-003", drop=drop, apply=apply, yes=yes, max_targets=max_targets)


@task(
    name="purge-quarantine",
    auto_shortflags=False,
    help=_help("env", "apply", "json", "max_targets", "timeout", "report"),
)
def purge_quarantine(
    c: Context,
    env: str = "",
    apply: bool = False,
    json: bool = False,
    max_targets: str = "",
    timeout: str = "10",
    report: str = "",
) -> None:
    """Plan to delete for good what has been in quarantine over 72 hours."""
    session = _Session("purge-quarantine", env=env, json=json, timeout=timeout, report=report)
    session.diagnose("purge-quarantine", drop=True, apply=apply, yes=False, max_targets=max_targets)


@task(
    name="apply",
    auto_shortflags=False,
    help={"plan": "the plan's id", **_help("env", "json", "max_targets", "timeout", "yes", "report")},
)
def apply_plan(
    c: Context,
    plan: str,
    env: str = "",
    json: bool = False,
    max_targets: str = "",
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
) -> None:
    """Apply a saved plan exactly, once."""

    def work(operator: "Operator") -> Any:
        saved = operator.saved(plan)
        return operator.apply(
            saved,
            _runbooks()[saved.runbook],
            ask=_asking(yes),
            max_targets=_number("--max-targets", max_targets),
        )

    _Session("apply", env=env, json=json, timeout=timeout, report=report).change(work)


@task(auto_shortflags=False, help={"run": "the run's id", **_help("env", "json", "timeout", "yes", "report")})
def resume(
    c: Context,
    run: str,
    env: str = "",
    json: bool = False,
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
) -> None:
    """Take up an interrupted run where it stopped."""
    session = _Session("resume", env=env, json=json, timeout=timeout, report=report)
    session.change(lambda operator: operator.resume(run, _runbooks(), ask=_asking(yes)))


@task(auto_shortflags=False, help={"run": "the run's id", **_help("env", "json", "timeout", "yes", "report")})
def undo(
    c: Context,
    run: str,
    env: str = "",
    json: bool = False,
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
) -> None:
    """Give back what a run took away."""
    session = _Session("undo", env=env, json=json, timeout=timeout, report=report)
    session.change(lambda operator: operator.undo(run, _runbooks(), ask=_asking(yes)))


@task(auto_shortflags=False, help=_help("env", "json"))
def history(c: Context, env: str = "", json: bool = False) -> None:
    """List the runs made from this host, the latest last."""
    from runbooks.reports import runs

    _Session("history", env=env, json=json).look(lambda operator: runs.history(operator.journal.entries()))


@task(auto_shortflags=False, help={"run": "the run's id", **_help("env", "json")})
def show(c: Context, run: str, env: str = "", json: bool = False) -> None:
    """Show what one run did, record by record."""
    from runbooks.reports import runs

    _Session("show", env=env, json=json).look(lambda operator: runs.show(operator.records(run)))


@task(auto_shortflags=False)
def lab(c: Context) -> None:
    """Start the lab, real servers with an incident, and point the tasks that follow at it."""

    def start() -> None:
        from lab import control

        running = control.start(LAB_HOME, progress=_note)
        for name in ("rb-sb-003",):  # the incidents that the runbooks which follow will find
            if name not in running.incidents:
                _note(f"LAB: laying out the incident for {name}")
                running = control.lay_out(running, name)
        for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
            os.environ.pop(variable, None)
        os.environ.update(running.env)
        os.environ.update(ARRAKIS_ENV="lab", RUNBOOKS_STATE_DIR=str(LAB_HOME / "state"))
        _note("LAB: everything below concerns the lab")

    _calmly(start)


@task(name="lab-status", auto_shortflags=False, help=_help("json"))
def lab_status(c: Context, json: bool = False) -> None:
    """Say whether the lab is up, and the variables that point any tool at it."""

    def status() -> None:
        from lab import control

        running = control.status(LAB_HOME)
        if json:
            state = {"running": running is not None, "env": dict(running.env) if running else {}}
            print(jsonlib.dumps(state | ({"versions": dict(running.versions)} if running else {}), indent=1))
        elif running is None:
            print("LAB: not running. `lab` starts it.")
        else:
            print(f"LAB: running since {running.started_at}, pid {running.pid}")
            print("\n".join(f"export {name}={value}" for name, value in sorted(running.env.items())))

    _calmly(status)


@task(name="lab-down", auto_shortflags=False)
def lab_down(c: Context) -> None:
    """Stop the lab's servers. The next `lab` starts afresh."""

    def stop() -> None:
        from lab import control

        print("LAB: stopped" if control.stop(LAB_HOME) else "LAB: was not running")

    _calmly(stop)


@task(name="lab-reset", auto_shortflags=False, help={"yes": "do not ask"})
def lab_reset(c: Context, yes: bool = False) -> None:
    """Stop the lab and delete its data; the next `lab` lays everything out anew."""

    def reset() -> None:
        from lab import control
        from runbooks.engine.errors import Refused

        if not yes:
            raise Refused("lab-reset deletes the lab's data", hint="say --yes")
        control.reset(LAB_HOME)
        print("LAB: reset")

    _calmly(reset)


@task(name="test", auto_shortflags=False, help={"soak": "also the long ones", "args": "more for pytest"})
def run_tests(c: Context, soak: bool = False, args: str = "") -> None:
    """Run the tests on the lab's servers."""
    os.chdir(ROOT)
    chosen = ["-m", "soak or not soak"] if soak else ["-m", "not soak"]
    os.execv(sys.executable, [sys.executable, "-m", "pytest", "-n", "2", *chosen, *args.split()])


class _Session:
    """One call of a task: the target, where output goes, and how it ends."""

    def __init__(self, name: str, *, env: str, json: bool, timeout: str = "10", report: str = "") -> None:
        self.name, self.env, self.json, self.timeout, self.report = name, env, json, timeout, report
        self.environment: Environment | None = None

    def diagnose(self, name: str, *, drop: bool, apply: bool, yes: bool, max_targets: str) -> None:
        """Diagnose and plan; with `apply` go on to apply the plan."""
        from runbooks.reports import document, terminal

        def work() -> int:
            limit = _number("--max-targets", max_targets)
            operator, runbook = self._operator(), _runbooks()[name]
            found = operator.diagnose(runbook, drop=drop)
            text = terminal.diagnosis(found, colour=not self.json and _colour(), width=_width())
            if not apply or found.plan is None:
                self._print(text, document.diagnosed(found))
                return int(found.exit)
            print(text, file=sys.stderr if self.json else sys.stdout)
            outcome = operator.apply(found.plan, runbook, ask=_asking(yes), max_targets=limit)
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

    def _operator(self) -> "Operator":
        from runbooks.engine.environment import resolve
        from runbooks.engine.operate import Operator
        from runbooks.reports.terminal import progress

        seconds = _number("--timeout", self.timeout) or 10
        self.environment = resolve(self.env or None, os.environ, ROOT / "environments", _state_dir())
        return Operator(self.environment, timeout=seconds, progress=lambda result: _note(progress(result)))

    def _finish(self, outcome: Any) -> int:
        from runbooks.engine.environment import command
        from runbooks.reports import document, terminal

        assert self.environment is not None
        text = terminal.applied(outcome, lab=self.environment.lab, base=command(self.environment))
        self._print(text, document.applied(outcome))
        return int(outcome.exit)

    def _print(self, text: str, data: Any) -> None:
        print(jsonlib.dumps(data, indent=1) if self.json else text)
        if self.report:
            from runbooks.reports import markdown

            try:
                _note(f"report: {markdown.write(data, Path(self.report))}")
            except OSError as error:
                _note(f"the report cannot be written to {self.report}: {error.strerror}")

    def _run(self, work: Callable[[], int]) -> None:
        from runbooks.reports import document

        def failed(error: Any) -> None:
            if self.json:
                name = self.environment.name if self.environment else None
                print(jsonlib.dumps(document.failed(error, runbook=self.name, environment=name), indent=1))

        _calmly(work, failed=failed)


def _calmly(work: Callable[[], int | None], *, failed: Callable[[Any], None] = lambda _: None) -> None:
    """Do it and exit; whatever goes wrong is one line and a next step. The traceback goes to a debug log."""
    from runbooks.reports.document import exit_of
    from runbooks.reports.terminal import clean
    from sandbox.errors import ArrakisError

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


def _asking(yes: bool) -> "Callable[[Environment, Plan, str], None]":
    """Return how to confirm: typed for what cannot be undone and in production, y/N elsewhere, `--yes` for machines."""

    def ask(environment: "Environment", plan: "Plan", scope: str) -> None:
        from runbooks.engine.errors import Refused
        from runbooks.engine.guards import phrases

        where = plan.environment
        _note(
            f"{environment.name}: account {where.account}, region {where.region}, database {where.database}"
        )
        if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
            _note(f"AWS endpoint overridden: {endpoint}")
        _note(scope)
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


def _number(option: str, text: str) -> int | None:
    """Read a number here, because invoke answers a malformed one with a traceback."""
    from sandbox.errors import ArrakisError

    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise ArrakisError(f"{option} takes a whole number above 0, not {text!r}", hint=f"say {option} 10")
    return int(text)


def _runbooks() -> "dict[str, Runbook]":
    from runbooks import purge_quarantine as purge
    from runbooks import rb_sb_003 as orphans

    return {runbook.name: runbook for runbook in (orphans.RUNBOOK, purge.RUNBOOK)}


def _state_dir() -> Path:
    if named := os.environ.get("RUNBOOKS_STATE_DIR"):
        return Path(named)
    from platformdirs import user_state_path

    return user_state_path("arrakis-runbooks")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _width() -> int:
    return os.get_terminal_size().columns if sys.stdout.isatty() else 1_000


def _colour() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


_TASKS = (
    rb_sb_003,
    purge_quarantine,
    apply_plan,
    resume,
    undo,
    history,
    show,
    lab,
    lab_status,
    lab_down,
    lab_reset,
    run_tests,
)
namespace = Collection(*_TASKS)
