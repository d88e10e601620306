"""A lab's servers as a proof needs them: cleared between two cases, and read whole, but for moments and what a run is called."""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from lab.incidents.cloud import Account
from lab.names import APP, CLEANUP, CLUSTER, INSTANCE, WORKER
from runbooks.engine import lease
from runbooks.engine.gate import Gate
from runbooks.engine.systems import Readers
from runbooks.remedies.tags import KEYS
from sandbox.adapters.nats import Nats
from sandbox.streams import Config, check, ensure, expected_consumers, expected_streams
from tests.acceptance.production import Production
from tests.integration.world import World

__all__ = ["Ground"]

_UNUSED = 7200  # seconds
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)?")
_STAMP = re.compile(r"(quarantine[_:]|stop-)\d{8}-?\d{6}(-\d{6})?")
_EXPECTED: list[Config] = [*expected_streams(), *expected_consumers()]
_WITNESS = """
    CREATE SCHEMA witness;
    CREATE TABLE witness.seen (what text);
    CREATE FUNCTION witness.note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO witness.seen SELECT command_tag || ' ' || object_identity FROM pg_event_trigger_ddl_commands();
    END $$;
    CREATE FUNCTION witness.note_dropped() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO witness.seen SELECT 'DROP ' || object_identity FROM pg_event_trigger_dropped_objects() WHERE original;
    END $$;
    CREATE FUNCTION witness.note_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO witness.seen VALUES ('DELETE ' || TG_TABLE_NAME || ' ' || OLD.id); RETURN NULL;
    END $$;
    CREATE EVENT TRIGGER witness_commands ON ddl_command_end EXECUTE FUNCTION witness.note();
    CREATE EVENT TRIGGER witness_drops ON sql_drop EXECUTE FUNCTION witness.note_dropped();
"""
_WITNESS_ROWS = """
    CREATE OR REPLACE TRIGGER witness_rows AFTER DELETE ON public.sandbox_audit_log
    FOR EACH ROW EXECUTE FUNCTION witness.note_deleted()
"""
_NO_WITNESS = (
    "DROP EVENT TRIGGER witness_commands; DROP EVENT TRIGGER witness_drops; DROP SCHEMA witness CASCADE"
)
_SUSPENDED = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")
_FORGET = """
    DO $$ BEGIN
        DROP SCHEMA IF EXISTS reporting CASCADE;
        DROP TABLE IF EXISTS public.spice;
        TRUNCATE public.sandboxes CASCADE;
        IF to_regclass('runbooks.lease') IS NOT NULL THEN
            TRUNCATE runbooks.stops, runbooks.stopped_sandboxes, runbooks.journal, runbooks.used_plans;
            UPDATE runbooks.lease SET holder = NULL;
        END IF;
    END $$
"""
_TABLES = """
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'm') AND (nspname ~ '^(public$|sandbox|quarantine|reporting)'
        OR n.nspname || '.' || relname IN ('runbooks.stops', 'runbooks.stopped_sandboxes')) ORDER BY 1
"""
# Each audit row has an id of its own; that keys were left for a while, and that a resume came, is told by one more.
_ROWS = {
    "public.sandbox_audit_log": "SELECT (to_jsonb(t) - 'id' #- '{details,keysLeft}')::text FROM public.sandbox_audit_log AS t"
    """ WHERE details IS NULL OR details NOT IN ('{"resumed": true}', '{"keysLeft": false}')"""
}
_SHAPES = {
    "schemas": "SELECT nspname::text, nspacl::text FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema|runbooks|witness)' ORDER BY 1",
    "indexes": "SELECT indexrelid::regclass::text, indisvalid, pg_get_indexdef(indexrelid) FROM pg_index"
    " WHERE indrelid::regclass::text !~ '^(pg_|witness)' ORDER BY 1",
    "constraints": "SELECT conrelid::regclass::text, conname::text FROM pg_constraint ORDER BY 1, 2",
    "functions": "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
    "views": "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'v' AND relnamespace::regnamespace::text = 'reporting' ORDER BY 1",
    "rights": "SELECT oid::regclass::text, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    " UNION SELECT 'database', datacl::text FROM pg_database WHERE datname = current_database() ORDER BY 1",
    "sessions": f"SELECT state FROM pg_stat_activity WHERE usename = '{APP}' ORDER BY 1",
    "witnessed": "SELECT what, count(*) FROM witness.seen GROUP BY what ORDER BY what",
}


