"""RB-SB-001: too many sandboxes.

Trigger    alarm sandbox-count-high: ActiveSandboxCount over 100 for ten minutes.
Symptoms   developers are refused new sandboxes, or soon will be; schemas, keys and connections grow with the count.
Looks at   the alarm; every row: by status, owner and age, which are over and still there, how the count grew; the clean-up
           job: its schedule, its task's last ends, its log; what could keep it from working: servers, locks, dependents,
           security groups; the worker service beside it.
May change it takes away the sandboxes that are over for more than half an hour, or less with an error, a lock or an object in
           the way, or stuck half made for an hour: one by one or by the deployed task (--via ecs). It enables the clean-up's
           schedule where it is disabled. Neither the task nor the schedule is let loose where its CASCADE would take
           anything of others along.
Undo       the schedule is disabled again by `invoke undo --run ID`. What is taken away was over, and cannot be given back:
           `drop N` has to be typed.
"""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from diagnostics.stack import Stack
from runbooks import looks, rights
from runbooks.engine.model import Action, Finding, Resource, Runbook, Severity
from runbooks.engine.page import Look, Page, Threshold
from runbooks.engine.systems import Readers
from runbooks.findings import alarm_finding, span
from runbooks.overdue import cleaning, page
from runbooks.overdue import evidence as overdue
from runbooks.overdue.cleaning import existing
from runbooks.overdue.evidence import GRACE, Database, Evidence
from runbooks.overdue.verdicts import confirmed_causes, job_findings, log_findings, server_findings
from runbooks.remedies import CleanUp, DropBlocker, EnableRule, RunTask, remedies, taking
from sandbox.facts import Known
from sandbox.limits import Limits
from sandbox.metrics import ALARMS
from sandbox.model import Sandbox
from sandbox.text import counted, lasting, moment

__all__ = ["ALARM", "RUNBOOK", "diagnose", "gather", "outlook", "propose"]

ALARM = "sandbox-count-high"
MOST = ALARMS[ALARM].threshold
"""Above it the alarm breaches, should the alarm itself not be known."""

GROWTH_WINDOW = timedelta(hours=6)
SOON = timedelta(hours=24)
"""A count that passes the threshold within this is worth a call."""

ENOUGH = 20  # rows that a suggestion has to rest on
_SHOWN = 8  # owners and statuses that are told

_SEE_COUNT = 'psql -c "SELECT status, owner, count(*) FROM public.sandboxes GROUP BY 1, 2 ORDER BY 3 DESC"'
_SEE_OVER = "psql -c \"SELECT * FROM public.sandboxes WHERE status = 'expired' OR expires_at < now()\""


def gather(readers: Readers, *, now: datetime, deadline: float, stack: Stack) -> Evidence:
    """Read everything side by side, within `deadline` seconds."""
    return overdue.gather(readers, now=now, deadline=deadline, stack=stack, alarm=ALARM)


def diagnose(evidence: Evidence) -> list[Finding]:
    """Say why there are so many, who has them, and what is unknown. Pure."""
    high = _is_high(evidence)
    causes = confirmed_causes(evidence)
    if high and isinstance(evidence.database, Known):
        database = evidence.database.value
        wanted = wanted_at(database, database.now)
        if wanted > threshold(evidence):
            causes.insert(0, _in_use(evidence, wanted))
        elif not causes and not evidence.behind:
            causes = [_just_ended(evidence)]
    confirmed = high is not False
    found = [*causes, alarm_finding(evidence.alarm, suffix=ALARM, confirmed=confirmed, cleared=_CLEARED)]
    if isinstance(evidence.database, Known):
        database = evidence.database.value
        found += [_count(database, evidence), _over(database, evidence), _owners(database, high=bool(high))]
        found += [_growth(database, evidence), _lifetimes(database)]
    return found + job_findings(evidence) + log_findings(evidence) + server_findings(evidence)


def propose(evidence: Evidence, *, via: str = "library") -> tuple[list[Action], list[Finding]]:
    """Return an action for each sandbox that is over, or one that runs the deployed task. Pure."""
    return cleaning.propose(evidence, runbook="rb-sb-001", via=via)


