"""Which rights what went over the wires takes, in the words of the pages; and whether rights that are named cover them."""

import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

from runbooks.engine.page import Rights
from sandbox.streams import takes
from tests.wires import Wires

__all__ = ["beyond", "idle", "used"]

_TABLE = re.compile(
    r"\b(public|runbooks)\.(sandboxes|sandbox_guild_mapping|sandbox_audit_log|lease|journal|used_plans|stops|stopped_sandboxes)\b"
)
_OTHERS_SESSIONS = re.compile(r"\bpg_stat_(activity|replication|progress_\w+)\b")
_ANYBODYS = {"+hello", "+auth", "+client|setinfo", "sts:GetCallerIdentity"}
"""What every login may, or what the driver tries and can do without."""

_ABOUT_KEYS = ("get", "pttl", "object", "memory", "unlink", "renamenx", "set")


def used(wires: Wires) -> set[str]:
    """Return a word for each right that was used: as pages have them, a key as `~key`, of NATS the subject itself."""
    found = {*_of_statements(wires), *_of_keys(wires)}
    found |= {f"+{name}" for name in wires.redis.names()} | wires.nats.published() | wires.aws.actions()
    return {each for each in found - _ANYBODYS if not each.startswith("_INBOX.")}


def beyond(words: Collection[str], rights: Rights) -> list[str]:
    """Return what of it the rights do not cover."""
    return sorted(each for each in words if not _covered(each, rights))


def idle(rights: Rights, words: Collection[str]) -> list[str]:
    """Return what of the rights nothing of it needs."""
    named = {*rights.postgres, *rights.redis, *rights.aws}
    left = [each for each in named - set(words) if not any(_opens(each, word) for word in words)]
    return sorted([*left, *(each for each in rights.nats if not any(takes([each], word) for word in words))])


def _of_statements(wires: Wires) -> Iterator[str]:
    for each in wires.postgres.said:
        for schema, table in _TABLE.findall(each.text) if each.reading else ():
            yield f"SELECT ON {schema}.{table}"
            yield f"USAGE ON SCHEMA {schema}"
        if "pg_ls_waldir" in each.text:
            yield "pg_monitor"
        if _OTHERS_SESSIONS.search(each.text):
            yield "pg_read_all_stats"


def _of_keys(wires: Wires) -> Iterator[str]:
    for name, *words in wires.redis.said:
        if name.lower() in _ABOUT_KEYS:
            keys = words[1:2] if name.lower() in ("object", "memory") else words[:2]
            yield from (f"~{key}" for key in (keys[:1] if name.lower() in ("set", "get", "pttl") else keys))


def _covered(word: str, rights: Rights) -> bool:
    named = rights.postgres | rights.redis | rights.aws
    wider = word == "pg_read_all_stats" and "pg_monitor" in named
    return wider or word in named or takes(rights.nats, word) or any(_opens(each, word) for each in named)


def _opens(pattern: str, word: str) -> bool:
    """Whether a pattern of keys opens a key."""
    mode, tilde, keys = pattern.partition("~")
    return bool(tilde) and mode in ("", "%R") and word.startswith("~") and fnmatchcase(word[1:], keys)
