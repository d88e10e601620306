"""The incidents of RB-SB-001 and RB-SB-002: too many sandboxes, because the clean-up does not take away what is over.

One for each cause, which is really made, and under which the job is really run where it can be.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from psycopg import sql

from lab.errors import LabError
from lab.incidents import keys, overdue_story, registry, streams
from lab.incidents.cloud import Account
from lab.incidents.overdue_story import BLOCKED, Said
from lab.incidents.overdue_world import Plot, build
from lab.incidents.stage import Incident, Stage, incidents, side_by_side
from lab.incidents.world import World
from lab.names import CLEANUP, CLEANUP_LOGS
from lab.processes import HOST
from lab.scene import Scene

__all__ = ["INCIDENTS", "VIEWS"]

VIEWS = ("weekly_activity", "top_ranks")
"""Of the schema `reporting`: what somebody built upon two sandboxes that are over."""

_CLOSED = 1  # a port on which nobody listens
_CALM = [14.0] * 24
_LEAKING = [min(100.0, 14.0 + 7 * index) for index in range(24)]
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
_NOTHING_WORKS = Plot(
    overdue=(26 * _HOUR, 15 * _HOUR, 7 * _HOUR, 3 * _HOUR, 95 * _MINUTE, 40 * _MINUTE),
    worked_until=26 * _HOUR + 20 * _MINUTE,
)
_TWO_STUCK = Plot(
    overdue=(26 * _HOUR, 11 * _HOUR, 9 * _MINUTE, 7 * _MINUTE, 5 * _MINUTE, 3 * _MINUTE),
    worked_until=20 * _MINUTE,
)
_STOPPED = Plot(overdue=tuple(each * _MINUTE for each in (160, 130, 105, 85, 60, 40)), worked_until=3 * _HOUR)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cause:
    """A cause: the world it leaves, what the job says and counts as `failed`, how it is made and removed."""

    name: str
    summary: str
    plot: Plot
    failed: int
    said: Said
    make: Callable[[Stage, Account, World], None]
    remove: Callable[[Stage, Account], None]
    last_run: timedelta = 10 * _MINUTE
    runs: bool = True
    connections: Sequence[float] = tuple(_CALM)


def _lay_out(cause: _Cause, stage: Stage) -> None:
    """Write the world, make the cause, and let the schedule run the job under it."""
    world, account, env = build(stage.now, cause.plot), Account(stage.env), stage.env
    side_by_side(
        lambda: registry.lay_out(env["DATABASE_URL"], world),
        lambda: keys.lay_out(env["REDIS_URL"], world),
        lambda: streams.lay_out(env["NATS_URL"]),
        lambda: _cloud(account, cause, world),
    )
    cause.make(stage, account, world)
    if cause.runs and account.run_cleanup() == 0:
        raise LabError(f"the clean-up ran well: the cause {cause.name} does not hold")


def _relieve(cause: _Cause, stage: Stage) -> None:
    """Remove the cause, and let the schedule's next run take away what is over."""
    account = Account(stage.env)
    cause.remove(stage, account)
    _let_an_hour_pass(stage)
    if code := account.run_cleanup():
        raise LabError(f"the clean-up still fails (exit code {code}): its log is {CLEANUP_LOGS}")


def _cloud(account: Account, cause: _Cause, world: World) -> None:
    counted = overdue_story.counts(world)
    quarters = overdue_story.run_times(world.now, last=cause.last_run, hours=2)
    results = list(overdue_story.results(world, quarters, failed=cause.failed))
    account.measure([counted, *results], connections=cause.connections, until=world.now)
    failures = {"sandbox-cleanup-failures": results[0].values} if cause.failed else {}
    account.alarm({"sandbox-count-high": counted.values, **failures})
    account.log(overdue_story.lines(world, quarters, cause.said))


def _let_an_hour_pass(stage: Stage) -> None:
    """Age what was last done to sandboxes that are being destroyed: the job leaves them alone for a while."""
    with stage.database() as connection:
        connection.execute(
            """UPDATE public.sandbox_audit_log AS a SET created_at = a.created_at - interval '65 minutes'
            FROM public.sandboxes AS s WHERE s.id = a.sandbox_id AND s.status = 'destroying'"""
        )


