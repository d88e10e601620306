"""Cleaning 500 expired sandboxes, beside dropping their schemas and nothing else."""

import io
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import psycopg
import redis

from bench.measuring import Claim, Figure, Line, Result, Size, in_turns, ratios, timed
from bench.sandboxes import Ground, Trial, grounds, versions
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.cleanup import Job
from sandbox.joblog import logger

__all__ = ["LINE"]

_SANDBOXES, _OTHERS = 500, 200_000
_BARE, _OURS, _JOB = "bare DROP, psql in one session", "mass clean-up", "clean-up job"
_DEPLOYED, _PART = "as deployed, from a twentieth of them", 20
_BOUND = (
    "Processor time is in the way: a bare DROP takes some 10 ms of it, and what else belongs to a sandbox (two transactions that"
    " are synced, the second session's look, keys, journal) more than that again, on two cores that client and servers share."
    " Tried and kept: condemning 25 in a transaction, a cheap look for"
    " what rests on a schema before the thorough one, no thread for each statement, no JIT, one round trip for the keys of many, one pass"
    " over Redis for the workers that are ready."
)


def _bare(ground: Ground) -> Trial:
    """Drop the schemas, and nothing else, one statement after the other."""
    ground.fresh()
    script = "SET client_min_messages = warning;\n" + "".join(
        f'DROP SCHEMA "{name}" CASCADE;\n' for name in ground.schemas
    )
    words = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", ground.url]
    drop = partial(
        subprocess.run, words, input=script, text=True, check=True, env={"PATH": os.environ["PATH"]}
    )
    return Trial(seconds=timed(drop), passes=0)


def _ours(ground: Ground) -> Trial:
    ground.fresh()
    environment, plan = ground.plan()
    return ground.measured(partial(ground.applied, environment, plan))


def _job(ground: Ground) -> Trial:
    ground.fresh()
    job = Job(
        Postgres(ground.url, tag="bench"),
        Redis(ground.at.redis_url),
        clock=lambda: datetime.now(UTC),
        log=logger("CleanupProvider", level="error", stream=io.StringIO()),
    )
    return ground.measured(job.run)


def _as_deployed(ground: Ground) -> Trial:
    """Do what the deployed job does: a scan of all keys for each sandbox, a hundred a step. It takes minutes, so that some have to do."""
    ground.fresh()
    some = ground.ids[: max(1, len(ground.ids) // _PART)]
    with (
        psycopg.connect(ground.url, autocommit=True) as sql,
        redis.Redis.from_url(ground.at.redis_url) as keys,
    ):
        began = time.perf_counter()
        for id in some:
            for key in keys.scan_iter(f"sandbox:{id}:*", count=100):
                keys.delete(key)
            sql.execute("SELECT public.drop_sandbox_schema(%s)", (str(id),))
            sql.execute("UPDATE public.sandboxes SET status = 'destroyed' WHERE id = %s", (id,))
        seconds = time.perf_counter() - began
    return Trial(seconds=seconds * len(ground.ids) / len(some), passes=len(ground.ids))


def _ways(ground: Ground, passes: dict[str, list[float]]) -> Mapping[str, Callable[[], float]]:
    """Return what is measured, each of which notes how often it went through Redis."""

    def way(name: str, clean: Callable[[Ground], Trial]) -> float:
        trial = clean(ground)
        passes.setdefault(name, []).append(trial.passes)
        return trial.seconds

    cleans = {_BARE: _bare, _OURS: _ours, _JOB: _job, _DEPLOYED: _as_deployed}
    return {name: partial(way, name, clean) for name, clean in cleans.items()}


def _run(size: Size) -> Result:
    passes: dict[str, list[float]] = {}
    with grounds(size.of(_SANDBOXES), size.of(_OTHERS)) as ground:
        took = in_turns(_ways(ground, passes), size.rounds)
        found = versions(ground)
    return Result(
        figures=[Figure(name=name, unit="s", values=values) for name, values in took.items()],
        claims=[
            Claim(
                said="the mass clean-up, to the bare DROPs",
                values=ratios(took[_OURS], took[_BARE]),
                bound=1,
                missed=_BOUND,
            ),
            Claim(
                said="as deployed, to the mass clean-up",
                values=ratios(took[_DEPLOYED], took[_OURS]),
                bound=None,
            ),
            Claim(
                said="the clean-up job, to the bare DROPs", values=ratios(took[_JOB], took[_BARE]), bound=None
            ),
            Claim(
                said="passes of the mass clean-up over Redis, for all sandboxes",
                values=passes[_OURS],
                bound=1,
                unit="",
                missed="Four workers have lots of up to 125 each; those that have condemned theirs, or are at it, share a pass. One that still looks at its lot"
                " when the others are ready is not waited for, and has its own.",
            ),
            Claim(
                said="passes of the clean-up job over Redis, for all sandboxes",
                values=passes[_JOB],
                bound=1,
                unit="",
                missed="One finds what there is, orphans too, which it tells of; the other deletes the keys of all that was taken.",
            ),
        ],
        notes=[
            "The bare DROPs do nothing else: no keys, routes, rows, audit, fence or journal, and no look at what CASCADE would take"
            " along. Ours is the plan of `mass-cleanup` applied through the engine, with its four workers, its throttle and nobody"
            " else at work; the look that made the plan is not counted, as the DROPs are not looked for either. The job is what runs every"
            " 15 minutes, its look included. As deployed there is one scan of all keys for each sandbox; the first twentieth of them has the most"
            " keys to go through, so that the whole would take up to a sixth less than is told."
        ],
        versions=found,
    )


LINE = Line(
    name="expired_cleanup",
    title="Cleaning expired sandboxes",
    on=f"{_SANDBOXES} of them, each 3 tables with rows and 200 keys, beside {_OTHERS:,} unrelated keys",
    run=_run,
)
