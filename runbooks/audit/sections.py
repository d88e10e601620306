"""What an audit looks at, all of it side by side and shared; it holds nothing that could change anything."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_

from runbooks.catalogue import RUNBOOKS
from runbooks.engine import permission
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit
from runbooks.engine.model import Action, Finding, Runbook
from runbooks.engine.operate import ended
from runbooks.engine.sharing import sharing
from runbooks.engine.systems import Readers, readers
from runbooks.findings import unknown
from sandbox.deadline import beside
from sandbox.facts import Fact, Known, gather

__all__ = ["SECTIONS", "Section", "look"]

_PAGES = tuple(name for name in RUNBOOKS if name.startswith("rb-sb-"))
_STATES = {
    "quarantine": "purge-quarantine",
    "emergency": "emergency-resume",
    "maintenance": "database-maintenance",
}
# Where the runbook itself would change something: the task that shows it, and what it is about.
_TASKS = {"emergency": "emergency-status"}
_TITLES = {"emergency": "What is stopped"}
_GRACE = 1.25  # times its deadline that a procedure may take, as it thinks besides

SECTIONS: Mapping[str, Runbook] = {name: RUNBOOKS[name] for name in _PAGES} | {
    name: RUNBOOKS[runbook] for name, runbook in _STATES.items()
}
"""What there is to look at, by the name that an operator calls it."""

_READS = reduce(or_, (each.page.reads for each in SECTIONS.values()))  # asked about once for all


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What one procedure found, and what it would propose. `task` is the one that shows it alone."""

    name: str
    runbook: Runbook
    findings: tuple[Finding, ...]
    actions: tuple[Action, ...]

    @property
    def task(self) -> str:
        """Return the task that shows it alone."""
        return _TASKS.get(self.name, self.runbook.name)

    @property
    def title(self) -> str:
        """Return what it is about."""
        return _TITLES.get(self.name, self.runbook.title)

    @property
    def due(self) -> tuple[Action, ...]:
        """Return the actions that something calls for; what is done by the calendar is proposed whenever it is asked for."""
        return () if self.runbook.page.schedule else self.actions

    @property
    def exit(self) -> Exit:
        """0 healthy, 2 something is wrong or calls for a change, 3 something could not be told."""
        return ended(self.findings, proposed=bool(self.due))


def look(
    environment: Environment,
    names: Sequence[str],
    *,
    now: datetime,
    timeout: float,
    tell: Callable[[Section], None],
) -> tuple[Section, ...]:
    """Look at these sections of an environment, and return them in their order. Raises ArrakisError on a malformed address.

    They read side by side within `timeout` seconds, and what several of them ask is asked once. What measures how long things take
    comes after, shares nothing, and has as long again. Each is told of when it has ended.
    """
    systems = readers(environment, tag="arrakis-runbooks:audit", timeout=timeout)
    timed = [name for name in names if SECTIONS[name].timed]
    found: dict[str, Fact[Section]] = {}

    def probe(name: str, read: Readers) -> Callable[[], Section]:
        def section() -> Section:
            seen = _section(name, read, environment, now=now, timeout=timeout)
            tell(seen)
            return seen

        return section

    with sharing(systems) as shared:
        others = {name: probe(name, shared) for name in names if name not in timed}
        found |= gather(others, deadline=timeout * _GRACE)
    for name in timed:
        found |= gather({name: probe(name, systems)}, deadline=timeout * _GRACE)
    return tuple(_told(name, found[name]) for name in names)


def _section(name: str, read: Readers, environment: Environment, *, now: datetime, timeout: float) -> Section:
    runbook = SECTIONS[name]
    unseen = beside(lambda: permission.unseen(environment, read, runbook, timeout=timeout, among=_READS))
    facts = runbook.gather(read, now=now, deadline=timeout, stack=environment.stack)
    findings = list(runbook.diagnose(facts))
    actions, left = runbook.propose(facts)
    return Section(name=name, runbook=runbook, findings=(*findings, *left, *unseen()), actions=tuple(actions))


def _told(name: str, fact: Fact[Section]) -> Section:
    """Return what a procedure found; one that did not come to an end could not tell."""
    if isinstance(fact, Known):
        return fact.value
    return Section(name=name, runbook=SECTIONS[name], findings=(unknown(name, fact),), actions=())
