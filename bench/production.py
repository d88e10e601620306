"""A stand-in for production that can be measured: a PostgreSQL with pgbench's transactions on it, beside a Redis.

And how much of this machine others use meanwhile: what is measured then says little.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from lab import binaries, postgres
from lab.processes import HOST, free_ports, spawn

__all__ = ["Load", "Servers", "Usage", "servers"]

_CLIENTS, _SCALE = 4, 10
_PREFERRED = {"LAB_POSTGRES_BIN": "/usr/lib/postgresql/15/bin", "LAB_REDIS_BIN": "/usr/bin/redis-server"}
_SETTINGS: Mapping[str, object] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "timezone": "UTC",
}


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Where they are; `programs` holds PostgreSQL's own, `folder` is for whoever wants to write."""

    url: str
    redis_url: str
    programs: Path
    folder: Path


@contextmanager
def servers() -> Iterator[Servers]:
    """Start a PostgreSQL that writes to its disk as production does, and a Redis; stop both at the end.

    They are of the versions that production runs, where these are installed.
    """
    before = dict(os.environ)
    os.environ |= {name: place for name, place in _PREFERRED.items() if Path(place).exists()} | before
    try:
        with _started() as at:
            yield at
    finally:
        os.environ.clear()
        os.environ |= before


@contextmanager
def _started() -> Iterator[Servers]:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    folder.chmod(0o755)
    port, redis_port = free_ports(2)
    cluster = postgres.prepare(folder)
    if cluster.init(folder / "initdb.log").wait():
        raise SystemExit((folder / "initdb.log").read_text())
    options = [f"--{name}={value}" for name, value in {**_SETTINGS, "port": port}.items()]
    database = spawn(
        [cluster.programs / "postgres", "-D", cluster.data, *options],
        log=folder / "postgres.log",
        identity=cluster.identity,
    )
    options = ["--port", str(redis_port), "--bind", HOST, "--save", "", "--appendonly", "no"]
    redis = spawn([binaries.redis(), *options], log=folder / "redis.log", cwd=folder)
    url = f"postgresql://{postgres.USER}@{HOST}:{port}"
    try:
        _await(f"{url}/postgres")
        postgres.create_database(f"{url}/postgres")
        yield Servers(
            url=f"{url}/{postgres.DATABASE}",
            redis_url=f"redis://{HOST}:{redis_port}/0",
            programs=cluster.programs,
            folder=folder,
        )
    finally:
        for process, how in ((database, postgres.FAST_SHUTDOWN), (redis, signal.SIGTERM)):
            process.send_signal(how)
            process.wait()
        postgres.discard(folder)
        shutil.rmtree(folder)


def _await(url: str) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            return psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


class Load:
    """pgbench's own transactions, at a given share of the rate that this machine can take."""

    def __init__(self, at: Servers, share: float) -> None:
        """Fill pgbench's tables, and find out how many transactions a second the machine can take. Nothing runs yet."""
        program = str(at.programs / "pgbench")
        self._at, self._program = at, [program, "-n", "-c", str(_CLIENTS)]
        fill = [program, "-i", "-q", "-s", str(_SCALE), at.url]
        subprocess.run(fill, check=True, capture_output=True)
        most = subprocess.run([*self._program, "-T", "4", at.url], check=True, capture_output=True, text=True)
        [tps] = [line for line in most.stdout.splitlines() if line.startswith("tps")]
        self.most = float(tps.split()[2])
        self.rate = self.most * share
        self.latencies: list[tuple[float, float]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let it run; then `latencies` has each transaction's end, since the epoch, and how long it took, in seconds.

        It counts from when the transaction was due, not from when there was time for it.
        """
        rate = ["-R", f"{self.rate:.0f}", "-T", "86400", "-l", f"--log-prefix={self._at.folder}/latency"]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen([*self._program, *rate, self._at.url], stdout=quiet, stderr=quiet)
        try:
            yield
        finally:
            process.terminate()
            process.wait()
            for log in self._at.folder.glob("latency.*"):
                for line in log.read_text().splitlines()[:-1]:  # the last one is cut
                    _, _, took, _, second, microsecond, *_ = line.split()
                    self.latencies.append((int(second) + int(microsecond) / 1e6, int(took) / 1e6))
                log.unlink()


class Usage:
    """What this machine's processors did since it was made."""

    def __init__(self) -> None:
        """Begin to count."""
        self._began = _ticks()

    def others(self) -> float:
        """Return the share of the machine that was used by neither this process nor its children."""
        (busy, every, ours), (busy_before, every_before, ours_before) = _ticks(), self._began
        return max(0.0, (busy - busy_before) - (ours - ours_before)) / max(1, every - every_before)


def _ticks() -> tuple[int, int, int]:
    """Return the ticks in which the processors were busy, or taken from us, all ticks, and those that were ours."""
    ours = _ours()
    with Path("/proc/stat").open() as stat:
        user, nice, system, idle, waiting, interrupt, soft, stolen = map(int, stat.readline().split()[1:9])
    busy = user + nice + system + interrupt + soft + stolen
    return busy, busy + idle + waiting, ours


def _ours() -> int:
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid = int(stat.parent.name)
        parents[pid], used[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    return sum(ticks for pid, ticks in used.items() if _descends(pid, parents))


def _descends(pid: int, parents: Mapping[int, int]) -> bool:
    while pid and pid != os.getpid():
        pid = parents.get(pid, 0)
    return pid == os.getpid()
