"""What production feels is judged against a calm day, and turned into a pace: tables of cases, and a clock that is wound by hand."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from diagnostics.strain import Level, Limits, Pressure, Strain, calm_of, judge
from runbooks.engine.errors import LeaseHeld, Stopped
from runbooks.engine.throttle import Meter, Throttle
from sandbox.errors import Busy, Denied, Unreachable
from sandbox.facts import Fact, Known, Unknown
from sandbox.ports import SqlWriter

MIB = 2**20
CALM = Strain(lock_waits=0, active=2, lately=5, lag=0.0, behind=0, commit=0.004)
LIMITS = Limits()
FULL, SLOW, PAUSE = Level.FULL, Level.SLOW, Level.PAUSE
SQL: SqlWriter = object()  # type: ignore[assignment]  # nothing here talks to a database
UNKNOWN = Unknown("PostgreSQL gave no answer within 3 s")


# ---- judged


@pytest.mark.parametrize(
    ("now", "level", "reason"),
    [
        ({}, FULL, ""),
        ({"lock_waits": 1}, FULL, ""),
        ({"lock_waits": 3}, SLOW, "3 sessions wait for locks, 0 before we began"),
        ({"lock_waits": 4}, PAUSE, "4 sessions wait for locks, 0 before we began"),
        ({"active": 6}, FULL, ""),
        ({"active": 7}, SLOW, "7 sessions are at work, 2 before we began"),
        ({"active": 15}, PAUSE, "15 sessions are at work, 2 before we began"),
        ({"commit": 0.012}, FULL, ""),
        ({"commit": 0.041}, SLOW, "commits take 41 ms, 4 ms before we began"),
        ({"commit": 1.5}, PAUSE, "commits take 1.5 s, 4 ms before we began"),
        ({"lag": 2.9}, FULL, ""),
        ({"lag": 3.0}, SLOW, "a standby is 3.0 s behind, 0 ms before we began"),
        ({"lag": 15.0}, PAUSE, "a standby is 15.0 s behind, 0 ms before we began"),
        ({"behind": 64 * MIB}, SLOW, "a standby is 64 MiB behind, 0 MiB before we began"),
        ({"behind": 512 * MIB}, PAUSE, "a standby is 512 MiB behind, 0 MiB before we began"),
        ({"lock_waits": 2, "commit": 0.1}, PAUSE, "commits take 100 ms, 4 ms before we began"),
        ({"lag": None, "behind": None}, FULL, ""),  # its standby is gone
    ],
)
def test_the_worst_figure_says_how_to_go_on(now: dict[str, Any], level: Level, reason: str) -> None:
    assert judge(Known(replace(CALM, **now)), CALM, LIMITS) == Pressure(level=level, reason=reason)


def test_what_nobody_can_tell_is_no_calm() -> None:
    found = judge(UNKNOWN, CALM, LIMITS)
    assert (found.level, found.unknown) == (PAUSE, True)
    assert "no answer within 3 s" in found.reason


def test_what_is_usual_here_is_no_strain() -> None:
    usual = Strain(lock_waits=2, active=40, lately=90, lag=9.0, behind=900 * MIB, commit=0.08)
    assert judge(Known(usual), calm_of([usual], LIMITS), LIMITS).level is FULL


def test_a_standby_that_came_since_has_fallen_behind_since() -> None:
    alone = replace(CALM, lag=None, behind=None)
    assert judge(Known(replace(CALM, lag=4.0)), alone, LIMITS).level is SLOW


@pytest.mark.parametrize(
    ("before", "lag", "level"),
    [
        (FULL, 2.0, FULL),
        (SLOW, 2.0, SLOW),
        (SLOW, 1.7, FULL),
        (SLOW, 10.0, SLOW),
        (PAUSE, 10.0, PAUSE),
        (PAUSE, 8.0, SLOW),
        (PAUSE, 1.7, FULL),
    ],
)
def test_a_level_is_left_only_when_it_is_clearly_over(before: Level, lag: float, level: Level) -> None:
    assert judge(Known(replace(CALM, lag=lag)), CALM, LIMITS, before=before).level is level


def test_calm_is_the_usual_of_several_samples_but_never_what_is_strained_already() -> None:
    samples = [
        replace(CALM, commit=commit, active=active) for commit, active in ((0.9, 1), (0.002, 5), (0.004, 3))
    ]
    assert calm_of(samples, LIMITS) == replace(CALM, commit=0.004, active=5)
    strained = calm_of([replace(CALM, lock_waits=9, commit=2.0)] * 3, LIMITS)
    assert (strained.lock_waits, strained.commit) == (2, 0.1)
    assert judge(Known(replace(CALM, lock_waits=9)), strained, LIMITS).level is PAUSE


# ---- paced


def meter(share: float = 0.4) -> Meter:
    return Meter(CALM, LIMITS, share)


def take(meter: Meter, *samples: Level | None) -> list[str]:
    """Let a meter take samples, each of a level or None for an unknown one, and return what is told."""
    strains: dict[Level | None, Fact[Strain]] = {
        FULL: Known(CALM),
        SLOW: Known(replace(CALM, lock_waits=2)),
        PAUSE: Known(replace(CALM, lock_waits=9)),
        None: UNKNOWN,
    }
    return [told for sample in samples if (told := meter.take(strains[sample]))]


def test_one_bad_sample_is_chance_and_two_of_three_are_not() -> None:
    mine = meter()
    assert take(mine, SLOW, FULL, FULL, PAUSE, FULL) == []
    assert take(mine, SLOW) == ["slower: 2 sessions wait for locks, 0 before we began"]
    assert mine.pressure.level is SLOW


def test_strain_halves_the_share_and_calm_gives_it_back_little_by_little() -> None:
    mine = meter(0.4)
    take(mine, SLOW, SLOW)
    assert mine.share == pytest.approx(0.2)
    take(mine, *[SLOW] * 20)
    assert mine.share == pytest.approx(0.4 / 16)
    take(mine, FULL)
    assert mine.share == pytest.approx(0.4 / 16)
    take(mine, FULL)
    assert mine.share == pytest.approx(0.4 / 16 + 0.02)
    take(mine, *[FULL] * 30)
    assert mine.share == 0.4


def test_where_nobody_else_is_at_work_there_is_no_rest_until_somebody_comes() -> None:
    alone = Known(replace(CALM, active=0, lately=0))
    mine = Meter(alone.value, LIMITS, 0.25)
    assert mine.share > 4
    mine.take(Known(CALM))  # one look at somebody is enough
    assert mine.share == 0.25
    for sample in (alone, alone, Known(replace(CALM, lately=None)), alone, alone):
        mine.take(sample)
        assert mine.share == 0.25
    mine.take(alone)
    assert mine.share > 4


def test_who_cannot_be_seen_may_be_at_work() -> None:
    assert meter(0.25).share == 0.25
    hidden = calm_of([replace(CALM, lately=0), replace(CALM, lately=None)], LIMITS)
    assert Meter(hidden, LIMITS, 0.25).share == 0.25


def test_a_level_is_left_only_when_it_is_clearly_over_also_from_sample_to_sample() -> None:
    mine, nearly = meter(), Known(replace(CALM, lag=2.0))
    assert mine.take(nearly) == mine.take(nearly) == ""
    for lag in (5.5, 5.5):
        mine.take(Known(replace(CALM, lag=lag)))
    assert mine.pressure.level is SLOW
    assert mine.take(nearly) == mine.take(nearly) == mine.take(nearly) == ""
    assert mine.pressure.level is SLOW


def test_a_pause_is_told_once_with_its_reason_and_so_is_its_end() -> None:
    mine = meter()
    assert take(mine, PAUSE, PAUSE, PAUSE) == ["paused: 9 sessions wait for locks, 0 before we began"]
    assert take(mine, SLOW, SLOW) == ["goes on, slowly: 2 sessions wait for locks, 0 before we began"]
    assert take(mine, FULL, FULL, FULL) == ["faster again: production feels it no more"]


def test_what_nobody_can_tell_pauses_at_once_and_is_over_with_two_calm_samples() -> None:
    mine = meter()
    [told] = take(mine, None)
    assert told.startswith("paused: nobody can tell")
    assert take(mine, FULL) == ["goes on"]


# ---- the throttle


class World:
    """Time that only sleeping moves: when all who take part sleep, it is as late as when the first of them wakes."""

    def __init__(self) -> None:
        self.now, self.present = 1000.0, 1
        self.strain: Strain | Exception = CALM
        self.refusal: Exception | None = None
        self.told: list[str] = []
        self.checks: list[float] = []
        self.measured: list[float] = []
        self.events: list[tuple[float, Callable[[], object]]] = []
        self._alarms: list[float] = []
        self._moved = threading.Condition()

    def throttle(self, share: float = 0.25, **how: Any) -> Throttle:
        return Throttle(
            SQL,
            tell=self.told.append,
            check=self._check,
            measure=self._measure,
            clock=lambda: self.now,
            sleep=self.sleep,
            **{"share": share, "every": 3600, **how},
        )

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        with self._moved:
            wake = self.now + seconds
            self._alarms.append(wake)
            self._move()
            assert self._moved.wait_for(lambda: self.now >= wake, timeout=10)
            self._alarms.remove(wake)

    def leave(self) -> None:
        with self._moved:
            self.present -= 1
            self._move()

    def _move(self) -> None:
        if self._alarms and len(self._alarms) >= self.present:
            self.now = min(self._alarms)
            for at, happen in [each for each in self.events if each[0] <= self.now]:
                self.events.remove((at, happen))
                happen()
            self._moved.notify_all()

    def _measure(self, sql: SqlWriter) -> Strain:
        assert sql is SQL
        self.measured.append(self.now)
        if isinstance(self.strain, Exception):
            raise self.strain
        return self.strain

    def _check(self) -> None:
        self.checks.append(self.now)
        if self.refusal:
            raise self.refusal


@pytest.fixture
def world() -> World:
    return World()


def at_work(
    world: World, throttle: Throttle, *, until: float, step: float = 0.02
) -> list[tuple[float, float]]:
    """Let four workers make steps, and return when each began and ended."""
    made: list[tuple[float, float]] = []

    def work() -> None:
        while world.now < until:
            throttle.pause()
            began = world.now
            world.sleep(step)
            made.append((began, world.now))
        world.leave()

    throttle.pause()  # or all but one would wait for it to find out what is calm
    crew = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    world.present = len(crew)
    for each in crew:
        each.start()
    for each in crew:
        each.join(10)
    world.present = 1
    return sorted(made)


def strained(world: World, throttle: Throttle, strain: Strain | Exception) -> None:
    """Let the throttle see it twice."""
    throttle.pause()
    world.strain = strain
    throttle.sample()
    throttle.sample()


def test_it_says_whether_nobody_else_is_at_work_and_what_nobody_can_tell_is_no_yes(world: World) -> None:
    with world.throttle() as throttle:
        world.strain = Unreachable("PostgreSQL is gone")
        assert not throttle.alone()
        world.strain = replace(CALM, active=0, lately=0)
        assert throttle.alone()
        world.strain = CALM
        throttle.sample()
        assert not throttle.alone()


def test_four_workers_take_turns_and_are_together_at_work_for_their_share(world: World) -> None:
    with world.throttle(0.25) as throttle:
        began = world.now
        steps = at_work(world, throttle, until=began + 20)
    assert sum(end - start for start, end in steps) / (world.now - began) == pytest.approx(0.25, rel=0.15)
    assert all(end <= start for (_, end), (start, _) in pairwise(steps))


def test_a_longer_step_is_followed_by_a_longer_rest_but_waiting_for_work_by_no_endless_one(
    world: World,
) -> None:
    rests = []
    with world.throttle(0.25) as throttle:
        throttle.pause()
        for step in (0.01, 0.1, 300.0):
            world.sleep(step)
            ended = world.now
            throttle.pause()
            rests.append(world.now - ended)
    assert rests == pytest.approx([0.03, 0.3, 1.5])


def test_under_strain_the_rests_are_longer(world: World) -> None:
    with world.throttle(0.25) as throttle:
        strained(world, throttle, replace(CALM, commit=0.04))
        world.sleep(0.1)
        ended = world.now
        throttle.pause()
    assert world.now - ended == pytest.approx(0.7)
    assert world.told == ["slower: commits take 40 ms, 4 ms before we began"]


def test_a_pause_ends_when_production_feels_better_and_then_they_take_turns_again(world: World) -> None:
    with world.throttle() as throttle:
        strained(world, throttle, replace(CALM, lock_waits=9))

        def relieved() -> None:
            world.strain = CALM
            throttle.sample()
            throttle.sample()

        better = world.now + 30
        world.events.append((better, relieved))
        steps = at_work(world, throttle, until=better + 1, step=0.02)
    starts = [start for start, _ in steps]
    assert better <= starts[0] < better + 2
    assert all(later - sooner > 0.1 for sooner, later in pairwise(starts))
    assert world.told == ["paused: 9 sessions wait for locks, 0 before we began", "goes on"]


@pytest.mark.parametrize(
    "refusal", [Stopped("an emergency stop is raised"), LeaseHeld("it is not ours"), Denied("no")]
)
def test_whoever_waits_is_told_within_a_second_that_the_run_may_not_go_on(
    world: World, refusal: Exception
) -> None:
    ended: list[float] = []

    def work() -> None:
        with pytest.raises(type(refusal), match=str(refusal)):
            throttle.pause()
        ended.append(world.now)
        world.leave()

    with world.throttle() as throttle:
        strained(world, throttle, replace(CALM, lock_waits=9))
        stop = world.now + 7.3
        world.events.append((stop, lambda: setattr(world, "refusal", refusal)))
        world.present = 3
        crew = [threading.Thread(target=work, daemon=True) for _ in range(3)]
        for each in crew:
            each.start()
        for each in crew:
            each.join(10)
    assert len(ended) == 3
    assert stop <= min(ended)
    assert max(ended) < stop + 1
    gaps = [later - sooner for sooner, later in pairwise(world.checks)]
    assert min(gaps) >= 0.499  # one of them asks for all
    assert max(gaps) < 0.7


@pytest.mark.parametrize("silence", [Unreachable("no answer"), Busy("somebody holds the lease's row")])
def test_a_check_without_an_answer_ends_no_run(world: World, silence: Exception) -> None:
    with world.throttle() as throttle:
        throttle.pause()
        world.refusal = silence
        world.sleep(1)
        throttle.pause()
    assert world.checks


def test_whether_it_may_go_on_is_asked_again_when_half_a_second_is_over(world: World) -> None:
    with world.throttle() as throttle:
        throttle.pause()
        before = world.checks[-1]
        world.now = before + 0.5
        throttle.pause()
    assert before + 0.5 in world.checks


def test_a_pause_in_which_nobody_can_tell_gives_up_after_a_minute(world: World) -> None:
    with world.throttle() as throttle:
        strained(world, throttle, Unreachable("connection refused"))
        began = world.now
        with pytest.raises(Unreachable, match="connection refused"):
            throttle.pause()
    assert world.now - began == pytest.approx(60, abs=1)
    assert world.told == ["paused: nobody can tell what it feels: connection refused"]


def test_the_minute_begins_when_somebody_could_tell_last_and_is_over_only_then(world: World) -> None:
    silence = Unreachable("connection refused")

    def told(strain: Strain | Exception) -> None:
        world.strain = strain
        throttle.sample()

    with world.throttle() as throttle:
        throttle.pause()
        told(silence)
        world.sleep(30)
        told(CALM)
        known = world.now
        told(silence)
        world.sleep(60)  # all of it, and not more
        with pytest.raises(Unreachable) as error:
            throttle.pause()
    assert world.now - known == pytest.approx(60.1)
    assert error.value.hint == "`resume` takes the run up when it answers again"


def test_what_cannot_be_measured_at_all_is_raised_before_anything_is_begun(world: World) -> None:
    with world.throttle() as throttle:
        world.strain = Unreachable("connection refused")
        with pytest.raises(Unreachable):
            throttle.pause()
        world.strain = CALM
        throttle.pause()  # it answers again
        assert world.told == []


def test_what_this_role_may_not_see_is_said_once_and_left_out(world: World) -> None:
    world.strain = replace(CALM, hidden=("how far standbys are behind",), lag=None, behind=None)
    with world.throttle() as throttle:
        throttle.pause()
        throttle.sample()
        throttle.pause()
    assert world.told == ["not seen from here, and not heeded: how far standbys are behind"]


def test_nothing_is_measured_for_a_run_that_never_pauses(world: World) -> None:
    world.strain = Unreachable("it would be asked")
    before = threading.enumerate()  # another test's may not have gone yet
    with world.throttle():
        assert [each for each in threading.enumerate() if each not in before] == []


def test_a_server_that_hangs_pauses_the_work_and_does_not_hang_the_throttle(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbooks.engine.throttle._ANSWER", 0.05)
    answers = threading.Event()
    with world.throttle() as throttle:
        throttle.pause()
        monkeypatch.setattr(throttle, "_measure", lambda _: answers.wait(10))
        throttle.sample()
    answers.set()
    assert world.told == ["paused: nobody can tell what it feels: no answer within 0.05 s"]


# ---- what it starts with, and its thread


def test_calm_is_measured_five_times_within_a_second_before_anything_is_begun(world: World) -> None:
    with world.throttle() as throttle:
        began = world.now
        throttle.pause()
    assert world.measured == pytest.approx([began + number * 0.2 for number in range(5)])


def test_the_first_step_is_paid_for_as_if_it_had_been_made_whatever_the_clock_says(world: World) -> None:
    world.now = 0.0
    with world.throttle(0.25) as throttle:
        throttle.pause()
    assert world.now == pytest.approx(0.8 - 0.05 + 0.05 / 0.25)


def test_production_has_all_but_three_hundredths_of_the_time_unless_it_is_said_otherwise(
    world: World,
) -> None:
    throttle = Throttle(
        SQL,
        tell=world.told.append,
        check=lambda: None,
        measure=lambda _: CALM,
        clock=lambda: world.now,
        sleep=world.sleep,
    )
    with throttle:
        throttle.pause()
        world.sleep(0.3)
        ended = world.now
        throttle.pause()
    assert (world.now - ended) / 0.3 == pytest.approx(1 / 0.03 - 1)


class Turns:
    """A wait for the end of the throttle: each time it is over, or not, as was told before."""

    def __init__(self, *over: bool) -> None:
        self._over, self.waited, self.done = [*over], list[float | None](), threading.Event()

    def wait(self, seconds: float | None) -> bool:
        self.waited.append(seconds)
        over = self._over.pop(0)
        if over:
            self.done.set()
        return over

    def set(self) -> None:
        self.done.set()


def test_a_thread_of_its_own_takes_a_sample_every_second_until_it_is_over(world: World) -> None:
    before = set(threading.enumerate())  # another test's may not have gone yet
    seen: list[tuple[str, bool]] = []

    def measure(_: SqlWriter) -> Strain:
        now = [each for each in threading.enumerate() if each.name == "throttle" and each not in before]
        seen.extend((each.name, each.daemon) for each in now)
        return CALM

    how: dict[str, Any] = {"tell": world.told.append, "check": lambda: None, "measure": measure}
    throttle = Throttle(SQL, **how, clock=lambda: world.now, sleep=world.sleep)
    turns = Turns(False, False, True)
    throttle._over = turns  # type: ignore[assignment]
    with throttle:
        throttle.pause()
        assert turns.done.wait(10)
    assert turns.waited == [1.0] * 3
    assert seen == [("throttle", True)] * 2  # not at the first five, which are before it


def test_its_thread_ends_with_it(world: World) -> None:
    before = set(threading.enumerate())
    with world.throttle() as throttle:
        throttle.pause()
        [thread] = [each for each in threading.enumerate() if each not in before]
    thread.join(10)
    assert not thread.is_alive()


def test_a_sample_is_waited_for_three_seconds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def gather(_: object, *, deadline: float) -> dict[str, Fact[Strain]]:
        waited.append(deadline)
        return {"strain": Known(CALM)}

    with world.throttle() as throttle:
        throttle.pause()
        monkeypatch.setattr("runbooks.engine.throttle.gather", gather)
        throttle.sample()
    assert waited == [3.0]


def test_what_is_hidden_at_last_is_what_is_said(world: World) -> None:
    hidden = replace(CALM, hidden=("how far standbys are behind",), lag=None, behind=None)

    def measure(_: SqlWriter) -> Strain:
        world.measured.append(world.now)
        return hidden if len(world.measured) == 5 else CALM

    with world.throttle() as throttle:
        throttle._measure = measure
        throttle.pause()
    assert world.told == ["not seen from here, and not heeded: how far standbys are behind"]


def test_nobody_who_reads_along_is_needed(world: World) -> None:
    def tell(_: str) -> None:
        raise BrokenPipeError

    with world.throttle() as throttle:
        throttle._tell = tell
        strained(world, throttle, replace(CALM, commit=0.04))


def test_alone_is_no_when_nobody_can_tell(world: World) -> None:
    world.strain = Unreachable("PostgreSQL is gone")
    with world.throttle() as throttle:
        assert throttle.alone() is False


# ---- on this host


def in_a_thread(call: Callable[[], object]) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert raised == []


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Return what priorities are asked for."""
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr("os.setpriority", lambda *how: asked.append(how))
    return asked


def test_a_workers_thread_has_the_lowest_priority_from_its_first_pause(
    world: World, given: list[tuple[int, int, int]]
) -> None:
    numbers: list[int] = []

    def work() -> None:
        numbers.append(threading.get_native_id())
        throttle.pause()
        assert given == [(os.PRIO_PROCESS, numbers[0], 19)]
        throttle.pause()

    with world.throttle() as throttle:
        in_a_thread(work)
    assert len(given) == 1


def test_our_callers_own_thread_keeps_its_priority(world: World, given: list[tuple[int, int, int]]) -> None:
    with world.throttle() as throttle:
        throttle.pause()
    assert given == []


@pytest.mark.parametrize("error", [PermissionError(), AttributeError("setpriority")])
def test_where_a_thread_has_no_priority_of_its_own_it_works_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: int) -> None:
        raise error

    monkeypatch.setattr("os.setpriority", refuse)
    with world.throttle() as throttle:
        in_a_thread(throttle.pause)
