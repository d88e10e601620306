"""Sandboxes that are over and have not gone: what is known of them, and of the job that should have taken them away.

RB-SB-001 and RB-SB-002 look at the same evidence and ask it different questions. Nothing here changes anything.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from diagnostics.alarms import Alarm, read_alarm
from diagnostics.compute import (
    Rule,
    Scheduled,
    Service,
    TaskDefinition,
    TaskRun,
    TaskTarget,
    read_definition,
    read_rule,
    read_service,
    read_tasks,
)
from diagnostics.grouping import ErrorGroup
from diagnostics.logs import JobRun, JobRuns, LogReport, read_errors, read_runs
from diagnostics.postgres import (
    AuditEntry,
    Connections,
    InTheWay,
    LockTable,
    connections,
    in_the_way,
    last_events,
    lock_table,
)
from diagnostics.reach import Reach, reach_postgres, reach_redis
from diagnostics.servers import Access, Cache, Instance, read_access, read_cache, read_instance
from diagnostics.stack import Stack
from runbooks.engine.systems import Readers
from sandbox import cleanup, registry, schemas
from sandbox.facts import Fact, Known, Unknown
from sandbox.facts import gather as gather_facts
from sandbox.model import Sandbox, Status
from sandbox.naming import same_sandbox
from sandbox.ports import APPLICATION, AwsReader, SqlSnapshot
from sandbox.schemas import Blocker

__all__ = ["GRACE", "Behind", "Database", "Evidence", "gather", "over"]

GRACE = timedelta(minutes=30)
"""Two runs of the clean-up job: what ended later than that is left to the next one."""

WINDOW = timedelta(hours=6)
"""How far back logs and metrics are read."""

# For as long as this toolkit and gaib may hold something before it is in the way.
_AT_WORK = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """A sandbox that is over and still there: since when, whether for longer than two runs of the job, what it has, and
    what was last written down about it.
    """

    row: Sandbox
    since: datetime
    late: bool
    schemas: tuple[str, ...]
    last: AuditEntry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """What the database says at one moment, its `now`: the rows, which are over, what this role may not drop, the limits."""

    now: datetime
    rows: tuple[Sandbox, ...]
    over: tuple[Behind, ...]
    not_ours: tuple[str, ...]
    connections: Connections
    locks: LockTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen. `now` is this host's clock, by which the logs and metrics were asked.

    `definitions` are those of what the schedule starts, by the name under which it does; None for that of which ECS starts nothing.
    """

    now: datetime
    stack: Stack
    alarm: Fact[Alarm | None]
    database: Fact[Database]
    blockers: Fact[tuple[Blocker, ...]]
    holders: Fact[tuple[InTheWay, ...]]
    postgres: Fact[Reach]
    redis: Fact[Reach]
    rule: Fact[Rule | None]
    definitions: Fact[Mapping[str, TaskDefinition | None]]
    tasks: Fact[tuple[TaskRun, ...]]
    service: Fact[Service | None]
    runs: Fact[JobRuns]
    errors: Fact[LogReport]
    instance: Fact[Instance]
    cache: Fact[Cache]
    postgres_access: Fact[Access]
    redis_access: Fact[Access]

    @property
    def over(self) -> tuple[Behind, ...]:
        """The sandboxes that are over and still there; none where the database does not tell."""
        return self.database.value.over if isinstance(self.database, Known) else ()

    @property
    def behind(self) -> tuple[Behind, ...]:
        """Those among them that should be gone by now: late ones, and younger ones that something is in the way of."""
        return tuple(each for each in self.over if each.late or self._in_trouble(each))

    @property
    def fresh(self) -> int:
        """How many of them are the job's next run's."""
        return len(self.over) - len(self.behind)

    @property
    def scheduled(self) -> tuple[Scheduled, ...]:
        """What the schedule starts, as far as that is known."""
        made = ((target, self._defined.get(target.definition)) for target in _targets(self.rule))
        return tuple((target, found) for target, found in made if found)

    @property
    def gone(self) -> tuple[str, ...]:
        """What the schedule is to start and cannot: definitions of which ECS starts nothing."""
        return tuple(name for name, found in self._defined.items() if found is None)

    @property
    def _defined(self) -> Mapping[str, TaskDefinition | None]:
        return self.definitions.value if isinstance(self.definitions, Known) else {}

    @property
    def groups(self) -> tuple[ErrorGroup, ...]:
        """The errors of the log, as far as it was read."""
        return self.errors.value.groups if isinstance(self.errors, Known) else ()

    @property
    def reported(self) -> tuple[JobRun, ...]:
        """The job's runs that said what they did, the oldest first, as far as the log was read."""
        return self.runs.value.runs if isinstance(self.runs, Known) else ()

    @property
    def last_task(self) -> TaskRun | None:
        """The clean-up's task that ended last, as far as ECS tells."""
        tasks = self.tasks.value if isinstance(self.tasks, Known) else ()
        return next((task for task in tasks if task.ended), None)

    def logged(self, each: Behind) -> tuple[ErrorGroup, ...]:
        """The errors of the log that name a sandbox, under whichever spelling of its id."""
        mine = str(each.row.id)
        return tuple(
            group for group in self.groups if any(same_sandbox(name, mine) for name in group.sandboxes)
        )

    def _ours_at_work(self, holder: InTheWay) -> bool:
        since = holder.transaction_since
        return holder.application == APPLICATION and since is not None and self.now - since < _AT_WORK

    def _in_trouble(self, each: Behind) -> bool:
        begun = each.row.status is Status.DESTROYING  # a moment ago: somebody is at it
        told = not begun and any(group.last >= each.since for group in self.logged(each))
        return told or bool(self.blocking(each) or self.holding(each))

    def blocking(self, each: Behind) -> tuple[Blocker, ...]:
        """What elsewhere rests on a sandbox's schemas."""
        found = self.blockers.value if isinstance(self.blockers, Known) else ()
        return tuple(blocker for blocker in found if blocker.schema in each.schemas)

    def holding(self, each: Behind) -> tuple[InTheWay, ...]:
        """Who holds or awaits a lock on a sandbox's schemas, or holds its row. This toolkit and gaib let go by themselves."""
        known = self.holders.value if isinstance(self.holders, Known) else ()
        found = [holder for holder in known if not self._ours_at_work(holder)]
        return tuple(
            holder for holder in found if holder.schema in each.schemas or holder.sandbox == each.row.id
        )


