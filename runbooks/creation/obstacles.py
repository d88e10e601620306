"""Why schemas cannot be created: the causes that were seen for themselves, the one that explains the others first. Pure.

A server that does not answer explains everything; then one that takes no writes, or has no room. Short connections explain a
pool's queue, and sessions idle in a transaction may explain both. Missing objects and rights come last: nothing hides them.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from diagnostics import causes
from diagnostics.causes import Probe
from diagnostics.migration import SEE_OBJECTS
from diagnostics.pooler import SEE_POOLS
from diagnostics.postgres import SEE_CONNECTIONS, SEE_SESSIONS, ConnectionGroup
from diagnostics.reach import SEE_POSTGRES
from diagnostics.rights import SEE_RIGHTS
from diagnostics.servers import SEE_INSTANCE
from diagnostics.sessions import SEE_WAITING, Session
from runbooks import probing
from runbooks.creation.evidence import Facts
from runbooks.creation.suspicions import met, unsettled
from runbooks.engine.model import Finding, Phase, Severity
from runbooks.findings import cause, span
from runbooks.logged import SEE_LOG
from runbooks.probing import Answer, part
from runbooks.remedies.storage import enlarged, settles_until
from sandbox.facts import Known
from sandbox.text import counted

__all__ = ["SEE_TRIAL", "SEE_WRITES", "confirmed_causes", "held_span", "storage_is_full"]

SEE_TRIAL = (
    "psql -c 'BEGIN' -c \"SELECT public.create_sandbox_schema(gen_random_uuid()::text)\" -c 'ROLLBACK'"
    "  # as the deployed system's role"
)

_SHOWN = 4
SEE_WRITES = 'psql -c "SELECT pg_is_in_recovery()" -c "SHOW default_transaction_read_only"  # any role'

Obstacle = tuple[Probe, Finding]


def confirmed_causes(facts: Facts) -> list[Finding]:
    """Return the causes, or that none was found where schemas are known to fail; nothing where they do not."""
    dead = probing.dead_server("PostgreSQL", facts.postgres, source=SEE_POSTGRES)
    found: list[Obstacle] = [(Probe.POSTGRES, finding) for finding in dead]
    for look in (_read_only, _storage, _connections, _pools, _blocked, _missing, _denied, _lock_table):
        found += look(facts)
    if isinstance(facts.instance, Known) and facts.instance.value.status == "storage-full":
        found.sort(key=lambda obstacle: obstacle[0] is not Probe.DISK)  # RDS stops the server for it
    found = _tried(facts, {probe for probe, _ in found}) + found
    return [finding for _, finding in found] or _not_found(facts)


def held_span(sessions: Sequence[Session], facts: Facts) -> str:
    """Say for how long sessions have been idle in their transactions, from the shortest to the longest."""
    assert isinstance(facts.database, Known)  # it told of them
    idle = sorted(each.idle_for(facts.database.value.now) for each in sessions)
    return span(idle[0]) if len(idle) == 1 else f"{span(idle[0])} to {span(idle[-1])}"


def _read_only(facts: Facts) -> list[Obstacle]:
    if not isinstance(facts.rights, Known):
        return []
    role = facts.rights.value.role
    if not role.recovering and not role.read_only:
        return []
    what = "this server is a replica" if role.recovering else "the server, or this role, is set to read only"
    details = [
        "after a failover the address may still lead to the old server: where does DATABASE_URL's name lead?"
    ]
    return [
        (Probe.POSTGRES, cause(f"PostgreSQL takes no writes: {what}", details=details, source=SEE_WRITES))
    ]


def storage_is_full(facts: Facts) -> bool:
    """Whether the storage is full by its status; or nearly, and something has failed for it."""
    if not facts.short_of_storage or not isinstance(facts.instance, Known):
        return False
    return facts.instance.value.status == "storage-full" or met(facts, "disk-full")


def _storage(facts: Facts) -> list[Obstacle]:
    if not storage_is_full(facts) or not isinstance(facts.instance, Known):
        return []
    seen = facts.instance.value
    left = f"{seen.status}, and how much of {seen.storage_gib} GiB is left is not known"
    if seen.storage_left is not None:
        left = f"{seen.storage_left / 2**30:.1f} of {seen.storage_gib} GiB are left"
    sizes = facts.sizes.value if isinstance(facts.sizes, Known) else ()
    details = [f"{size.name} takes {size.bytes / 2**20:.1f} MiB" for size in sizes[:_SHOWN]]
    source = SEE_INSTANCE.format(identifier=seen.identifier)
    found = cause(f"the database's storage is full: {left}", details=details, source=source)
    until = settles_until(seen)
    if seen.storage_left is not None and not seen.pending_gib and not (until and until > facts.now):
        by_hand = [
            "where PostgreSQL takes no writes, no run can be begun: then by hand, for good",
            f"aws rds modify-db-instance --db-instance-identifier {seen.identifier} "
            f"--allocated-storage {enlarged(seen.storage_gib, seen.storage_left)} --apply-immediately",
        ]
        found = replace(found, evidence={**found.evidence, "drawn": by_hand})
    return [(Probe.DISK, found)]


def _connections(facts: Facts) -> list[Obstacle]:
    if not facts.short_of_connections or not isinstance(facts.database, Known):
        return []
    seen, full = facts.database.value.connections, facts.full_quotas
    groups = [group for group in seen.groups if not full or _of_quotas(group, facts)]
    if full:
        what = "; ".join(f"{each.kind} {each.name} has all {each.most} that it may have" for each in full)
    else:
        what = f"{seen.used} of {seen.limit} are used, and {seen.reserved} are kept for superusers"
    idle = [each for each in facts.idle if facts.why_held(each)]
    if idle:
        what += f"; {len(idle)} are idle in a transaction, for {held_span(idle, facts)}"
    details = [group.told for group in groups[:_SHOWN]]
    details += [f"and {len(groups) - _SHOWN} more kinds"] if len(groups) > _SHOWN else []
    if not idle and groups:
        most = groups[0].application or groups[0].user
        details.append(f"{most} has the most: does it give its connections back?")
        details.append(
            f"none is ended from here, as a pool opens them anew: restart {most}, which frees them"
        )
    return [
        (
            Probe.CONNECTIONS,
            cause(f"no connections are left: {what}", details=details, source=SEE_CONNECTIONS),
        )
    ]


def _pools(facts: Facts) -> list[Obstacle]:
    """A pooler that has no connection left, where PostgreSQL has: otherwise its queue is a symptom."""
    if facts.short_of_connections or not isinstance(facts.pooler, Known) or facts.pooler.value is None:
        return []
    pooler, found = facts.pooler.value, list[Obstacle]()
    if pooler.full:
        what = f"PgBouncer takes no more clients: {pooler.clients} of {pooler.most_clients}"
        found.append(
            (Probe.POSTGRES, cause(what, details=["max_client_conn in pgbouncer.ini"], source=SEE_POOLS))
        )
    for pool in facts.exhausted_pools:
        idle = [each for each in facts.idle if (each.database, each.user) == (pool.database, pool.user)]
        size = f" of {pool.size}" if pool.size else ""
        what = (
            f"PgBouncer's pool of {pool.user} on {pool.database} is used up: {pool.busy}{size} connections are busy, "
            f"{counted(pool.waiting, 'client waits', 'clients wait')}, the first for {pool.longest_wait.total_seconds():.0f} s"
        )
        if idle:
            what += f"; {len(idle)} are idle in a transaction, for {held_span(idle, facts)}"
        found.append((Probe.CONNECTIONS, cause(what, source=SEE_POOLS)))
    return found


def _blocked(facts: Facts) -> list[Obstacle]:
    found = []
    for tree in facts.blocking:
        session = tree.session
        if session is None:
            who, details = "a prepared transaction", ["pg_prepared_xacts names it; ROLLBACK PREPARED ends it"]
        else:
            assert isinstance(facts.database, Known)
            since = session.transaction_since
            age = f" for {_age(facts.database.value.now - since)}" if since else ""
            who = f"session {tree.pid} of {session.user} ({session.application or 'no name'}, {session.state}{age})"
            details = [
                f"it ran: {session.query}",
                f"ask {session.user} first; rb-sb-006 draws who waits, and ends it",
            ]
        others = counted(tree.behind, "other waits", "others wait")
        what = f"{who} holds what {others} for"
        found.append((Probe.LOCKS, cause(what, details=details, source=SEE_WAITING)))
    return found


def _missing(facts: Facts) -> list[Obstacle]:
    fatal = [fault for fault in facts.faults if fault.fatal]
    if not fatal:
        return []
    names = ", ".join(f"{fault.kind} public.{fault.name}" for fault in fatal[:_SHOWN])
    more = f" and {len(fatal) - _SHOWN} more" if len(fatal) > _SHOWN else ""
    details = ["the migration was not run here, or somebody dropped it; is it the right database?"]
    what = f"what creating a schema takes is missing: {names}{more}"
    return [(Probe.MIGRATION, cause(what, details=details, source=SEE_OBJECTS))]


def _denied(facts: Facts) -> list[Obstacle]:
    if not facts.lacking:
        return []
    told = ", ".join(f"{right.privilege} on {right.kind} {right.name}" for right in facts.lacking[:_SHOWN])
    more = f" and {len(facts.lacking) - _SHOWN} more" if len(facts.lacking) > _SHOWN else ""
    details = [f"{right.statement};  -- by {right.owner}" for right in facts.lacking[:_SHOWN]]
    what = f"{facts.lacking[0].role} lacks {told}{more}"
    return [(Probe.RIGHTS, cause(what, details=details, source=SEE_RIGHTS))]


def _lock_table(facts: Facts) -> list[Obstacle]:
    """A table of locks that is nearly full, and something has failed for it: its room is not to be told exactly."""
    answer, why = probing.by_lock_table(part(facts.database, lambda database: database.locks))
    if answer is not Answer.CONFIRMED or not met(facts, "lock-table-full"):
        return []
    known = causes.named("lock-table-full")
    details = [f"means: {known.meaning}", f"check: {known.check}"]
    return [(Probe.LOCK_TABLE, cause(f"{known.title}: {why}", details=details, source=SEE_SESSIONS))]


def _tried(facts: Facts, known: set[Probe]) -> list[Obstacle]:
    """What the trial met: the best evidence there is, unless its cause was seen already."""
    if not isinstance(facts.tried, Known) or facts.tried.value.phase is not Phase.FAILED:
        return []
    reason = facts.tried.value.reason
    named = causes.match(reason)
    if named is not None and named.probe in known:
        return []
    details = [reason, *([f"means: {named.meaning}", f"check: {named.check}"] if named else ())]
    details += [
        f"function public.{fault.name}: {fault.told}" for fault in facts.faults if fault.kind == "function"
    ]
    what = f"creating a schema fails: {named.title if named else reason}"
    return [(named.probe if named else Probe.MIGRATION, cause(what, details=details, source=SEE_TRIAL))]


def _not_found(facts: Facts) -> list[Finding]:
    """Schemas have failed, and nothing that was looked at says why."""
    left = unsettled(facts)
    if not left:
        return []
    count = sum(group.count for group in left)
    summary = f"cause not found: {counted(count, 'error was', 'errors were')} logged, and nothing seen here says why; --probe tries it for real"
    source = SEE_LOG.format(name=facts.stack.api_logs)
    return [Finding(check="cause", severity=Severity.WARNING, summary=summary, source=source)]


def _of_quotas(group: ConnectionGroup, facts: Facts) -> bool:
    return any(quota.kind == "database" or quota.name == group.user for quota in facts.full_quotas)


def _age(age: timedelta) -> str:
    return span(age) if age >= timedelta(minutes=1) else f"{age.total_seconds():.0f} s"
