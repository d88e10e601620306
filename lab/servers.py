"""The four servers as one: started side by side, stopped together."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psycopg

from lab import binaries, postgres
from lab.errors import LabError
from lab.processes import HOST, answers, free_ports, spawn, talk

__all__ = ["Running", "Server", "clear", "run_all"]

_START_SECONDS = 25.0
_STOP_SECONDS = 8.0
_PAUSE = 0.01
_REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that answers: its process, where it listens and its version."""

    name: str
    pid: int
    port: int
    url: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launched:
    """A process on its way; `probe` returns the server's version once it answers."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    url: str
    log: Path
    probe: Callable[[], str | None]
    stop_signal: signal.Signals = signal.SIGTERM


class Running:
    """The servers that run, and how to stop and start again the one that can be missed."""

    def __init__(self, data: Path, logs: Path) -> None:
        """Take the folders. Nothing runs before `start`."""
        self._data, self._logs = data, logs
        self._launched: list[_Launched] = []
        self.servers: tuple[Server, ...] = ()

    def start(self) -> None:
        """Start all four, side by side. Raises LabError."""
        self._cluster = postgres.prepare(self._data)
        self.servers = tuple(_start(self._cluster, self._data, self._logs, self._launched))

    def halt(self, name: str) -> None:
        """Stop Redis, which writes its data down. Raises LabError for another."""
        if name != "redis":
            raise LabError(f"{name} cannot be stopped alone: only redis keeps its data")
        launched = self._one(name)
        talk(launched.port, b"SHUTDOWN SAVE\r\n")
        _reap([launched])

    def revive(self, name: str) -> None:
        """Start Redis again on its port, with its data. Raises LabError."""
        self._replace(_redis(self._one(name).port, self._data, self._logs))

    def furnish(self, mib: int) -> None:
        """Start PostgreSQL again, on its port and with its data, with a disk of its own. Raises LabError."""
        before = self._one("postgres")
        _stop([before])
        self._replace(_postgres(self._cluster.with_volume(mib), before.port, self._logs))

    def stop(self) -> None:
        """Stop all."""
        _stop(self._launched)

    def _replace(self, launched: _Launched) -> None:
        self._launched[self._launched.index(self._one(launched.name))] = launched
        server = _await(launched, time.monotonic() + _START_SECONDS)
        self.servers = tuple(server if each.name == server.name else each for each in self.servers)

    def _one(self, name: str) -> _Launched:
        return next(each for each in self._launched if each.name == name)


@contextlib.contextmanager
def run_all(home: Path) -> Iterator[Running]:
    """Start all four under `home` from nothing, yield them, and stop them at the end.

    Call it in the main thread: the servers end with the thread that started them.
    """
    clear(home)
    data, logs = home / "data", home / "logs"
    for folder in (data, logs):
        folder.mkdir(parents=True, mode=0o700)
    running = Running(data, logs)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        postgres.discard(data)


def clear(home: Path) -> None:
    """Delete the servers' data and logs. Nothing may be running."""
    postgres.discard(home / "data")
    for name in ("data", "logs"):
        shutil.rmtree(home / name, ignore_errors=True)


def _start(cluster: postgres.Cluster, data: Path, logs: Path, launched: list[_Launched]) -> Iterator[Server]:
    """Launch first, wait afterwards: the slow ones (initdb, moto) then take their time together."""
    ports, init_log = free_ports(4), logs / "initdb.log"
    init = cluster.init(init_log)
    try:
        launched += [_redis(ports[0], data, logs), _nats(ports[1], data, logs)]
        launched.append(_aws(ports[2], logs, _postgres_url(ports[3]), launched[0].url))
        if init.wait(_START_SECONDS):
            raise LabError(f"initdb failed: {_tail(init_log)}; the whole log is {init_log}")
    finally:
        init.kill()
        init.wait()
    launched.append(_postgres(cluster, ports[3], logs))
    deadline = time.monotonic() + _START_SECONDS
    for each in launched:
        yield _await(each, deadline)
    postgres.create_database(_postgres_url(ports[3], "postgres"))


