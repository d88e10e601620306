"""Errors and job runs out of a CloudWatch log group: grouped as they stream by, and never more of them than was read.

A window is read newest part first, as what happens now matters most; a part is read whole before an older one is begun.
So a read that is cut short still covers, without a gap, what led up to now.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from diagnostics.grouping import ErrorGroup, Event, grouped
from diagnostics.loglines import parse_json
from sandbox.deadline import within
from sandbox.errors import ArrakisError, Missing, Throttled, Unreachable
from sandbox.ports import AwsReader
from sandbox.text import moment, period

__all__ = ["JobRun", "JobRuns", "LogReport", "read_errors", "read_runs"]

# What is no error is not even sent to us. Plain lines need terms: their level is a word, somewhere. Terms match inside
# words and in JSON lines as well, so these are told apart here; terms that exclude would switch off the `?` of others.
_WORDS = ("error", "fatal", "panic", "critical")  # as a JSON line's level; in capitals the terms find them
_PINO = "{ ($.level >= 50)" + "".join(f' || ($.level = "{word}")' for word in _WORDS) + " }"
_PLAIN = '?"ERROR" ?"FATAL" ?"PANIC" ?"CRITICAL" ?"Error" ?"Fatal" ?"error: " ?"Unhandled"'
_STARTS = '"Starting sandbox cleanup job"'
_RUNS = "{ $.CleanupDurationMs >= 0 }"

_PARTS = (
    1,
    2,
    3,
)  # sixths of the window, from its end: few calls when all is quiet, and soon a whole part when not
_FIRST_PAUSE = 0.25  # seconds, doubled each time that AWS asks to come more slowly


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What was read of a log group: all that was logged from `covered_from` to `end`, and perhaps some before that.

    `stopped` says why the rest was not read; it is empty where all was.
    """

    log_group: str
    begin: datetime
    end: datetime
    covered_from: datetime
    stopped: str

    @property
    def complete(self) -> bool:
        """Whether all of the window was read."""
        return not self.stopped

    @property
    def coverage(self) -> str:
        """What was read, in words: `read 2026-03-01T09:12Z/2026-03-01T10:12Z, complete`, or from where on, and why no more."""
        asked = period(self.begin, self.end)
        if self.complete:
            return f"read {asked}, complete"
        if self.covered_from == self.end:
            return f"read only some lines of {asked}: {self.stopped}"
        return f"read {period(self.covered_from, self.end)}, cut at {moment(self.covered_from)} (asked from {moment(self.begin)}): {self.stopped}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReport(_Read):
    """The errors of a log group: how many lines were fetched and how many of them are errors; the most frequent first."""

    lines: int
    errors: int
    groups: tuple[ErrorGroup, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """One run of the clean-up job as it reported it when it ended."""

    at: datetime
    cleaned: int
    failed: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRuns(_Read):
    """When the clean-up job started, and its runs that ended; both the oldest first."""

    starts: tuple[datetime, ...]
    runs: tuple[JobRun, ...]


def read_errors(
    aws: AwsReader,
    log_group: str,
    *,
    begin: datetime,
    end: datetime,
    budget: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> LogReport:
    """Return the errors, of both formats, that a log group has of a window; within `budget` seconds, cut if need be.

    Only a few samples are held, never all lines. Raises Missing, Unreachable (Throttled too) or Denied where nothing
    could be read; what fails later on cuts the report.
    """
    reading = _Reading(
        aws=aws, log_group=log_group, begin=begin, end=end, budget=budget, clock=clock, sleep=sleep
    )
    groups = grouped(_either(reading.events(_PINO, _PLAIN)), begin, end)
    return LogReport(
        **reading.outcome(), lines=reading.lines, errors=sum(group.count for group in groups), groups=groups
    )


def read_runs(aws: AwsReader, log_group: str, *, begin: datetime, end: datetime, budget: float) -> JobRuns:
    """Return when the clean-up job started and how it ended, within `budget` seconds. Raises as `read_errors` does."""
    reading = _Reading(aws=aws, log_group=log_group, begin=begin, end=end, budget=budget)
    starts: list[datetime] = []
    runs: list[JobRun] = []
    for pattern, (at, text) in reading.events(_STARTS, _RUNS):
        if pattern == _STARTS:
            starts.append(at)
        elif run := _run(at, text):
            runs.append(run)
    return JobRuns(
        **reading.outcome(), starts=tuple(sorted(starts)), runs=tuple(sorted(runs, key=lambda run: run.at))
    )


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One read of a window, page by page, within a budget of seconds."""

    aws: AwsReader
    log_group: str
    begin: datetime
    end: datetime
    budget: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    until: float = field(init=False)
    covered_from: datetime = field(init=False)
    stopped: str = ""
    lines: int = 0

    def __post_init__(self) -> None:
        self.until, self.covered_from = self.clock() + self.budget, self.end

    def outcome(self) -> dict[str, Any]:
        """Return what was read, as the fields of a _Read."""
        return {each.name: getattr(self, each.name) for each in fields(_Read)}

    def events(self, *patterns: str) -> Iterator[tuple[str, Event]]:
        """Yield what matches a pattern, with it. An error ends the reading; it is raised where nothing was read."""
        try:
            for begin, end in _parts(self.begin, self.end):
                for pattern in patterns:
                    for event in self._matching(pattern, begin, end):
                        self.lines += 1
                        yield pattern, event
                self.covered_from = datetime.fromtimestamp(begin / 1000, UTC)
        except Missing as error:
            raise Missing(
                f"there is no log group {self.log_group}",
                hint=f"`aws logs describe-log-groups` lists them; is {self.log_group} this environment's name for it?",
            ) from error
        except ArrakisError as error:
            if not self.lines and self.covered_from == self.end:
                raise
            self.stopped = str(error)

    def _matching(self, pattern: str, begin: int, end: int) -> Iterator[Event]:
        """Yield what matches from `begin` to `end`, in milliseconds. A page may be empty and yet not the last."""
        seen: set[str] = set()
        more: dict[str, object] = {}
        while True:
            page = self._page(filterPattern=pattern, startTime=begin, endTime=end, **more)
            for event in page.get("events", ()):
                yield datetime.fromtimestamp(event["timestamp"] / 1000, UTC), str(event["message"])
            token = page.get("nextToken")
            if not token:
                return
            if token in seen:
                raise Unreachable(f"AWS repeats a page of log group {self.log_group}")
            seen.add(token)
            more = {"nextToken": token}

    def _page(self, **params: object) -> Mapping[str, Any]:
        pause = _FIRST_PAUSE
        while True:
            left = self.until - self.clock()
            if left <= 0:
                raise Unreachable(
                    f"time budget of {self.budget:g} s is used up",
                    hint="a shorter window, or a longer --timeout",
                )
            try:
                return within(
                    max(0.1, round(left, 1)), lambda: self._ask(params), f"log group {self.log_group}"
                )
            except Throttled:
                if pause >= self.until - self.clock():
                    raise
                self.sleep(pause)
                pause *= 2

    def _ask(self, params: Mapping[str, object]) -> Mapping[str, Any]:
        return self.aws.read("logs", "filter_log_events", logGroupName=self.log_group, **params)


def _parts(begin: datetime, end: datetime) -> Iterator[tuple[int, int]]:
    """Yield the window's parts, newest first, in milliseconds; both ends belong to a part."""
    first, last = (int(at.timestamp() * 1000) for at in (begin, end))
    length, until = last - first, last
    for share in range(1, len(_PARTS) + 1):
        since = last - length * sum(_PARTS[:share]) // sum(_PARTS)
        yield since, until
        until = since - 1


def _either(events: Iterable[tuple[str, Event]]) -> Iterator[Event]:
    """Yield each error once: JSON lines that the plain terms match as well may have been in the other read."""
    for pattern, event in events:
        if pattern == _PINO or not _in_other_read(event[1]):
            yield event


def _in_other_read(text: str) -> bool:
    """Whether a line, if it is an error, matches _PINO as well."""
    found = parse_json(text.strip()) if text.startswith("{") else None
    level = found.get("level") if found else None
    return isinstance(level, int | float) or level in _WORDS


def _run(at: datetime, text: str) -> JobRun | None:
    found = parse_json(text.strip()) or {}
    try:
        return JobRun(
            at=at,
            cleaned=int(found["SandboxesCleanedUp"]),
            failed=int(found["CleanupFailures"]),
            seconds=float(found["CleanupDurationMs"]) / 1000,
        )
    except (KeyError, TypeError, ValueError):
        return None
