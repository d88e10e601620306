"""Errors are grouped as they stream by, and a read that was cut says what it covers."""

import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.grouping import BINS, ELSE, Event, grouped
from diagnostics.logs import LogReport, read_errors
from sandbox.errors import ArrakisError, Denied, Throttled, Unreachable

BEGIN = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
END = BEGIN + timedelta(hours=1)
GROUP = "/ecs/arrakis-worker"


def line(minute: float, message: str, **more: Any) -> Event:
    said = {"level": 50, "component": "EventRouter", "msg": message, **more}
    return BEGIN + timedelta(minutes=minute), json.dumps(said, separators=(",", ":"))


def test_equal_errors_are_one_group() -> None:
    refused = "connect ECONNREFUSED 10.0.0.1:6379"
    newest = line(30, "Failed 7", error=refused, sandboxId="a", step="drop_schema")
    oldest = line(0, "Failed 1", error=refused.replace("0.1", "9.9"), sandboxId="b", step="drop_schema")
    most, other = grouped([newest, oldest, line(10, "other")], BEGIN, END)
    assert (most.count, most.first, most.last) == (2, oldest[0], newest[0])
    assert (most.component, most.sandboxes, most.steps) == ("EventRouter", ("a", "b"), ("drop_schema",))
    assert most.sample == f"Failed 7: {refused} (at step drop_schema)"
    assert most.cause is not None
    assert most.cause.key == "redis-refused"
    assert [slot for slot, count in enumerate(most.histogram) if count] == [0, 12]
    assert (other.count, other.cause, other.histogram[4]) == (1, None, 1)


def test_a_sample_cannot_move_the_cursor_and_is_short() -> None:
    [group] = grouped([line(1, "Failed\n\x1b[2J " + "x" * 1000)], BEGIN, END)
    assert group.sample.startswith(r"Failed \x1b[2J xxx")
    assert len(group.sample) == 300
    assert group.sample.endswith("…")


def test_the_most_frequent_comes_first_and_of_equals_the_most_recent() -> None:
    lines = [line(1, "often"), line(2, "often"), line(3, "early"), line(40, "late")]
    assert [group.sample for group in grouped(lines, BEGIN, END)] == ["often", "late", "early"]


def test_lines_beside_the_window_are_counted_at_its_ends() -> None:
    [group] = grouped([line(-5, "x"), line(60, "x"), line(65, "x")], BEGIN, END)
    assert (group.histogram[0], group.histogram[-1], sum(group.histogram)) == (1, 2, 3)
    assert len(group.histogram) == BINS
    assert grouped([line(0, "x")], BEGIN, BEGIN)[0].count == 1
    assert grouped([], BEGIN, END) == ()


def test_groups_and_the_names_in_them_are_bounded() -> None:
    words = ["".join(random.Random(seed).choices("ghijklmnop", k=12)) for seed in range(300)]
    lines = [line(seed % 60, word, sandboxId=word) for seed, word in enumerate(words)]
    lines += [line(5, words[0], sandboxId=word) for word in words]
    groups = grouped(lines, BEGIN, END)
    assert len(groups) == 201
    assert sum(group.count for group in groups) == len(lines)
    assert (groups[-1].fingerprint, groups[-1].count, groups[-1].cause) == (ELSE, 100, None)
    assert groups[0].count == 301
    assert max(len(group.sandboxes) for group in groups) == 20


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c d", "e 1", "e 2"]), st.integers(0, 59))), st.randoms()
)
def test_counts_do_not_depend_on_the_order(said: list[tuple[str, int]], order: random.Random) -> None:
    lines = [line(minute, message) for message, minute in said]
    shuffled = lines.copy()
    order.shuffle(shuffled)

    def seen(lines: list[Event]) -> Counter[tuple[object, ...]]:
        groups = grouped(lines, BEGIN, END)
        return Counter((g.fingerprint, g.count, g.first, g.last, g.histogram) for g in groups)

    assert seen(lines) == seen(shuffled)
    assert sum(group.count for group in grouped(lines, BEGIN, END)) == len(lines)


def test_only_errors_are_counted() -> None:
    lines = [
        line(1, "a"),
        line(2, "b", level=30),
        (BEGIN, "ERROR c"),
        (BEGIN, "INFO d"),
        line(3, "e", level=60),
        line(4, "f", level=40),
    ]
    assert {group.sample for group in grouped(lines, BEGIN, END)} == {"a", "ERROR c", "e"}


