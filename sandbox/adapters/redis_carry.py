"""Renaming a key onto a slot of another node, where no one command can.

A copy is made under the new name, with the same value and the same end; then the old key goes, if it still is what was
copied. Killed in between, both are there, and doing it again ends it. What differs from RENAMENX:

- for a moment, or after a kill, both names exist; a SCAN may report both;
- a key that was changed while it was copied keeps its old name, and its copy goes again: it counts as not renamed. Only a
  kill between the two leaves a copy that is not the key's any more; repeating leaves both alone, and nothing is lost;
- the end is a moment by the servers' clocks: where they differ, so does what is left of it;
- a primary that dies before a replica has the copy takes the key along, as it would any write of that moment;
- reading, sending and comparing a large value takes its servers as long as DUMP and RESTORE of it do.

DUMP, RESTORE with ABSTTL, PEXPIRETIME (Redis 7) and EVAL must be allowed.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.adapters.redis_node import Command, Question

__all__ = ["carry"]

Ask = Callable[[Sequence[Question]], list[Any]]
"""Asks each about its key, wherever that is; None where there is no such value, or one is in the way."""

_STEP = 100  # keys whose values are held at once
_GONE = -2  # what PEXPIRETIME says then

# 1: it is gone now; 0: it is not as it was, and is left alone; -1: it was gone.
_TAKE = """
local value = redis.call('DUMP', KEYS[1])
if not value then return -1 end
if redis.sha1hex(value) ~= ARGV[1] or redis.call('PEXPIRETIME', KEYS[1]) ~= tonumber(ARGV[2]) then return 0 end
return redis.call('UNLINK', KEYS[1])
"""

# One value may be dumped in more than one way: tables have an order of each server's own. So values are compared.
_READ: dict[bytes, Callable[[bytes], Command]] = {
    b"string": lambda key: ("GET", key),
    b"list": lambda key: ("LRANGE", key, 0, -1),
    b"set": lambda key: ("SMEMBERS", key),
    b"hash": lambda key: ("HGETALL", key),
    b"zset": lambda key: ("ZRANGE", key, 0, -1, "WITHSCORES"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """A key as it was read: its value as DUMP has it, its end in Unix milliseconds or -1; whether we made its copy now."""

    old: bytes
    new: bytes
    value: bytes
    end: int


def carry(ask: Ask, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]:
    """Rename each key unless its new name exists with another value or end; say which were renamed. TTLs run on.

    No key may come twice. Raises Unreachable or Denied, with part of it done: nothing is lost then, and repeating ends it.
    """
    done: set[bytes] = set()
    for start in range(0, len(pairs), _STEP):
        copies = _read(ask, pairs[start : start + _STEP])
        done |= _take(ask, copies, fresh=_make(ask, copies))
    return [old in done for old, _ in pairs]


def _read(ask: Ask, pairs: Sequence[tuple[bytes, bytes]]) -> list[_Copy]:
    """Read what is there."""
    values = ask([(old, ("DUMP", old)) for old, _ in pairs])
    ends = ask([(old, ("PEXPIRETIME", old)) for old, _ in pairs])
    return [
        _Copy(old=old, new=new, value=value, end=end)
        for (old, new), value, end in zip(pairs, values, ends, strict=True)
        if value is not None and end != _GONE
    ]


def _make(ask: Ask, copies: Sequence[_Copy]) -> set[bytes]:
    """Write the copies whose name is free; return the keys they are of."""
    replies = ask(
        [(each.new, ("RESTORE", each.new, max(each.end, 0), each.value, "ABSTTL")) for each in copies]
    )
    return {each.old for each, reply in zip(copies, replies, strict=True) if reply is not None}


def _take(ask: Ask, copies: Sequence[_Copy], *, fresh: set[bytes]) -> set[bytes]:
    """Delete the keys that are copied, by us now or before a kill; return them. What was changed meanwhile stays."""
    old = [each for each in copies if each.old not in fresh]
    copied = [each for each in copies if each.old in fresh] + [
        each for each, same in zip(old, _alike(ask, old), strict=True) if same
    ]
    replies = ask([(each.old, _taking(each)) for each in copied])
    taken = {each.old: reply for each, reply in zip(copied, replies, strict=True)}
    stale = [each.new for each in copied if taken[each.old] == 0 and each.old in fresh]
    ask([(new, ("UNLINK", new)) for new in stale])
    # Gone meanwhile: it was renamed, then deleted or over.
    return {key for key, reply in taken.items() if reply == 1 or (reply == -1 and key in fresh)}


def _taking(copy: _Copy) -> Command:
    return ("EVAL", _TAKE, 1, copy.old, hashlib.sha1(copy.value, usedforsecurity=False).hexdigest(), copy.end)


def _alike(ask: Ask, copies: Sequence[_Copy]) -> list[bool]:
    """Say which keys have a copy under their new name: the same value, and the same end to the millisecond."""
    ends = ask([(each.new, ("PEXPIRETIME", each.new)) for each in copies])
    kinds = ask([(each.new, ("TYPE", each.new)) for each in copies])
    there = ask([(each.new, _reading(kind, each.new)) for each, kind in zip(copies, kinds, strict=True)])
    here = ask([(each.old, _reading(kind, each.old)) for each, kind in zip(copies, kinds, strict=True)])
    return [
        end == each.end and mine is not None and mine == other
        for each, end, mine, other in zip(copies, ends, here, there, strict=True)
    ]


def _reading(kind: bytes, key: bytes) -> Command:
    read = _READ.get(kind)
    return read(key) if read else ("DUMP", key)
