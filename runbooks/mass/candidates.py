"""What could be taken away, one by one, in groups; and the operator's choice among it. Pure."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from runbooks.engine.model import Action, Finding, Severity
from runbooks.findings import left_alone, span
from runbooks.mass.evidence import Due, Evidence
from runbooks.orphaned import proposals
from runbooks.overdue.cleaning import cleaning
from runbooks.overdue.evidence import Behind
from sandbox.errors import ArrakisError
from sandbox.facts import Known
from sandbox.model import Sandbox, Status
from sandbox.naming import same_sandbox
from sandbox.orphans import Placement, Standing
from sandbox.text import near

__all__ = [
    "EXPIRED",
    "GROUPS",
    "ORPHANS",
    "REMAINS",
    "STUCK",
    "Candidate",
    "Choice",
    "candidates",
    "choose",
    "group_of",
]

EXPIRED, STUCK, REMAINS, ORPHANS = "expired", "stuck", "remains", "orphans"
GROUPS = (EXPIRED, STUCK, REMAINS, ORPHANS)
"""Past their end; left half made or half destroyed; what destroyed ones left; what no row explains."""

AT_WORK = timedelta(minutes=5)
"""For as long somebody who began to take a sandbox away may still be at it."""

_STUCK = (Status.PENDING, Status.CREATING, Status.DESTROYING)
_SHOWN = 5  # names that are told of those left alone for one reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One that could be taken away: its group, the action, and since when it is over; None where nobody can tell.

    `names` are all by which an operator may call it; `owner` is empty where it has none, or nobody can tell which. `bytes` are
    its schemas', `keys` the count of its keys, both as far as they are known.
    """

    group: str
    action: Action
    owner: str
    since: datetime | None
    names: frozenset[str]
    bytes: int
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the operator asked for: groups, an owner's alone, what is over for so long, all but these names, so many at most."""

    groups: Collection[str] = GROUPS
    owner: str = ""
    older_than: timedelta | None = None
    spared: Collection[str] = ()
    limit: int | None = None


def candidates(evidence: Evidence) -> tuple[list[Candidate], list[Finding]]:
    """Return all that could be taken away, the oldest first, and a finding for what is left alone, whatever is chosen.

    What nobody can date comes last.
    """
    judged = proposals.judge(evidence.orphans.value) if isinstance(evidence.orphans, Known) else []
    found: list[Candidate] = []
    left: dict[str, list[str]] = defaultdict(list)
    if isinstance(evidence.due, Known):
        disputed = {row.id for where, _, reason in judged if reason for row in where.sandboxes}
        found = _sandboxes(evidence, evidence.due.value, disputed=disputed, left=left)
    going = {UUID(each.action.before["id"]) for each in found}
    for where, action, reason in judged:
        if reason:
            category, _, why = reason.partition(": ") if reason.startswith("in use") else (reason, "", "")
            left[category].append(_told(f"{action.resource.kind} {action.resource.id}", why))
        elif going.isdisjoint(
            row.id for row in where.sandboxes
        ):  # or it goes with what is left of its sandbox
            found.append(_orphan(where, action))
    return sorted(found, key=_age), [*_left(left), *_unclassifiable(evidence)]


def group_of(row: Sandbox) -> str:
    """Return the group of a sandbox that is over."""
    return STUCK if row.status in _STUCK else EXPIRED if row.live else REMAINS


def choose(
    found: Sequence[Candidate], choice: Choice, *, now: datetime
) -> tuple[list[Candidate], list[Finding]]:
    """Return what the operator chose, and a finding for each reason for which some are left.

    Raises ArrakisError for a name to be spared that is none of theirs: a typing error must not cost a sandbox.
    """
    _insist_on_names(found, choice.spared)
    reasons: Counter[str] = Counter()
    chosen: list[Candidate] = []
    for each in found:
        if reason := _why_not(each, choice, now=now):
            reasons[reason] += 1
        else:
            chosen.append(each)
    if choice.limit is not None and len(chosen) > choice.limit:
        reasons[f"the limit is {choice.limit}, the oldest first"] = len(chosen) - choice.limit
        chosen = chosen[: choice.limit]
    told = [
        Finding(check="not chosen", severity=Severity.OK, summary=f"not chosen: {count}: {reason}")
        for reason, count in reasons.items()
    ]
    return chosen, told


def _why_not(each: Candidate, choice: Choice, *, now: datetime) -> str | None:
    if each.group not in choice.groups:
        return f"{each.group} were not asked for"
    if choice.owner and each.owner != choice.owner:
        return f"not {choice.owner}'s"
    if not each.names.isdisjoint(choice.spared):
        return "excepted by name"
    if choice.older_than is None:
        return None
    if each.since is None:
        return "nobody can tell for how long they are over"
    return f"over for less than {span(choice.older_than)}" if now - each.since < choice.older_than else None


