"""The API that creates sandboxes, as far as their schemas go: it really tries, and says what it met as the deployed one.

pino keeps of an Error under the key `error` its own fields alone: its message is told only where it is put into another.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
from psycopg.conninfo import make_conninfo

from lab.incidents import gauges
from lab.incidents.cloud import Account
from lab.incidents.telemetry import Line, Series, pino, plain
from lab.names import APP

__all__ = ["Attempt", "ask", "attempt"]

_TIMES = 5  # more than the alarm puts up with
_SECONDS = 5
_GROUP, _STREAM = "/ecs/arrakis-api", "ecs/api/0002"
_COMPONENT = "SchemaProvisioner"
_NO_CONNECTION = ("too many connections", "too many clients", "remaining connection slots")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One schema that was asked for. `code` is the SQLSTATE, `words` the server's, where there was none to be had.

    `error` is what pino keeps of it, `step` what the provisioner said that it failed at.
    """

    sandbox: UUID
    began: datetime
    ended: datetime
    code: str = ""
    words: str = ""
    step: str = ""
    error: Mapping[str, str] | None = None

    @property
    def lines(self) -> Iterator[Line]:
        """What the API's log says of it."""
        short = f"sandbox_{self.sandbox.hex[:8]}"
        about = {"sandboxId": str(self.sandbox), "schemaName": short}
        yield pino(self.began, 30, _COMPONENT, "Creating sandbox schema", **about)
        at, spent = self.ended, (self.ended - self.began) // timedelta(milliseconds=1)
        if self.error is None:
            done = "Sandbox schema created successfully"
            yield pino(at, 30, _COMPONENT, done, **about, durationMs=spent)
            return
        yield pino(at, 50, _COMPONENT, self.step, **about, error=self.error, durationMs=spent)
        details = {**about, "originalError": f"PostgresError: {self.words}"}
        error = {"name": "SandboxError", "code": "SANDBOX_005", "details": details}
        yield pino(
            at, 50, "SandboxManager", "Sandbox creation failed, cleaning up", error=error, owner="chani"
        )
        yield plain(at, f"ERROR Failed to create schema: {self.words}")


def ask(env: Mapping[str, str], *, times: int = _TIMES) -> list[Attempt]:
    """Ask for so many schemas, log and count what came of it, and let the alarm follow. Returns what failed.

    A schema that could be created is taken away at once: nobody owns it.
    """
    made = [attempt(env["DATABASE_URL"]) for _ in range(times)]
    failed = [each for each in made if each.error is not None]
    account = Account(env)
    _log(account, [line for each in made for line in each.lines])
    now = datetime.now(UTC)
    gauges.count(account, [Series(metric="SchemaCreationErrors", values=[len(failed)], until=now)])
    return failed


def attempt(database_url: str) -> Attempt:
    """Create a schema as the deployed system does, over a connection of its own, and drop it again."""
    sandbox, began = uuid4(), datetime.now(UTC)
    step, failure = "Failed to check schema existence", dict[str, object]()
    url = make_conninfo(database_url, user=APP, options=f"-c statement_timeout={_SECONDS}s")
    try:
        with psycopg.connect(
            url, autocommit=True, connect_timeout=_SECONDS, application_name="arrakis-api"
        ) as connection:
            connection.execute("SELECT sandbox_schema_exists(%s)", (str(sandbox),))
            step = "Failed to create sandbox schema"
            connection.execute("SELECT create_sandbox_schema(%s)", (str(sandbox),))
            connection.execute("SELECT drop_sandbox_schema(%s)", (str(sandbox),))
    except psycopg.Error as error:
        kept = _kept(error)
        failure = {"code": kept["code"], "words": _words(error), "step": step, "error": kept}
    return Attempt(sandbox=sandbox, began=began, ended=datetime.now(UTC), **failure)  # type: ignore[arg-type]


def _kept(error: psycopg.Error) -> dict[str, str]:
    """An error's own fields, by the names that the deployed driver gives them."""
    said = error.diag
    found = {
        "name": "PostgresError",
        "severity_local": said.severity or "FATAL",
        "severity": said.severity_nonlocalized or "FATAL",
        "code": error.sqlstate or _code(str(error)),
        "detail": said.message_detail,
        "hint": said.message_hint,
        "where": said.context,
        "file": said.source_file,
        "routine": said.source_function,
    }
    return {name: value for name, value in found.items() if value}


def _code(words: str) -> str:
    """What a refused connection was refused for: the driver does not tell."""
    return "53300" if any(each in words for each in _NO_CONNECTION) else "08001"


def _words(error: psycopg.Error) -> str:
    """The server's message alone, without the driver's remarks on where it came from."""
    first = str(error).strip().splitlines()[0]
    return error.diag.message_primary or first.rpartition("FATAL:  ")[2]


def _log(account: Account, lines: list[Line]) -> None:
    logs = account.client("logs")
    with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_stream(logGroupName=_GROUP, logStreamName=_STREAM)
    events = [{"timestamp": int(at.timestamp() * 1000), "message": line} for at, line in lines]
    logs.put_log_events(logGroupName=_GROUP, logStreamName=_STREAM, logEvents=events)
