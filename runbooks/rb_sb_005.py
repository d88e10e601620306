"""RB-SB-005: schemas cannot be created.

Trigger    alarm sandbox-schema-failures: SchemaCreationErrors over 3 within five minutes.
Symptoms   `gaib sandbox create` ends with SANDBOX_005; SchemaProvisioner logs errors; rows stay in creating.
Looks at   connections against every limit, who has them, who is idle in a transaction and who waits for whom; PgBouncer's
           pools; storage, its trend and what takes it; rights and the migration's objects; the table of locks and the
           catalog; the logs of the API and the worker. With --probe a schema is really created and dropped, and timed.
May change it ends sessions that are idle in a transaction for more than 10 minutes and keep others from something; grants
           exactly the right that is lacking; makes what is missing of the migration; enlarges the storage; takes away
           sandboxes that are over and enables the clean-up's schedule where it is disabled, where room is short; what was in
           quarantine for more than 72 hours, where storage is full.
Undo       a grant is revoked, what was made of the migration is dropped while it is empty, and the schedule is disabled, by
           `invoke undo --run ID`. A session that was ended, storage that was enlarged and what was taken away stay so: `end N`, `enlarge N` or `drop N` has to
           be typed.
"""

from dataclasses import replace

from diagnostics.logs import LogReport
from diagnostics.migration import MIGRATION, SEE_OBJECTS, What, parts
from diagnostics.reach import SEE_POSTGRES
from diagnostics.rights import SEE_RIGHTS
from runbooks import logged, rights
from runbooks.creation import page
from runbooks.creation.evidence import ALARM, Facts, about_schemas, gather
from runbooks.creation.headroom import room_findings
from runbooks.creation.obstacles import SEE_TRIAL, confirmed_causes, held_span, storage_is_full
from runbooks.creation.suspicions import judged, unsettled
from runbooks.engine.model import Action, Finding, Phase, Resource, Runbook, Severity, Trial
from runbooks.engine.page import Page
from runbooks.engine.work import Result
from runbooks.findings import alarm_finding, left_alone, reach_finding, silence_once, unknown
from runbooks.overdue import cleaning
from runbooks.quarantined import purge_schemas
from runbooks.remedies import (
    CleanUp,
    DropSchema,
    EnableRule,
    EndSession,
    EnlargeStorage,
    GrantRight,
    Migrate,
    TryCreating,
    remedies,
    taking,
)
from runbooks.remedies.database import grant_right, migrate, try_creating
from runbooks.remedies.sessions import Why, end_session
from runbooks.remedies.storage import enlarge_storage, enlarged, settles_until
from sandbox.errors import ArrakisError
from sandbox.facts import Fact, Known, Unknown
from sandbox.text import counted, moment

__all__ = ["ALARM", "RUNBOOK", "diagnose", "existing", "gather", "outlook", "propose"]

Proposed = tuple[list[Action], list[Finding]]

_ASKED = {
    "PostgreSQL": "postgres",
    "rights": "rights",
    "objects": "objects",
    "database": "database",
    "sizes": "sizes",
    "dead rows": "dead",
    "WAL": "wal",
    "replication slots": "slots",
    "vacuum": "holders",
}  # what PostgreSQL is asked, by what is told of it

_CLEARED = "schemas can be created by all that is seen, so it clears when its metric is next published"


def diagnose(facts: Facts) -> list[Finding]:
    """Say why schemas cannot be created, how much room there is, and what is unknown. Pure."""
    causes = confirmed_causes(facts)
    failed = isinstance(facts.tried, Known) and facts.tried.value.phase is Phase.FAILED
    found = [
        *causes,
        alarm_finding(facts.alarm, suffix=ALARM, confirmed=bool(causes), cleared=_CLEARED),
        *_trial(facts),
        reach_finding("PostgreSQL", facts.postgres, source=SEE_POSTGRES),
        *_rights(facts),
        *_objects(facts, failing=failed or bool(unsettled(facts))),
        *room_findings(facts),
        *_logs(facts.api, facts.stack.api_logs, facts),
        *_logs(facts.worker, facts.stack.worker_logs, facts),
    ]
    return silence_once(found, {check: getattr(facts, name) for check, name in _ASKED.items()})


def propose(facts: Facts) -> tuple[list[Action], list[Finding]]:
    """Return what would mend it by its cause, the gentlest first, and why the rest is left alone. Pure."""
    actions: list[Action] = []
    left: list[Finding] = []
    for look in (_ending, _granting, _migrating, _enlarging, _making_room):
        found, alone = look(facts)
        actions += found
        left += alone
    return [replace(action, id=f"a{number}") for number, action in enumerate(actions, 1)], left


def existing(facts: Facts) -> int | None:
    """How many things there are of the kinds that may be changed: sessions, sandboxes' schemas, the migration's objects."""
    if not isinstance(facts.database, Known):
        return None
    return len(facts.database.value.sessions) + facts.database.value.catalog.schemas + len(parts())