def many(count: int) -> Iterator[tuple[datetime, str]]:
    """Yield lines of both formats, each with an id and an address of its own, every second one of them an error."""
    for number in range(count):
        at, id = BEGIN + timedelta(milliseconds=36 * number), f"{number:08x}-82b6-49b7-a7f6-d86f86e45136"
        error = f'{{"code":"2BP01","detail":"view v_{number} depends on table sandbox_{id}.communities"}}'
        head = f'"time":1700000000000,"pid":{number},"component":"CleanupProvider","sandboxId":"{id}"'
        yield (
            at,
            (
                f'{{"level":50,{head},"msg":"Sandbox cleanup failed","error":{error}}}',
                f'{{"level":30,{head},"msg":"Sandbox cleaned up"}}',
                f"ERROR connection refused by 10.0.{number % 250}.7:5432 for sandbox_{id}",
                f"INFO routed {number} events",
            )[number % 4],
        )


def test_lines_are_never_held_at_once() -> None:
    """Four times as many take no more memory."""
    peaks: list[int] = []
    tracemalloc.start()
    try:
        for count in (5_000, 20_000):
            tracemalloc.reset_peak()
            groups = grouped(many(count), BEGIN, END)
            peaks.append(tracemalloc.get_traced_memory()[1])
            assert [group.count for group in groups] == [count / 4, count / 4]
            assert [group.cause.key for group in groups if group.cause] == ["postgres-refused", "blockers"]
    finally:
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 2


def report(**changes: Any) -> LogReport:
    whole: dict[str, Any] = {"begin": BEGIN, "end": END, "covered_from": BEGIN, "stopped": ""}
    return LogReport(log_group=GROUP, lines=0, errors=0, groups=(), **(whole | changes))


@pytest.mark.parametrize(
    ("changes", "complete", "words"),
    [
        ({}, True, "read 2026-03-01T09:00Z/2026-03-01T10:00Z, complete"),
        (
            {"covered_from": BEGIN + timedelta(minutes=40), "stopped": "slow"},
            False,
            "read 2026-03-01T09:40Z/2026-03-01T10:00Z, cut at 2026-03-01T09:40Z (asked from 2026-03-01T09:00Z): slow",
        ),
        (
            {"covered_from": END, "stopped": "slow"},
            False,
            "read only some lines of 2026-03-01T09:00Z/2026-03-01T10:00Z: slow",
        ),
        ({"begin": BEGIN - timedelta(days=1)}, True, "read 2026-02-28T09:00Z/2026-03-01T10:00Z, complete"),
    ],
)
def test_a_report_says_what_it_covers(changes: dict[str, Any], complete: bool, words: str) -> None:
    told = report(**changes)
    assert told.complete is complete
    assert told.coverage == words


Answer = Mapping[str, Any] | ArrakisError | Callable[[], Mapping[str, Any]]


class Script:
    """An account that gives prepared answers, in their order, and nothing more. Satisfies AwsReader."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.asked = list(answers), list[dict[str, Any]]()

    def read(self, service: str, operation: str, /, **params: Any) -> Mapping[str, Any]:
        assert (service, operation, params["logGroupName"]) == ("logs", "filter_log_events", GROUP)
        self.asked.append(params)
        answer = self.answers.pop(0)
        if isinstance(answer, ArrakisError):
            raise answer
        return answer() if callable(answer) else answer


class Clock:
    """Seconds that pass only when somebody sleeps or an answer takes its time."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def after(self, seconds: float, answer: Mapping[str, Any]) -> Callable[[], Mapping[str, Any]]:
        def answer_late() -> Mapping[str, Any]:
            self.now += seconds
            return answer

        return answer_late


def page(*texts: str, token: str | None = None) -> dict[str, Any]:
    at = int(END.timestamp() * 1000) - 1000
    events = [{"timestamp": at, "message": text} for text in texts]
    return {"events": events, **({"nextToken": token} if token else {})}


def read(script: Script, clock: Clock | None = None, *, budget: float = 5) -> LogReport:
    clock = clock or Clock()
    return read_errors(script, GROUP, begin=BEGIN, end=END, budget=budget, clock=clock, sleep=clock.sleep)


SLOWER = Throttled("come more slowly")


