"""Start, look at, stop and reset the lab; lay out an incident in it, and relieve it of its cause.

A lab lives as long as its supervisor: moto and NATS keep nothing across a stop, and half a remembered world
would be worse than a new one, so each start begins with empty servers.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import files, scene, servers
from lab.errors import LabError
from lab.names import REGION
from lab.processes import answers
from lab.scene import Scene
from lab.supervisor import LOCK, STATE

if TYPE_CHECKING:
    from lab.incidents import Incident, Stage

__all__ = ["Lab", "LabError", "lay_out", "relieve", "reset", "start", "status", "stop", "summary"]

_LOG = "supervisor.log"
_INCIDENTS = "incidents.json"
_START_LOCK = "start.lock"
_START_SECONDS = 40.0
_STOP_SECONDS = 10.0
_SCENE_SECONDS = 20.0
_PAUSE = 0.02
_REPOSITORY = Path(__file__).resolve().parent.parent
_VARIABLES = {"postgres": "DATABASE_URL", "redis": "REDIS_URL", "nats": "NATS_URL", "aws": "AWS_ENDPOINT_URL"}
_AWS_ENV = {
    "AWS_DEFAULT_REGION": REGION,
    "AWS_ACCESS_KEY_ID": "lab",
    "AWS_SECRET_ACCESS_KEY": "lab",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A running lab: `env` names its servers, `incidents` are those laid out in it, the `relieved` ones too."""

    home: Path
    pid: int
    started_at: datetime
    versions: Mapping[str, str]
    env: Mapping[str, str]
    incidents: tuple[str, ...] = ()
    relieved: tuple[str, ...] = ()


def start(home: Path, *, watch_parent: bool = False, progress: Callable[[str], None] = lambda _: None) -> Lab:
    """Return the running lab of `home`, or start one. With `watch_parent` it ends when this process ends.

    Raises LabError when a server is missing or does not start.
    """
    with _locked(home):
        running = status(home)
        if running and _whole(home):
            progress(f"the lab is running already (pid {running.pid})")
            return running
        if _held(home):
            progress("the lab has lost a server: starting anew")
            _end(home)
        for name in (STATE, _INCIDENTS, scene.FILE):
            (home / name).unlink(missing_ok=True)
        progress("starting PostgreSQL, Redis, NATS and the AWS endpoint")
        lab = _launch(home, watch_parent)
        progress(f"the lab is up (pid {lab.pid})")
        return lab


def status(home: Path) -> Lab | None:
    """The running lab of `home`, or None. A state that its supervisor left behind counts as none."""
    state = files.read(home / STATE)
    if not state or not _held(home):
        return None
    remembered = _remembered(home)
    found: dict[str, dict[str, Any]] = state["servers"]
    return Lab(
        home=home,
        pid=state["pid"],
        started_at=datetime.fromisoformat(state["started_at"]),
        versions={name: server["version"] for name, server in found.items()},
        env={_VARIABLES[name]: server["url"] for name, server in found.items()} | _AWS_ENV,
        incidents=tuple(remembered["laid out"]),
        relieved=tuple(remembered["relieved"]),
    )


def stop(home: Path) -> bool:
    """Stop the lab of `home` and wait until its servers are gone. False when none was running."""
    if not home.is_dir():
        return False
    with _locked(home):
        return _end(home)


def reset(home: Path) -> bool:
    """Stop the lab and delete its data, its logs and what it remembers. False when none was running."""
    if not home.is_dir():
        return False
    with _locked(home):
        was_running = _end(home)
        servers.clear(home)
        for name in (STATE, _INCIDENTS, scene.FILE, _LOG):
            (home / name).unlink(missing_ok=True)
        return was_running


def summary(name: str) -> str:
    """Say what an incident is about. Raises LabError if there is none of this name."""
    return _incident(name).summary


def lay_out(lab: Lab, name: str) -> Lab:
    """Lay out an incident, once in a lab's life, and return the lab that has it. Raises LabError."""
    incident = _incident(name)
    with _locked(lab.home):
        done = _remembered(lab.home)
        if others := [
            each for each in done["laid out"] if each != name and not _may_follow(incident, each, done)
        ]:
            raise LabError(
                f"this lab has the incident {others[0]} already: reset it first, or use another home"
            )
        if name not in done["laid out"]:
            with _whole_or_not(f"{name} is laid out in part only"):
                if incident.world and not done["laid out"]:
                    incident.world(_stage(lab))
                incident.lay_out(_stage(lab))
            _remember(lab.home, done | {"laid out": [*done["laid out"], name]})
        return _known(lab)