def gather(readers: Readers, *, now: datetime, deadline: float, stack: Stack, alarm: str) -> Evidence:
    """Read everything side by side; then what the schedule starts, and whether that is let in. Bounded by `deadline` s."""
    aws, begin = readers.aws, now - WINDOW
    budget = deadline * 0.55

    def blockers() -> tuple[Blocker, ...]:
        with readers.sql.snapshot() as snapshot:
            found = over(snapshot, registry.now(snapshot))
            return tuple(schemas.blockers(snapshot, [name for each in found for name in each.schemas]))

    def holders() -> tuple[InTheWay, ...]:
        with readers.sql.snapshot() as snapshot:
            found = over(snapshot, registry.now(snapshot))
            names, ids = [name for each in found for name in each.schemas], [each.row.id for each in found]
            return tuple(in_the_way(snapshot, names, sandboxes=ids, tag=readers.tag))

    probes = {
        "alarm": lambda: read_alarm(aws, suffix=alarm, prefix=stack.alarm_prefix, now=now, window=WINDOW),
        "database": lambda: _database(readers),
        "blockers": blockers,
        "holders": holders,
        "postgres": lambda: reach_postgres(readers.sql),
        "redis": lambda: reach_redis(readers.keys),
        "rule": lambda: read_rule(aws, stack.cleanup_rule),
        "tasks": lambda: read_tasks(aws, cluster=stack.cluster, family=stack.cleanup_family),
        "service": lambda: read_service(aws, cluster=stack.cluster, name=stack.worker_service),
        "runs": lambda: read_runs(aws, stack.cleanup_logs, begin=begin, end=now, budget=budget),
        "errors": lambda: read_errors(aws, stack.cleanup_logs, begin=begin, end=now, budget=budget),
        "instance": lambda: read_instance(aws, identifier=stack.database_instance, now=now, window=WINDOW),
        "cache": lambda: read_cache(aws, identifier=stack.cache, now=now, window=WINDOW),
    }
    seen = gather_facts(probes, deadline=deadline * 0.65)
    return Evidence(now=now, stack=stack, **seen, **_task(readers, seen, deadline=deadline * 0.35))


