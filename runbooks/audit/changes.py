"""What has changed between two audits: new, worse, better, gone, and what cannot be told any more. Pure, of their documents."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from runbooks.engine.model import LEFT_ALONE

__all__ = ["KINDS", "changes"]

KINDS = ("new", "worse", "better", "gone", "untold")
"""The kinds of changes, in the order in which they are told."""

_RANKS = {"ok": 0, "warning": 1, "critical": 2}
_UNKNOWN, _WELL = "unknown", "ok"
# Checks of many things: another one may come in the place of one that went.
_SEVERAL = {"cause", LEFT_ALONE, "log", "log error"}
_FIGURES = re.compile(r"\d+([.,:]\d+)*")

_Document = Mapping[str, Any]
_Key = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A finding as one audit had it, the worst of those that are about the same."""

    severity: str
    finding: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blind:
    """The procedures that could not tell everything, then and now."""

    before: Set[str]
    now: Set[str]


def changes(before: _Document, now: _Document) -> dict[str, Any]:
    """Return what has changed, a list for each of KINDS, and since which audit.

    Two findings are about the same if their check and resource are; without a resource, if their words are, but for the figures in
    them, or if each audit has only one such check, and that check is about one thing. Only what both audits looked at is compared.
    What was wrong and is not found any more is gone only where its procedures can tell everything now; what is found is new only where
    they could tell everything then.
    """
    both = _names(before) & _names(now)
    alone = _alone(before, both) & _alone(now, both)
    earlier, later = _by_subject(before, both, alone), _by_subject(now, both, alone)
    blind = _Blind(before=_blind(before), now=_blind(now))
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for key in dict.fromkeys([*later, *earlier]):
        was, is_ = earlier.get(key), later.get(key)
        if kind := _kind(was, is_, blind):
            found[kind].append(_change(was, is_))
    return {"since": before["audit"], "at": before["at"], **found}


def _kind(was: _Seen | None, is_: _Seen | None, blind: _Blind) -> str:
    """Return which kind of change it is; empty where it is none."""
    seen = is_ or was
    assert seen is not None  # one of them has the key
    told_by = set(seen.finding["procedures"])
    before = was.severity if was else _UNKNOWN if told_by & blind.before else _WELL
    after = is_.severity if is_ else _UNKNOWN if told_by & blind.now else _WELL
    # That a source answers no more, or again, is told where a finding says so, and not for all that it hides.
    if before == after or (is_ is None and before == _WELL) or (was is None and after == _WELL):
        return ""
    if before == _WELL:
        return "new"
    if after == _WELL:
        return "gone"
    if _UNKNOWN in (before, after):
        return "untold"
    return "worse" if _RANKS[after] > _RANKS[before] else "better"


def _change(was: _Seen | None, is_: _Seen | None) -> dict[str, Any]:
    # What is gone is told in the words that it had.
    told = was if is_ is None or (was and is_.severity == _WELL) else is_
    assert told is not None  # one of them has the key
    return {
        "severity": is_.severity if is_ else None,
        "was": was.severity if was else None,
        "check": told.finding["check"],
        "summary": told.finding["summary"],
        "procedures": list(told.finding["procedures"]),
    }


def _blind(audit: _Document) -> set[str]:
    return {each["name"] for each in audit["procedures"] if each["counts"][_UNKNOWN]}


def _names(audit: _Document) -> set[str]:
    return {each["name"] for each in audit["procedures"]}


def _concerning(audit: _Document, names: Collection[str]) -> Iterable[Mapping[str, Any]]:
    return (each for each in audit["findings"] if set(each["procedures"]) & set(names))


def _alone(audit: _Document, names: Collection[str]) -> set[str]:
    """Return the checks of which an audit has a single finding, and that without a resource."""
    counts = Counter(each["check"] for each in _concerning(audit, names))
    bare = {each["check"] for each in _concerning(audit, names) if each["resource"] is None}
    return {check for check in bare - _SEVERAL if counts[check] == 1}


def _by_subject(audit: _Document, names: Collection[str], alone: Collection[str]) -> dict[_Key, _Seen]:
    found: dict[_Key, _Seen] = {}
    for each in _concerning(audit, names):
        key, seen = _key(each, alone), _Seen(severity=each["severity"], finding=each)
        found[key] = _worse(found.get(key, seen), seen)
    return found


def _worse(one: _Seen, other: _Seen) -> _Seen:
    order: Sequence[str] = ("ok", "unknown", "warning", "critical")
    return max(one, other, key=lambda each: order.index(each.severity))


def _key(finding: Mapping[str, Any], alone: Collection[str]) -> _Key:
    check, resource = finding["check"], finding["resource"]
    if resource:
        return (check, resource["kind"], resource["id"])
    return (check,) if check in alone else (check, _FIGURES.sub("#", finding["summary"]))