def _await(launched: _Launched, deadline: float) -> Server:
    while not (said := launched.probe()):
        code = launched.process.poll()
        if code is not None or time.monotonic() > deadline:
            how = "did not answer in time" if code is None else f"ended with code {code}"
            what = f"{launched.name} on port {launched.port} {how}: {_tail(launched.log)}"
            raise LabError(f"{what}; start again to get another port, or read {launched.log}")
        time.sleep(_PAUSE)
    return Server(
        name=launched.name, pid=launched.process.pid, port=launched.port, url=launched.url, version=said
    )


def _stop(launched: list[_Launched]) -> None:
    for each in launched:
        if each.process.poll() is None:
            each.process.send_signal(each.stop_signal)
    _reap(launched)


def _reap(launched: list[_Launched]) -> None:
    """Wait for processes that were told to end; kill those that do not."""
    deadline = time.monotonic() + _STOP_SECONDS
    for each in launched:
        try:
            each.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            each.process.kill()
            each.process.wait()


def _postgres(cluster: postgres.Cluster, port: int, logs: Path) -> _Launched:
    log = logs / "postgres.log"

    def probe() -> str | None:
        if not answers(port):
            return None
        try:
            with psycopg.connect(_postgres_url(port, "postgres"), connect_timeout=2) as connection:
                return str(connection.info.parameter_status("server_version")).split()[0]
        except psycopg.OperationalError:
            return None

    return _Launched(
        name="postgres",
        process=cluster.serve(port, log),
        port=port,
        url=_postgres_url(port),
        log=log,
        probe=probe,
        stop_signal=postgres.FAST_SHUTDOWN,
    )


def _postgres_url(port: int, database: str = postgres.DATABASE) -> str:
    return f"postgresql://{postgres.USER}@{HOST}:{port}/{database}"


def _redis(port: int, data: Path, logs: Path) -> _Launched:
    log, folder = logs / "redis.log", data / "redis"
    folder.mkdir(exist_ok=True)

    def probe() -> str | None:
        answer = talk(port, b"INFO server\r\n").decode()
        facts = dict(line.partition(":")[::2] for line in answer.splitlines())
        # Valkey calls itself redis_version 7.2.4 for old clients' sake.
        return facts.get("valkey_version") or facts.get("redis_version")

    options = ["--save", "", "--appendonly", "no", "--latency-monitor-threshold", 1]
    argv = [binaries.redis(), "--port", port, "--bind", HOST, "--dir", folder, *options]
    url = f"redis://{HOST}:{port}/0"
    return _Launched(name="redis", process=spawn(argv, log=log), port=port, url=url, log=log, probe=probe)


def _nats(port: int, data: Path, logs: Path) -> _Launched:
    log = logs / "nats.log"

    def probe() -> str | None:
        greeting = talk(port)
        if not greeting.startswith(b"INFO "):
            return None
        return str(json.loads(greeting.splitlines()[0][5:])["version"])

    argv = [binaries.nats(), "-a", HOST, "-p", port, "-js", "-sd", data / "nats"]
    url = f"nats://{HOST}:{port}"
    return _Launched(name="nats", process=spawn(argv, log=log), port=port, url=url, log=log, probe=probe)


def _aws(port: int, logs: Path, database_url: str, redis_url: str) -> _Launched:
    log = logs / "aws.log"

    def probe() -> str | None:
        return version("moto") if answers(port) else None

    env = {**os.environ, "DATABASE_URL": database_url, "REDIS_URL": redis_url}
    env["LAB_STATE"] = str(logs.parent / "state.json")
    process = spawn([sys.executable, "-m", "lab.aws", port], log=log, env=env, cwd=_REPOSITORY)
    url = f"http://{HOST}:{port}"
    return _Launched(name="aws", process=process, port=port, url=url, log=log, probe=probe)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return " | ".join(lines[-3:]) or "it wrote nothing"