def outlook(evidence: Evidence) -> list[Finding]:
    """Say, after a clean-up, how many are left, when there will be too many again, and whom to call if so. Pure."""
    if not isinstance(evidence.database, Known):
        return [finding for finding in server_findings(evidence) if finding.check == "database"]
    database = evidence.database.value
    return [_count(database, evidence), _growth(database, evidence), *_escalation(database, evidence)]


_CLEARED = "the count is below it, so it clears when its metric is next published"


def threshold(evidence: Evidence) -> float:
    """Return the alarm's threshold, or the page's where the alarm is not known."""
    alarm = evidence.alarm.value if isinstance(evidence.alarm, Known) else None
    return alarm.threshold if alarm else MOST


def count_at(rows: Sequence[Sandbox], moment: datetime) -> int:
    """Return how many sandboxes were not destroyed at a moment, by the rows that are kept."""
    return sum(
        row.created_at <= moment and (row.live if row.destroyed_at is None else row.destroyed_at > moment)
        for row in rows
    )


def wanted_at(database: Database, moment: datetime) -> int:
    """Return how many sandboxes were wanted at a moment: created, and neither over, given up nor destroyed.

    It is what a clean-up that works leaves, and the same before one and after it.
    """
    given_up = {each.row.id: each.since for each in database.over}
    return sum(
        row.created_at <= moment < _wanted_until(row, given_up.get(row.id), moment) for row in database.rows
    )


def growth_per_hour(database: Database) -> float:
    """Return by how many an hour the count of wanted ones has grown within the last six hours; negative where it fell."""
    then = wanted_at(database, database.now - GROWTH_WINDOW)
    return (wanted_at(database, database.now) - then) / (GROWTH_WINDOW / timedelta(hours=1))


def passes_again(database: Database, most: float) -> timedelta | None:
    """Return after how long the count passes `most`, once what is over is gone; None if it does not grow."""
    growth, room = growth_per_hour(database), most - wanted_at(database, database.now)
    if room < 0:
        return timedelta(0)
    return timedelta(hours=(room + 1) / growth) if growth > 0 else None


def suggested_ttl(database: Database) -> timedelta | None:
    """Return a lifetime, in whole hours, that nine of ten were last used within; None with too few to tell.

    Only those that have ended are counted: one that is young has not shown yet how long it is used.
    """
    ended = (row for row in database.rows if database.now >= _wanted_until(row, None, database.now))
    used = sorted(row.last_activity_at - row.created_at for row in ended if row.last_activity_at)
    if len(used) < ENOUGH:
        return None
    ninth = used[math.ceil(len(used) * 0.9) - 1]
    hours = timedelta(hours=math.ceil(ninth / timedelta(hours=1)))
    return min(Limits().most_ttl, max(timedelta(hours=1), hours))


def _wanted_until(row: Sandbox, given_up: datetime | None, moment: datetime) -> datetime:
    """When a sandbox was over, given up or destroyed, whichever came first; later than `moment` if it is none of these."""
    if not row.live and row.destroyed_at is None:
        return row.created_at  # nobody knows when
    ends = [end for end in (row.expires_at, row.destroyed_at, given_up) if end is not None]
    return min(ends, default=moment + timedelta(hours=1))


def _is_high(evidence: Evidence) -> bool | None:
    """Whether there are too many; None where the database does not tell."""
    if not isinstance(evidence.database, Known):
        return None
    return _live(evidence.database.value) > threshold(evidence)


def _live(database: Database) -> int:
    return sum(row.live for row in database.rows)


def _in_use(evidence: Evidence, wanted: int) -> Finding:
    return Finding(
        check="cause",
        severity=Severity.CRITICAL,
        summary=f"cause: {wanted} are in use, neither over nor destroyed: more than there may be",
        evidence={
            "details": [
                f"escalate to {evidence.stack.escalation}: owners give some back, or the limit is raised"
            ]
        },
        source=_SEE_COUNT,
    )