def relieve(lab: Lab, name: str) -> Lab:
    """Remove an incident's cause, let the clean-up's next run happen, and return the lab. Raises LabError."""
    incident = _incident(name)
    with _locked(lab.home):
        done = _remembered(lab.home)
        if name not in done["laid out"]:
            raise LabError(f"this lab does not have the incident {name}: lay it out first")
        if incident.relieve is None:
            raise LabError(f"{name} has no cause to remove: its runbook puts it right")
        if name not in done["relieved"]:
            with _whole_or_not(f"{name} is relieved in part only"):
                incident.relieve(_stage(lab))
            _remember(lab.home, done | {"relieved": [*done["relieved"], name]})
        return _known(lab)


def _may_follow(incident: "Incident", before: str, done: Mapping[str, Sequence[str]]) -> bool:
    """Whether an incident may be laid out after another: in the same world, and once that one is relieved."""
    same = incident.world is not None and incident.world is _incident(before).world
    return same and before in done["relieved"]


def _incident(name: str) -> "Incident":
    from lab.incidents import INCIDENTS  # with it come boto3 and the drivers, which no other command needs

    if name not in INCIDENTS:
        raise LabError(f"no incident is called {name!r}: choose one of {', '.join(sorted(INCIDENTS))}")
    return INCIDENTS[name]


def _stage(lab: Lab) -> "Stage":
    from lab.incidents import Stage

    return Stage(env=lab.env, now=datetime.now(UTC), play=lambda wanted: _play(lab.home, wanted))


def _play(home: Path, wanted: Scene) -> None:
    """Write down what is to be wrong, and wait until the supervisor has made it so."""
    files.write(home / scene.FILE, wanted.as_json())

    def true() -> bool:
        return Scene.of((files.read(home / STATE) or {}).get("scene")) == wanted

    if not _wait_until(true, _SCENE_SECONDS):
        raise LabError(
            f"the scene does not come true: see {home / _LOG} and the actors' logs in {home / 'logs'}"
        )


@contextlib.contextmanager
def _whole_or_not(trouble: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        reason = f"{trouble} ({type(error).__name__}: {first_line})"
        raise LabError(f"{reason}: reset the lab and try again") from error


def _known(lab: Lab) -> Lab:
    done = _remembered(lab.home)
    return replace(lab, incidents=tuple(done["laid out"]), relieved=tuple(done["relieved"]))


def _remembered(home: Path) -> dict[str, list[str]]:
    return {"laid out": [], "relieved": []} | (files.read(home / _INCIDENTS) or {})


def _remember(home: Path, done: dict[str, list[str]]) -> None:
    files.write(home / _INCIDENTS, done)


def _launch(home: Path, watch_parent: bool) -> Lab:
    argv = [sys.executable, "-m", "lab.supervisor", str(home.resolve())]
    log_path = home / _LOG
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            argv + ["--watch-parent"] * watch_parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=_REPOSITORY,
            start_new_session=True,
        )
    # Reaped when it ends, so that neither a zombie nor a warning about it stays.
    threading.Thread(target=process.wait, daemon=True).start()
    try:
        return _await_state(home, process, log_path)
    except BaseException:  # the operator's Ctrl-C too: nothing half started stays
        process.terminate()
        raise


def _await_state(home: Path, process: subprocess.Popen[bytes], log: Path) -> Lab:
    deadline = time.monotonic() + _START_SECONDS
    while not (lab := status(home)):
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise LabError(f"the lab did not start: {''.join(said) or 'no reason given'} (log: {log})")
        time.sleep(_PAUSE)
    return lab


def _end(home: Path) -> bool:
    """SIGTERM, then SIGKILL after ten seconds; its servers die with it."""
    if not _held(home):
        (home / STATE).unlink(missing_ok=True)
        return False
    state = files.read(home / STATE)
    if not state:
        raise LabError(f"a supervisor in {home} has not finished its start: try again in a few seconds")
    ports = _ports(state)
    for order in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(state["pid"], order)
        if _wait_until(lambda: not _held(home) and not any(map(answers, ports)), _STOP_SECONDS):
            (home / STATE).unlink(missing_ok=True)
            return True
    raise LabError(f"the lab (pid {state['pid']}) does not end: see {home / _LOG}, then end it by hand")


def _wait_until(reached: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def _whole(home: Path) -> bool:
    """Whether every server answers, but those that are down on purpose."""
    state = files.read(home / STATE)
    if not state:
        return False
    down = Scene.of(state["scene"]).down
    return all(answers(server["port"]) for name, server in state["servers"].items() if name not in down)


def _ports(state: Any) -> list[int]:
    return [server["port"] for server in state["servers"].values()]


def _held(home: Path) -> bool:
    """Whether a supervisor lives in `home`: it holds its lock from its first moment to its last."""
    try:
        lock = os.open(home / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One start, stop or lay-out at a time in `home`."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(home / _START_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        reason = f"cannot keep a lab in {home} ({error.strerror})"
        raise LabError(f"{reason}: choose a folder you may write to") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