@dataclass
class Ground:
    """A world with all of a lab's servers; `shelf` is a folder for archives, `sessions` are ended by the next clearing."""

    world: World
    gate: Gate
    production: Production
    account: Account
    shelf: Path
    sessions: ExitStack = field(default_factory=ExitStack)
    former: frozenset[str] = frozenset()
    """The clean-up's tasks of earlier cases, which ECS does not forget."""

    @property
    def read(self) -> Readers:
        """What a procedure looks with."""
        return self.gate.read

    @contextmanager
    def witnessed(self) -> Iterator["Ground"]:
        """Have PostgreSQL itself count what changes its catalog, and which audit rows are deleted."""
        lease.prepare(self.gate.write.sql)
        self.world.sql.execute(f"CREATE ROLE {APP} LOGIN; {_WITNESS}".encode())
        try:
            yield self
        finally:
            self.clear()
            self.world.sql.execute(_NO_WITNESS)

    def clear(self, *, account: bool = True) -> None:
        """Let all be as if nothing had ever happened; the account too, unless nothing was done there."""
        self.sessions.close()
        world = self.world
        world.database.script("migrations/0001_control_tables")
        for name in world.schemas():
            world.sql.execute(f'DROP SCHEMA "{name}" CASCADE'.encode())
        world.sql.execute(_FORGET)
        world.sql.execute(_WITNESS_ROWS)
        world.redis.flushall()
        nats = Nats(world.env["NATS_URL"])
        for stream in expected_streams():
            nats.delete_stream(stream.name)
        for file in self.shelf.iterdir():
            file.unlink()
        if account:
            self._clear_account()

    def _clear_account(self) -> None:
        production, account = self.production, self.account
        self.former = self._tasks()
        if any(production.tags()):
            rule = account.client("events").describe_rule(Name=CLEANUP)["Arn"]
            account.client("events").untag_resource(ResourceARN=rule, TagKeys=list(KEYS))
            account.client("ecs").untag_resource(
                resourceArn=account.worker()["serviceArn"], tagKeys=list(KEYS)
            )
        production.switch(True)
        production.desire(1)
        production.limit(MinCapacity=1, MaxCapacity=4, SuspendedState=dict.fromkeys(_SUSPENDED, False))
        account.client("rds").modify_db_instance(
            DBInstanceIdentifier=INSTANCE, AllocatedStorage=100, ApplyImmediately=True
        )

    def begin(self) -> None:
        """What was laid out is how all began: from now on the witness counts, and nothing of ours looks like use."""
        self.world.sql.execute("TRUNCATE witness.seen")
        self.world.sql.execute("SELECT pg_stat_force_next_flush()")
        self.world.sql.execute("SELECT 1")

    # What is laid out.

    def box(
        self, id: UUID, *, status: str = "running", hours: int = 24, guilds: tuple[str, ...] = ()
    ) -> None:
        """Make a sandbox that ends in so many hours, with a schema, two keys, and guilds that are cached."""
        self.world.sql.execute(
            "INSERT INTO sandboxes (id, name, owner, status, schema_name, created_at, expires_at)"
            " VALUES (%s, %s, 'chani', %s::sandbox_status, %s, now() - interval '3 days', now() + %s * interval '1 hour')",
            (id, f"box-{id.hex[:8]}", status, f"sandbox_{id}", hours),
        )
        for guild in guilds:
            self.world.sql.execute("INSERT INTO sandbox_guild_mapping VALUES (%s, %s)", (guild, id))
            self.world.redis.set(f"sandbox:route:{guild}", str(id), px=600_000)
        self.schema(f"sandbox_{id}")
        self.keys(f"sandbox:{id}")

    def schema(self, name: str) -> None:
        """Make a schema with a table."""
        with self.world.visitor() as other:
            other.execute(f'CREATE SCHEMA "{name}"; CREATE TABLE "{name}".kept AS SELECT 1 AS id'.encode())

    def keys(self, prefix: str) -> None:
        """Write two keys that nobody used for two hours; one of them ends by itself."""
        self.world.redis.set("one", "1")
        payload = self.world.redis.dump("one")
        self.world.redis.delete("one")
        for name, life in (("a", 0), ("b", 3_600_000)):
            key = f"{prefix}:{name}"
            self.world.redis.execute_command("RESTORE", key, life, payload, "IDLETIME", _UNUSED)  # type: ignore[no-untyped-call]

    def streams(self) -> Nats:
        """Make the streams and consumers, with nothing in them."""
        nats = Nats(self.world.env["NATS_URL"])
        ensure(nats, _EXPECTED)
        return nats

    # What there is.

    def truth(self, *, account: bool = True) -> Mapping[str, Any]:
        """Return all that the servers hold, without moments; of the account only if it matters, as AWS answers slowly."""
        found = {**self._database(), "keys": self._keys(), "archives": self._archives()}
        truth: Mapping[str, Any] = json.loads(
            _plain({**found, **self._streams(), **(self._aws() if account else {})})
        )
        return truth

    def _database(self) -> dict[str, Any]:
        sql = self.world.sql
        tables = [str(name) for (name,) in sql.execute(_TABLES).fetchall()]
        found: dict[str, Any] = {
            what: sql.execute(query.encode()).fetchall() for what, query in _SHAPES.items()
        }
        for table in tables:
            query = _ROWS.get(table, f"SELECT to_jsonb(t)::text FROM {table} AS t")
            found[table] = sorted(_plain(row) for (row,) in sql.execute(query.encode()).fetchall())
        return found

    def _keys(self) -> dict[str, Any]:
        """Each key's payload, and whether it ends."""
        keys = self.world.redis
        return {
            name.decode(): [repr(keys.dump(name)), keys.pttl(name) > 0]
            for name in sorted(keys.scan_iter(count=1000))
        }

    def _archives(self) -> list[int]:
        return [gzip.decompress(file.read_bytes()).count(b"\n") for file in self.shelf.glob("*.gz")]

    def _streams(self) -> dict[str, Any]:
        nats = Nats(self.world.env["NATS_URL"])
        state = nats.stream("SANDBOX")
        checked = [f"{each.expected.name} {each.condition} {each.drift}" for each in check(nats, _EXPECTED)]
        return {"streams": checked, "messages": state and [state.messages, state.last_sequence]}

    def _aws(self) -> dict[str, Any]:
        truth = self.production.truth()
        service = truth["service"]
        instances = self.account.client("rds").describe_db_instances(DBInstanceIdentifier=INSTANCE)
        return {
            "rule": truth["rule"]["State"],
            "service": [service["desiredCount"], service["runningCount"], service["pendingCount"]],
            "scaling": truth["scaling"],
            "tags": truth["tags"],
            "tasks": len(self._tasks() - self.former),
            "storage": instances["DBInstances"][0]["AllocatedStorage"],
            "worker": WORKER,
        }

    def _tasks(self) -> frozenset[str]:
        ecs = self.account.client("ecs")
        return frozenset(
            arn
            for status in ("RUNNING", "STOPPED")
            for arn in ecs.list_tasks(cluster=CLUSTER, family=CLEANUP, desiredStatus=status)["taskArns"]
        )


def _plain(value: Any) -> str:
    """Write it without moments."""
    text = value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
    return _STAMP.sub(r"\1T", _MOMENT.sub("T", text))
