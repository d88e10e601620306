"""Lines of the deployed system's logs, in both its formats, and the fingerprint that equal errors share. Pure.

pino      `{"level":50,"time":…,"component":"EventRouter","msg":"Failed to route event","error":{…}}`
plain     `ERROR …`, `FATAL …`, `TypeError: …`, of one line or several

pino writes an Error under the key `error` without its message: of a PostgresError the SQLSTATE and the detail remain, of
a refused connection the code and the address, of others nothing. So codes are kept as words that a cause can match.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from diagnostics.shapes import PORTS

__all__ = ["ERROR", "LogLine", "calm", "failed_step", "fingerprint", "folded", "parse", "parse_json"]

ERROR = 50
"""pino's level of an error; 60 is fatal."""

_LEVELS = {"trace": 10, "debug": 20, "info": 30, "warn": 40, "warning": 40, "error": 50, "fatal": 60}
_LEVELS |= {"panic": 60, "critical": 60}
# pino writes the level first, so that most lines below an error need not be read at all.
_CALM = ('{"level":10,', '{"level":20,', '{"level":30,', '{"level":40,')
_LONGEST = 2000  # characters kept of a message or an error; a line may have 256 KB
_HEAD = 80  # characters of a plain line in which its component is looked for
_DEEPEST = 3  # errors within errors that are looked into
_TELLING = 400  # characters of a message, and of an error, that make the fingerprint

_STEPS = (
    "mark_destroying",
    "remove_guild_mappings",
    "invalidate_cache",
    "delete_redis_keys",
    "drop_schema",
    "mark_destroyed",
)
"""The deployed clean-up's steps, in their order."""

_decode = json.JSONDecoder().raw_decode  # twice as fast as json.loads, which looks for spaces first
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_LEVEL_WORD = re.compile(r"(TRACE|DEBUG|INFO|WARN(?:ING)?|ERROR|FATAL|PANIC|CRITICAL)\b")
_ERROR_WORD = re.compile(r"Error\b|error: |Fatal\b|Unhandled")
_COMPONENT = re.compile(r"\b(EventRouter|SchemaProvisioner|CleanupProvider|RouteProvider|SandboxManager)\b")
_CUT_OFF = {
    "level": re.compile(r'"level":"?(\d{1,3}|[A-Za-z]+)\b'),
    "component": re.compile(r'"component":"([^"]*)"'),
    "msg": re.compile(r'"msg":"((?:[^"\\]|\\.)*)'),
}
_HEX = "[0-9a-fA-F]"
_UUID = rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"
_SANDBOX = re.compile(rf"andbox(?:Id)?[_:.= ]{{1,2}}({_UUID}|{_HEX}{{8,32}})(?![\w-])")
_SQLSTATE = re.compile(r"(?=[A-Z]*\d)[0-9A-Z]{5}")
_CREDENTIALS = re.compile(r"(?<=://)\S*@")
_PASSWORD = re.compile(r"""(passw(?:or)?d["']?\s*[=:]\s*["']?)[^\s"',;]+""", re.IGNORECASE)

