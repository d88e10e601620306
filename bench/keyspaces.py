"""Keyspaces to measure in: Debian's Redis, with keys of sandboxes among many others."""

import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import hiredis
import redis

from lab.processes import HOST, free_ports, spawn, talk

__all__ = ["CLI", "Keyspace", "bare_scan", "ids", "redis_server", "version"]

_SERVER, CLI = Path("/usr/bin/redis-server"), Path("/usr/bin/redis-cli")
_LOT = 10_000  # keys written at once
_READ = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyspace:
    """A Redis of its own that is filled by and by."""

    port: int

    @property
    def url(self) -> str:
        """Return its address."""
        return f"redis://{HOST}:{self.port}/0"

    def fill(self, *, others: int, owned: int, families: int) -> None:
        """See to it that there are so many keys of others, and so many of sandboxes in all."""
        with redis.Redis(port=self.port, socket_timeout=None) as client:
            for half in ("session", "cache"):  # one of them begins as sandboxes' keys do
                client.execute_command("DEBUG", "POPULATE", others // 2, half, 16)
            names = [f"sandbox:{id}:" for id in ids(families)]
            for start in range(0, owned, _LOT):
                numbers = range(start, min(start + _LOT, owned))
                client.mset({f"{names[number % families]}{number // families}": number for number in numbers})

    def empty(self) -> None:
        """Delete everything."""
        with redis.Redis(port=self.port) as client:
            client.flushall()

    def count(self, pattern: str) -> int:
        """Return how many keys match, or a few more."""
        return bare_scan(self.port, pattern.encode(), 10_000)


def ids(count: int) -> list[UUID]:
    """Return so many sandboxes' ids, the same each time."""
    return [
        UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128) for number in range(1, count + 1)
    ]


@contextmanager
def redis_server() -> Iterator[Keyspace]:
    """Start Debian's Redis, empty; stop it at the end. Raises SystemExit where there is none."""
    if not (_SERVER.exists() and CLI.exists()):
        raise SystemExit(f"{_SERVER} and {CLI} are not installed")
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    [port] = free_ports(1)
    options = ["--save", "", "--appendonly", "no", "--enable-debug-command", "local"]
    process = spawn([_SERVER, "--port", port, "--bind", HOST, *options], log=folder / "redis.log", cwd=folder)
    try:
        end = time.monotonic() + 10
        while not talk(port, b"PING\r\n"):
            if time.monotonic() > end:
                raise SystemExit((folder / "redis.log").read_text())
            time.sleep(0.01)
        yield Keyspace(port=port)
    finally:
        process.send_signal(signal.SIGKILL)  # it keeps nothing
        process.wait()
        shutil.rmtree(folder)


def version(keyspace: Keyspace) -> str:
    """Return the server's version."""
    with redis.Redis(port=keyspace.port) as client:
        return str(client.info("server")["redis_version"])


def bare_scan(port: int, pattern: bytes, step: int) -> int:
    """Do the least that a client has to for a whole SCAN, on a raw socket; return how many keys matched."""
    reader, found, cursor = hiredis.Reader(), 0, b"0"
    with socket.create_connection((HOST, port)) as connection:
        while True:
            connection.sendall(b"SCAN %b MATCH %b COUNT %d\r\n" % (cursor, pattern, step))
            while (reply := reader.gets()) is False:
                reader.feed(connection.recv(_READ))
            cursor, keys = reply
            found += len(keys)
            if cursor == b"0":
                return found
