"""What waits to be triaged: one SQLite file, bounded, that remembers what was in it for three days.

A delivery is on the disk before it is answered. It is claimed, triaged, done; what was claimed when the process died is waiting
again at the next start. So it is triaged at least once, and once alone as long as nothing dies.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from runbooks.pagerduty.webhook.delivery import Delivery
from sandbox.errors import ArrakisError, Unreachable
from sandbox.private import make_folder, opened

__all__ = ["Claim", "Queue", "Receipt"]

_REMEMBERED = timedelta(hours=72)
# Seconds for other threads, and for other programs at the file: a request has to be answered within one.
_PATIENCE, _BUSY = 0.6, 0.2
_TABLE = """
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    received REAL NOT NULL,  -- seconds since 1970, as the other moments are
    due REAL NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'claimed', 'done', 'aside'))
);
CREATE INDEX IF NOT EXISTS unfinished ON deliveries (seq, due, state) WHERE state IN ('waiting', 'claimed');
CREATE INDEX IF NOT EXISTS finished ON deliveries (received) WHERE state IN ('done', 'aside');
"""
# Both conditions on the state, because SQLite takes a partial index only where its very words are said. A pause is an hour at most:
# what is due later than that was put off before the clock was set back.
_CLAIM = """
UPDATE deliveries SET state = 'claimed', tries = tries + 1 WHERE seq = (
    SELECT seq FROM deliveries
    WHERE state IN ('waiting', 'claimed') AND state = 'waiting' AND (due <= :now OR due > :now + 3600)
    ORDER BY seq LIMIT 1)
RETURNING key, kind, subject, received, tries
"""


class Receipt(StrEnum):
    """What became of a delivery that was put in."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A delivery that one worker has taken; `tries` counts this one."""

    delivery: Delivery
    tries: int


class Queue:
    """The queue in a folder, for the threads of one process. A second process on the same folder is refused."""

    def __init__(self, folder: Path, *, limit: int, clock: Callable[[], datetime]) -> None:
        """Open it, and let wait again what was claimed. `limit` is how many may wait; the clock gives UTC.

        Raises ArrakisError where the folder cannot be used, or another process has it.
        """
        self._limit, self._clock = limit, clock
        self._lock, self._news = threading.Lock(), threading.Event()
        try:
            make_folder(folder)
            self._guard = _alone(folder / "webhook.lock")
            self._file = _opened(folder / "webhook.sqlite")
        except (OSError, sqlite3.Error) as error:
            raise ArrakisError(
                f"the webhook's queue in {folder} cannot be used: {error}",
                hint="free some disk, or move webhook.sqlite away; RUNBOOKS_STATE_DIR names another folder",
            ) from error

    def put(self, delivery: Delivery) -> Receipt:
        """Put a delivery in, unless its key is known or too many wait. On disk when it returns. Raises Unreachable."""
        with self._changing() as file:
            if file.execute("SELECT 1 FROM deliveries WHERE key = ?", (delivery.key,)).fetchone():
                return Receipt.DUPLICATE
            if _unfinished(file) >= self._limit:
                return Receipt.FULL
            file.execute(
                "INSERT INTO deliveries (key, kind, subject, received) VALUES (?, ?, ?, ?)",
                (delivery.key, delivery.kind, delivery.subject, delivery.received.timestamp()),
            )
        self._news.set()
        return Receipt.ACCEPTED

    def claim(self) -> Claim | None:
        """Return the oldest delivery that is due, which is the caller's from now on. Raises Unreachable."""
        with self._changing() as file:
            self._news.clear()
            row = file.execute(_CLAIM, {"now": self._clock().timestamp()}).fetchone()
        if row is None:
            return None
        key, kind, subject, received, tries = row
        at = datetime.fromtimestamp(received, self._clock().tzinfo)
        return Claim(delivery=Delivery(key=key, kind=kind, subject=subject, received=at), tries=tries)

    def done(self, key: str) -> None:
        """Say that a claimed delivery was triaged. Raises Unreachable."""
        self._end(key, "done")

    def set_aside(self, key: str) -> None:
        """Say that a claimed delivery is not tried again. Raises Unreachable."""
        self._end(key, "aside")

    def again(self, key: str, after: timedelta) -> None:
        """Let a claimed delivery wait for another try. Raises Unreachable."""
        due = (self._clock() + after).timestamp()
        with self._changing() as file:
            file.execute("UPDATE deliveries SET state = 'waiting', due = ? WHERE key = ?", (due, key))

    def trim(self) -> int:
        """Forget what is done and was received more than 72 h ago; return how many. Raises Unreachable."""
        before = (self._clock() - _REMEMBERED).timestamp()
        with self._changing() as file:
            return file.execute(
                "DELETE FROM deliveries WHERE state IN ('done', 'aside') AND received < ?", (before,)
            ).rowcount

    def waiting(self) -> tuple[int, float]:
        """Return how many are not finished, and for how many seconds the oldest has waited. Raises Unreachable."""
        with self._changing() as file:
            row = file.execute(
                "SELECT min(received) FROM deliveries WHERE state IN ('waiting', 'claimed')"
            ).fetchone()
            count = _unfinished(file)
        return count, max(0.0, self._clock().timestamp() - row[0]) if count else 0.0

    def wait(self, seconds: float) -> None:
        """Wait for something to be put in, or until the time is over."""
        self._news.wait(seconds)

    def close(self) -> None:
        """Close the file, and let another process have the folder."""
        with self._lock:
            self._file.close()
            os.close(self._guard)

    def _end(self, key: str, state: str) -> None:
        with self._changing() as file:
            file.execute("UPDATE deliveries SET state = ? WHERE key = ?", (state, key))

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Do it whole, synced, or not at all, one thread at a time."""
        if not self._lock.acquire(timeout=_PATIENCE):
            raise Unreachable("the webhook's queue is busy", hint="is its disk slow?")
        try:
            with self._file:
                yield self._file
        except sqlite3.Error as error:
            raise Unreachable(
                f"the webhook's queue cannot be written: {error}", hint="is its disk full?"
            ) from error
        finally:
            self._lock.release()


def _alone(path: Path) -> int:
    """Return the open lock file: held until it is closed, or the process dies."""
    guard = opened(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(guard)
        raise ArrakisError(
            f"another webhook is at work in {path.parent}", hint="stop it first, or set RUNBOOKS_STATE_DIR"
        ) from None
    return guard


def _opened(path: Path) -> sqlite3.Connection:
    """Return the file, ready for use: as it was left, but that what was claimed waits again."""
    os.close(opened(path, os.O_RDWR))  # SQLite would make it readable for all
    file = sqlite3.connect(path, timeout=_BUSY, check_same_thread=False)
    try:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = FULL")
        [[verdict]] = file.execute("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        file.executescript(_TABLE)
        with file:
            file.execute("UPDATE deliveries SET state = 'waiting' WHERE state = 'claimed'")
    except BaseException:
        file.close()
        raise
    return file


def _unfinished(file: sqlite3.Connection) -> int:
    [count] = file.execute("SELECT count(*) FROM deliveries WHERE state IN ('waiting', 'claimed')").fetchone()
    return int(count)
