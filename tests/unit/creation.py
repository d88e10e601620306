"""A database in which schemas can be created, to be broken piece by piece."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from diagnostics.alarms import Alarm
from diagnostics.migration import Fault, What, parts
from diagnostics.pooler import Pool, Pooler
from diagnostics.postgres import ConnectionGroup, Connections, LockTable, Quota
from diagnostics.reach import Reach
from diagnostics.rights import Function, Right, Rights, Role
from diagnostics.servers import Instance
from diagnostics.sessions import Session
from diagnostics.stack import Stack
from diagnostics.storage import Catalog, Wal
from runbooks.creation.evidence import ALARM, Database, Facts
from runbooks.engine.model import Phase
from runbooks.engine.work import Result
from runbooks.remedies.database import try_creating
from sandbox.facts import Known
from tests.unit.evidence import NOW, log

__all__ = [
    "APP",
    "CREATE",
    "alarm",
    "database",
    "facts",
    "instance",
    "missing",
    "pool",
    "right",
    "rights",
    "session",
    "tried",
]

APP, CREATE = "arrakis_app", "create_sandbox_schema(p_sandbox_id text)"


def session(pid: int, *, idle: float = 0, **changes: Any) -> Session:
    """Return a session of the API that runs a statement, or has been idle in its transaction for so many minutes."""
    since = NOW - timedelta(minutes=idle)
    fields: dict[str, Any] = {
        "pid": pid,
        "user": APP,
        "database": "arrakis",
        "application": "arrakis-api",
        "client": "10.0.1.9",
        "state": "idle in transaction" if idle else "active",
        "waits_for": "",
        "backend_start": since - timedelta(minutes=1),
        "transaction_since": since,
        "statement_since": since,
        "since": since,
        "query": "SELECT create_sandbox_schema($1)",
        "superuser": False,
        "ours": False,
        "may_signal": True,
    }
    return Session(**{**fields, **changes})


def database(
    *sessions: Session, used: int = 10, quotas: tuple[Quota, ...] = (), **changes: Any
) -> Known[Database]:
    """Return a server with these sessions."""
    groups = (ConnectionGroup(application="arrakis-api", user=APP, state="idle", count=used),)
    told = Database(
        now=NOW,
        connections=Connections(used=used, limit=100, reserved=3, groups=groups, quotas=quotas),
        sessions=sessions,
        locks=LockTable(used=40, room=6400),
        catalog=Catalog(schemas=12, in_sandboxes=180, relations=700, bytes=400_000),
    )
    return Known(replace(told, **changes))


def right(*, held: bool = False, may_grant: bool = True, role: str = APP) -> Right:
    """Return the right to create schemas, which is lacking."""
    return Right(
        role=role,
        privilege="CREATE",
        kind="database",
        name="arrakis",
        owner="lab",
        held=held,
        may_grant=may_grant,
        statement=f"GRANT CREATE ON DATABASE arrakis TO {role}",
        taking=f"REVOKE CREATE ON DATABASE arrakis FROM {role}",
    )


def rights(*lacking: Right, **changes: Any) -> Known[Rights]:
    """Return rights of which these are lacking; the changes are of the role that asks."""
    role = Role(
        name="lab",
        database="arrakis",
        superuser=False,
        recovering=False,
        read_only=False,
        may_migrate=True,
        deployed_exists=True,
        may_act=True,
    )
    functions = (Function(name="create_sandbox_schema", owner="lab", definer=False),)
    held = lacking or (right(held=True),)
    return Known(Rights(role=replace(role, **changes), deployed=APP, rights=held, functions=functions))


def missing(*names: str) -> Known[tuple[Fault, ...]]:
    """Return objects of the migration that are missing altogether."""
    found = [part for part in parts() if part.name in names]
    assert len(found) == len(names)
    return Known(
        tuple(
            Fault(kind=part.kind, name=part.name, what=What.MISSING, told="it does not exist", part=part)
            for part in found
        )
    )


def instance(**changes: Any) -> Known[Instance]:
    """Return the RDS instance, of whose 100 GiB half is left."""
    seen = Instance(
        identifier="arrakis-lab",
        status="available",
        engine="postgres",
        version="15.8",
        address="db",
        port=5432,
        storage_gib=100,
        storage_left=50.0 * 2**30,
        connections=12.0,
        events=(),
        security_groups=("sg-db",),
    )
    return Known(replace(seen, **changes))


def pool(**changes: Any) -> Known[Pooler]:
    """Return a PgBouncer with one pool, in which nobody waits."""
    seen = Pool(
        database="arrakis",
        user=APP,
        mode="transaction",
        clients=3,
        waiting=0,
        busy=1,
        idle=2,
        longest_wait=timedelta(0),
        size=20,
    )
    return Known(Pooler(pools=(replace(seen, **changes),), clients=4, most_clients=200))


def alarm(state: str = "OK") -> Known[Alarm | None]:
    """Return the alarm."""
    points = ((NOW, 5.0 if state == "ALARM" else 0.0),)
    return Known(
        Alarm(name=ALARM, state=state, reason="", since=None, threshold=3, period=300, points=points)
    )


def tried(reason: str, phase: Phase | None = Phase.DONE) -> Known[Result]:
    """Return what became of a trial."""
    action = try_creating(UUID(int=7), role=APP, acting=True)
    return Known(Result(action=action, phase=phase, reason=reason, settled=phase is Phase.DONE))


def facts(**changes: Any) -> Facts:
    """Return facts in which nothing is wrong, but for the changes."""
    seen = Facts(
        now=NOW,
        stack=Stack(),
        fresh=UUID(int=7),
        alarm=alarm(),
        instance=instance(),
        api=log(),
        worker=log(),
        postgres=Known(Reach(system="PostgreSQL", host="db:5432", connected_ms=1, answered_ms=2)),
        database=database(),
        rights=rights(),
        objects=Known(()),
        created=Known(None),
        pooler=Known(None),
        sizes=Known(()),
        dead=Known(()),
        wal=Known(Wal(files=3, bytes=48 * 2**20)),
        slots=Known(()),
        holders=Known(()),
    )
    return replace(seen, **changes)