def _just_ended(evidence: Evidence) -> Finding:
    return Finding(
        check="cause",
        severity=Severity.WARNING,
        summary=f"cause: {evidence.fresh} of them have just ended, and the job's next run takes them",
        evidence={"details": ["look again in a quarter of an hour"]},
        source=_SEE_OVER,
    )


def _count(database: Database, evidence: Evidence) -> Finding:
    live, most = _live(database), threshold(evidence)
    statuses = Counter(row.status.value for row in database.rows if row.live)
    ages = Counter(_age(database.now - row.created_at) for row in database.rows if row.live)
    return Finding(
        check="count",
        severity=Severity.CRITICAL if live > most else Severity.OK,
        summary=f"{counted(live, 'sandbox is', 'sandboxes are')} not destroyed; the alarm's threshold is {most:g}",
        evidence={
            "statuses": dict(statuses),
            "ages": {name: ages[name] for name in _AGES if ages[name]},
            "details": [
                "by status: " + ", ".join(f"{number} {name}" for name, number in statuses.most_common()),
                "by age: " + ", ".join(f"{ages[name]} {name}" for name in _AGES if ages[name]),
            ],
        },
        source=_SEE_COUNT,
    )


_AGES = ("under 6 h", "6 to 24 h", "1 to 3 d", "3 to 7 d", "over 7 d")


def _age(age: timedelta) -> str:
    bounds = (timedelta(hours=6), timedelta(hours=24), timedelta(days=3), timedelta(days=7))
    return _AGES[sum(age >= bound for bound in bounds)]


def _over(database: Database, evidence: Evidence) -> Finding:
    """Who is over and still there, how long; what ended within the last half hour is the next run's."""
    late = [database.now - each.since for each in evidence.behind]
    waiting = (
        f"; {evidence.fresh} more ended within {span(GRACE)} and are the next run's" if evidence.fresh else ""
    )
    if not late:
        return Finding(
            check="over",
            severity=Severity.OK,
            summary=f"no sandbox is left that was over for more than {span(GRACE)}{waiting}",
            source=_SEE_OVER,
        )
    names = [
        f"{each.row.name} of {each.row.owner}, {each.row.status}, over for {span(database.now - each.since)}"
        for each in evidence.behind
    ]
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return Finding(
        check="over",
        severity=Severity.WARNING,
        summary=f"{counted(len(late), 'sandbox is', 'sandboxes are')} over and not cleaned up, for {span(min(late))} to {span(max(late))}{waiting}",
        evidence={"details": names[:_SHOWN] + more, "sandboxes": [each.row.name for each in evidence.behind]},
        source=_SEE_OVER,
    )


def _owners(database: Database, *, high: bool) -> Finding:
    share = Limits().per_owner
    owners = Counter(row.owner for row in database.rows if row.live).most_common()
    many = [(owner, number) for owner, number in owners if number > share]
    if not many:
        summary = f"no owner has more than the {share} that one may have"
        return Finding(check="owners", severity=Severity.OK, summary=summary, source=_SEE_COUNT)
    told = ", ".join(f"{owner} {number}" for owner, number in many[:_SHOWN])
    more = f" and {len(many) - _SHOWN} more owners" if len(many) > _SHOWN else ""
    return Finding(
        check="owners",
        severity=Severity.WARNING if high else Severity.OK,
        summary=f"over their share of {share}: {told}{more}",
        resource=Resource(kind="owner", id=many[0][0]),
        evidence={"owners": dict(many)},
        source=_SEE_COUNT,
    )


def _growth(database: Database, evidence: Evidence) -> Finding:
    """How fast the count grows, and when it would pass the threshold again once what is over is gone."""
    growth, most = growth_per_hour(database), threshold(evidence)
    when = passes_again(database, most)
    hourly = [
        (database.now - timedelta(hours=ago), count_at(database.rows, database.now - timedelta(hours=ago)))
        for ago in range(24, -1, -1)
    ]
    told = f"the count changes by {growth:+.1f} an hour ({span(GROWTH_WINDOW)}), without those that are over"
    if when is None:
        told += f": it does not pass {most:g} by itself"
    elif not when:
        told += f": it is over {most:g} even without those"
    else:
        told += f": it passes {most:g} in about {span(when)}"
    return Finding(
        check="growth",
        severity=Severity.WARNING if when is not None and when < SOON and _is_high(evidence) else Severity.OK,
        summary=told,
        evidence={
            "points": [[moment, float(number)] for moment, number in hourly],
            "threshold": most,
        },
        source=_SEE_COUNT,
    )