def test_the_newest_part_is_read_first_and_the_parts_meet() -> None:
    script = Script(*(page() for _ in range(6)))
    assert read(script).complete
    asked = [(each["startTime"], each["endTime"]) for each in script.asked]
    assert asked[::2] == asked[1::2]
    newest, middle, oldest = asked[::2]
    assert newest[1] == END.timestamp() * 1000
    assert (middle[1], oldest[1]) == (newest[0] - 1, middle[0] - 1)
    assert oldest[0] == BEGIN.timestamp() * 1000
    assert END.timestamp() * 1000 - newest[0] == 600_000


def test_an_empty_page_with_a_token_is_not_the_end() -> None:
    script = Script(page(token="1"), page(token="2"), page('{"level":50,"msg":"x"}'), *[page()] * 5)
    told = read(script)
    assert (told.complete, told.errors, told.lines) == (True, 1, 1)
    assert [each.get("nextToken") for each in script.asked[:4]] == [None, "1", "2", None]


@pytest.mark.parametrize("tokens", [["1", "1"], ["1", "2", "1"]])
def test_a_page_that_repeats_ends_the_reading(tokens: list[str]) -> None:
    script = Script(*[page("ERROR x", token=token) for token in tokens])
    told = read(script)
    assert not told.complete
    assert "repeats a page" in told.stopped
    assert told.covered_from == END


def test_a_json_line_that_the_plain_terms_match_too_is_counted_once() -> None:
    pino = '{"level":50,"msg":"Failed","error":{"name":"PostgresError"}}'
    metric = '{"_aws":{},"EventRoutingErrors":3}'
    calm = '{"level":30,"msg":"no Error"}'
    script = Script(page(pino), page(pino, metric, calm, "ERROR x", "INFO after Error: x"), *[page()] * 4)
    told = read(script)
    assert (told.lines, told.errors) == (6, 2)
    assert sorted(group.sample for group in told.groups) == ["ERROR x", "Failed: PostgresError"]


@pytest.mark.parametrize("word", ["error", "fatal", "critical", "panic"])
def test_a_json_line_whose_level_is_a_word_is_counted_once(word: str) -> None:
    line = json.dumps({"level": word, "msg": "TypeError: x"})
    told = read(Script(page(line), page(line), *[page()] * 4))
    assert (told.lines, told.errors) == (2, 1)


@pytest.mark.parametrize("word", ["ERROR", "Error", "FATAL"])
def test_a_json_line_whose_level_only_the_plain_terms_match_is_not_lost(word: str) -> None:
    told = read(Script(page(), page(json.dumps({"level": word, "msg": "x"})), *[page()] * 4))
    assert told.errors == 1


def test_throttled_calls_are_made_again_more_and_more_slowly() -> None:
    clock = Clock()
    told = read(Script(page(), SLOWER, SLOWER, page("ERROR x"), *[page()] * 4), clock)
    assert (told.complete, told.errors) == (True, 1)
    assert clock.slept == [0.25, 0.5]


def test_throttling_without_end_cuts_what_was_read() -> None:
    clock = Clock()
    told = read(Script(page('{"level":50,"msg":"x"}'), page(), *(SLOWER for _ in range(20))), clock)
    assert (told.errors, told.stopped) == (1, "come more slowly")
    assert told.covered_from == END - timedelta(minutes=10)
    assert sum(clock.slept) < 5
    cut = "cut at 2026-03-01T09:50Z (asked from 2026-03-01T09:00Z): come more slowly"
    assert told.coverage == f"read 2026-03-01T09:50Z/2026-03-01T10:00Z, {cut}"


def test_the_budget_cuts_what_was_read() -> None:
    clock = Clock()
    told = read(Script(page(), page(), clock.after(6, page("ERROR x", token="1"))), clock)
    assert told.errors == 1
    assert told.covered_from == END - timedelta(minutes=10)
    assert "time budget of 5 s" in told.stopped


@pytest.mark.parametrize("error", [SLOWER, Denied("the login has expired"), Unreachable("no answer")])
def test_where_nothing_was_read_the_error_itself_is_told(error: ArrakisError) -> None:
    with pytest.raises(type(error), match=str(error)):
        read(Script(page(token="1"), *(error for _ in range(20))))


def test_a_login_that_expires_half_way_cuts_what_was_read() -> None:
    told = read(Script(page(), page(), Denied("the login has expired")))
    assert (told.complete, told.stopped) == (False, "the login has expired")