def outlook(facts: Facts) -> list[Finding]:
    """Say, after a run, whether anything is in the way still. Pure."""
    causes = confirmed_causes(facts)
    unsure = [
        unknown(name, fact)
        for name in ("database", "rights", "objects", "instance")
        if isinstance(fact := getattr(facts, name), Unknown)
    ]
    if causes or unsure:
        return [*causes, *unsure]
    summary = "nothing is in the way of creating a schema any more; --probe tries it for real"
    return [Finding(check="outlook", severity=Severity.OK, summary=summary, source=SEE_TRIAL)]


# ---- what was found


def _trial(facts: Facts) -> list[Finding]:
    """What became of the schema that was created for a trial, where one was asked for."""
    if facts.tried is None:
        return []
    if isinstance(facts.tried, Unknown):
        return [unknown("trial", facts.tried, source=SEE_TRIAL)]
    result = facts.tried.value
    told, severity = f"a schema was {result.reason}", Severity.OK
    if result.phase is Phase.FAILED:
        told, severity = f"a schema could not be created: {result.reason}", Severity.CRITICAL
    elif not result.settled:
        told, severity = f"cannot tell whether a schema could be created: {result.reason}", Severity.UNKNOWN
    return [
        Finding(
            check="trial", severity=severity, summary=told, evidence=dict(result.evidence), source=SEE_TRIAL
        )
    ]


def _rights(facts: Facts) -> list[Finding]:
    if isinstance(facts.rights, Unknown):
        return [unknown("rights", facts.rights, source=SEE_RIGHTS)]
    seen = facts.rights.value
    owners = sorted({each.owner for each in seen.functions})
    definers = [each.name for each in seen.functions if each.definer]
    details = [f"the functions belong to {', '.join(owners)}"] if owners else []
    details += [f"{', '.join(definers)}: with the owner's rights (SECURITY DEFINER)"] if definers else []
    if not seen.role.deployed_exists:
        details.append(
            f"there is no role {seen.deployed}: what is said is of {seen.role.name}, which is used here"
        )
    elif lacking := [] if seen.role.name == seen.creator else seen.lacking(seen.role.name):
        details.append(f"{seen.role.name}, which is used here, lacks {len(lacking)} of these rights itself")
    summary = f"{seen.creator} has every right that creating a schema takes"
    if facts.lacking:
        summary = f"{seen.creator} lacks {len(facts.lacking)} of the rights that creating a schema takes"
    severity = Severity.WARNING if facts.lacking else Severity.OK
    return [
        Finding(
            check="rights",
            severity=severity,
            summary=summary,
            evidence={"details": details},
            source=SEE_RIGHTS,
        )
    ]


def _objects(facts: Facts, *, failing: bool) -> list[Finding]:
    """Whether all is there that the migration makes. The deployed functions' text may be another's, while they work."""
    if isinstance(facts.objects, Unknown):
        return [unknown("objects", facts.objects, source=SEE_OBJECTS)]
    faults = facts.objects.value
    texts = [fault for fault in faults if fault.kind == "function" and fault.what is What.DIFFERENT]
    wrong = [fault for fault in faults if fault not in texts or failing]
    details = [f"{fault.kind} public.{fault.name} is {fault.what}: {fault.told}" for fault in faults]
    summary = f"all {len(parts())} objects of the migration are there"
    if wrong:
        summary = f"{len(wrong)} of what the migration makes is missing or otherwise"
    elif texts:
        summary += f"; {counted(len(texts), 'function has', 'functions have')} another text"
    return [
        Finding(
            check="objects",
            severity=Severity.WARNING if wrong else Severity.OK,
            summary=summary,
            evidence={"details": details},
            source=SEE_OBJECTS,
        )
    ]


def _logs(fact: Fact[LogReport], log_group: str, facts: Facts) -> list[Finding]:
    """The errors of a log that are about creating schemas; how many there are besides."""
    if not isinstance(fact, Known):
        return logged.log_findings(fact, log_group, lambda group: judged(group, facts))
    mine = tuple(group for group in fact.value.groups if about_schemas(group))
    report = replace(fact.value, groups=mine, errors=sum(group.count for group in mine))
    found = logged.log_findings(Known(report), log_group, lambda group: judged(group, facts))
    if others := fact.value.errors - report.errors:
        first = replace(found[0], summary=f"{found[0].summary} about schemas, {others} about other things")
        found = [first, *found[1:]]
    return found


# ---- what would mend it


def _ending(facts: Facts) -> Proposed:
    """Sessions that are idle in a transaction for too long, and keep others from something."""
    actions, left = list[Action](), list[Finding]()
    for session in facts.idle:
        why = facts.why_held(session)
        if why and (spared := session.spared):
            left.append(
                _alone(
                    f"session {session.pid} of {session.user}",
                    spared,
                    Resource(kind="session", id=str(session.pid)),
                )
            )
        elif why:
            actions.append(
                end_session(
                    session,
                    reason=f"{session.who}, idle in a transaction for {held_span([session], facts)}; {why}",
                    why=Why.IDLE,
                )
            )
    return actions, left


