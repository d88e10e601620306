"""The process that owns servers and actors: `python -m lab.supervisor HOME [--watch-parent]`.

It holds the lock HOME/supervisor.lock for as long as it lives, which is how others know that a state.json is
true: the kernel lets go of the lock however the process ends, and a re-used pid does not hold it.
"""

import argparse
import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from lab import files, scene, servers
from lab.actors import READY
from lab.errors import LabError
from lab.processes import SERVER_ENV, spawn
from lab.scene import Scene

__all__ = ["LOCK", "STATE", "main"]

LOCK = "supervisor.lock"
STATE = "state.json"
_PAUSE = 0.1
_LOCK_SECONDS = 2.0
_REPOSITORY = Path(__file__).resolve().parent.parent


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
            stage = _Stage(home, running)
            stage.write_state()
            try:
                while not left_alone():
                    stage.reconcile()
                    time.sleep(_PAUSE)
                _quiet()
            finally:
                stage.dismiss()
    finally:
        (home / STATE).unlink(missing_ok=True)


class _Stage:
    """Servers and actors as the scene wants them; state.json says which scene is true by now."""

    def __init__(self, home: Path, running: servers.Running) -> None:
        self._home, self._running = home, running
        self._true, self._down = Scene(), set[str]()
        self._furnished = False
        self._actors: dict[tuple[str, ...], subprocess.Popen[bytes]] = {}
        self._started_at = datetime.now(UTC)

    def reconcile(self) -> None:
        """Take one step towards the scene that is wanted. An actor that ends by itself is not started again."""
        wanted = Scene.of(files.read(self._home / scene.FILE))
        if wanted == self._true:
            return
        self._place_servers(set(wanted.down))
        if wanted.volume and not self._furnished:
            self._running.furnish(wanted.volume)
            self._furnished = True
        self._place_actors({(name, *words) for name, words in wanted.actors.items()})
        if all(self._ready(name) for name in wanted.actors):
            self._true = wanted
            self.write_state()

    def dismiss(self) -> None:
        """End all actors."""
        self._place_actors(set())

    def write_state(self) -> None:
        """Tell where the servers are, and which scene is true."""
        state = {
            "pid": os.getpid(),
            "started_at": self._started_at.isoformat(),
            "servers": {server.name: dataclasses.asdict(server) for server in self._running.servers},
            "scene": self._true.as_json(),
        }
        files.write(self._home / STATE, state)

    def _place_servers(self, down: set[str]) -> None:
        for name in down - self._down:
            self._running.halt(name)
        for name in self._down - down:
            self._running.revive(name)
        self._down = down

    def _place_actors(self, wanted: set[tuple[str, ...]]) -> None:
        for words in self._actors.keys() - wanted:
            ended = self._actors.pop(words)
            ended.kill()  # the server gives back what it held
            ended.wait()
        for words in wanted - self._actors.keys():
            log = self._log(words[0])
            log.unlink(missing_ok=True)
            urls = {server.name: server.url for server in self._running.servers}
            env = {**SERVER_ENV, "DATABASE_URL": urls["postgres"], "REDIS_URL": urls["redis"]}
            env["NATS_URL"] = urls["nats"]
            argv = [sys.executable, "-m", "lab.actors", *words]
            self._actors[words] = spawn(argv, log=log, env=env, cwd=_REPOSITORY)

    def _ready(self, name: str) -> bool:
        return READY in self._log(name).read_text().splitlines()

    def _log(self, name: str) -> Path:
        return self._home / "logs" / f"actor-{name}.log"


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="lab.supervisor", description=__doc__)
    parser.add_argument("home", type=Path, help="folder of the lab's data, logs and state")
    parser.add_argument("--watch-parent", action="store_true", help="end when the starting process ends")
    arguments = parser.parse_args()
    sys.exit(main(arguments.home, watch_parent=arguments.watch_parent))
