"""What is known of the creation of schemas, and of all that it takes: connections, room, rights, the migration's objects.

RB-SB-005 asks for it. Nothing here changes anything. PostgreSQL is asked by two sessions at a time, one question after the
other: where connections are short, a diagnosis must not take the last ones.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from diagnostics import migration, storage, waiting
from diagnostics.alarms import Alarm, read_alarm
from diagnostics.grouping import ErrorGroup
from diagnostics.logs import LogReport, read_errors
from diagnostics.migration import Fault
from diagnostics.pooler import Pool, Pooler, read_pooler
from diagnostics.postgres import Connections, LockTable, Quota, connections, lock_table
from diagnostics.reach import Reach, reach_postgres
from diagnostics.rights import Right, Rights, read_rights
from diagnostics.servers import Instance, read_instance, read_storage
from diagnostics.sessions import Session, read_sessions
from diagnostics.stack import Stack
from diagnostics.storage import Catalog, DeadRows, Holder, Size, Slot, Wal
from diagnostics.waiting import Tree
from runbooks import quarantined
from runbooks.engine.systems import Readers
from runbooks.engine.work import Result
from runbooks.overdue import evidence as overdue
from runbooks.overdue.evidence import Evidence
from runbooks.probing import FEW_CONNECTIONS
from runbooks.quarantined import Quarantine
from runbooks.remedies import sessions as ending
from sandbox import registry
from sandbox.errors import ArrakisError, Unreachable
from sandbox.facts import Fact, Known, Unknown
from sandbox.facts import gather as gather_facts
from sandbox.ports import SqlSnapshot

__all__ = ["ALARM", "WINDOW", "Database", "Facts", "gather"]

ALARM = "sandbox-schema-failures"
WINDOW = timedelta(hours=6)
"""How far back logs and metrics are read."""

_DAY = timedelta(days=1)  # over which the storage's trend is drawn
_PATIENCE = timedelta(
    seconds=2
)  # for as long as a transaction may keep others waiting before it is more than work
_OURS = re.compile(
    r"create (?:sandbox )?schema|schema (?:existence|stats)|list sandbox schemas|create_sandbox_schema"
    r"|Sandbox creation failed|SANDBOX_005|schema not found",
    re.IGNORECASE,
)
_SANDBOXES = re.compile(r"sandbox|CREATE\s+SCHEMA", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """What the server says at one moment, its `now`: who is connected, which locks are held, how large its catalog is."""

    now: datetime
    connections: Connections
    sessions: tuple[Session, ...]
    locks: LockTable
    catalog: Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was seen. `now` is this host's clock; `fresh` an id that nobody has, should a schema be created for a trial.

    `overdue` and `quarantine` are looked at where room is short only; `tried` is what became of the trial, None without one.
    """

    now: datetime
    stack: Stack
    fresh: UUID
    alarm: Fact[Alarm | None]
    instance: Fact[Instance]
    api: Fact[LogReport]
    worker: Fact[LogReport]
    postgres: Fact[Reach]
    database: Fact[Database]
    rights: Fact[Rights]
    objects: Fact[tuple[Fault, ...]]
    created: Fact[datetime | None]
    pooler: Fact[Pooler | None]
    sizes: Fact[tuple[Size, ...]]
    dead: Fact[tuple[DeadRows, ...]]
    wal: Fact[Wal]
    slots: Fact[tuple[Slot, ...]]
    holders: Fact[tuple[Holder, ...]]
    overdue: Evidence | None = None
    quarantine: Quarantine | None = None
    tried: Fact[Result] | None = None

    @property
    def groups(self) -> tuple[ErrorGroup, ...]:
        """The logged errors that are about creating schemas, as far as the logs were read."""
        reports = [fact.value for fact in (self.api, self.worker) if isinstance(fact, Known)]
        return tuple(group for report in reports for group in report.groups if about_schemas(group))

    @property
    def creators(self) -> tuple[str, ...]:
        """The roles that sandboxes are created as: the deployed system's, or the one used here where there is no such role."""
        return (self.rights.value.creator,) if isinstance(self.rights, Known) else (self.stack.database_role,)

    @property
    def full_quotas(self) -> tuple[Quota, ...]:
        """The limits that are reached, of the role that creates sandboxes and of its database."""
        quotas = self.database.value.connections.quotas if isinstance(self.database, Known) else ()
        return tuple(
            quota
            for quota in quotas
            if quota.full and (quota.kind == "database" or quota.name in self.creators)
        )

    @property
    def short_of_connections(self) -> bool:
        """Whether the server has few connections left, or the role that creates sandboxes has none; False if unknown."""
        if not isinstance(self.database, Known):
            return False
        return self.database.value.connections.left <= FEW_CONNECTIONS or bool(self.full_quotas)

    @property
    def exhausted_pools(self) -> tuple[Pool, ...]:
        """The pools of this database, for the role that creates sandboxes, in which clients wait and no connection is free."""
        pools = self.pooler.value.pools if isinstance(self.pooler, Known) and self.pooler.value else ()
        users, databases = set(self.creators), set[str]()
        if isinstance(
            self.rights, Known
        ):  # PgBouncer may log in as another, and call a database by another name
            users, databases = users | {self.rights.value.role.name}, {self.rights.value.role.database}
        if isinstance(self.postgres, Known):
            databases.add(self.postgres.value.host.rpartition("/")[2])
        return tuple(
            pool for pool in pools if pool.exhausted and pool.user in users and pool.database in databases
        )

    @property
    def short_of_storage(self) -> bool:
        """Whether RDS says that its storage is used up, or nearly; False if unknown."""
        if not isinstance(self.instance, Known):
            return False
        return self.instance.value.status == "storage-full" or bool(self.instance.value.short_of_storage)

    @property
    def idle(self) -> tuple[Session, ...]:
        """The sessions that are idle in a transaction beyond the limit, the oldest transaction first."""
        if not isinstance(self.database, Known):
            return ()
        seen = self.database.value
        return tuple(each for each in seen.sessions if each.idle_for(seen.now) > ending.IDLE_LIMIT)

    @property
    def blocking(self) -> tuple[Tree, ...]:
        """Who keeps those waiting that work on sandboxes, or on what creating one takes, for longer than work takes."""
        if not isinstance(self.database, Known):
            return ()
        seen = self.database.value
        return tuple(
            tree
            for tree in waiting.trees(seen.sessions)
            if any(map(_concerned, _below(tree))) and not _at_work(tree, seen.now)
        )

    @property
    def lacking(self) -> tuple[Right, ...]:
        """The rights that the role which creates sandboxes lacks, as far as known."""
        return self.rights.value.lacking(self.rights.value.creator) if isinstance(self.rights, Known) else ()

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is not as the migration makes it, as far as known."""
        return self.objects.value if isinstance(self.objects, Known) else ()

    def why_held(self, session: Session) -> str | None:
        """Say what a session that is idle in its transaction keeps others from; None if nothing is known of it."""
        if any(tree.pid == session.pid for tree in self.blocking):
            return "others wait for its locks"
        if any(_counts(quota, session) for quota in self.full_quotas):
            return "it takes one of the connections that are short"
        if isinstance(self.database, Known) and self.database.value.connections.left <= FEW_CONNECTIONS:
            return "it takes one of the connections that are short"
        if any(
            (pool.database, pool.user) == (session.database, session.user) for pool in self.exhausted_pools
        ):
            return "it takes one of the pool's connections, which others wait for"
        if self.short_of_storage and any(
            (each.kind, each.name) == ("session", str(session.pid)) for each in _known(self.holders)
        ):
            return "it keeps dead rows from being removed, and storage is short"
        return None


def about_schemas(group: ErrorGroup) -> bool:
    """Whether a logged error is about creating a sandbox's schema."""
    return bool(_OURS.search(f"{group.fingerprint} {group.sample}"))


