"""What goes over the wire to each server, taken down on its way, and which of it could change anything.

Each recorder stands between the toolkit and a real server, and understands that server's own protocol: what it has taken down
is what was asked, whatever our code believes to have asked.
"""

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import psycopg
import redis

from tests.integration.wire import Wire

__all__ = ["AwsWire", "NatsWire", "PostgresWire", "RedisWire", "Wires", "recording"]

# Volatile functions of PostgreSQL that only look. All others may change something: pg_terminate_backend, nextval, locks …
_LOOKING = {
    "clock_timestamp",
    "pg_blocking_pids",
    "pg_control_system",
    "pg_current_wal_lsn",
    "pg_export_snapshot",
    "pg_get_replication_slots",
    "pg_is_in_recovery",
    "pg_last_wal_receive_lsn",
    "pg_ls_waldir",
    "pg_prepared_xact",
    "pg_relation_size",
    "pg_stat_get_activity",
    "pg_total_relation_size",
}
_READING = ("select", "with", "explain", "show", "values", "table")
_CONSOLE = re.compile(r"show [a-z_]+", re.IGNORECASE)  # PgBouncer's
_BEGINNING = re.compile(r"begin\b.*\bread only$", re.IGNORECASE | re.DOTALL)
_BOUNDS = re.compile(
    r"set local (lock_timeout|timezone|statement_timeout|idle_in_transaction_session_timeout) = \S+"
    r"|set local jit = off|set transaction snapshot '[0-9A-F-]+'",
    re.IGNORECASE,
)
_ENDING = re.compile(r"(commit|rollback|discard all)", re.IGNORECASE)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_TEXT = re.compile(r"'(?:[^']|'')*'")
_CALL = re.compile(r"\b([a-z_][a-z0-9_]*)\s*\(", re.IGNORECASE)

# What only looks at a Redis server though no command of keys: it has no flag that says so.
_ASKING = {
    "auth",
    "ping",
    "hello",
    "select",
    "info",
    "time",
    "client|setinfo",
    "client|setname",
    "slowlog|get",
    "latency|latest",
    "cluster|slots",
    "cluster|info",
    "cluster|nodes",
    "acl|whoami",
    "acl|dryrun",
}

_API = r"\$JS\.API\."
_QUESTION = re.compile(
    rf"{_API}(INFO|STREAM\.(INFO|NAMES|LIST|MSG\.GET)(\..+)?|CONSUMER\.(INFO|NAMES|LIST)\..+|DIRECT\.GET\..+)"
    r"|\$SYS\.REQ\.(SERVER\.PING\.CONNZ|USER\.INFO)"
)

_LOOKUPS = ("Describe", "Filter", "Get", "Head", "List", "Lookup", "Simulate")
_PREFIXES = {
    "monitoring": "cloudwatch"
}  # what a service is called where requests are signed, and in policies
_S3 = {"ListObjectsV2": "ListBucket", "HeadObject": "GetObject", "HeadBucket": "ListBucket"}