def _insist_on_names(found: Sequence[Candidate], spared: Collection[str]) -> None:
    known = {name for each in found for name in each.names} if spared else set()
    for name in spared:
        if name not in known:
            meant = near(name, known)
            hint = f"did you mean {meant}?" if meant else "leave it out: it would not be taken away anyhow"
            raise ArrakisError(f"nothing that is to be taken away is called {name!r}", hint=hint)


def _sandboxes(
    evidence: Evidence, due: Due, *, disputed: Collection[UUID], left: dict[str, list[str]]
) -> list[Candidate]:
    """Return those that can go, and add the others to what is left. Keys that are disputed are told of as orphans."""
    sizes, keys = evidence.sizes(), _keys_of_each(evidence)
    found: list[Candidate] = []
    for each in due.over:
        row = each.row
        if not row.live and row.id in disputed:
            continue
        if reason := _in_the_way(evidence, due, each):
            left[reason[0]].append(_told(row.name, reason[1]))
            continue
        group = group_of(row)
        found.append(
            Candidate(
                group=group,
                action=_grouped(cleaning(each, now=due.now), group),
                owner=row.owner,
                since=each.since,
                names=frozenset({row.name, str(row.id), *each.schemas}),
                bytes=sum(sizes.get(name, 0) for name in each.schemas),
                keys=keys[row.id],
            )
        )
    return found


def _in_the_way(evidence: Evidence, due: Due, each: Behind) -> tuple[str, str] | None:
    """Return why a sandbox cannot go, and what of it is this one's alone; None if it can."""
    if unknown := evidence.untold:
        return f"cannot tell whether all of them could go: keys unknown ({unknown.reason})", ""
    if each.row.status is Status.DESTROYING and each.last and due.now - each.last.at < AT_WORK:
        began = f"{each.last.actor} began {span(due.now - each.last.at)} ago"
        return "they are being taken away, or `resume` takes a run up that was interrupted at it", began
    if barred := [name for name in each.schemas if name in due.not_ours]:
        return "this role may not drop them: use their owner's DATABASE_URL", ", ".join(barred)
    resting = [described for name in each.schemas for described in due.resting.get(name, ())]
    if resting:
        return "something elsewhere rests on them; rb-sb-002 says how it is cleared", ", ".join(resting)
    return None


def _orphan(where: Placement, action: Action) -> Candidate:
    was = where.sandboxes
    group = REMAINS if was else ORPHANS
    owners = {row.owner for row in was}
    ends = [row.destroyed_at for row in was]
    return Candidate(
        group=group,
        action=_grouped(action, group),
        owner=owners.pop() if len(owners) == 1 else "",
        since=max((end for end in ends if end), default=None) if all(ends) else None,
        names=frozenset({action.resource.id, *(row.name for row in was), *(str(row.id) for row in was)}),
        bytes=int(action.before.get("bytes", 0)),
        keys=int(action.before.get("keys", 0)),
    )


def _grouped(action: Action, group: str) -> Action:
    return replace(action, before={**action.before, "group": group})


def _age(each: Candidate) -> tuple[bool, float, str]:
    return each.since is None, each.since.timestamp() if each.since else 0.0, each.action.resource.id


def _keys_of_each(evidence: Evidence) -> Mapping[UUID, int]:
    """Return how many keys are each sandbox's alone, under whichever naming."""
    counted: Counter[UUID] = Counter()
    for count, where in evidence.placed().families:
        owner = where.owner
        if owner and same_sandbox(where.name, str(owner.id)):
            counted[owner.id] += count
    return counted


def _told(name: str, why: str) -> str:
    return f"{name}: {why}" if why else name


def _left(left: Mapping[str, Sequence[str]]) -> list[Finding]:
    return [
        left_alone(f"{len(names)} left alone", why, evidence=_named(names)) for why, names in left.items()
    ]


def _unclassifiable(evidence: Evidence) -> list[Finding]:
    placed = evidence.placed()
    names = [
        _told(f"{kind} {where.name}", where.reason)
        for kind, some in (("schema", placed.schemas), ("keys", placed.families))
        for _, where in some
        if where.standing is Standing.UNCLASSIFIABLE
    ]
    if not names:
        return []
    summary = f"{len(names)} left alone: nobody can tell whose they are"
    return [Finding(check="unclassifiable", severity=Severity.OK, summary=summary, evidence=_named(names))]


def _named(names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return as evidence all of these names, of which the first are told."""
    more = [f"and {len(names) - _SHOWN} more: `--json` names them"] if len(names) > _SHOWN else []
    return {"details": [*names[:_SHOWN], *more], "names": list(names)}
