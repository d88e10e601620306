"""A clean-up that works, to be broken piece by piece."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from diagnostics.alarms import Alarm
from diagnostics.causes import match
from diagnostics.compute import Deployment, Rule, Service, TaskDefinition, TaskRun, TaskTarget
from diagnostics.grouping import ErrorGroup
from diagnostics.logs import JobRun, JobRuns, LogReport
from diagnostics.postgres import Connections, InTheWay, LockTable
from diagnostics.reach import Reach
from diagnostics.servers import Access, Cache, Instance
from diagnostics.stack import Stack
from runbooks.overdue.evidence import GRACE, Behind, Database, Evidence
from sandbox.facts import Known, Unknown
from sandbox.model import Sandbox, Status
from sandbox.schemas import Blocker

__all__ = [
    "NOW",
    "alarm",
    "behind",
    "blocker",
    "database",
    "group",
    "healthy",
    "holder",
    "live_rows",
    "log",
    "row",
    "runs",
    "service",
    "task",
    "unknown",
]

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_STACK = Stack(escalation="Leto")
_TARGET = TaskTarget(
    cluster="arrakis",
    task_definition="arrakis-sandbox-cleanup:7",
    launch_type="FARGATE",
    network={"awsvpcConfiguration": {"securityGroups": ["sg-task"]}},
    count=1,
    capacity=(),
    overrides={},
)
_ROLE = "arn:aws:iam::123456789012:role/"
DEFINITION = TaskDefinition(
    arn="arn:aws:ecs:eu-central-1:123456789012:task-definition/arrakis-sandbox-cleanup:7",
    containers=({"name": "job", "environment": []},),
    roles={"taskRoleArn": f"{_ROLE}cleanup", "executionRoleArn": f"{_ROLE}execution"},
)
_DEPLOYMENT = Deployment(
    id="ecs-svc/1",
    status="PRIMARY",
    rollout="COMPLETED",
    desired=2,
    running=2,
    pending=0,
    failed=0,
    definition="arrakis-worker:3",
)


def row(number: int, status: Status = Status.RUNNING, **changes: Any) -> Sandbox:
    """Return the sandbox of a number: created a day ago, to end in a day, owned by one of many."""
    fields: dict[str, Any] = {
        "id": UUID(int=number),
        "name": f"box-{number}",
        "owner": f"owner-{number}",
        "status": status,
        "schema_name": f"sandbox_{UUID(int=number)}",
        "created_at": NOW - timedelta(days=1),
        "expires_at": NOW + timedelta(days=1),
    }
    return Sandbox(**{**fields, **changes})


def live_rows(count: int, **changes: Any) -> tuple[Sandbox, ...]:
    """Return as many running sandboxes."""
    return tuple(row(number, **changes) for number in range(1, count + 1))


def behind(number: int = 7, *, late: timedelta = timedelta(hours=2), **changes: Any) -> Behind:
    """Return a sandbox that has been over for so long, and is still there."""
    fields: dict[str, Any] = {"status": Status.EXPIRED, "expires_at": NOW - late}
    found = row(number, **{**fields, **changes})
    names = (f"sandbox_{found.id}",)
    return Behind(row=found, since=NOW - late, late=late > GRACE, schemas=names, last=None)


def database(
    *late: Behind,
    rows: tuple[Sandbox, ...] = (),
    used: int = 10,
    not_ours: tuple[str, ...] = (),
    locks: int = 40,
) -> Known[Database]:
    """Return what the database says with these behind."""
    told = Database(
        now=NOW,
        rows=(*(rows or live_rows(3)), *(each.row for each in late)),
        over=late,
        not_ours=not_ours,
        connections=Connections(used=used, limit=100, reserved=3, groups=()),
        locks=LockTable(used=locks, room=6400),
    )
    return Known(told)


def blocker(each: Behind, name: str = "reporting.overview", **changes: Any) -> Blocker:
    """Return a view that rests on a sandbox's schema."""
    fields: dict[str, Any] = {
        "schema": each.schemas[0],
        "kind": "view",
        "place": "reporting",
        "name": name,
        "described": f"view {name}",
        "statement": f"DROP VIEW {name};",
        "definition": f"CREATE VIEW {name} AS SELECT 1",
    }
    return Blocker(**{**fields, **changes})


def holder(each: Behind) -> InTheWay:
    """Return a session that holds a sandbox's schema."""
    return InTheWay(
        schema=each.schemas[0],
        pid=4711,
        user="ada",
        application="psql",
        state="idle in transaction",
        how="holds AccessShareLock",
        since=NOW - timedelta(minutes=20),
        transaction_since=NOW - timedelta(minutes=21),
        backend_start=NOW - timedelta(hours=1),
        query="SELECT * FROM profiles",
        statement="SELECT pg_terminate_backend(4711)",
    )