_QUOTED = re.compile(r""""[^"]*"|(?<![\w*])'[^']*'(?![\w*])""")
# Ids and numbers with what they are part of, hosts in front of a port, and what follows a scheme. SQLSTATEs and the
# servers' own ports stay: they tell one cause from another.
_VARIABLE = re.compile(
    rf"""(?<=://)[^\s"',)]+
    | (?<![\w.*-]) (?<!SQLSTATE=) (?!{PORTS}) (?:
        (?:sandbox_)?[0-9a-f]{{8}}(?![\w.-])
      | [\w.-]*\d[\w.-]*
      | [\w-]+\.[\w.-]+(?=:\d)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line: when it was logged (UTC), its pino level, what it says, and which sandboxes and step it concerns.

    `error` is what went wrong in the error's own words, where the line has one besides its message. Neither holds a
    password of an URL. `step` is the one that failed: the deployed clean-up's or our own job's.
    """

    at: datetime
    level: int
    component: str | None
    message: str
    error: str = ""
    step: str | None = None
    sandboxes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Everything it says, for a person or to match a cause with."""
        said = f"{self.message}: {self.error}" if self.error else self.message
        return f"{said} (at step {self.step})" if self.step else said


def parse(at: datetime, text: str) -> LogLine:
    """Read a line of either format; `at` is when CloudWatch says it was logged. Never fails: what is no JSON is plain."""
    text = text.strip()
    if text.startswith("{"):
        fields = parse_json(text)
        return _of_pino(at, fields) if fields is not None else _of_cut_off(at, text)
    return _of_plain(at, text)


def calm(text: str) -> bool:
    """Whether a line is no error, as far as that can be told without reading it."""
    return text.startswith(_CALM)


def parse_json(text: str) -> Mapping[str, Any] | None:
    """Return the object that a line, stripped, is; None where it is none."""
    try:
        found, end = _decode(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and end == len(text) else None


def failed_step(completed: Sequence[object]) -> str | None:
    """Return the deployed clean-up's step that failed, from the list of those it completed; None if it had done all."""
    return next((step for step in _STEPS if step not in completed), None)


def fingerprint(line: LogLine) -> str:
    """Return what a line shares with all that tell of the same error: its words, without what differs each time."""
    said = f"{line.component or '-'} {folded(line.message)}"
    if line.error:
        said = f"{said}: {folded(line.error)}"
    return f"{said} [{line.step}]" if line.step else said


@lru_cache(maxsize=2048)
def folded(text: str) -> str:
    """Return a text with ids, numbers, durations, addresses and quoted names replaced by `*`; folding again is no change."""
    text = text[:_TELLING]
    if '"' in text or "'" in text:
        text = _QUOTED.sub("*", text)
    # Plain words, which are most, are told at once; of eight letters they might be an id.
    words = text.split(" ")
    return " ".join([word if word.isalpha() and len(word) != 8 else _folded_word(word) for word in words])


@lru_cache(maxsize=4096)
def _folded_word(word: str) -> str:
    return _VARIABLE.sub("*", word)


def _of_pino(at: datetime, fields: Mapping[str, Any]) -> LogLine:
    get = fields.get
    component, step, completed = get("component"), get("step"), get("stepsCompleted")
    if isinstance(completed, list):
        step = failed_step(completed)
    message = _kept(str(get("msg") or get("message") or ""))
    wrong = get("error") or get("err") or get("reason") or get("kind") or ""
    error = _kept(wrong if isinstance(wrong, str) else _spoken(wrong))
    named = get("sandboxId") or get("sandbox_id") or get("schemaName") or get("schema")
    return LogLine(
        at=at,
        level=_level(get("level")),
        component=component if isinstance(component, str) else None,
        message=message,
        error=error,
        step=step if isinstance(step, str) else None,
        sandboxes=(_id_of(named),) if isinstance(named, str) else _sandboxes(message, error),
    )


def _of_cut_off(at: datetime, text: str) -> LogLine:
    """Read what is left of a JSON line: the log driver cuts lines of more than 16 KB into several."""
    found = {name: match[1] for name, pattern in _CUT_OFF.items() if (match := pattern.search(text))}
    if not (level := found.get("level")):
        return _of_plain(at, text)
    message = _kept(found.get("msg") or text)
    return LogLine(
        at=at,
        level=_level(int(level) if level.isdecimal() else level),
        component=found.get("component"),
        message=message,
        sandboxes=_sandboxes(message, text[:_LONGEST]),
    )


def _of_plain(at: datetime, text: str) -> LogLine:
    """Read a plain line; of several lines the first is the message, and the rest (a stack) the error."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    first, _, rest = text.partition("\n")
    word = _LEVEL_WORD.search(first)
    level = _LEVELS[word[1].lower()] if word else ERROR if _ERROR_WORD.search(text[:_LONGEST]) else 30
    component = _COMPONENT.search(first, 0, _HEAD)
    message, error = _kept(first), _kept(rest)
    return LogLine(
        at=at,
        level=level,
        component=component[1] if component else None,
        message=message,
        error=error,
        sandboxes=_sandboxes(message, error),
    )


def _level(said: object) -> int:
    """Return pino's number of a level that is a number or a word; of what is neither, info's."""
    return said if isinstance(said, int) else _LEVELS.get(str(said).lower(), 30)


def _kept(text: str) -> str:
    """Return as much of a text as is kept, with the passwords in it masked."""
    text = text[:_LONGEST]
    if "://" in text:
        text = _CREDENTIALS.sub("***@", text)
    return _PASSWORD.sub(r"\1***", text) if "assw" in text or "ASSW" in text else text


def _spoken(error: object, depth: int = 0) -> str:
    """Return in words what was logged as an error: a text, or an object with a message or without."""
    if not isinstance(error, dict):
        return str(error)
    get = error.get
    code = str(get("code") or "")
    said = str(get("message") or get("msg") or get("description") or "")
    parts = [get("type") or get("name"), f"SQLSTATE={code}" if _SQLSTATE.fullmatch(code) else code]
    if not said:
        parts += [get("syscall"), _place(error)]
        said = " ".join([str(each) for each in (get("detail"), get("hint")) if each])
    if not said and depth < _DEEPEST and (inner := _inner(error)):
        said = _spoken(inner, depth + 1)
    head = " ".join([str(part) for part in parts if part])
    return f"{head}: {said}" if head and said else head or said


def _place(error: Mapping[str, Any]) -> str:
    """Return where an error without a message happened: an address, or a Redis command."""
    if isinstance(command := error.get("command"), dict):
        return f"Redis command {command.get('name')}"
    if error.get("port"):
        return f"{error.get('address') or error.get('host') or ''}:{error['port']}"
    return str(error.get("hostname") or error.get("address") or "")


def _inner(error: Mapping[str, Any]) -> object:
    """Return the error behind an error: the first of several attempts, or the one that caused it."""
    for name in ("errors", "aggregateErrors", "previousErrors", "cause", "lastNodeError", "api_error"):
        if found := error.get(name):
            return found[0] if isinstance(found, list) else found
    return None


def _sandboxes(*texts: str) -> tuple[str, ...]:
    """Return the ids of the sandboxes that a line names in its texts, each once."""
    found = [each for text in texts if "andbox" in text for each in _SANDBOX.findall(text)]
    return tuple(dict.fromkeys([each.lower() for each in found])) if found else ()


def _id_of(name: str) -> str:
    return name.removeprefix("sandbox_").lower()