def gather(readers: Readers, *, now: datetime, deadline: float, stack: Stack) -> Facts:
    """Read everything side by side; then, where room is short, what could give some back. Bounded by `deadline` seconds."""
    aws, lanes, budget = readers.aws, _lanes(readers, stack), deadline * 0.55

    def instance() -> Instance:
        found = read_instance(aws, identifier=stack.database_instance, now=now, window=WINDOW)
        with suppress(ArrakisError):  # without its trend it is known still
            return read_storage(aws, found, now=now, window=_DAY)
        return found

    def errors(log_group: str) -> LogReport:
        return read_errors(aws, log_group, begin=now - WINDOW, end=now, budget=budget)

    probes: dict[str, Callable[[], Any]] = {
        "alarm": lambda: read_alarm(aws, suffix=ALARM, prefix=stack.alarm_prefix, now=now, window=WINDOW),
        "instance": instance,
        "api": lambda: errors(stack.api_logs),
        "worker": lambda: errors(stack.worker_logs),
        **{name: partial(_in_turn, lane, deadline=budget) for name, lane in lanes.items()},
    }
    seen = gather_facts(probes, deadline=deadline * 0.6)
    for name, lane in lanes.items():
        told = seen.pop(name)
        seen.update(told.value if isinstance(told, Known) else dict.fromkeys(lane, told))
    facts = Facts(now=now, stack=stack, fresh=uuid4(), **seen)
    if not (facts.short_of_connections or facts.short_of_storage):
        return facts
    return replace(
        facts,
        overdue=overdue.gather(readers, now=now, deadline=deadline * 0.25, stack=stack, alarm=ALARM),
        quarantine=quarantined.gather(readers, now=now, deadline=deadline * 0.15),
    )