def task(exit_code: int | None = 0, *, status: str = "STOPPED", **changes: Any) -> TaskRun:
    """Return a run of the clean-up's task that has ended, by default well."""
    fields: dict[str, Any] = {
        "id": "task-1",
        "status": status,
        "started_by": "events-rule/arrakis-sandbox-cleanup",
        "created_at": NOW - timedelta(minutes=10),
        "started_at": NOW - timedelta(minutes=10),
        "stopped_at": NOW - timedelta(minutes=9),
        "stop_code": "EssentialContainerExited",
        "reason": "Essential container in task exited",
        "exits": (("sandbox-cleanup", exit_code),),
        "definition": "arrakis-sandbox-cleanup:7",
    }
    return TaskRun(**{**fields, **changes})


def service(**changes: Any) -> Service:
    """Return the workers, of which as many run as should."""
    fields: dict[str, Any] = {
        "name": _STACK.worker_service,
        "status": "ACTIVE",
        "desired": 2,
        "running": 2,
        "pending": 0,
        "deployments": (_DEPLOYMENT,),
        "events": ((NOW, "(service arrakis-worker) has reached a steady state."),),
        "security_groups": ("sg-task",),
        "definition": "arrakis-worker:3",
    }
    return Service(**{**fields, **changes})


def runs(*, last: timedelta = timedelta(minutes=10), failed: int = 0) -> Known[JobRuns]:
    """Return a job that runs every quarter of an hour, and ran last so long ago."""
    starts = tuple(NOW - last - timedelta(minutes=15) * number for number in range(8, -1, -1))
    ended = tuple(JobRun(at=at, cleaned=1, failed=failed, seconds=2.0) for at in starts)
    return Known(JobRuns(**_read(), starts=starts, runs=ended))


def group(text: str, *, ago: timedelta = timedelta(minutes=5), **changes: Any) -> ErrorGroup:
    """Return a kind of error that was logged three times, the last time so long ago."""
    fields: dict[str, Any] = {
        "fingerprint": text,
        "count": 3,
        "first": NOW - timedelta(hours=1),
        "last": NOW - ago,
        "sample": text,
        "component": "CleanupProvider",
        "cause": match(text),
        "sandboxes": (),
        "steps": (),
        "histogram": (0, 1, 2),
    }
    return ErrorGroup(**{**fields, **changes})


def log(*groups: ErrorGroup, complete: bool = True) -> Known[LogReport]:
    """Return a log in which these errors are."""
    told = LogReport(
        **_read(complete=complete),
        lines=100,
        errors=sum(each.count for each in groups),
        groups=groups,
    )
    return Known(told)


def _read(*, complete: bool = True) -> dict[str, Any]:
    return {
        "log_group": _STACK.cleanup_logs,
        "begin": NOW - timedelta(hours=3),
        "end": NOW,
        "covered_from": NOW - timedelta(hours=3 if complete else 1),
        "stopped": "" if complete else "time budget of 5 s is used up",
    }


def unknown(reason: str = "no answer within 7 s") -> Unknown:
    """Return a source that did not answer."""
    return Unknown(reason)


def target(**changes: Any) -> TaskTarget:
    """Return how the clean-up's task is started by its schedule, but for the changes."""
    return replace(_TARGET, **changes)


def alarm() -> Alarm:
    """Return an alarm that is well."""
    return Alarm(name="x", state="OK", reason="", since=None, threshold=100, period=300, points=((NOW, 3.0),))


def healthy(**changes: Any) -> Evidence:
    """Return evidence in which nothing is wrong, but for the changes."""
    access = Known(Access(allowed=True, how="sg-db lets sg-task in at port 5432"))
    seen = Evidence(
        now=NOW,
        stack=_STACK,
        alarm=Known(alarm()),
        database=database(),
        blockers=Known(()),
        holders=Known(()),
        postgres=Known(Reach(system="PostgreSQL", host="db:5432", connected_ms=1, answered_ms=2)),
        redis=Known(Reach(system="Redis", host="redis:6379", connected_ms=1, answered_ms=2)),
        rule=Known(
            Rule(name=_STACK.cleanup_rule, enabled=True, schedule="rate(15 minutes)", targets=(_TARGET,))
        ),
        definitions=Known({_TARGET.definition: DEFINITION}),
        tasks=Known((task(),)),
        service=Known(service()),
        runs=runs(),
        errors=log(),
        instance=Known(
            Instance(
                identifier="arrakis",
                status="available",
                engine="postgres",
                version="15.8",
                address="db",
                port=5432,
                storage_gib=20,
                storage_left=10.0 * 2**30,
                connections=12.0,
                events=(),
                security_groups=("sg-db",),
            )
        ),
        cache=Known(
            Cache(
                identifier="arrakis",
                status="available",
                members=("arrakis-001",),
                address="redis",
                port=6379,
                events=(),
                security_groups=("sg-redis",),
                memory_used_percent=20.0,
            )
        ),
        postgres_access=access,
        redis_access=access,
    )
    return replace(seen, **changes)