class _Recorder(Wire):
    """A wire that has what goes to the server read along."""

    def heard(self) -> Callable[[bytes], None]:
        """Return what is told each piece of one new connection, in order."""
        raise NotImplementedError

    def close(self) -> None:
        """End it, and the thread that waits for others to come in."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        super().close()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            if source.getsockname()[1] != urlsplit(self.url).port:  # from the server
                super()._carry(source, sink)
                return
            hear = self.heard()
            while data := source.recv(65536):
                hear(data)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        source.close()
        self._ends.discard(source)


def _reader(parse: Callable[[bytearray], bool]) -> Callable[[bytes], None]:
    """Gather pieces, and have whole messages taken off their beginning for as long as there are any."""
    waiting = bytearray()

    def hear(data: bytes) -> None:
        waiting.extend(data)
        while waiting and parse(waiting):
            pass

    return hear


@dataclass(frozen=True)
class Statement:
    """A statement, and whether the server itself had been told to refuse what writes."""

    text: str
    reading: bool


class PostgresWire(_Recorder):
    """The statements that are sent to PostgreSQL, whatever the protocol that carries them."""

    def __init__(self, url: str, *, asking: str) -> None:
        super().__init__(url)
        self._asking = asking
        self.said: list[Statement] = []

    def heard(self) -> Callable[[bytes], None]:
        started, reading = [False], [False]

        def parse(waiting: bytearray) -> bool:
            head = 4 if not started[0] else 5
            if len(waiting) < head:
                return False
            size = int.from_bytes(waiting[head - 4 : head]) + head - 4
            if len(waiting) < size:
                return False
            message = bytes(waiting[:size])
            del waiting[:size]
            if not started[
                0
            ]:  # a request for TLS or GSS comes before the greeting proper, and has a number of its own
                started[0] = message[4:6] == b"\0\x03"
            elif message[:1] == b"Q":
                self._take(message[5:-1].decode(), reading)
            elif message[:1] == b"P":
                self._take(message[5:].split(b"\0")[1].decode(), reading)
            return True

        return _reader(parse)

    def _take(self, text: str, reading: list[bool]) -> None:
        for each in _statements(text):
            if _BEGINNING.fullmatch(each):
                reading[0] = True
            self.said.append(Statement(each, reading[0]))
            if _ENDING.fullmatch(each):
                reading[0] = False

    def changes(self) -> list[str]:
        """Return the statements of which PostgreSQL does not make sure that they change nothing."""
        with psycopg.connect(self._asking, autocommit=True) as server:
            found = server.execute("SELECT DISTINCT proname FROM pg_catalog.pg_proc WHERE provolatile = 'v'")
            acting = {str(name) for (name,) in found} - _LOOKING
        return [each.text for each in self.said if not _only_reads(each, acting)]


def _statements(text: str) -> list[str]:
    """Return the statements of a text without comments and with single spaces."""
    plain = _COMMENT.sub(" ", text)
    literals = _TEXT.findall(plain)
    parts = _TEXT.sub("\0", plain).split(";")
    left = iter(literals)
    whole = [re.sub("\0", lambda _: next(left), part) for part in parts]
    return [" ".join(each.split()) for each in whole if each.strip()]


def _only_reads(statement: Statement, acting: set[str]) -> bool:
    text = statement.text
    if _CONSOLE.fullmatch(text):
        return True
    if not statement.reading:
        return False
    if any(pattern.fullmatch(text) for pattern in (_BEGINNING, _BOUNDS, _ENDING)):
        return True
    called = {name.lower() for name in _CALL.findall(_TEXT.sub("''", text))}
    return text.lower().startswith(_READING) and not called & acting


class RedisWire(_Recorder):
    """The commands that are sent to Redis, each as its words."""

    def __init__(self, url: str, *, asking: str) -> None:
        super().__init__(url)
        self._asking = asking
        self.said: list[tuple[str, ...]] = []

    def heard(self) -> Callable[[bytes], None]:
        def parse(waiting: bytearray) -> bool:
            words, end = _command(bytes(waiting))
            if not end:
                return False
            del waiting[:end]
            self.said.append(tuple(word.decode("utf-8", "backslashreplace") for word in words))
            return True

        return _reader(parse)

    def names(self) -> set[str]:
        """Return what was sent by name, as access lists have it: `get`, `object|idletime`."""
        return set(self._flags())

    def changes(self) -> list[str]:
        """Return the commands that the server does not itself call reading, but for those that only ask about it."""
        return sorted(
            name
            for name, flags in self._flags().items()
            if name not in _ASKING and ("readonly" not in flags or "write" in flags)
        )

    def _flags(self) -> dict[str, set[str]]:
        """What the server says of each command that was sent; nothing of one that it does not know."""
        sent: dict[str, set[str]] = {}
        for name, *rest in self.said:
            sent.setdefault(name.lower(), set()).add(f"{name}|{rest[0]}".lower() if rest else "")
        found: dict[str, set[str]] = {}
        with redis.Redis.from_url(self._asking) as server:
            server.response_callbacks.clear()
            for name, wholes in sent.items():
                known = _described(server, name)
                found |= {whole if whole in known else name: set() for whole in wholes}
                found |= {each: flags for each, flags in known.items() if each in found}
        return found


def _described(server: Any, name: str) -> dict[str, set[str]]:
    """The flags of a command and of its subcommands, by their names."""
    [told] = server.execute_command("COMMAND", "INFO", name)
    each: list[Any] = [told, *told[9]] if told else []
    return {one[0].decode(): {flag.decode() for flag in one[2]} for one in each}


def _command(data: bytes) -> tuple[list[bytes], int]:
    """Read one command off the beginning; an end of 0 where it is not whole."""
    line = data.find(b"\r\n")
    if line < 0:
        return [], 0
    assert data[:1] == b"*", "no command as clients send it"
    words, at = list[bytes](), line + 2
    for _ in range(int(data[1:line])):
        line = data.find(b"\r\n", at)
        if line < 0 or len(data) < line + 4 + int(data[at + 1 : line]):
            return [], 0
        size = int(data[at + 1 : line])
        words.append(data[line + 2 : line + 2 + size])
        at = line + 4 + size
    return words, at


class NatsWire(_Recorder):
    """What is sent to NATS: the verb and the subject of each message and subscription."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.said: list[tuple[str, str]] = []

    def heard(self) -> Callable[[bytes], None]:
        def parse(waiting: bytearray) -> bool:
            line = waiting.find(b"\r\n")
            if line < 0:
                return False
            verb, *rest = bytes(waiting[:line]).decode().split()
            verb, size = verb.upper(), line + 2
            if verb in ("PUB", "HPUB"):
                size += int(rest[-1]) + 2
            if len(waiting) < size:
                return False
            del waiting[:size]
            if verb in ("PUB", "HPUB", "SUB"):
                self.said.append((verb, rest[0]))
            return True

        return _reader(parse)

    def published(self) -> set[str]:
        """Return the subjects that something was published to."""
        return {subject for verb, subject in self.said if verb != "SUB"}

    def changes(self) -> list[str]:
        """Return what is neither a question to the server or JetStream, nor the ear for its answer."""
        asked = {("SUB", each) for verb, each in self.said if verb == "SUB" and each.startswith("_INBOX.")}
        asked |= {pair for pair in self.said if pair[0] != "SUB" and _QUESTION.fullmatch(pair[1])}
        return [" ".join(pair) for pair in self.said if pair not in asked]


