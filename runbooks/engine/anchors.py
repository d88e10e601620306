"""Anchors: the journal's latest record, named in a log group of CloudWatch, where nobody can take it back.

Each record is chained to the last by hash: one anchor vouches for all records up to it. In PostgreSQL each mirrored record is an
anchor by itself, and needs no other there. The log group is optional: `journal_log_group` under [stack] of an environment's file.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from runbooks.engine.environment import Environment
from runbooks.engine.journal import JournalEntry
from runbooks.engine.model import Phase
from runbooks.engine.plan import dumps
from sandbox.deadline import within
from sandbox.errors import ArrakisError, Conflict, Missing, Unreachable
from sandbox.ports import AwsReader, AwsWriter

__all__ = ["EVERY", "Anchor", "Anchored", "Anchors", "anchored", "anchoring"]

EVERY = 100
"""Records of a run from one anchor to the next; its last record is anchored in any case."""

_PATIENCE = 3.0  # seconds that an anchor may take
_PAGES = 20  # of anchors that are read, the newest first, or of names of streams
_PAGE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """That a chain's record of this number has this hash; `run` is the record's, and so is `at` (UTC)."""

    chain: str
    seq: int
    hash: str
    run: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """What a log group has: the anchors of one chain, and the other chains of the same place.

    It is `whole` unless there were too many to be read.
    """

    anchors: tuple[Anchor, ...]
    others: tuple[str, ...]
    whole: bool


class Anchors:
    """A journal's way to a log group: an anchor at each run's end, and during long ones."""

    def __init__(self, aws: Callable[[], AwsWriter], group: str, *, tell: Callable[[str], None]) -> None:
        """Take how to get at AWS, the log group, and who is told of what could not be anchored."""
        self._aws, self._group, self._tell = aws, group, tell
        self._last: int | None = None  # the latest record that was anchored, or was there before
        self._missed = False
        self._at_it = threading.Lock()

    def __call__(self, entries: list[JournalEntry]) -> None:
        """Anchor the latest of these records, if it is time, within seconds; what fails is told, and left for the next run.

        After one failure a run is not held up again before its end.
        """
        if self._at_it.acquire(blocking=False):  # another worker's anchor does as well
            try:
                self._anchor(entries[-1], before=entries[0].seq - 1)
            finally:
                self._at_it.release()

    def _anchor(self, entry: JournalEntry, *, before: int) -> None:
        self._last = before if self._last is None else self._last
        due = not self._missed and entry.seq - self._last >= EVERY
        if entry.phase is Phase.PLANNED or not (due or entry.phase is Phase.RUN_ENDED):
            return
        try:
            within(_PATIENCE, lambda: _put(self._aws(), self._group, entry), "CloudWatch Logs")
        except ArrakisError as error:
            self._missed = True
            self._tell(f"journal: record {entry.seq} is not anchored, the next run does it: {error}")
        else:
            self._missed, self._last = False, entry.seq


def anchoring(
    environment: Environment, *, tell: Callable[[str], None]
) -> Callable[[list[JournalEntry]], None]:
    """Return how an environment's records are anchored: not at all where it names no log group. Nothing is connected yet."""
    group = environment.stack.journal_log_group
    if group is None:
        return lambda _: None

    def aws() -> AwsWriter:
        from sandbox.adapters.aws import Aws

        return Aws(region=environment.region, timeout=_PATIENCE)

    return Anchors(aws, group, tell=tell)


def _put(aws: AwsWriter, group: str, entry: JournalEntry) -> None:
    anchor = Anchor(chain=entry.chain, seq=entry.seq, hash=entry.hash, run=entry.run, at=entry.at)
    event = {"timestamp": int(entry.at.timestamp() * 1000), "message": dumps(asdict(anchor))}
    where = {"logGroupName": group, "logStreamName": entry.chain}

    def put() -> None:
        answer = aws.write("logs", "put_log_events", **where, logEvents=[event])
        if answer.get("rejectedLogEventsInfo"):
            raise Unreachable("CloudWatch Logs takes no record of that time: is this host's clock right?")

    try:
        put()
    except Missing:  # the stream, or the group: that is said by the next call
        with suppress(Conflict):  # another process made it
            aws.write("logs", "create_log_stream", **where)
        put()


def anchored(aws: AwsReader, group: str, *, chain: str | None, place: str) -> Anchored:
    """Return what a log group has of a chain, and of others of its place. Raises Missing without the group, Unreachable, Denied."""
    streams = list(_streams(aws, group, f"{place}-"))
    pages = list(_pages(aws, group, chain)) if chain else []
    found = [anchor for page in pages for event in page if (anchor := _read(str(event["message"]), chain))]
    return Anchored(
        anchors=tuple(sorted(found, key=lambda each: each.seq)),
        others=tuple(name for name in streams if name != chain),
        whole=len(pages) < _PAGES,
    )


def _streams(aws: AwsReader, group: str, prefix: str) -> Iterator[str]:
    more: Mapping[str, str] = {}
    for _ in range(_PAGES):
        answer = aws.read(
            "logs", "describe_log_streams", logGroupName=group, logStreamNamePrefix=prefix, **more
        )
        yield from (str(stream["logStreamName"]) for stream in answer["logStreams"])
        if not answer.get("nextToken"):
            return
        more = {"nextToken": answer["nextToken"]}


def _pages(aws: AwsReader, group: str, chain: str) -> Iterator[list[Any]]:
    """Yield pages of a stream, the newest first: when the last one is there the answer names the same page again."""
    where = {"logGroupName": group, "logStreamName": chain, "startFromHead": False, "limit": _PAGE}
    token = ""
    for _ in range(_PAGES):
        try:
            answer = aws.read("logs", "get_log_events", **where, **({"nextToken": token} if token else {}))
        except Missing:  # nothing was anchored yet
            return
        yield answer["events"]
        if answer["nextBackwardToken"] == token:
            return
        token = answer["nextBackwardToken"]


def _read(message: str, chain: str | None) -> Anchor | None:
    """Return a line's anchor; None for what is none of this chain, as others may write there too."""
    try:
        data = json.loads(message)
        anchor = Anchor(**{**data, "seq": int(data["seq"]), "at": datetime.fromisoformat(data["at"])})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return anchor if anchor.chain == chain and anchor.seq > 0 else None
