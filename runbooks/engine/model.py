"""The engine's words. Frozen values that can be written to JSON and read back unchanged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from runbooks.engine.page import Page, Rights

__all__ = [
    "ENDED",
    "LEFT_ALONE",
    "SETTLED",
    "Action",
    "Bulk",
    "BulkUndo",
    "Finding",
    "Observation",
    "Pace",
    "Phase",
    "Plan",
    "Remedy",
    "Resource",
    "Reversibility",
    "Runbook",
    "Severity",
    "State",
    "Target",
    "Trial",
    "Verdict",
]


LEFT_ALONE = "left alone"
"""The check of a finding that says why nothing is proposed for something."""


class Severity(StrEnum):
    """How bad a finding is; `unknown` is never good."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


class Reversibility(StrEnum):
    """Whether an action can be undone; `nothing`: it loses nothing, so that there is nothing to undo."""

    REVERSIBLE = "reversible"
    NOTHING = "nothing"
    IRREVERSIBLE = "irreversible"


class State(StrEnum):
    """How a target stands to an action: as planned, already done, interrupted midway, or changed since."""

    BEFORE = "before"
    AFTER = "after"
    PARTLY = "partly"
    CHANGED = "changed"


class Phase(StrEnum):
    """What a journal record says. `started` without an ending means unknown."""

    PLANNED = "planned"
    RUN_STARTED = "run-started"
    STARTED = "started"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    RUN_ENDED = "run-ended"


SETTLED = (Phase.DONE, Phase.SKIPPED)
"""What `resume` passes over."""

ENDED = (*SETTLED, Phase.FAILED)
"""The phases that end an action. One that failed is tried again when its run is taken up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A thing that can be acted on, e.g. kind `schema`, id its name."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found. `source` is the command a person would run to see it."""

    check: str
    severity: Severity
    summary: str
    resource: Resource | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One change to one target: what is there before, what will be there after, and why."""

    id: str
    verb: str
    resource: Resource
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    reason: str
    reversibility: Reversibility


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which production a plan was made for. Without secrets."""

    name: str
    account: str | None
    region: str | None
    database: str
    fingerprint: str | None
    redis: str
    nats: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done, as a value: shown, applied exactly, never widened. The id holds the digest's start.

    `existing` is how many resources of the kinds concerned exist, for the blast radius; None when unknown.
    """

    id: str
    runbook: str
    environment: Target
    created_at: datetime
    expires_at: datetime
    findings: tuple[Finding, ...]
    actions: tuple[Action, ...]
    existing: int | None
    undoes: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a guard says, and why."""

    guard: str
    allowed: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A target looked at again, just now."""

    state: State
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Remedy(Protocol):
    """One verb. It is made with what it needs to read and write; `rights` is what a login needs to apply it, and to revert it."""

    verb: str
    rights: Rights

    def observe(self, action: Action) -> Observation:
        """Look at the target: as planned, done, midway, or changed."""
        ...

    def in_use(self, action: Action) -> str | None:
        """Say who uses the target or used it lately; None if nobody. Raises when it cannot tell."""
        ...

    def apply(self, action: Action) -> None:
        """Do it, or what remains of it. Raises rather than touch what is not as planned."""
        ...

    def revert(self, action: Action) -> None:
        """Put it back, or what remains of it."""
        ...


@runtime_checkable
class Bulk(Protocol):
    """What a remedy can do besides, if it takes many targets together: servers are asked once for all of them.

    Each answers by the actions' ids.
    """

    def observe_all(self, actions: Sequence[Action]) -> Mapping[str, Observation]:
        """Look at every target."""
        ...

    def in_use_all(self, actions: Sequence[Action]) -> Mapping[str, str]:
        """Say who uses which of them. Raises when it cannot tell."""
        ...

    def apply_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        """Do it; return what could not be done, and why. What it raises holds for all of them."""
        ...


@runtime_checkable
class BulkUndo(Bulk, Protocol):
    """What a remedy that takes many targets together can do besides, if it gives many back together."""

    def revert_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        """Put them back; return what could not be put back, and why. What it raises holds for all of them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a plan is worked through: by how many at once, how many targets a lot takes, and how many may fail before it stops.

    With `throttled` it slows down, and waits, while production feels it; as long as nobody else is at work, lots of up to `ample`
    targets are taken instead: what is done once a lot, such as a pass over Redis, is done less often then.
    """

    workers: int = 1
    lot: int = 1
    ample: int = 0
    failures: int = 0
    throttled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a runbook tries out for real when the operator asks for it: small, leaving nothing behind, through the gate.

    `propose(facts)` returns the actions that try it, and raises ArrakisError where it cannot be tried; `learn(facts, results)`
    returns the facts with what became of them in, or why it could not be tried.
    """

    propose: Callable[..., list[Action]]
    learn: Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runbook:
    """A procedure: a pure function of evidence, with the remedies that it may propose.

    `gather(readers, now=, deadline=, stack=, **about)` returns facts; `diagnose(facts)` findings; `propose(facts, **options)`
    actions and what was left alone; `existing(facts)` how many resources exist; `remedies(gate)` the remedy of
    each verb; `outlook(facts)`, of facts gathered after a run, what is to be expected. An `urgent` one needs no lease and no
    database: its actions rest on none of each other, and what cannot be told stops none of them. `alarm` is how the name of the
    alarm ends that calls for it; empty where none does.
    """

    name: str
    title: str
    gather: Callable[..., Any]
    diagnose: Callable[..., list[Finding]]
    propose: Callable[..., tuple[list[Action], list[Finding]]]
    existing: Callable[..., int | None]
    remedies: Callable[..., Mapping[str, Remedy]]
    outlook: Callable[..., list[Finding]] | None = None
    trial: Trial | None = None
    pace: Pace = field(default_factory=Pace)
    urgent: bool = False
    alarm: str = ""
    timed: bool = False
    page: Page = field(default_factory=Page)
