"""All that could be taken away: sandboxes that are over, what destroyed ones left, what no sandbox owns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from diagnostics.stack import Stack
from runbooks.engine.systems import Readers
from runbooks.orphaned import evidence as orphaned
from runbooks.overdue.evidence import Behind, over
from sandbox import registry, schemas
from sandbox.facts import Fact, Known, Unknown
from sandbox.facts import gather as gather_facts

__all__ = ["Due", "Evidence", "existing", "gather"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What is over at one moment, the database's `now`; which of its schemas this role may not drop, what elsewhere rests
    on which, and how many bytes each has.
    """

    now: datetime
    over: Sequence[Behind]
    not_ours: frozenset[str]
    resting: Mapping[str, Sequence[str]]
    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen. `now` is this host's clock; `scanned` is how many keys of any kind one pass over Redis goes through."""

    now: datetime
    due: Fact[Due]
    orphans: Fact[orphaned.Facts]
    scanned: Fact[int]

    @property
    def untold(self) -> Unknown | None:
        """Why nobody can tell what keys there are, if so: without Redis no sandbox can go whole."""
        seen = self.orphans.value.keys if isinstance(self.orphans, Known) else self.orphans
        return seen if isinstance(seen, Unknown) else None

    def sizes(self) -> dict[str, int]:
        """Return the bytes of the schemas of what is over or orphaned, as far as they are known."""
        seen = self.orphans.value.database if isinstance(self.orphans, Known) else None
        orphans = seen.value.schemas if isinstance(seen, Known) else ()
        over = self.due.value.sizes if isinstance(self.due, Known) else {}
        return {**{each.name: each.bytes for each in orphans if each.bytes is not None}, **over}

    def placed(self) -> orphaned.Orphans:
        """Return every schema and family with whose it is, as far as that is known."""
        if isinstance(self.orphans, Known):
            return orphaned.Orphans.of(self.orphans.value)
        return orphaned.Orphans(schemas=(), families=())


def gather(readers: Readers, *, now: datetime, deadline: float, stack: Stack) -> Evidence:
    """Read what is over and what is orphaned side by side, within `deadline` seconds."""
    probes: dict[str, Any] = {
        "due": lambda: _due(readers),
        "orphans": lambda: orphaned.gather(
            readers, now=now, deadline=deadline * 0.95, stack=stack, brief=True
        ),
        "scanned": lambda: _scanned(readers),
    }
    return Evidence(now=now, **gather_facts(probes, deadline=deadline))


def existing(evidence: Evidence) -> int | None:
    """How many sandbox resources exist; None when unknown."""
    return orphaned.existing(evidence.orphans.value) if isinstance(evidence.orphans, Known) else None


def _due(readers: Readers) -> Due:
    with readers.sql.snapshot() as snapshot:
        now = registry.now(snapshot)
        found = over(snapshot, now)
        names = [name for each in found for name in each.schemas]
        return Due(
            now=now,
            over=tuple(found),
            not_ours=frozenset(schemas.not_ours(snapshot, names)),
            resting=schemas.dependents(snapshot, names),
            sizes=schemas.sizes(snapshot, names),
        )


def _scanned(readers: Readers) -> int:
    databases = (facts for name, facts in readers.cache.info().items() if name.startswith("db"))
    return sum(int(facts["keys"]) for facts in databases if isinstance(facts, Mapping))