def _granting(facts: Facts) -> Proposed:
    """Exactly the rights that are lacking."""
    actions, left = list[Action](), list[Finding]()
    for right in facts.lacking:
        if right.may_grant:
            reason = f"{right.role} creates the schemas, and lacks it"
            actions.append(grant_right(right, deployed=facts.stack.database_role, reason=reason))
        else:
            left.append(_alone(right.statement, f"only {right.owner}, or who may pass it on, can grant it"))
    return actions, left


def _migrating(facts: Facts) -> Proposed:
    """What the migration makes and is missing altogether; an index only with its table, as building one locks that."""
    missing = [fault for fault in facts.faults if fault.fatal]
    tables = {fault.name for fault in missing if fault.kind == "table"}
    missing += [
        fault
        for fault in facts.faults
        if fault.kind == "index" and fault.part and fault.part.items[0].name in tables
    ]
    if not missing:
        return [], []
    if not isinstance(facts.rights, Known):
        return [], [_alone("the migration", "cannot tell whether this role may create in the schema public")]
    role, actions, left = facts.rights.value.role, list[Action](), list[Finding]()
    for fault in missing:
        what = f"{fault.kind} public.{fault.name}"
        if fault.part is None:
            left.append(_alone(what, f"{fault.told}, and the migration has no statement that mends it alone"))
        elif not role.may_migrate:
            left.append(
                _alone(
                    what,
                    f"{role.name} may not create in the schema public: psql -f sql/{MIGRATION}.sql as its owner",
                )
            )
        else:
            actions.append(migrate(fault.part, reason="creating a schema takes it, and it does not exist"))
    return actions, left


def _enlarging(facts: Facts) -> Proposed:
    """More storage, where it is used up."""
    if not storage_is_full(facts) or not isinstance(facts.instance, Known):
        return [], []
    seen = facts.instance.value
    what, resource = f"the storage of {seen.identifier}", Resource(kind="instance", id=seen.identifier)
    if seen.pending_gib:
        return [], [_alone(what, f"it is on the way to {seen.pending_gib} GiB already", resource)]
    if (until := settles_until(seen)) and until > facts.now:
        return [], [
            _alone(what, f"it was changed lately: RDS takes no other change until {moment(until)}", resource)
        ]
    if seen.storage_left is None:
        return [], [_alone(what, "cannot tell how much of it is left", resource)]
    to_gib = enlarged(seen.storage_gib, seen.storage_left)
    reason = f"{seen.storage_left / 2**30:.1f} of {seen.storage_gib} GiB are left"
    return [enlarge_storage(seen, to_gib, reason=reason)], []


def _making_room(facts: Facts) -> Proposed:
    """Sandboxes that are over, where room is short; schemas that were in quarantine for long enough, where storage is full."""
    if facts.overdue is None or facts.quarantine is None:
        return [], []
    if not (facts.short_of_connections or storage_is_full(facts)):
        return [], []
    actions, left = cleaning.propose(facts.overdue, runbook=RUNBOOK.name)
    if not storage_is_full(
        facts
    ):  # nobody connects for what is in quarantine: dropping it gives no connection back
        return actions, left
    if isinstance(lost := facts.quarantine.database, Unknown):
        left = [*left, _alone("what is in quarantine", f"cannot tell what that is: {lost.reason}")]
    return [*actions, *purge_schemas(facts.quarantine)], left


def _alone(what: str, reason: str, resource: Resource | None = None) -> Finding:
    return left_alone(f"{what} is left alone", reason, resource=resource)


# ---- the trial


def _try(facts: Facts) -> list[Action]:
    """Return the action that creates a schema as the deployed system's role, or as the one used here where it may not."""
    if isinstance(facts.rights, Unknown):
        raise ArrakisError(
            f"cannot tell as whom to create a schema: {facts.rights.reason}", hint=facts.rights.hint
        )
    role, deployed = facts.rights.value.role, facts.rights.value.deployed
    acting = role.may_act and role.name != deployed
    return [try_creating(facts.fresh, role=deployed if acting else role.name, acting=acting)]


def _learn(facts: Facts, results: Fact[tuple[Result, ...]]) -> Facts:
    return replace(facts, tried=Known(results.value[0]) if isinstance(results, Known) else results)


RUNBOOK = Runbook(
    name="rb-sb-005",
    title="Schemas cannot be created",
    alarm=ALARM,
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
    outlook=outlook,
    trial=Trial(propose=_try, learn=_learn),
    page=Page(
        text=__doc__,
        reads=rights.OVERDUE | rights.SERVER | rights.KEYS,
        writes=taking(
            EndSession, GrantRight, Migrate, TryCreating, EnlargeStorage, CleanUp, DropSchema, EnableRule
        ),
        examples=(
            ("rb-sb-005 --env production", "say what keeps schemas from being created; changes nothing"),
            (
                "rb-sb-005 --env production --probe",
                "also create a schema for real, time it, and drop it again; asks first",
            ),
            ("rb-sb-005 --env production --apply", "propose what mends it, and apply it once confirmed"),
        ),
        looks=page.LOOKS,
        thresholds=page.THRESHOLDS,
    ),
)
