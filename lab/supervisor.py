"""The process that owns the servers: `python -m lab.supervisor HOME [--watch-parent]`.

It holds the lock HOME/supervisor.lock for as long as it lives, which is how others know that a state.json is
true: the kernel lets go of the lock however the process ends, and a re-used pid does not hold it.
"""

import argparse
import dataclasses
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from lab import servers
from lab.errors import LabError

__all__ = ["LOCK", "STATE", "main"]

LOCK = "supervisor.lock"
STATE = "state.json"
_PAUSE = 0.2
_LOCK_SECONDS = 2.0


def main(home: Path, *, watch_parent: bool = False) -> int:
    """Run the servers until SIGTERM or, when told so, until the starting process ends; the exit code."""
    parent = os.getppid()
    signal.signal(signal.SIGTERM, _leave)
    try:
        lock = _hold(home / LOCK)
        _serve(home, lambda: watch_parent and os.getppid() != parent)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    os.close(lock)
    return 0


def _serve(home: Path, left_alone: Callable[[], bool]) -> None:
    try:
        with servers.run_all(home) as running:
            _write_state(home / STATE, running)
            while not left_alone():
                time.sleep(_PAUSE)
            _quiet()
    finally:
        (home / STATE).unlink(missing_ok=True)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    _quiet()
    raise SystemExit(0)


def _quiet() -> None:
    """Let no second SIGTERM interrupt the stopping."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _hold(path: Path) -> int:
    """Take the lock and keep it open. Somebody who looks whether it is held may hold it for a moment."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise LabError(f"another supervisor runs in {path.parent}: stop that lab first") from None
            time.sleep(_PAUSE)


def _write_state(path: Path, running: tuple[servers.Server, ...]) -> None:
    """Write it whole or not at all, readable by its owner alone."""
    state = {
        "pid": os.getpid(),
        "started_at": datetime.now(UTC).isoformat(),
        "servers": {server.name: dataclasses.asdict(server) for server in running},
    }
    draft = path.with_suffix(".draft")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(state, indent=2))
    draft.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="lab.supervisor", description=__doc__)
    parser.add_argument("home", type=Path, help="folder of the lab's data, logs and state")
    parser.add_argument("--watch-parent", action="store_true", help="end when the starting process ends")
    arguments = parser.parse_args()
    sys.exit(main(arguments.home, watch_parent=arguments.watch_parent))
