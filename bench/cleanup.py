"""The clean-up job beside the way the deployed one goes: `python -m bench.cleanup [SANDBOXES] [KEYS]`.

500 expired sandboxes beside 200,000 unrelated keys. The peer does what arrakis.md says of the deployed job: one scan
of the whole keyspace a sandbox, 100 keys a step, keys deleted as they are found, then `drop_sandbox_schema` and the
status. It takes minutes, so it is given a tenth of the sandboxes, and both are compared a sandbox.
"""

import io
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import redis

from lab import control
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.cleanup import Job
from sandbox.joblog import logger

_KEYS_EACH = 20


def _lay_out(sql: psycopg.Connection[tuple[object, ...]], keys: "redis.Redis", sandboxes: int) -> list[UUID]:
    made = [uuid4() for _ in range(sandboxes)]
    for each in made:
        sql.execute(
            "INSERT INTO public.sandboxes (id, name, owner, status, schema_name, expires_at)"
            " VALUES (%s, %s, 'bench', 'running', %s, now())",
            (each, str(each), f"sandbox_{each.hex[:8]}"),
        )
        sql.execute("SELECT public.create_sandbox_schema(%s)", (str(each),))
        keys.mset({f"sandbox:{each}:k{number}": number for number in range(_KEYS_EACH)})
    return made


def _ours(lab: control.Lab) -> float:
    job = Job(
        Postgres(lab.env["DATABASE_URL"], tag="bench"),
        Redis(lab.env["REDIS_URL"]),
        clock=lambda: datetime.now(UTC),
        log=logger("CleanupProvider", level="error", stream=io.StringIO()),
    )
    began = time.perf_counter()
    report = job.run()
    print(f"ours: {report}")
    return time.perf_counter() - began


def _as_deployed(lab: control.Lab, sandboxes: list[UUID]) -> float:
    began = time.perf_counter()
    with (
        psycopg.connect(lab.env["DATABASE_URL"], autocommit=True) as sql,
        redis.Redis.from_url(lab.env["REDIS_URL"]) as keys,
    ):
        for each in sandboxes:
            for key in keys.scan_iter(f"sandbox:{each}:*", count=100):
                keys.delete(key)
            sql.execute("SELECT public.drop_sandbox_schema(%s)", (str(each),))
            sql.execute("UPDATE public.sandboxes SET status = 'destroyed' WHERE id = %s", (each,))
    return time.perf_counter() - began


def main(sandboxes: int, unrelated: int) -> None:
    """Measure both in one lab and print seconds and the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        lab = control.start(Path(folder) / "lab", watch_parent=True)
        try:
            Postgres(lab.env["DATABASE_URL"], tag="bench").script("migrations/0001_control_tables")
            with (
                psycopg.connect(lab.env["DATABASE_URL"], autocommit=True) as sql,
                redis.Redis.from_url(lab.env["REDIS_URL"]) as keys,
            ):
                for start in range(0, unrelated, 10_000):
                    keys.mset(
                        {f"cache:{number}": number for number in range(start, min(start + 10_000, unrelated))}
                    )
                few = _lay_out(sql, keys, max(1, sandboxes // 10))
                theirs = _as_deployed(lab, few) / len(few)
                _lay_out(sql, keys, sandboxes)
            ours = _ours(lab) / sandboxes
        finally:
            control.reset(lab.home)
    print(f"{sandboxes} sandboxes beside {unrelated:,} keys, milliseconds a sandbox:")
    print(f"as deployed {theirs * 1000:.1f}, ours {ours * 1000:.1f}: {theirs / ours:.1f} times as fast")
    print(f"ours in all: {ours * sandboxes:.1f} s")


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:3]]
    main(*given, *(500, 200_000)[len(given) :])