def _lanes(readers: Readers, stack: Stack) -> Mapping[str, Mapping[str, Callable[[], Any]]]:
    """What each of the two sessions asks PostgreSQL, one question after the other."""

    def ask(read: Callable[[SqlSnapshot], Any]) -> Callable[[], Any]:
        def asked() -> Any:
            with readers.sql.snapshot() as snapshot:
                return read(snapshot)

        return asked

    def database(snapshot: SqlSnapshot) -> Database:
        return Database(
            now=registry.now(snapshot),
            connections=connections(snapshot),
            sessions=read_sessions(snapshot, tag=readers.tag),
            locks=lock_table(snapshot),
            catalog=storage.read_catalog(snapshot),
        )

    def created(snapshot: SqlSnapshot) -> datetime | None:
        return snapshot.rows("read/rights/last_created", _Created)[0].at

    return {
        "who and what": {
            "postgres": lambda: reach_postgres(readers.sql),
            "database": ask(database),
            "rights": ask(lambda snapshot: read_rights(snapshot, deployed=stack.database_role)),
            "objects": ask(lambda snapshot: migration.faults(migration.read_items(snapshot))),
            "created": ask(created),
        },
        "room": {
            "sizes": ask(storage.read_sizes),
            "dead": ask(storage.read_dead_rows),
            "wal": ask(storage.read_wal),
            "slots": ask(storage.read_slots),
            "holders": ask(storage.read_holders),
            "pooler": lambda: read_pooler(readers.pools),
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Created:
    at: datetime | None


def _in_turn(probes: Mapping[str, Callable[[], Any]], *, deadline: float) -> dict[str, Fact[Any]]:
    """Run probes one after the other; once the server does not answer, the others are not asked any more."""
    end, facts = time.monotonic() + deadline, dict[str, Fact[Any]]()
    for name, probe in probes.items():
        [fact] = gather_facts({name: probe}, deadline=max(0.1, end - time.monotonic())).values()
        facts[name] = fact
        silent = isinstance(fact, Unknown) and (fact.error is None or isinstance(fact.error, Unreachable))
        if silent:
            return {**dict.fromkeys(probes, fact), **facts}
    return facts


def _known(fact: Fact[tuple[Any, ...]]) -> tuple[Any, ...]:
    return fact.value if isinstance(fact, Known) else ()


def _counts(quota: Quota, session: Session) -> bool:
    """Whether a session is one of those that a limit counts."""
    return quota.name == (session.user if quota.kind == "role" else session.database)


def _below(tree: Tree) -> Iterator[Session]:
    for waiter in tree.waiters:
        if waiter.session is not None:
            yield waiter.session
        yield from _below(waiter)


def _at_work(tree: Tree, now: datetime) -> bool:
    """Whether a transaction has only just begun: that others wait for it for a moment is how locks work."""
    since = tree.session.transaction_since if tree.session else None
    return since is not None and now - since < _PATIENCE


def _concerned(session: Session) -> bool:
    return bool(_SANDBOXES.search(session.query))
