"""The way that events take, on real servers: what is wrong is told, and each remedy does what was planned and no more."""

import asyncio
import json
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from nats.aio.client import Client

from diagnostics.compute import read_service
from diagnostics.routes import Fault, read_routes
from diagnostics.stack import Stack
from diagnostics.streams import Served, read_messaging
from runbooks.engine.environment import Environment, resolve
from runbooks.engine.errors import Exit, LeaseHeld
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Finding, Reversibility, Severity, State
from runbooks.engine.operate import Diagnosis, Operator
from runbooks.rb_sb_004 import RUNBOOK, diagnose, gather, propose, try_canary
from runbooks.remedies import remedies
from runbooks.routing.evidence import Evidence
from sandbox.adapters.nats import Nats
from sandbox.errors import ArrakisError, SandboxError
from sandbox.model import Sandbox
from sandbox.ports import SqlTransaction
from sandbox.routes import NOWHERE, key_of
from sandbox.streams import (
    Condition,
    Config,
    check,
    ensure,
    expected_consumers,
    expected_streams,
    publish,
    read,
)
from tests.integration.gated import Gated, gated
from tests.integration.messaging import by_hand
from tests.integration.world import World
from tests.waiting import eventually

ALL: list[Config] = [*expected_streams(), *expected_consumers()]
SANDBOX, EVENTS = expected_streams()
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def gate(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    """Return the remedies, with the lease held."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.env.items():
            patch.setenv(name, value)
        patch.setattr("diagnostics.streams._PAUSE", 0.02)  # nobody serves this world's consumers, mostly
        with gated(world.env, tmp_path_factory.mktemp("state")) as opened:
            yield opened


@pytest.fixture
def nats(world: World) -> Iterator[Nats]:
    """Return messaging with everything there as expected, and nothing in it."""
    writer = Nats(world.env["NATS_URL"])
    for stream in (SANDBOX, EVENTS):
        writer.delete_stream(stream.name)
    ensure(writer, ALL)
    yield writer
    world.wipe()


@pytest.fixture
def box(world: World, nats: Nats) -> Sandbox:
    """Return a sandbox with two guilds, whose cached routes live for as long as they do."""
    made = world.make("box", guilds=("101", "102"))
    for guild in ("101", "102"):
        world.redis.set(key_of(guild), str(made.id), px=60_000)
    return made


def see(gate: Gated, **about: str) -> Evidence:
    """Gather, as an operator's diagnosis does."""
    return gather(gate.read, now=datetime.now(UTC), deadline=10, stack=Stack(), **about)


def planned(gate: Gated, verb: str) -> Action:
    """Return the only action of a verb that is proposed now, as a plan that was read back from disk has it."""
    [action] = [each for each in propose(see(gate))[0] if each.verb == verb]
    return replace(
        action, before=json.loads(json.dumps(action.before)), after=json.loads(json.dumps(action.after))
    )


def faults(world: World, gate: Gated) -> dict[str, Fault]:
    """Return what is wrong with each guild's cached route."""
    found = read_routes(world.database, gate.read.keys, pause=lambda _: None)
    return {each.cached.guild: each.fault for each in found.wrong}


def test_every_fault_of_a_cached_route_is_told_in_one_pass(world: World, gate: Gated, box: Sandbox) -> None:
    other, gone = world.make("other", guilds=("103",)), world.write_row("gone", "destroyed")
    over = world.write_row("over", "expired")
    world.sql.execute("INSERT INTO sandbox_guild_mapping (guild_id, sandbox_id) VALUES ('104', %s)", (over,))
    world.redis.delete(key_of("103"))
    held = {
        "101": str(other.id), "102": NOWHERE, "104": str(over), "105": str(gone), "106": str(uuid4()),
        "107": "x\x1b[2J", "108": NOWHERE, "109": str(box.id),
    }  # fmt: skip
    for guild, value in held.items():
        world.redis.set(key_of(guild), value, px=60_000)
    world.redis.set(key_of("110"), NOWHERE)
    world.redis.lpush(key_of("111"), "no string")
    assert faults(world, gate) == {
        "101": Fault.OTHER,
        "102": Fault.NEGATIVE,
        "104": Fault.UNMAPPED,
        "105": Fault.GONE,
        "106": Fault.GONE,
        "107": Fault.NONSENSE,
        "109": Fault.UNMAPPED,
        "110": Fault.LASTING,
    }
    found = read_routes(world.database, gate.read.keys, pause=lambda _: None)
    assert (len(found.mapped), found.uncached) == (4, 1)
    assert [each.wanted for each in found.wrong[:3]] == ["box", "box", None]
    assert all(each.cached.left <= 60 or math.isinf(each.cached.left) for each in found.wrong)
    shown = [
        line for each in diagnose(see(gate)) for line in (each.summary, *each.evidence.get("details", ()))
    ]
    assert not any("\x1b" in line for line in shown)


def test_what_changes_while_one_looks_is_not_called_stale(world: World, gate: Gated, box: Sandbox) -> None:
    other = world.make("other")
    world.redis.set(key_of("101"), str(other.id), px=60_000)
    world.redis.set(key_of("102"), str(other.id), px=60_000)

    def meanwhile(_: float) -> None:
        """One guild's new mapping is committed; the other's route is replaced."""
        world.sql.execute(
            "UPDATE sandbox_guild_mapping SET sandbox_id = %s WHERE guild_id = '101'", (other.id,)
        )
        world.redis.set(key_of("102"), NOWHERE, px=60_000)

    assert read_routes(world.database, gate.read.keys, pause=meanwhile).wrong == ()


def test_many_routes_are_compared_by_batches(world: World, gate: Gated, box: Sandbox) -> None:
    world.redis.mset({key_of(f"9{number:05}").decode(): NOWHERE for number in range(2_500)})
    found = read_routes(world.database, gate.read.keys, pause=lambda _: None)
    assert (len(found.cached), len(found.wrong)) == (2_502, 2_500)
    assert {each.fault for each in found.wrong} == {Fault.LASTING}


def test_a_wrong_route_is_deleted_and_put_back_as_it_was(world: World, gate: Gated, box: Sandbox) -> None:
    for life in (30_000, None):
        world.redis.set(key_of("101"), NOWHERE, px=life)
        action, remedy = planned(gate, "delete route"), gate.remedies["delete route"]
        assert gate.state(action)[0] is State.BEFORE
        assert gate.apply(action) == (State.AFTER, "no route is cached")
        remedy.revert(action)
        assert world.redis.get(key_of("101")) == NOWHERE.encode()
        left = world.redis.pttl(key_of("101"))
        assert (29_000 < left <= 30_000) if life else (left == -1)


def test_a_route_that_is_right_by_now_or_another_is_left_alone(
    world: World, gate: Gated, box: Sandbox
) -> None:
    world.redis.set(key_of("101"), NOWHERE)
    action, remedy = planned(gate, "delete route"), gate.remedies["delete route"]
    world.redis.set(key_of("101"), str(box.id), px=60_000)
    assert gate.state(action) == (State.AFTER, "what is cached is right")
    with pytest.raises(ArrakisError, match="another route of guild 101 is cached by now"):
        remedy.revert(action)
    assert world.redis.get(key_of("101")) == str(box.id).encode()
    world.redis.set(key_of("101"), "else")
    assert gate.state(action) == (State.CHANGED, "else is cached")
    world.redis.set(key_of("101"), NOWHERE)
    world.sql.execute("DELETE FROM sandbox_guild_mapping WHERE guild_id = '101'")
    assert gate.state(action)[0] is State.BEFORE, "it is right, and never ends"
    world.redis.set(key_of("101"), NOWHERE, px=60_000)
    assert gate.state(action)[0] is State.AFTER


def test_what_is_missing_is_made_and_taken_away_again(gate: Gated, nats: Nats) -> None:
    nats.delete_stream("SANDBOX")
    stream, consumer = planned(gate, "create stream"), planned(gate, "create consumer")
    assert [gate.state(each)[0] for each in (stream, consumer)] == [State.BEFORE] * 2
    assert gate.apply(stream) == (State.AFTER, "it is there, with 0 messages")
    assert gate.apply(consumer) == (State.AFTER, "it is there, 0 messages wait")
    assert {each.condition for each in check(nats, ALL)} == {Condition.AS_EXPECTED}
    for each in (consumer, stream):
        gate.remedies[each.verb].revert(each)
        assert gate.state(each)[0] is State.BEFORE


def test_what_is_in_use_by_now_is_not_taken_away(gate: Gated, nats: Nats) -> None:
    nats.delete_stream("SANDBOX")
    stream, consumer = planned(gate, "create stream"), planned(gate, "create consumer")
    gate.apply(stream)
    gate.apply(consumer)
    publish(nats, uuid4(), "a", b"{}")
    with serving(nats):
        eventually(lambda: delivered(nats) == 1)
    for each, why in ((stream, "has 1 message by now"), (consumer, "has handed out messages by now")):
        with pytest.raises(ArrakisError, match=why):
            gate.remedies[each.verb].revert(each)
        assert gate.state(each)[0] is State.AFTER


def test_what_somebody_made_otherwise_meanwhile_is_left_alone(gate: Gated, nats: Nats) -> None:
    nats.delete_stream("SANDBOX")
    action, consumer = planned(gate, "create stream"), planned(gate, "create consumer")
    nats.create_stream(replace(SANDBOX, max_msgs=7))
    state, why = gate.state(action)
    assert (state, "max_msgs is 7" in why) == (State.CHANGED, True)
    nats.create_consumer(replace(expected_consumers()[0], ack_policy="all"))
    state, why = gate.state(consumer)
    assert (state, "ack_policy is all" in why) == (State.CHANGED, True)


NARROW = {"subjects": ("sandbox.a.>", "other.>"), "max_msgs": 20}


def test_a_drifted_stream_is_corrected_keeps_its_messages_and_gets_its_old_configuration_back(
    gate: Gated, nats: Nats
) -> None:
    nats.change_stream("SANDBOX", NARROW)
    nats.publish("SANDBOX", "other.x", b"kept")
    action = planned(gate, "correct stream")
    assert action.before["fields"] == ["subjects", "max_msgs"]
    assert gate.apply(action) == (State.AFTER, "it is as expected")
    assert {each.condition for each in check(nats, ALL)} == {Condition.AS_EXPECTED}
    assert [each.data for each in nats.messages("SANDBOX", "other.>", 9)] == [b"kept"]
    gate.remedies[action.verb].revert(action)
    assert gate.state(action)[0] is State.BEFORE
    found = nats.stream("SANDBOX")
    assert found is not None
    assert (found.config.subjects, found.config.max_msgs) == (NARROW["subjects"], 20)


def test_a_stream_is_not_made_tighter_than_what_is_in_it_by_now(gate: Gated, nats: Nats) -> None:
    nats.change_stream("SANDBOX", {"max_msgs": 2})
    action = planned(gate, "correct stream")
    assert gate.apply(action)[0] is State.AFTER
    for number in range(3):
        nats.publish("SANDBOX", "sandbox.x", str(number).encode())
    with pytest.raises(ArrakisError, match="what is beyond that of its 3 messages is thrown away"):
        gate.remedies[action.verb].revert(action)
    nats.change_stream("SANDBOX", {"max_msgs": 1_000_000})
    other = replace(
        action, before={**action.before, "config": {**action.before["config"], "max_msgs": 1_000_000}}
    )
    tight = replace(other, after={"config": {**action.after["config"], "max_msgs": 2}})
    with pytest.raises(ArrakisError, match="thrown away"):
        gate.apply(tight)
    assert len(nats.messages("SANDBOX", "sandbox.>", 9)) == 3
    assert gate.apply(replace(tight, reversibility=Reversibility.IRREVERSIBLE))[0] is State.AFTER
    assert len(nats.messages("SANDBOX", "sandbox.>", 9)) == 2


def test_a_stream_that_is_altered_since_the_plan_is_left_alone(gate: Gated, nats: Nats) -> None:
    nats.change_stream("SANDBOX", NARROW)
    action = planned(gate, "correct stream")
    nats.change_stream("SANDBOX", {"max_age": timedelta(hours=1)})
    state, why = gate.state(action)
    assert (state, "max_age is 1:00:00" in why) == (State.CHANGED, True)
    nats.delete_stream("SANDBOX")
    assert gate.state(action) == (State.CHANGED, "there is no such stream any more")


def test_a_canary_is_stored_once_and_its_way_is_timed(gate: Gated, nats: Nats, box: Sandbox) -> None:
    [action] = try_canary(see(gate, sandbox="box"))
    assert gate.state(action) == (State.BEFORE, "it is not in the stream")
    with serving(nats):
        assert gate.apply(action) == (State.AFTER, "it is in the stream as sequence 1")
    seen = gate.remedies[action.verb].observe(action).evidence
    assert 0 < seen["stored_ms"] <= seen["taken_ms"] <= seen["acknowledged_ms"] < 3_000
    [message] = read(nats, box.id)
    assert message.subject == f"sandbox.{box.id}.events.arrakis.canary"
    assert json.loads(message.data)["data"]["canary"] is True
    gate.remedies[action.verb].apply(action)
    assert len(read(nats, box.id)) == 1
    gate.remedies[action.verb].revert(action)
    assert read(nats, box.id) == []


def test_a_canary_that_was_killed_before_its_end_is_found_again(
    world: World, gate: Gated, nats: Nats, box: Sandbox
) -> None:
    [action] = try_canary(see(gate, guild="101"))
    publish(
        nats,
        box.id,
        "arrakis.canary",
        json.dumps(action.after["payload"]).encode(),
        id=action.before["event"],
    )
    assert gate.state(action)[0] is State.AFTER
    nats.delete_message("SANDBOX", 1)
    late = {**action.before, "planned_at": (datetime.now(UTC) - timedelta(minutes=3)).isoformat()}
    assert gate.state(replace(action, before=late))[0] is State.CHANGED


def test_a_canary_that_nobody_takes_says_so(
    gate: Gated, nats: Nats, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbooks.remedies.routing._TAKEN_WITHIN", 0.1)
    [action] = try_canary(see(gate, guild="102"))
    gate.apply(action)
    seen = gate.remedies[action.verb].observe(action).evidence
    assert (seen["taken_ms"], seen["acknowledged_ms"]) == (None, None)


def test_a_service_is_deployed_anew_once_and_the_stream_is_waited_for(
    world: World, gate: Gated, nats: Nats
) -> None:
    action, remedy = planned(gate, "restart service"), gate.remedies["restart service"]
    assert gate.state(action)[0] is State.BEFORE
    assert gate.in_use(action) is None
    nats.delete_stream("SANDBOX")
    makes = threading.Timer(0.3, lambda: ensure(nats, ALL))
    makes.start()
    remedy.apply(action)
    makes.join()
    begun = deployment(gate)
    assert begun != action.before["deployment"]
    state, why = gate.state(action)
    assert (state, why.endswith("1 of 1 tasks run, and stream SANDBOX is there")) == (State.AFTER, True)
    remedy.apply(action)
    assert deployment(gate) == begun, "a deployment that was begun is not begun twice"
    nats.delete_stream("SANDBOX")
    assert gate.state(action)[0] is State.PARTLY
    with pytest.raises(ArrakisError, match="have ended"):
        remedy.revert(action)


def deployment(gate: Gated) -> str:
    """Return the id of the worker service's deployment."""
    service = read_service(gate.read.aws, cluster="arrakis", name="arrakis-worker")
    assert service is not None
    assert service.primary is not None
    return service.primary.id


def test_without_the_lease_nothing_is_changed(
    world: World, gate: Gated, nats: Nats, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: SqlTransaction) -> None:
        raise LeaseHeld("the lease is not ours any more")

    monkeypatch.setattr("runbooks.remedies.service._POLL", 0.0)
    world.redis.set(key_of("101"), NOWHERE)
    nats.delete_stream("EVENTS")
    nats.change_stream("SANDBOX", NARROW)
    seen = see(gate, guild="101")
    actions = [*propose(seen)[0], *try_canary(seen), restarting(gate)]
    assert {each.verb for each in actions} == {
        "delete route", "create stream", "create consumer", "correct stream", "publish canary", "restart service",
    }  # fmt: skip
    lapsed = Gate(read=gate.read, write=gate.write, fence=lost, tell=lambda _: None)
    powerless, before = remedies(lapsed), everything(world, gate, nats)
    for action in actions:
        with pytest.raises(LeaseHeld):
            powerless[action.verb].apply(action)
        if action.verb != "restart service":
            with pytest.raises(LeaseHeld):
                powerless[action.verb].revert(action)
    assert everything(world, gate, nats) == before


def restarting(gate: Gated) -> Action:
    """Return the action that restarts the service as it is now."""
    before = {"cluster": "arrakis", "service": "arrakis-worker", "deployment": deployment(gate)}
    [action] = try_canary(see(gate, guild="101"))
    return replace(action, verb="restart service", before=before, after={"stream": "SANDBOX"})


def everything(world: World, gate: Gated, nats: Nats) -> list[object]:
    """All that a remedy could have changed."""
    streams = [(each.expected, each.condition, each.drift) for each in check(nats, ALL)]
    routes = {key: world.redis.get(key) for key in sorted(world.redis.scan_iter("sandbox:route:*"))}
    stored = nats.stream("SANDBOX")
    return [streams, routes, stored and stored.last_sequence, deployment(gate)]


def test_who_serves_a_consumer_is_seen_by_looking_more_than_once(nats: Nats) -> None:
    def served(stream: str) -> Served:
        return read_messaging(nats, replicas=None).consumer(stream).served

    assert served("SANDBOX") is Served.NO
    with serving(nats):
        eventually(lambda: served("SANDBOX") is Served.YES)
    assert take(nats, fill(nats, 1_000)) == 1_000
    assert served("SANDBOX") is Served.STUCK


def fill(nats: Nats, count: int) -> int:
    """Publish so many messages for sandboxes; how many there were."""

    async def publish_all(client: Client) -> int:
        for _ in range(count):
            await client.publish("sandbox.1.events.a", b"{}")
        await client.flush()
        return count

    return by_hand(f"nats://{nats.host}", publish_all)


def take(nats: Nats, count: int) -> int:
    """Take messages from the workers' consumer and leave them without an answer; how many there were."""

    async def fetch(client: Client) -> int:
        pulling = await client.jetstream().pull_subscribe_bind("sandbox-consumer", "SANDBOX")
        taken = 0
        while taken < count:
            taken += len(await pulling.fetch(count - taken, timeout=5))
        return taken

    return by_hand(f"nats://{nats.host}", fetch)


def delivered(nats: Nats) -> int:
    """How far the workers' consumer has come."""
    state = nats.consumer("SANDBOX", "sandbox-consumer")
    return state.delivered if state else -1


@contextmanager
def serving(nats: Nats) -> Iterator[None]:
    """A sandbox worker that takes and acknowledges, beside the block."""
    over, ready = threading.Event(), threading.Event()

    async def work(client: Client) -> None:
        pulling = await client.jetstream().pull_subscribe_bind("sandbox-consumer", "SANDBOX")
        while not over.is_set():
            ready.set()
            try:
                for message in await pulling.fetch(1, timeout=0.2):
                    await message.ack()
            except TimeoutError:
                continue

    thread = threading.Thread(target=lambda: by_hand(f"nats://{nats.host}", work))
    thread.start()
    ready.wait(5)
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_what_is_asked_about_has_to_be_there(world: World, gate: Gated, box: Sandbox) -> None:
    world.make("other", guilds=("103",))
    with pytest.raises(SandboxError, match="there is no sandbox named nothing"):
        see(gate, sandbox="nothing")
    with pytest.raises(ArrakisError, match="a guild and a sandbox are two ways to ask"):
        see(gate, guild="103", sandbox="other")
    assert [each.summary for each in hops(see(gate, guild="103"))[:1]] == [
        f"hop 1, mapping: 103 → other ({world.mapped()['103']})"
    ]
    assert len(hops(see(gate, sandbox="box"))) == 8
    told = [each.summary for each in diagnose(see(gate, guild="999")) if each.check == "cause"]
    assert "cause: guild 999 is mapped to no sandbox: its events go to production" in told
    for guild in ("", "abc", "999\x1b"):  # the empty one is a shell's unset variable, and asks not about all
        with pytest.raises(ArrakisError, match="is no guild id"):
            see(gate, guild=guild)
    with pytest.raises(ArrakisError, match="'' can be no sandbox's name"):
        see(gate, sandbox="")


def hops(evidence: Evidence) -> list[Finding]:
    """The findings of the way."""
    return [each for each in diagnose(evidence) if each.check == "hop"]


def test_messages_and_listeners_of_one_sandbox_are_seen(gate: Gated, nats: Nats, box: Sandbox) -> None:
    publish(nats, box.id, "member.join", b"{}")
    publish(nats, uuid4(), "member.join", b"{}")

    async def listen(client: Client) -> list[str]:
        await client.subscribe(f"sandbox.{box.id}.>")
        await client.flush()
        return [each.summary for each in await asyncio.to_thread(lambda: hops(see(gate, sandbox="box")))]

    told = by_hand(f"nats://{nats.host}", listen)
    assert re.search(r"; 1 message is on them, the last read \d s old", told[5])
    assert "127.0.0.1:" in told[6]
    assert "listens to this sandbox in particular" in told[6]


@pytest.fixture
def environment(world: World, gate: Gated, nats: Nats, tmp_path: Path) -> Environment:
    """Return the world as an operator's target."""
    return resolve(None, world.env, tmp_path, tmp_path)


DOWN: list[tuple[str, str, str, set[str]]] = [
    ("database_url", f"postgresql://lab@{NOBODY}/arrakis", "PostgreSQL", {"cached routes", "connections"}),
    ("redis_url", f"redis://{NOBODY}/0", "Redis", {"cached routes"}),
    ("nats_url", f"nats://{NOBODY}", "NATS", {"streams and consumers", "whether events circle"}),
]


@pytest.mark.parametrize(("field", "url", "name", "unseen"), DOWN)
def test_a_source_that_is_down_is_named_and_unknown_and_the_rest_is_told(
    environment: Environment, field: str, url: str, name: str, unseen: set[str]
) -> None:
    changed: dict[str, Any] = {field: url}
    found = diagnosed(replace(environment, **changed))
    assert found.exit is Exit.UNKNOWN
    assert found.findings[0].summary.startswith(f"cause: {name} ")
    told = {each.check for each in found.findings if each.severity is Severity.UNKNOWN}
    assert {name, *unseen} <= told
    assert {each.check for each in found.findings} > {"service", "log"}


def test_without_the_table_a_guilds_cached_route_is_still_looked_at(
    environment: Environment, box: Sandbox
) -> None:
    found = diagnosed(replace(environment, database_url=f"postgresql://lab@{NOBODY}/arrakis"), guild="101")
    told = [each.summary for each in found.findings if each.check == "hop"]
    assert told[0].startswith("hop 1, mapping: cannot tell: PostgreSQL at 127.0.0.1:1")
    assert f"101 → {box.id}, ends by itself in" in told[2]
    assert "cannot tell whether that is right" in told[2]


def diagnosed(environment: Environment, **about: str) -> Diagnosis:
    """Diagnose, as an operator does."""
    operator = Operator(environment, timeout=5, progress=lambda *_: None, tell=lambda _: None)
    return operator.diagnose(RUNBOOK, about=about)
