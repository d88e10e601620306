"""Expired sandboxes to measure on, as often as it takes: made once, in a template from which each way's database is cloned."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import redis
from psycopg import sql as composing

from bench.measuring import timed
from bench.production import Servers, servers
from lab import binaries
from lab.processes import HOST, free_ports, spawn
from runbooks.engine import plan as plans
from runbooks.engine.apply import Outcome
from runbooks.engine.environment import Environment
from runbooks.engine.journal import Journal
from runbooks.engine.model import Plan, Target
from runbooks.engine.runner import Runner, new_run
from runbooks.engine.systems import readers
from runbooks.mass_cleanup import RUNBOOK, WORKERS
from sandbox.adapters.postgres import Postgres

__all__ = ["DEADLINE", "Ground", "Trial", "grounds", "versions"]

DEADLINE = 60.0
"""Seconds for a look: what is measured is not to be cut short."""

_TEMPLATE, _WAY = "expired", "way"
_KEYS = 200  # of each sandbox
_AT_ONCE, _KEYS_AT_ONCE = 25, 10_000
_ROWS = (
    "INSERT INTO {0}.communities (name) SELECT 'c' || n FROM generate_series(1, 5) AS n",
    "INSERT INTO {0}.profiles (community_id, discord_id) SELECT id, n FROM {0}.communities, generate_series(1, 4) AS n",
    "INSERT INTO {0}.badges (community_id, profile_id, badge_type) SELECT community_id, id, 'naib' FROM {0}.profiles",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of one clean-up: the seconds it took, and how often Redis was gone through."""

    seconds: float
    passes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Sandboxes in a template, and the servers. What a way leaves is thrown away by the next `fresh`."""

    at: Servers
    nats_url: str
    ids: tuple[UUID, ...]
    others: int
    _runs: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    @property
    def url(self) -> str:
        """Return the address of the database that is a way's own."""
        return _beside(self.at.url, _WAY)

    @property
    def schemas(self) -> list[str]:
        """Return the sandboxes' schemas."""
        return [f"sandbox_{id}" for id in self.ids]

    def fresh(self) -> None:
        """Put everything back: a database cloned from the template, and all keys."""
        with psycopg.connect(_beside(self.at.url, "postgres"), autocommit=True) as sql:
            sql.execute(
                "ALTER SYSTEM SET fsync = off"
            )  # file by file it would take longer than what is measured
            sql.execute("SELECT pg_reload_conf()")
            sql.execute(f"DROP DATABASE IF EXISTS {_WAY} WITH (FORCE)")
            sql.execute(f"CREATE DATABASE {_WAY} TEMPLATE {_TEMPLATE} STRATEGY file_copy")
            sql.execute("ALTER SYSTEM SET fsync = on")
            sql.execute("SELECT pg_reload_conf()")
            sql.execute("CHECKPOINT")
        os.sync()  # nobody's clean-up pays for what was copied
        with redis.Redis.from_url(self.at.redis_url) as client:
            client.flushall()
            for start in range(0, self.others, _KEYS_AT_ONCE):
                numbers = range(start, min(start + _KEYS_AT_ONCE, self.others))
                client.mset({f"cache:{number}": "0123456789abcdef" for number in numbers})
            for start in range(0, len(self.ids), _KEYS_AT_ONCE // _KEYS):
                some = self.ids[start : start + _KEYS_AT_ONCE // _KEYS]
                client.mset(
                    {f"sandbox:{id}:session:{number}": number for id in some for number in range(_KEYS)}
                )

    def log(self) -> str:
        """Return what PostgreSQL has written down."""
        return (self.at.folder / "postgres.log").read_text()

    def plan(self) -> tuple[Environment, Plan]:
        """Return the mass clean-up's plan for all of them, as it is made on this ground, and where it is for."""
        environment = self._environment()
        read = readers(environment, tag="bench", timeout=DEADLINE)
        now = datetime.now(UTC)
        seen = RUNBOOK.gather(read, now=now, deadline=DEADLINE, stack=environment.stack)
        actions, _ = RUNBOOK.propose(seen)
        assert len(actions) == len(self.ids), f"{len(actions)} are to go, not {len(self.ids)}"
        target = Target(
            name="bench",
            account=None,
            region=None,
            database=read.sql.host,
            fingerprint=None,
            redis=read.keys.host,
            nats=read.streams.host,
        )
        made = plans.make(
            runbook=RUNBOOK.name,
            environment=target,
            now=now,
            findings=(),
            actions=actions,
            existing=len(actions),
        )
        return environment, made

    def applied(self, environment: Environment, plan: Plan, *, workers: int = WORKERS) -> Outcome:
        """Apply it through the engine, with lease, journal and throttle, as an operator's confirmation does."""
        runbook = replace(RUNBOOK, pace=replace(RUNBOOK.pace, workers=workers))
        journal = Journal(environment.state / "journal.jsonl", actor="bench", clock=lambda: datetime.now(UTC))
        runner = Runner(environment, journal, timeout=10, progress=lambda *_: None, tell=lambda _: None)
        return runner.run(plan, new_run(plan), runbook)

    def measured(self, clean: Callable[[], object]) -> Trial:
        """Do it, and see that nothing of a sandbox is left, and everything else."""
        before = self._scans()
        seconds = timed(clean)
        scans = self._scans() - before
        with psycopg.connect(self.url) as sql, redis.Redis.from_url(self.at.redis_url) as client:
            [left] = sql.execute(
                "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^sandbox_'"
            ).fetchone() or [-1]
            keys = client.dbsize()
        assert (left, keys) == (0, self.others), f"{left} schemas and {keys} keys are left"
        return Trial(seconds=seconds, passes=scans / self._steps())

    def _environment(self) -> Environment:
        return Environment(
            name="bench",
            database_url=self.url,
            redis_url=self.at.redis_url,
            nats_url=self.nats_url,
            state=self.at.folder / f"state-{next(self._runs)}",
        )

    def _scans(self) -> int:
        with redis.Redis.from_url(self.at.redis_url) as client:
            return int(client.info("commandstats").get("cmdstat_scan", {}).get("calls", 0))

    def _steps(self) -> float:
        """Return how many SCAN steps go through all keys that there are at first."""
        return (self.others + _KEYS * len(self.ids)) / 1000


@contextmanager
def grounds(sandboxes: int, others: int) -> Iterator[Ground]:
    """Make so many expired sandboxes, each with rows in its three tables and 200 keys, beside so many other keys."""
    with servers() as at, _nats(at.folder) as nats_url:
        with psycopg.connect(_beside(at.url, "postgres"), autocommit=True) as sql:
            sql.execute(f"CREATE DATABASE {_TEMPLATE}")
        url = _beside(at.url, _TEMPLATE)
        Postgres(url, tag="bench").script("migrations/0001_control_tables")
        ids = tuple(uuid4() for _ in range(sandboxes))
        with psycopg.connect(url, autocommit=True) as sql:
            for start in range(0, sandboxes, _AT_ONCE):
                with sql.transaction():
                    for id in ids[start : start + _AT_ONCE]:
                        _make(sql, id)
            sql.execute("VACUUM ANALYZE")
        yield Ground(at=at, nats_url=nats_url, ids=ids, others=others)


@contextmanager
def _nats(folder: Path) -> Iterator[str]:
    [port] = free_ports(1)
    words = [binaries.nats(), "-a", HOST, "-p", port, "-js", "-sd", folder / "nats"]
    process = spawn(words, log=folder / "nats.log")
    try:
        yield f"nats://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait()


def _make(sql: "psycopg.Connection[tuple[object, ...]]", id: UUID) -> None:
    sql.execute(
        "INSERT INTO public.sandboxes (id, name, owner, status, schema_name, created_at, expires_at)"
        " VALUES (%s, %s, 'bench', 'running', %s, now() - interval '2 days', now() - interval '1 day')",
        (id, id.hex, f"sandbox_{id.hex[:8]}"),
    )
    sql.execute("SELECT public.create_sandbox_schema(%s)", (str(id),))
    for rows in _ROWS:
        sql.execute(composing.SQL(rows).format(composing.Identifier(f"sandbox_{id}")))
    sql.execute(
        "INSERT INTO public.sandbox_guild_mapping (guild_id, sandbox_id) VALUES (%s, %s)",
        (str(id.int % 10**18), id),
    )


def _beside(url: str, database: str) -> str:
    """Return the address of another database of the same server."""
    return f"{url.rpartition('/')[0]}/{database}"


def versions(ground: Ground) -> Mapping[str, str]:
    """Return the servers' versions."""
    with psycopg.connect(ground.at.url) as sql, redis.Redis.from_url(ground.at.redis_url) as client:
        return {
            "PostgreSQL": str(sql.info.server_version // 10000) + "." + str(sql.info.server_version % 10000),
            "Redis": str(client.info("server")["redis_version"]),
        }