def _lifetimes(database: Database) -> Finding:
    """Which lifetimes were asked for, how long sandboxes were really used, and the default that this suggests."""
    asked = Counter(_asked(row) for row in database.rows if row.live and row.expires_at)
    told = ", ".join(f"{number} × {span(ttl)}" for ttl, number in sorted(asked.items()))
    suggestion, default = suggested_ttl(database), Limits().default_ttl
    if suggestion is None:
        advice = f"fewer than {ENOUGH} that ended say when they were last used: no default can be suggested"
    elif suggestion < default:
        advice = f"9 of 10 were last used within {span(suggestion)}: DEFAULT_TTL_HOURS={suggestion // timedelta(hours=1)} would do"
    else:
        advice = f"9 of 10 were last used within {span(suggestion)}: the default of {span(default)} is not too long"
    return Finding(
        check="lifetimes",
        severity=Severity.OK,
        summary=f"lifetimes asked for: {told or 'none'}; {advice}",
        evidence={
            "ttl_hours": {str(ttl // timedelta(hours=1)): number for ttl, number in sorted(asked.items())}
        },
        source=_SEE_OVER,
    )


def _asked(row: Sandbox) -> timedelta:
    assert row.expires_at is not None
    return timedelta(hours=round((row.expires_at - row.created_at) / timedelta(hours=1)))


def _escalation(database: Database, evidence: Evidence) -> list[Finding]:
    """When and whom to call, should the count still rise."""
    most, whom = threshold(evidence), evidence.stack.escalation
    wanted, when = wanted_at(database, database.now), passes_again(database, most)
    if wanted > most:
        summary = f"still {wanted} in use, of {most:g}: escalate to {whom} now"
        return [Finding(check="escalation", severity=Severity.WARNING, summary=summary, source=_SEE_COUNT)]
    if when is not None and when < SOON:
        at = database.now + when
        summary = f"it passes {most:g} again at about {moment(at)}: escalate to {whom} if it still rises an hour before"
        return [Finding(check="escalation", severity=Severity.WARNING, summary=summary, source=_SEE_COUNT)]
    return []


RUNBOOK = Runbook(
    name="rb-sb-001",
    title="Too many sandboxes",
    alarm=ALARM,
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
    outlook=outlook,
    page=Page(
        text=__doc__,
        reads=rights.OVERDUE,
        writes=taking(CleanUp, DropBlocker, EnableRule, RunTask),
        examples=(
            (
                "rb-sb-001 --env production",
                "say why there are so many, and propose what to clean up; changes nothing",
            ),
            ("rb-sb-001 --env production --apply", "the same, and apply it once confirmed"),
            (
                "rb-sb-001 --env production --via ecs",
                "clean up by the deployed task instead, watched to its end",
            ),
        ),
        looks=(
            looks.alarm(ALARM),
            Look(what="who has how many", command=_SEE_COUNT),
            Look(what="which are over", command=_SEE_OVER),
            *page.LOOKS,
        ),
        thresholds=(
            Threshold(
                name="sandboxes",
                value=str(MOST),
                meaning="more that are not destroyed are too many; the alarm's own threshold counts where it is known",
            ),
            Threshold(
                name="an owner's share",
                value=str(Limits().per_owner),
                meaning="whoever has more is named, and a warning while there are too many",
            ),
            Threshold(
                name="growth over",
                value=lasting(GROWTH_WINDOW),
                meaning="how fast the count grows is told by these",
            ),
            Threshold(
                name="too many again within",
                value=lasting(SOON),
                meaning="a count that gets there sooner is worth a call",
            ),
            *page.THRESHOLDS,
        ),
    ),
)
