"""What RB-SB-004's incidents happen in: sandboxes whose guilds' events a real worker routes, and the systems in one hand."""

import asyncio
import time
from collections.abc import Callable

import nats
import redis

from lab import gateway
from lab.errors import LabError
from lab.incidents import registry, routing_world, streams
from lab.incidents.cloud import Account
from lab.incidents.stage import Stage, side_by_side
from lab.names import WORKER, WORKER_LOGS
from lab.scene import Scene
from sandbox import routes
from sandbox.adapters.nats import Nats

__all__ = ["Scenery", "lay_out_world", "wait_until"]

_ALARM = "arrakis-lab-sandbox-routing-errors"
_SECONDS = 20.0
_PAUSE = 0.05
_CALM = [14.0] * 24
_ROUNDS = 2  # of an incident's burst: enough for what follows from it to be seen


class Scenery:
    """The lab's systems in one hand, and the world that is laid out in them."""

    def __init__(self, stage: Stage) -> None:
        self.env = stage.env
        self.account, self.nats = Account(stage.env), Nats(stage.env["NATS_URL"])
        self.redis = redis.Redis.from_url(stage.env["REDIS_URL"], socket_timeout=5)
        self.world = routing_world.build(stage.now)
        self.guilds = routing_world.guilds(self.world)

    def send(self, *guilds: str, kinds: tuple[str, ...]) -> None:
        """Publish some more events of these guilds than the traffic has."""
        gateway.send(self.env["NATS_URL"], guilds * _ROUNDS, kinds)

    def rings(self) -> bool:
        """Whether the alarm is in ALARM."""
        [alarm] = self.account.client("cloudwatch").describe_alarms(AlarmNames=[_ALARM])["MetricAlarms"]
        return bool(alarm["StateValue"] == "ALARM")

    def running(self) -> bool:
        """Whether the worker's service runs as it should, and no deployment is under way."""
        service = self.account.worker()
        [first, *others] = service["deployments"]
        return not others and first["rolloutState"] == "COMPLETED" and service["runningCount"] == 1

    def routes(self) -> bool:
        """Whether it runs, and nothing that has come waits for it."""
        return self.running() and streams.served(self.env["NATS_URL"])

    def deploy(self, nats_url: str) -> None:
        """Let the service run one task of a definition that names this NATS."""
        told = {name: self.env[name] for name in ("DATABASE_URL", "REDIS_URL")}
        told |= {"NATS_URL": nats_url, "LOG_LEVEL": "info", "ARRAKIS_ENV": "lab"}
        self.account.update_worker(taskDefinition=self.account.define(WORKER, told), desiredCount=1)

    def empty(self, *names: str) -> None:
        """Throw away what is in these streams."""

        async def purge() -> None:
            client = await nats.connect(self.env["NATS_URL"], connect_timeout=5)
            for name in names:
                await client.jetstream().purge_stream(name)
            await client.close()

        asyncio.run(purge())


def lay_out_world(stage: Stage) -> None:
    """Write the world, start the worker and the traffic in it, and wait until all is routed. Raises LabError."""
    lab, env = Scenery(stage), stage.env
    side_by_side(
        lambda: registry.lay_out(env["DATABASE_URL"], lab.world),
        lambda: _fill_cache(lab),
        lambda: streams.lay_out(env["NATS_URL"]),
        lambda: _set_up_account(lab),
    )
    stage.play(Scene(actors={"traffic": tuple(lab.guilds)}))
    wait_until(lab.routes, "the worker does not serve its consumers")


def _set_up_account(lab: Scenery) -> None:
    lab.deploy(lab.env["NATS_URL"])
    now = lab.world.now
    lab.account.measure([routing_world.errors(now)], connections=_CALM, until=now)
    lab.account.alarm({})
    lab.account.log(routing_world.lines(lab.world))


def _fill_cache(lab: Scenery) -> None:
    with lab.redis.pipeline() as pipeline:
        for guild, sandbox in lab.guilds.items():
            pipeline.set(routes.key_of(guild), str(sandbox), px=routes.LIFETIME)
        for row in lab.world.sandboxes:
            for number in range(row.keys if row.status == "running" else 0):
                pipeline.set(f"sandbox:{row.id}:session:{number}", "{}")
        pipeline.execute()


def wait_until(reached: Callable[[], bool], otherwise: str) -> None:
    """Raise LabError, saying `otherwise`, if that is not so before long."""
    deadline = time.monotonic() + _SECONDS
    while not reached():
        if time.monotonic() > deadline:
            raise LabError(f"{otherwise}: its log is {WORKER_LOGS}")
        time.sleep(_PAUSE)
