"""What an emergency stop does in PostgreSQL: the flag, the marks and the way back; beside others, and in the way of none."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from runbooks.emergency.evidence import read_running
from runbooks.engine import lease, stops
from runbooks.engine.errors import Stopped
from runbooks.engine.lease import Lease
from runbooks.engine.model import Action, State
from runbooks.remedies.marking import given_back, marking, raising
from sandbox import registry, schemas
from sandbox.adapters.postgres import Postgres
from sandbox.errors import ArrakisError, Unreachable
from sandbox.removal import Terms, clean_up
from tests.integration.hand import ROWS, Hand, Waiting, at_once, everything, holding, many
from tests.integration.test_cleanup import job
from tests.integration.world import World
from tests.unit.plans import action
from tests.waiting import eventually


def soak(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.soak)


@pytest.fixture
def hand(world: World, tmp_path: Path) -> Iterator[Hand]:
    """Return a hand at a database where nothing was ever stopped, or applied."""
    world.wipe()
    world.sql.execute("DROP SCHEMA IF EXISTS runbooks CASCADE")
    yield Hand(world, tmp_path)
    world.sql.execute("DROP SCHEMA IF EXISTS runbooks CASCADE")


@pytest.fixture
def boxes(world: World, hand: Hand) -> list[UUID]:
    """Return three sandboxes that run, two of them with guilds that are cached, beside some that do not."""
    made = [world.make("one", guilds=("11", "12")), world.make("two", guilds=("21",)), world.make("three")]
    for status in ("pending", "creating", "expired", "destroying", "destroyed"):
        world.write_row(f"it-is-{status}", status)
    return [each.id for each in made]


# ---- down and back


def test_marked_and_given_back_every_field_is_as_before(world: World, hand: Hand, boxes: list[UUID]) -> None:
    before, audited = everything(world), world.count("SELECT count(*) FROM sandbox_audit_log")
    hand.stop()
    assert [world.status(each) for each in boxes] == ["destroyed"] * 3
    assert (
        world.count("SELECT count(*) FROM sandboxes WHERE status = 'destroyed' AND destroyed_at IS NULL") == 1
    )
    changed = {row[0] for row, was in zip(everything(world)[0], before[0], strict=True) if row != was}
    assert changed == set(boxes)
    assert not {key for key in world.key_names() if key.startswith("sandbox:route:")}
    for guild in ("11", "12", "21"):  # as a router caches it that looks meanwhile
        world.redis.set(f"sandbox:route:{guild}", "__NULL__", px=60_000)
    hand.resume()
    assert everything(world) == before
    assert not {key for key in world.key_names() if key.startswith("sandbox:route:")}
    assert hand.raised is None
    assert world.count("SELECT count(*) FROM sandbox_audit_log") == audited + 6
    for each in boxes:
        assert world.events(each)[-2:] == ["sandbox_destroyed", "status_changed"]
    query = "SELECT details FROM sandbox_audit_log WHERE sandbox_id = %s ORDER BY created_at DESC LIMIT 2"
    assert [row[0] for row in world.sql.execute(query.encode(), (boxes[0],)).fetchall()] == [
        {"from": "destroyed", "to": "running", "emergencyResume": "stop-1"},
        {"from": "running", "to": "destroyed", "emergencyStop": "stop-1"},
    ]


def test_twice_is_harmless_and_those_that_began_to_run_meanwhile_are_added(
    world: World, hand: Hand, boxes: list[UUID]
) -> None:
    hand.stop()
    later = world.make("later", guilds=("31",))
    before = everything(world)
    hand.stop("stop-2")
    assert world.status(later.id) == "destroyed"
    told = hand.raised
    assert told
    assert (told.stop.id, {each.id for each in told.waiting}) == ("stop-1", {*boxes, later.id})
    assert everything(world)[0] != before[0]
    hand.stop("stop-3")
    hand.resume()
    hand.resume()
    assert {world.status(each) for each in (*boxes, later.id)} == {"running"}
    assert world.count("SELECT count(*) FROM runbooks.stops") == 1
    hand.stop("stop-4")  # and all of it once more
    hand.resume()
    assert {world.status(each) for each in (*boxes, later.id)} == {"running"}


def test_routes_that_somebody_was_killed_before_deleting_are_seen_and_deleted(
    world: World, hand: Hand, boxes: list[UUID]
) -> None:
    marks = marking("stop-1", read_running(hand.gate.read.sql))
    hand.stop()
    assert hand.raised
    back = given_back("stop-1", hand.raised.waiting)
    world.redis.set("sandbox:route:11", str(boxes[0]), px=60_000)
    seen = hand.seen(marks)
    assert (seen.state, "1 cached route is old" in seen.reason) == (State.PARTLY, True)
    hand.marks.apply(marks)
    assert hand.seen(marks).state is State.AFTER
    hand.marks.revert(back)
    world.redis.set("sandbox:route:11", "__NULL__", px=60_000)
    assert hand.seen(back, back=True).state is State.PARTLY
    hand.flag.revert(
        raising("stop-1", halting=True, reason="", parts=())
    )  # the stop is over, and that route is not
    assert hand.seen(back, back=True).state is State.PARTLY
    hand.marks.revert(back)
    assert hand.seen(back, back=True).state is State.BEFORE
    assert not {key for key in world.key_names() if key.startswith("sandbox:route:")}


def test_how_each_stands_is_told(world: World, hand: Hand, boxes: list[UUID]) -> None:
    flag = raising("stop-1", halting=True, reason="why", parts=(action(1),))
    marks = marking("stop-1", read_running(hand.gate.read.sql))
    assert [hand.seen(step).state for step in (flag, marks)] == [State.BEFORE] * 2
    hand.marks.apply(marks)
    assert [hand.seen(step).state for step in (flag, marks)] == [State.PARTLY, State.AFTER]
    hand.flag.apply(flag)
    assert [hand.seen(step).state for step in (flag, marks)] == [State.AFTER] * 2
    assert hand.raised
    assert hand.raised.stop.reason == "why"  # whichever was first
    back = given_back("stop-1", hand.raised.waiting)
    assert hand.seen(back, back=True).state is State.AFTER
    world.sql.execute("UPDATE sandboxes SET status = 'running' WHERE id = %s", (boxes[0],))
    seen = hand.seen(back, back=True)
    assert (seen.state, seen.evidence) == (State.PARTLY, {"running": 1, "marked": 2})
    assert "one cannot come back: it is running by somebody else's hand" in seen.reason
    hand.marks.revert(back)
    assert hand.seen(back, back=True).state is State.BEFORE
    world.sql.execute("DELETE FROM sandboxes")
    assert hand.seen(back, back=True).state is State.CHANGED


# ---- what somebody did since is left alone


TOUCHED = {
    "it is running by somebody else's hand": "UPDATE sandboxes SET status = 'running', destroyed_at = NULL WHERE id = %s",
    "it is destroying by somebody else's hand": "UPDATE sandboxes SET status = 'destroying' WHERE id = %s",
    "it is destroyed by somebody else's hand": "UPDATE sandboxes SET destroyed_at = now() WHERE id = %s",
    "somebody moved its end since": "UPDATE sandboxes SET expires_at = expires_at + interval '1 hour' WHERE id = %s",
    "its row is gone": "DELETE FROM sandboxes WHERE id = %s",
    "paul wrote ttl_extended about it since": "INSERT INTO sandbox_audit_log (sandbox_id, event_type, actor) VALUES (%s, 'ttl_extended', 'paul')",
}


def test_sandboxes_that_somebody_touched_since_are_left_alone_and_the_others_come_back(
    world: World, hand: Hand, boxes: list[UUID]
) -> None:
    theirs = {why: world.write_row(f"box {number}", "running") for number, why in enumerate(TOUCHED)}
    hand.stop()
    for why, sandbox in theirs.items():
        world.sql.execute(TOUCHED[why].encode(), (sandbox,))
    query = "SELECT * FROM sandboxes WHERE id = ANY (%s) ORDER BY id"
    touched = world.sql.execute(query.encode(), (list(theirs.values()),)).fetchall()
    told = hand.raised
    assert told
    assert {each.id: reason for each, reason in told.lost} == {
        sandbox: why for why, sandbox in theirs.items()
    }
    everybody = [*told.waiting, *(each for each, _ in told.lost)]
    hand.marks.revert(given_back("stop-1", everybody))  # even if a plan has them
    assert world.sql.execute(query.encode(), (list(theirs.values()),)).fetchall() == touched
    assert hand.told == [
        f"  {each.name} cannot come back: {reason}"
        for each, reason in sorted(told.lost, key=lambda lost: lost[0].name)
    ]
    assert [world.status(each) for each in boxes] == ["running"] * 3
    hand.resume()
    assert hand.raised is None


def test_one_whose_schema_is_gone_does_not_come_back(world: World, hand: Hand, boxes: list[UUID]) -> None:
    hand.stop()
    world.sql.execute(f'DROP SCHEMA "sandbox_{boxes[2]}" CASCADE'.encode())
    hand.resume()
    assert [world.status(each) for each in boxes] == ["running", "running", "destroyed"]
    [told] = hand.told
    assert told.startswith(
        f"  three cannot come back: schema sandbox_{boxes[2]} is gone; if it is in quarantine"
    )
    assert hand.raised is None


def test_a_worker_that_writes_down_its_last_activity_has_touched_nothing(
    world: World, hand: Hand, boxes: list[UUID]
) -> None:
    hand.stop()
    world.sql.execute("UPDATE sandboxes SET last_activity_at = now() WHERE id = %s", (boxes[0],))
    hand.resume()
    assert world.status(boxes[0]) == "running"


def test_a_guild_that_was_taken_away_is_told(world: World, hand: Hand, boxes: list[UUID]) -> None:
    hand.stop()
    other = world.make("other")
    world.sql.execute("UPDATE sandbox_guild_mapping SET sandbox_id = %s WHERE guild_id = '12'", (other.id,))
    hand.resume()
    assert hand.told == ["  one comes back without guild 12: somebody took it away since"]
    assert world.mapped() == {"11": boxes[0], "12": other.id, "21": boxes[1]}


# ---- beside others


def test_a_row_that_somebody_holds_keeps_no_other_from_being_marked_or_given_back(
    world: World, hand: Hand, boxes: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbooks.remedies.marking._PATIENCE", 0.3)
    held = "SELECT FROM sandboxes WHERE id = %s FOR UPDATE"
    step = marking("stop-1", read_running(hand.gate.read.sql))
    with holding(world, held, boxes[1]), pytest.raises(ArrakisError, match="somebody holds the rows of two"):
        hand.marks.apply(step)
    assert [world.status(each) for each in boxes] == ["destroyed", "running", "destroyed"]
    assert hand.seen(step).state is State.PARTLY
    hand.marks.apply(step)
    assert hand.seen(step).state is State.AFTER
    back = given_back("stop-1", hand.raised.waiting if hand.raised else ())
    with holding(world, held, boxes[0]), pytest.raises(ArrakisError, match="somebody holds the rows of one"):
        hand.marks.revert(back)
    assert [world.status(each) for each in boxes] == ["destroyed", "running", "running"]
    hand.marks.revert(back)
    assert world.status(boxes[0]) == "running"


@pytest.mark.parametrize("what", ["rename an orphan", "condemn", "raze"])
def test_what_waits_for_a_lock_while_the_flag_is_raised_changes_nothing(
    world: World, hand: Hand, boxes: list[UUID], what: str
) -> None:
    world.sql.execute("CREATE SCHEMA sandbox_0badcafe")
    now = registry.time_of(world.database)
    if what == "raze":
        world.sql.execute("UPDATE sandboxes SET status = 'destroying' WHERE id = %s", (boxes[0],))
    before, schemas_before = world.sql.execute(ROWS.encode()).fetchall(), world.schemas()
    with Lease.held(world.database, holder="stilgar", run="r1") as held:

        def change() -> None:
            if what == "rename an orphan":
                old, new = "sandbox_0badcafe", "quarantine_0badcafe"
                schemas.rename_orphan(world.database, old, new, token="0badcafe", oid=None, fence=held.fence)
            else:
                fenced = Terms(actor="chani", now=now, fence=held.fence)
                clean_up(world.database, hand.gate.write.keys, boxes[:1], fenced, insist=lambda *_: None)

        table = "sandboxes" if what != "raze" else f'"sandbox_{boxes[0]}".profiles'
        with holding(world, "SELECT 1") as other:
            other.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE".encode())
            if what == "condemn":
                other.execute("SELECT FROM sandboxes WHERE id = %s FOR UPDATE", (boxes[0],))

            def meddle() -> None:
                eventually(lambda: bool(world.count("SELECT count(*) FROM pg_locks WHERE NOT granted")))
                hand.flag.apply(raising("stop-1", halting=True, reason="", parts=()))
                other.commit()

            meddling = threading.Thread(target=meddle)
            meddling.start()
            with suppress(Stopped):
                change()
            meddling.join()
    assert world.sql.execute(ROWS.encode()).fetchall() == before
    assert world.schemas() == schemas_before


def test_a_row_that_is_held_for_a_moment_is_waited_for(world: World, hand: Hand, boxes: list[UUID]) -> None:
    with holding(world, "UPDATE sandboxes SET last_activity_at = now() WHERE id = %s", boxes[1]) as other:
        release = threading.Timer(0.3, other.commit)
        release.start()
        hand.stop()
        release.join()
    assert [world.status(each) for each in boxes] == ["destroyed"] * 3
    hand.resume()


def test_who_only_refers_to_a_row_is_not_in_the_way(
    world: World, hand: Hand, boxes: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbooks.remedies.marking._PATIENCE", 0.0)
    referring = "INSERT INTO sandbox_guild_mapping (guild_id, sandbox_id) VALUES ('41', %s)"
    with holding(world, referring, boxes[1]):
        hand.stop()
    assert [world.status(each) for each in boxes] == ["destroyed"] * 3


def test_raising_the_flag_does_not_wait_for_the_rows(world: World, hand: Hand, boxes: list[UUID]) -> None:
    running = read_running(hand.gate.read.sql)
    lease.prepare(hand.gate.write.sql)
    hand.flag.apply(raising("stop-1", halting=False, reason="", parts=()))
    with hand.gate.write.sql.transaction() as transaction:
        stops.mark(transaction, {row.id: names for row, names in running}, actor="chani")
        hand.flag.apply(raising("stop-2", halting=True, reason="", parts=()))
        assert stops.raised(hand.gate.read.sql) == replace(
            hand.raised.stop if hand.raised else None, halting=True
        )  # type: ignore[type-var]
    hand.resume()


@pytest.mark.soak
def test_without_redis_the_rows_are_marked_and_given_back_and_it_is_said(
    world: World, hand: Hand, boxes: list[UUID], tmp_path: Path
) -> None:
    blind = Hand(world, tmp_path, REDIS_URL="redis://127.0.0.1:1/0")
    step = marking("stop-1", read_running(hand.gate.read.sql))
    with pytest.raises(ArrakisError, match="cached routes stay until they end, within a minute: Redis"):
        blind.marks.apply(step)
    assert (blind.seen(step).state, hand.seen(step).state) == (State.AFTER, State.PARTLY)
    back = given_back("stop-1", hand.raised.waiting if hand.raised else ())
    with pytest.raises(ArrakisError, match="cached routes stay"):
        blind.marks.revert(back)
    assert hand.seen(back, back=True).state is State.BEFORE
    assert [world.status(each) for each in boxes] == ["running"] * 3
    hand.resume()


# ---- the record


def test_what_the_first_stop_recorded_stays_unless_it_is_the_one_that_is_over(hand: Hand) -> None:
    first, second = (replace(action(number), verb="stop service") for number in (1, 2))
    other = replace(action(3), verb="disable rule")

    def parts() -> dict[str, Any]:
        told = stops.raised(hand.gate.read.sql)
        assert told
        return {verb: raw["resource"]["id"] for verb, raw in told.parts.items()}

    def raise_(part: Action, **over: Any) -> None:
        step = raising("stop-1", halting=False, reason="", parts=(part,), over=over)
        hand.flag.apply(step)

    raise_(first)
    known = stops.raised(hand.gate.read.sql)
    assert known
    raise_(second)
    assert parts() == {"stop service": "t1"}
    raise_(other, **{"stop service": {**known.parts["stop service"], "reason": "another"}})
    assert parts() == {"stop service": "t1", "disable rule": "t3"}
    raise_(second, **{"stop service": known.parts["stop service"]})
    assert parts() == {"stop service": "t2", "disable rule": "t3"}


def test_the_flag_goes_up_with_the_second_stop_and_down_alone(hand: Hand) -> None:
    def flag() -> tuple[bool, str]:
        told = stops.raised(hand.gate.read.sql)
        assert told
        return told.halting, told.reason

    hand.flag.apply(raising("stop-1", halting=False, reason="why", parts=()))
    assert flag() == (False, "why")
    up = raising("stop-2", halting=True, reason="because", parts=())
    assert hand.seen(up).state is State.PARTLY
    hand.flag.apply(up)
    hand.flag.apply(raising("stop-3", halting=False, reason="", parts=()))
    assert flag() == (True, "why")
    down = raising("stop-1", halting=True, reason="", parts=(), whole=False)
    assert hand.seen(down, back=True).state is State.AFTER
    hand.flag.revert(down)
    assert flag() == (False, "why")
    assert hand.seen(down, back=True).state is State.BEFORE
    hand.resume()
    assert stops.raised(hand.gate.read.sql) is None


def test_a_stop_is_not_lifted_before_its_sandboxes_are_back(hand: Hand, boxes: list[UUID]) -> None:
    hand.stop()
    with pytest.raises(ArrakisError, match="stays raised: 3 sandboxes are marked destroyed"):
        hand.flag.revert(raising("stop-1", halting=True, reason="", parts=()))
    assert hand.raised
    hand.resume()


def test_what_another_stop_did_is_not_taken_back(world: World, hand: Hand, boxes: list[UUID]) -> None:
    hand.stop()
    old = hand.way_back()
    hand.resume()
    hand.stop("stop-2")
    for step in old:
        with pytest.raises(ArrakisError, match="another stop is raised, stop-2 by chani"):
            (hand.marks if step.verb == hand.marks.verb else hand.flag).revert(step)
    assert hand.seen(old[0], back=True).state is State.CHANGED
    assert [world.status(each) for each in boxes] == ["destroyed"] * 3
    hand.resume()


def test_an_undo_gives_back_what_its_own_run_marked_and_no_more(
    world: World, hand: Hand, boxes: list[UUID]
) -> None:
    hand.stop()
    later = world.make("later")
    step = marking("stop-1", read_running(hand.gate.read.sql))
    hand.marks.apply(step)
    hand.marks.revert(step)
    assert [world.status(each) for each in (*boxes, later.id)] == ["destroyed"] * 3 + ["running"]
    hand.resume()


@pytest.mark.parametrize(
    "name", ["Jos\udce9 O'Brien \"; DROP TABLE x; -- 沙漠 🏜", soak("x" * 200), soak("Müller-Łukasz")]
)
def test_any_name_is_taken(world: World, hand: Hand, boxes: list[UUID], tmp_path: Path,
                           monkeypatch: pytest.MonkeyPatch, name: str) -> None:  # fmt: skip
    monkeypatch.setenv("SANDBOX_OWNER", name)
    other = Hand(world, tmp_path, actor=lease.actor())
    other.stop()
    shown = name.replace("\udce9", "?")
    assert other.raised
    assert other.raised.stop.raised_by == shown
    query = "SELECT DISTINCT actor FROM sandbox_audit_log WHERE details ? 'emergencyStop'"
    assert world.one(query) == shown[:64]
    other.resume()
    assert world.one("SELECT lifted_by FROM runbooks.stops") == shown


# ---- at the same moment


def test_the_tables_are_made_by_two_at_once(world: World, hand: Hand) -> None:
    url = world.env["DATABASE_URL"]
    for _ in range(5):
        world.sql.execute("DROP SCHEMA IF EXISTS runbooks CASCADE")
        assert at_once(*[lambda: lease.prepare(Postgres(url, tag="tests"))] * 4) == [None] * 4


def test_the_steps_of_one_stop_record_it_one_after_the_other(world: World, hand: Hand) -> None:
    flag = raising("stop-1", halting=True, reason="", parts=())
    lease.prepare(hand.gate.write.sql)
    with Waiting(world, hand.flag.apply, flag) as second, hand.gate.write.sql.transaction() as first:
        stops.raise_stop(first, id="stop-1", by="ada", reason="", halting=False, parts={}, over={})
        # Two that insert one id at once would fail where neither sees the other yet: so it waits before that.
        second.begin(waits_for="advisory")
    assert second.raised is None
    assert hand.raised
    assert (hand.raised.stop.raised_by, hand.raised.stop.halting) == ("ada", True)


def test_two_stops_at_the_same_moment_are_one(
    world: World, hand: Hand, boxes: list[UUID], tmp_path: Path
) -> None:
    first, second = (Hand(world, tmp_path, actor=actor) for actor in ("ada", "ben"))
    before = everything(world)
    for number in range(3):
        if number < 2:
            world.sql.execute("DROP SCHEMA IF EXISTS runbooks CASCADE")
        steps = [raising(f"{n}-{number}", halting=n == "ada", reason="", parts=()) for n in ("ada", "ben")]
        running = read_running(hand.gate.read.sql)
        marks = [marking(f"{n}-{number}", running) for n in ("ada", "ben")]
        assert at_once(
            partial(first.flag.apply, steps[0]), partial(first.marks.apply, marks[0]),
            partial(second.flag.apply, steps[1]), partial(second.marks.apply, marks[1]),
        ) == [None] * 4  # fmt: skip
        for who in (first, second):
            assert [who.seen(step).state for step in (*steps, *marks)] == [State.AFTER] * 4
        assert hand.raised
        assert hand.raised.stop.halting
        assert {each.id for each in hand.raised.waiting} == set(boxes)
        assert world.count("SELECT count(*) FROM runbooks.stopped_sandboxes WHERE restored_at IS NULL") == 3
        hand.resume()
        assert everything(world) == before


def test_a_stop_and_a_resume_at_the_same_moment_lose_no_sandbox(
    world: World, hand: Hand, boxes: list[UUID], tmp_path: Path
) -> None:
    other = Hand(world, tmp_path, actor="ben")
    before = everything(world)
    lifted = 0
    for number in range(6):
        hand.stop(f"first-{number}")
        later = world.write_row("later", "running")
        step = marking(f"second-{number}", read_running(hand.gate.read.sql))
        at_once(hand.resume, partial(other.marks.apply, step))
        query = "SELECT id FROM sandboxes WHERE status = 'destroyed' AND destroyed_at IS NOT NULL"
        gone = {row[0] for row in world.sql.execute(query.encode()).fetchall()}
        told = hand.raised
        assert gone == ({each.id for each in told.waiting} if told else set())
        lifted += world.count("SELECT count(*) FROM runbooks.stops WHERE lifted_at IS NOT NULL") > lifted
        hand.resume()
        assert hand.raised is None
        world.sql.execute("DELETE FROM sandboxes WHERE id = %s", (later,))
        assert everything(world) == before
    assert lifted  # the race was run


def test_a_stop_is_not_lifted_while_another_marks_for_it(world: World, hand: Hand, boxes: list[UUID]) -> None:
    running = read_running(hand.gate.read.sql)
    flag = raising("stop-1", halting=True, reason="", parts=())
    hand.flag.apply(flag)
    with Waiting(world, hand.flag.revert, flag) as lifting, hand.gate.write.sql.transaction() as marking_:
        stops.mark(marking_, {row.id: names for row, names in running}, actor="chani")
        lifting.begin()
    assert "stays raised: 3 sandboxes are marked destroyed" in str(lifting.raised)
    hand.resume()


def test_nothing_is_marked_for_a_stop_that_is_being_lifted(
    world: World, hand: Hand, boxes: list[UUID]
) -> None:
    running = read_running(hand.gate.read.sql)
    hand.flag.apply(raising("stop-1", halting=True, reason="", parts=()))

    def mark(_: object) -> None:
        with hand.gate.write.sql.transaction() as transaction:
            stops.mark(transaction, {row.id: names for row, names in running}, actor="chani")

    with Waiting(world, mark, None) as marking_, hand.gate.write.sql.transaction() as lifting:
        assert stops.held(lifting, id="stop-1")
        stops.lift(lifting, id="stop-1", by="chani")
        marking_.begin()
    assert [world.status(each) for each in boxes] == ["running"] * 3
    assert world.count("SELECT count(*) FROM runbooks.stopped_sandboxes") == 0


# ---- who honours the flag


def test_a_lease_says_at_its_next_step_that_a_stop_is_raised(hand: Hand) -> None:
    with Lease.held(hand.gate.write.sql, holder="chani", run="run-1") as held:
        held.check()
        hand.flag.apply(raising("stop-1", halting=False, reason="", parts=()))
        held.check()  # a part of it that leaves the clean-up alone
        hand.flag.apply(raising("stop-2", halting=True, reason="", parts=()))
        with pytest.raises(Stopped, match="an emergency stop is raised by chani"):
            held.check()
    hand.resume()


def insist_for(seconds: float, watch: stops.Watch) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        watch.insist()


def test_a_watch_sees_the_flag_within_a_second_and_does_not_forget_it(world: World, hand: Hand) -> None:
    with stops.watching(hand.gate.read.sql) as watch:
        watch.insist()
        hand.flag.apply(raising("stop-1", halting=True, reason="", parts=()))
        raised = time.monotonic()
        with pytest.raises(Stopped):
            insist_for(5, watch)
        assert time.monotonic() < raised + 1.0
        hand.resume()
        watch.look()
        with pytest.raises(Stopped):
            watch.insist()


def test_a_watch_that_cannot_look_insists_on_it(
    world: World, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Postgres("postgresql://lab@127.0.0.1:1/arrakis", tag="tests")
    with stops.watching(nowhere) as watch, pytest.raises(Unreachable):
        watch.insist()
    with stops.watching(hand.gate.read.sql) as watch:
        watch.insist()

        def fails(_: object) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr("runbooks.engine.stops.raised", fails)
        with pytest.raises(ArrakisError, match="nobody can tell whether a stop is raised"):
            insist_for(5, watch)


def test_the_clean_up_job_leaves_alone_what_a_stop_marked(
    world: World, hand: Hand, boxes: list[UUID]
) -> None:
    hand.stop()
    before = everything(world), world.schemas(), world.key_names()
    kept = stops.marked(hand.gate.read.sql)
    assert kept == set(boxes)
    report = job(world)[0].run(kept=kept)
    assert (report.finished, [each.placement.sandboxes for each in report.orphans or ()]) == (0, [])
    due = {row[0] for row in before[0][0] if row[3] == "expired"}
    rows, mappings = everything(world)
    assert [row for row in rows if row[0] in boxes] == [row for row in before[0][0] if row[0] in boxes]
    assert mappings == before[0][1]
    assert (world.schemas(), world.key_names()) == before[1:]
    assert due
    hand.resume()
    assert stops.marked(hand.gate.read.sql) == frozenset()


# ---- many


def test_two_thousand_are_marked_and_given_back(world: World, hand: Hand) -> None:
    many(world, 2000)
    before = everything(world)
    began = time.monotonic()
    hand.stop()
    marked = time.monotonic()
    assert hand.raised
    assert len(hand.raised.waiting) == 2000
    assert world.count("SELECT count(DISTINCT marked_at) FROM runbooks.stopped_sandboxes") == 1  # together
    looked = time.monotonic()
    hand.resume()
    print(f"\n2,000: marked in {marked - began:.2f} s, given back in {time.monotonic() - looked:.2f} s")
    assert everything(world) == before