def _disable(stage: Stage, account: Account, world: World) -> None:
    account.client("events").disable_rule(Name=CLEANUP)


def _enable(stage: Stage, account: Account) -> None:
    account.client("events").enable_rule(Name=CLEANUP)


def _misdirect(stage: Stage, account: Account, world: World) -> None:
    # The rule takes the newest.
    account.define(CLEANUP, {"DATABASE_URL": f"postgresql://lab@{HOST}:{_CLOSED}/arrakis"})


def _direct(stage: Stage, account: Account) -> None:
    account.define(CLEANUP, {"DATABASE_URL": stage.env["DATABASE_URL"]})


def _exhaust(stage: Stage, account: Account, world: World) -> None:
    stage.play(Scene(actors={"connections": ()}))


def _lock(stage: Stage, account: Account, world: World) -> None:
    stage.play(Scene(actors={"lock": tuple(row.schema_name for row in world.sandboxes[:BLOCKED])}))


def _stop_redis(stage: Stage, account: Account, world: World) -> None:
    stage.play(Scene(down=("redis",)))


def _set_right(stage: Stage, account: Account) -> None:
    stage.play(Scene())


def _create_views(stage: Stage, account: Account, world: World) -> None:
    with stage.database() as connection:
        connection.execute("CREATE SCHEMA reporting")
        for view, row in zip(VIEWS, world.sandboxes, strict=False):
            select = sql.SQL("CREATE VIEW {} AS SELECT tier, count(*) AS members FROM {} GROUP BY tier")
            source = sql.Identifier(row.schema_name, "profiles")
            connection.execute(select.format(sql.Identifier("reporting", view), source))


def _drop_views(stage: Stage, account: Account) -> None:
    with stage.database() as connection:
        for view in VIEWS:
            drop = sql.SQL("DROP VIEW IF EXISTS {}")
            connection.execute(drop.format(sql.Identifier("reporting", view)))


_CAUSES = (
    _Cause(
        name="rule-disabled",
        summary="somebody disabled the clean-up's schedule three hours ago",
        plot=_STOPPED,
        failed=0,
        said=overdue_story.healthy,
        make=_disable,
        remove=_enable,
        last_run=3 * _HOUR,
        runs=False,
    ),
    _Cause(
        name="task-failing",
        summary="the clean-up's task definition names a database that does not answer",
        plot=_NOTHING_WORKS,
        failed=1,
        said=overdue_story.refused,
        make=_misdirect,
        remove=_direct,
    ),
    _Cause(
        name="connections-exhausted",
        summary="a pool leaks: PostgreSQL has no connection left for anybody",
        plot=_NOTHING_WORKS,
        failed=1,
        said=overdue_story.fatal(
            "sorry, too many clients already",
            {"name": "PostgresError", "severity": "FATAL", "code": "53300", "routine": "InitProcess"},
        ),
        make=_exhaust,
        remove=_set_right,
        connections=tuple(_LEAKING),
    ),
    _Cause(
        name="foreign-view",
        summary="views elsewhere rest on the schemas of two sandboxes that are over",
        plot=_TWO_STUCK,
        failed=BLOCKED,
        said=overdue_story.stuck("2BP01", "cannot drop schema {schema} because other objects depend on it"),
        make=_create_views,
        remove=_drop_views,
    ),
    _Cause(
        name="lock-held",
        summary="a transaction that was left open holds tables of two sandboxes that are over",
        plot=_TWO_STUCK,
        failed=BLOCKED,
        said=overdue_story.stuck("55P03", "canceling statement due to lock timeout"),
        make=_lock,
        remove=_set_right,
    ),
    _Cause(
        name="redis-stopped",
        summary="Redis does not answer, and the clean-up fails at the keys",
        plot=_NOTHING_WORKS,
        failed=6,
        said=overdue_story.unkeyed,
        make=_stop_redis,
        remove=_set_right,
    ),
)

INCIDENTS: Sequence[Incident] = incidents(_CAUSES, lay_out=_lay_out, relieve=_relieve)
