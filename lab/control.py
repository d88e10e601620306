"""Start, look at, stop and reset the lab; lay out an incident in it.

A lab lives as long as its supervisor: moto and NATS keep nothing across a stop, and half a remembered world
would be worse than a new one, so each start begins with empty servers.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import servers
from lab.errors import LabError
from lab.processes import answers
from lab.supervisor import LOCK, STATE

__all__ = ["Lab", "LabError", "lay_out", "reset", "start", "status", "stop"]

_LOG = "supervisor.log"
_INCIDENTS = "incidents.json"
_START_LOCK = "start.lock"
_START_SECONDS = 40.0
_STOP_SECONDS = 10.0
_PAUSE = 0.02
_REPOSITORY = Path(__file__).resolve().parent.parent
_VARIABLES = {"postgres": "DATABASE_URL", "redis": "REDIS_URL", "nats": "NATS_URL", "aws": "AWS_ENDPOINT_URL"}
_AWS_ENV = {
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "lab",
    "AWS_SECRET_ACCESS_KEY": "lab",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A running lab: `env` names its servers, `incidents` are those laid out in it."""

    home: Path
    pid: int
    started_at: datetime
    versions: Mapping[str, str]
    env: Mapping[str, str]
    incidents: tuple[str, ...] = ()


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
        (home / STATE).unlink(missing_ok=True)
        (home / _INCIDENTS).unlink(missing_ok=True)
        progress("starting PostgreSQL, Redis, NATS and the AWS endpoint")
        lab = _launch(home, watch_parent)
        progress(f"the lab is up (pid {lab.pid})")
        return lab


def status(home: Path) -> Lab | None:
    """The running lab of `home`, or None. A state that its supervisor left behind counts as none."""
    state = _read(home / STATE)
    if not state or not _held(home):
        return None
    found: dict[str, dict[str, Any]] = state["servers"]
    return Lab(
        home=home,
        pid=state["pid"],
        started_at=datetime.fromisoformat(state["started_at"]),
        versions={name: server["version"] for name, server in found.items()},
        env={_VARIABLES[name]: server["url"] for name, server in found.items()} | _AWS_ENV,
        incidents=tuple(_read(home / _INCIDENTS) or ()),
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
        for name in (STATE, _INCIDENTS, _LOG):
            (home / name).unlink(missing_ok=True)
        return was_running


def lay_out(lab: Lab, name: str) -> Lab:
    """Lay out an incident, once in a lab's life, and return the lab that has it. Raises LabError."""
    from lab.incidents import INCIDENTS  # with it come boto3 and the drivers, which no other command needs

    if name not in INCIDENTS:
        raise LabError(f"no incident is called {name!r}: choose one of {', '.join(sorted(INCIDENTS))}")
    with _locked(lab.home):
        done = tuple(_read(lab.home / _INCIDENTS) or ())
        if name not in done:
            try:
                INCIDENTS[name](lab.env, now=datetime.now(UTC))
            except Exception as error:
                first_line = str(error).partition("\n")[0]
                reason = f"{name} is laid out in part only ({type(error).__name__}: {first_line})"
                raise LabError(f"{reason}: reset the lab and try again") from error
            done = (*done, name)
            (lab.home / _INCIDENTS).write_text(json.dumps(done))
        return replace(lab, incidents=done)


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
    state = _read(home / STATE)
    if not state:
        raise LabError(f"a supervisor in {home} has not finished its start: try again in a few seconds")
    ports = _ports(state)
    for order in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(state["pid"], order)
        if _wait_until(lambda: not _held(home) and not any(map(answers, ports))):
            (home / STATE).unlink(missing_ok=True)
            return True
    raise LabError(f"the lab (pid {state['pid']}) does not end: see {home / _LOG}, then end it by hand")


def _wait_until(reached: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _STOP_SECONDS
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def _whole(home: Path) -> bool:
    state = _read(home / STATE)
    return bool(state) and all(map(answers, _ports(state)))


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


def _read(path: Path) -> Any:
    """The JSON in a file; None where there is no file or no JSON."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