class AwsWire(_Recorder):
    """The operations that are called at AWS, as `service:Operation`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.said: list[str] = []

    def heard(self) -> Callable[[bytes], None]:
        def parse(waiting: bytearray) -> bool:
            end = waiting.find(b"\r\n\r\n")
            if end < 0:
                return False
            first, *lines = bytes(waiting[:end]).decode().split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)
            }
            size = end + 4 + int(headers.get("content-length", 0))
            if len(waiting) < size:
                return False
            body = bytes(waiting[end + 4 : size])
            del waiting[:size]
            self.said.append(_operation(first, headers, body))
            return True

        return _reader(parse)

    def actions(self) -> set[str]:
        """Return what was called, as policies name it."""
        return {_action(each) for each in self.said}

    def changes(self) -> list[str]:
        """Return the operations whose verb is not one of looking."""
        return [each for each in self.said if not each.partition(":")[2].startswith(_LOOKUPS)]


def _operation(first: str, headers: Mapping[str, str], body: bytes) -> str:
    """Return what a request calls, by whichever of AWS' protocols it came."""
    method, path, _ = first.split(" ", 2)
    signed = re.search(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/", headers.get("authorization", ""))
    service = signed[1] if signed else "unsigned"
    asked: Mapping[str, Any] = parse_qs(urlsplit(path).query, keep_blank_values=True)
    if target := headers.get("x-amz-target"):
        name = target.rpartition(".")[2]
    elif found := re.search(r"/operation/(\w+)$", path):
        name = found[1]
    elif service == "s3":
        key = urlsplit(path).path.strip("/").partition("/")[2]
        name = {"GET": "ListObjectsV2"}.get(method, "") if not key else f"{method.capitalize()}Object"
    else:
        name = ({**asked, **parse_qs(body.decode("utf-8", "replace"))}.get("Action") or [f"{method} {path}"])[
            0
        ]
    return f"{service}:{name}"


def _action(operation: str) -> str:
    service, _, name = operation.partition(":")
    return f"{_PREFIXES.get(service, service)}:{_S3.get(name, name) if service == 's3' else name}"


class _Recording(Protocol):
    def changes(self) -> list[str]: ...


@dataclass(frozen=True)
class Wires:
    """A recorder on the wire to each server, and the variables that lead through them."""

    postgres: PostgresWire
    redis: RedisWire
    nats: NatsWire
    aws: AwsWire
    env: Mapping[str, str]

    def changes(self) -> dict[str, list[str]]:
        """Return all that could have changed anything, by server; nothing where all was looking."""
        wires: Mapping[str, _Recording] = {
            "PostgreSQL": self.postgres,
            "Redis": self.redis,
            "NATS": self.nats,
            "AWS": self.aws,
        }
        return {name: found for name, wire in wires.items() if (found := wire.changes())}


@contextmanager
def recording(env: Mapping[str, str], *, asking: Mapping[str, str] | None = None) -> Iterator[Wires]:
    """Put a recorder on each wire of an environment; they end with the block.

    What commands and functions do the servers are asked themselves, as whoever `asking` names: others may not be let.
    """
    known = asking or env
    with ExitStack() as stack:
        postgres = PostgresWire(env["DATABASE_URL"], asking=known["DATABASE_URL"])
        cache = RedisWire(env["REDIS_URL"], asking=known["REDIS_URL"])
        nats = NatsWire(env["NATS_URL"])
        aws = AwsWire(env["AWS_ENDPOINT_URL"])
        for wire in (postgres, cache, nats, aws):
            stack.callback(wire.close)
        through = {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": cache.url,
            "NATS_URL": nats.url,
            "AWS_ENDPOINT_URL": aws.url,
        }
        yield Wires(postgres, cache, nats, aws, {**env, **through})
