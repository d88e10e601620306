"""What each verb of every procedure is there for, laid out on real servers, with the actions that its procedure proposes."""

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import psycopg

from diagnostics.indexes import EXPECTED, read_tables
from diagnostics.migration import parts
from diagnostics.rights import read_rights
from diagnostics.servers import read_instance
from diagnostics.sessions import Session, read_sessions
from diagnostics.stack import Stack
from diagnostics.upkeep import read_upkeep
from lab.names import APP, INSTANCE
from runbooks.catalogue import RUNBOOKS
from runbooks.engine.model import Action
from runbooks.rb_sb_004 import try_canary
from runbooks.remedies.database import grant_right, migrate, try_creating
from runbooks.remedies.indexes import analyze_table, create_index
from runbooks.remedies.maintenance import vacuum_table
from runbooks.remedies.sessions import Why, cancel_query, end_session
from runbooks.remedies.storage import SETTLING, enlarge_storage
from sandbox.ports import SqlSnapshot
from tests.proof.ground import Ground
from tests.waiting import eventually

__all__ = ["TROUBLES", "Trouble"]

ONE, TWO, STRAY, OTHER = (UUID(int=number, version=4) for number in (1 << 96, 2 << 96, 3 << 96, 4 << 96))
LONG_AGO = "20200101000000"
GUILDS = ("101", "102")
SECONDS = 20.0
_LOCK = "LOCK public.spice IN EXCLUSIVE MODE"  # whoever looks at it afterwards is not held up


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What a procedure mends by these verbs. `lay_out` makes it, and returns the actions that mend it.

    `again`: what is interrupted begins anew, so that the witness may see its steps twice; nothing is lost by that.
    `account`: it is in AWS.
    """

    procedure: str
    verbs: frozenset[str]
    lay_out: Callable[[Ground], Sequence[Action]]
    again: bool = False
    account: bool = False


def proposed(ground: Ground, procedure: str, *verbs: str, about: Any = None, **options: Any) -> list[Action]:
    """Return the actions of these verbs that a procedure proposes now, all of them where none is named."""
    runbook = RUNBOOKS[procedure]
    facts = runbook.gather(
        ground.read, now=datetime.now(UTC), deadline=SECONDS, stack=Stack(), **(about or {})
    )
    actions, left = runbook.propose(facts, **options)
    found = [each for each in actions if not verbs or each.verb in verbs]
    assert found, left
    return found


def orphans(ground: Ground, *verbs: str, drop: bool = False) -> list[Action]:
    ground.schema(f"sandbox_{STRAY}")
    ground.keys(f"sandbox:{STRAY}")
    ground.box(ONE)
    ground.begin()
    return proposed(ground, "rb-sb-003", *verbs, drop=drop)


def parked(ground: Ground) -> list[Action]:
    ground.schema(f"quarantine_{LONG_AGO}_{STRAY}")
    ground.keys(f"quarantine:{LONG_AGO}:sandbox:{STRAY}")
    ground.box(ONE)
    ground.begin()
    return proposed(ground, "purge-quarantine")


def overdue(ground: Ground, procedure: str, *verbs: str, **options: Any) -> list[Action]:
    ground.box(ONE, hours=-1, guilds=GUILDS)
    ground.box(TWO)
    return proposed(ground, procedure, *verbs, **options)


def many(ground: Ground) -> list[Action]:
    ground.box(OTHER, status="expired", hours=-2)
    ground.schema(f"sandbox_{STRAY}")
    ground.keys(f"sandbox:{STRAY}")
    return overdue(ground, "mass-cleanup")


def viewed(ground: Ground) -> list[Action]:
    ground.box(ONE, hours=-1)
    ground.world.sql.execute(
        f'CREATE SCHEMA reporting; CREATE VIEW reporting.overview AS SELECT id FROM "sandbox_{ONE}".kept'.encode()
    )
    return proposed(ground, "rb-sb-002", objects=["reporting.overview"])


def unscheduled(ground: Ground) -> list[Action]:
    ground.production.switch(False)
    return proposed(ground, "rb-sb-001", "enable rule")


def misrouted(ground: Ground) -> list[Action]:
    ground.streams()
    ground.box(ONE, guilds=GUILDS)
    ground.world.redis.set("sandbox:route:101", str(OTHER), px=600_000)
    return proposed(ground, "rb-sb-004", "delete route")


def streamless(ground: Ground) -> list[Action]:
    ground.streams().delete_stream("SANDBOX")
    return proposed(ground, "rb-sb-004", "create stream", "create consumer")


def drifted(ground: Ground) -> list[Action]:
    ground.streams().change_stream("SANDBOX", {"subjects": ("sandbox.a.>", "other.>"), "max_msgs": 20})
    return proposed(ground, "rb-sb-004", "correct stream")


def untried(ground: Ground) -> list[Action]:
    ground.streams()
    ground.box(ONE, guilds=GUILDS)
    gathered = RUNBOOKS["rb-sb-004"].gather(
        ground.read, now=datetime.now(UTC), deadline=SECONDS, stack=Stack(), guild=GUILDS[0]
    )
    return try_canary(gathered)


def unserved(ground: Ground) -> list[Action]:
    ground.streams()
    return proposed(ground, "rb-sb-004", "restart service")


def looked(ground: Ground, look: Callable[[SqlSnapshot], Any]) -> Any:
    with ground.read.sql.snapshot() as snapshot:
        return look(snapshot)


def ungranted(ground: Ground) -> list[Action]:
    ground.world.sql.execute(
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {APP}; REVOKE ALL ON DATABASE arrakis FROM {APP}".encode()
    )
    seen = looked(ground, lambda snapshot: read_rights(snapshot, deployed=APP))
    return [grant_right(right, deployed=APP, reason="it is lacking") for right in seen.lacking(APP)[:2]]


def unmigrated(ground: Ground) -> list[Action]:
    ground.world.sql.execute(
        b"DROP TABLE sandbox_guild_mapping; DROP FUNCTION create_sandbox_schema(text); DROP INDEX idx_sandboxes_owner"
    )
    gone = ("sandbox_guild_mapping", "create_sandbox_schema(text)", "idx_sandboxes_owner")
    return [migrate(part, reason="it does not exist") for part in parts() if part.name in gone]


def unsure(_: Ground) -> list[Action]:
    return [try_creating(STRAY, role=APP, acting=False)]


def unindexed(ground: Ground) -> list[Action]:
    ground.box(ONE)
    ground.world.sql.execute("DROP INDEX idx_sandboxes_owner")
    return [create_index(EXPECTED["idx_sandboxes_owner"], leftover=False, reason="it is missing")]


def unanalyzed(ground: Ground) -> list[Action]:
    ground.box(ONE)
    tables = looked(ground, read_tables)
    return [analyze_table(each, reason="stale") for each in tables if each.name == "sandboxes"]


def unvacuumed(ground: Ground) -> list[Action]:
    ground.box(ONE)
    return [vacuum_table(looked(ground, read_upkeep)["sandboxes"], reason="dead rows")]


def old(ground: Ground, *, archived: bool) -> list[Action]:
    ground.box(ONE)
    ground.world.sql.execute(
        "INSERT INTO sandbox_audit_log (id, sandbox_id, event_type, actor, created_at)"
        " SELECT md5(n::text)::uuid, %s, 'status_changed', 'chani', now() - n * interval '100 days' FROM generate_series(1, 3) AS n",
        (ONE,),
    )
    archive = str(ground.shelf) if archived else ""
    return proposed(ground, "database-maintenance", "trim audit log", about={"archive": archive})


def small(ground: Ground) -> list[Action]:
    instance = read_instance(ground.read.aws, identifier=INSTANCE, now=datetime.now(UTC), window=SETTLING)
    return [enlarge_storage(instance, 120, reason="little is left")]


def session_of(ground: Ground, client: psycopg.Connection[Any]) -> Session:
    found = looked(ground, lambda snapshot: read_sessions(snapshot, tag="tests:proof"))
    session: Session = next(each for each in found if each.pid == client.info.backend_pid)
    return session


def connected(ground: Ground) -> psycopg.Connection[Any]:
    url = ground.world.env["DATABASE_URL"].replace("lab@", f"{APP}@")
    return ground.sessions.enter_context(closing(psycopg.connect(url, options="-c lock_timeout=30s")))


def spiced(ground: Ground) -> psycopg.Connection[Any]:
    ground.world.sql.execute(
        f"CREATE TABLE public.spice (id int); GRANT ALL ON public.spice TO {APP}".encode()
    )
    client = connected(ground)
    client.execute(_LOCK)
    return client


def idle(ground: Ground) -> list[Action]:
    return [end_session(session_of(ground, spiced(ground)), reason="it is idle", why=Why.IDLE)]


def blocking(ground: Ground) -> list[Action]:
    holder, waiter = spiced(ground), connected(ground)
    for client, query in ((holder, "SELECT pg_sleep(60)"), (waiter, _LOCK)):
        thread = threading.Thread(target=partial(_ask, client, query), daemon=True)
        thread.start()
        ground.sessions.callback(thread.join)
        ground.sessions.callback(client.cancel)
    eventually(lambda: session_of(ground, waiter).blocked_by != ())
    return [cancel_query(session_of(ground, holder), reason="others wait", why=Why.BLOCKING)]


def _ask(client: psycopg.Connection[Any], query: str) -> None:
    try:
        client.execute(query.encode())
    except psycopg.Error:  # it is cancelled, or ended
        return


def running(ground: Ground) -> list[Action]:
    ground.box(ONE, guilds=GUILDS)
    ground.box(TWO)
    return proposed(ground, "emergency-stop")


def stopped(ground: Ground) -> list[Action]:
    """Stop all of it, through the remedies alone: nobody has a journal of that, and the way back is told by the servers."""
    made = {remedy.verb: remedy for remedy in RUNBOOKS["emergency-stop"].remedies(ground.gate).values()}
    for action in running(ground):
        made[action.verb].apply(action)
    for guild in GUILDS:  # as the EventRouter caches it that looks meanwhile
        ground.world.redis.set(f"sandbox:route:{guild}", "__NULL__", px=600_000)
    return proposed(ground, "emergency-resume")


def _trouble(
    procedure: str, lay_out: Callable[[Ground], Sequence[Action]], *verbs: str, **told: bool
) -> Trouble:
    return Trouble(procedure=procedure, lay_out=lay_out, verbs=frozenset(verbs), **told)


_STOPPING = ("raise stop", "disable rule", "stop service", "mark sandboxes")
TROUBLES = {
    "quarantine": _trouble("rb-sb-003", orphans, "quarantine schema", "quarantine keys"),
    "drop": _trouble("rb-sb-003", partial(orphans, drop=True), "drop schema", "delete keys"),
    "purge": _trouble("purge-quarantine", parked, "drop schema", "delete keys"),
    "clean-up": _trouble("rb-sb-001", partial(overdue, procedure="rb-sb-001"), "clean up sandbox"),
    "mass-clean-up": _trouble(
        "mass-cleanup", many, "clean up sandbox", "quarantine schema", "quarantine keys"
    ),
    "drop-object": _trouble("rb-sb-002", viewed, "drop object", "clean up sandbox"),
    "enable-rule": _trouble("rb-sb-001", unscheduled, "enable rule", account=True),
    "run-task": _trouble(
        "rb-sb-001", partial(overdue, procedure="rb-sb-001", via="ecs"), "run clean-up task", account=True
    ),
    "delete-route": _trouble("rb-sb-004", misrouted, "delete route"),
    "create-stream": _trouble("rb-sb-004", streamless, "create stream", "create consumer"),
    "correct-stream": _trouble("rb-sb-004", drifted, "correct stream"),
    "canary": _trouble("rb-sb-004", untried, "publish canary"),
    "restart": _trouble("rb-sb-004", unserved, "restart service", account=True),
    "end-session": _trouble("rb-sb-005", idle, "end session"),
    "cancel-query": _trouble("rb-sb-005", blocking, "cancel query"),
    "grant": _trouble("rb-sb-005", ungranted, "grant right"),
    "migrate": _trouble("rb-sb-005", unmigrated, "migrate"),
    "try-creating": _trouble("rb-sb-005", unsure, "create probe schema", again=True),
    "enlarge": _trouble("rb-sb-005", small, "enlarge storage", account=True),
    "create-index": _trouble("rb-sb-006", unindexed, "create index", again=True),
    "analyze": _trouble("rb-sb-006", unanalyzed, "analyze table"),
    "trim": _trouble("database-maintenance", partial(old, archived=False), "trim audit log"),
    "trim-archived": _trouble("database-maintenance", partial(old, archived=True), "trim audit log"),
    "vacuum": _trouble("database-maintenance", unvacuumed, "vacuum table"),
    "emergency-stop": _trouble("emergency-stop", running, *_STOPPING, account=True),
    "emergency-resume": _trouble(
        "emergency-resume", stopped, *(f"undo {verb}" for verb in _STOPPING), account=True
    ),
}
"""By its name, what a procedure finds."""