def _database(readers: Readers) -> Database:
    with readers.sql.snapshot() as snapshot:
        now = registry.now(snapshot)
        found = over(snapshot, now)
        return Database(
            now=now,
            rows=tuple(registry.roster(snapshot).rows),
            over=tuple(found),
            not_ours=tuple(schemas.not_ours(snapshot, [name for each in found for name in each.schemas])),
            connections=connections(snapshot),
            locks=lock_table(snapshot),
        )


def over(snapshot: SqlSnapshot, now: datetime) -> list[Behind]:
    """Return those that are over, that somebody began to destroy and left, and destroyed ones whose keys were left."""
    due = {row.id: row for row in cleanup.due_at(snapshot, now)}
    begun = registry.listing(snapshot, owner=None, statuses=[Status.DESTROYING])
    rows = {**{row.id: row for row in (*begun, *registry.unfinished(snapshot))}, **due}
    events: Mapping[UUID, AuditEntry] = last_events(snapshot, list(rows))
    owned = registry.owned_schemas(snapshot, schemas.names(snapshot)) if rows else {}
    found = [_seen(row, now, tuple(owned.get(row.id, ())), events.get(row.id)) for row in rows.values()]
    return sorted(found, key=lambda each: (each.since, each.row.name))


def _seen(row: Sandbox, now: datetime, names: tuple[str, ...], last: AuditEntry | None) -> Behind:
    """Since when it should be gone: its end, or the moment when somebody began to take it away or left it half made."""
    touched = last.at if last else row.created_at
    since = {
        Status.DESTROYED: row.destroyed_at,
        Status.DESTROYING: min(touched, row.expires_at or touched),
        Status.RUNNING: row.expires_at,
        Status.EXPIRED: row.expires_at,
    }.get(row.status)
    since = since or touched
    return Behind(row=row, since=since, late=now - since > GRACE, schemas=names, last=last)


def _task(readers: Readers, seen: Mapping[str, Any], *, deadline: float) -> dict[str, Any]:
    """What the clean-up's task is made of, and whether it may reach the servers, by their security groups."""
    rule: Fact[Rule | None] = seen["rule"]
    targets, servers = _targets(rule), {"postgres_access": seen["instance"], "redis_access": seen["cache"]}
    names = {target.definition for target in targets}
    groups = [group for target in targets for group in target.security_groups]
    asked: dict[str, Callable[[], Any]] = {
        name: partial(_access, readers.aws, fact.value, groups)
        for name, fact in servers.items()
        if isinstance(fact, Known) and groups
    }
    asked["definitions"] = lambda: {name: read_definition(readers.aws, name) for name in sorted(names)}
    unasked = Unknown("the server or the task's network is not known")
    found = {**dict.fromkeys(servers, unasked), **gather_facts(asked, deadline=deadline)}
    return {**found, "definitions": rule} if isinstance(rule, Unknown) else found


def _access(aws: AwsReader, server: Instance | Cache, groups: Sequence[str]) -> Access:
    return read_access(aws, server_groups=server.security_groups, port=server.port, task_groups=groups)


def _targets(rule: Fact[Rule | None]) -> tuple[TaskTarget, ...]:
    return rule.value.targets if isinstance(rule, Known) and rule.value else ()
