"""The queue: bounded, on disk, each key once."""

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from runbooks.pagerduty.webhook.delivery import Delivery
from runbooks.pagerduty.webhook.queue import _CLAIM, Claim, Queue, Receipt
from sandbox.errors import ArrakisError, Unreachable
from tests.unit.webhooks import NOW, SUBJECT


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@contextmanager
def _open(folder: Path, *, limit: int = 100, clock: Clock | None = None) -> Iterator[Queue]:
    queue = Queue(folder, limit=limit, clock=clock or Clock())
    try:
        yield queue
    finally:
        queue.close()


def _delivery(name: str, received: datetime = NOW) -> Delivery:
    return Delivery(key=name, kind="alarm", subject=SUBJECT, received=received)


def _claimed(queue: Queue) -> str | None:
    claim = queue.claim()
    return claim.delivery.key if claim else None


def test_what_is_put_in_comes_out_once_and_as_it_was(tmp_path: Path) -> None:
    with _open(tmp_path / "new" / "folder") as queue:
        assert queue.put(_delivery("a")) is Receipt.ACCEPTED
        assert queue.claim() == Claim(delivery=_delivery("a"), tries=1)
        assert queue.claim() is None


def test_the_first_in_is_the_first_out(tmp_path: Path) -> None:
    with _open(tmp_path) as queue:
        for name in ("b", "a", "c"):
            queue.put(_delivery(name))
        assert [_claimed(queue) for _ in range(4)] == ["b", "a", "c", None]


def test_a_key_is_taken_once_whatever_became_of_it(tmp_path: Path) -> None:
    with _open(tmp_path) as queue:
        for name in ("waiting", "claimed", "done", "aside"):
            queue.put(_delivery(name))
        queue.claim()
        queue.done("done")
        queue.set_aside("aside")
        for name in ("waiting", "claimed", "done", "aside"):
            assert queue.put(_delivery(name)) is Receipt.DUPLICATE
    with _open(tmp_path) as queue:
        for name in ("waiting", "claimed", "done", "aside"):
            assert queue.put(_delivery(name)) is Receipt.DUPLICATE


def test_a_full_queue_takes_no_more_until_something_is_done(tmp_path: Path) -> None:
    with _open(tmp_path, limit=2) as queue:
        assert [queue.put(_delivery(name)) for name in "abc"] == ["accepted", "accepted", "full"]
        assert queue.put(_delivery("a")) is Receipt.DUPLICATE
        queue.claim()
        assert queue.put(_delivery("c")) is Receipt.FULL
        queue.done("a")
        assert queue.put(_delivery("c")) is Receipt.ACCEPTED


def test_what_was_claimed_when_the_process_died_waits_again_and_counts_its_tries(tmp_path: Path) -> None:
    with _open(tmp_path) as queue:
        queue.put(_delivery("a"))
        queue.put(_delivery("b"))
        queue.claim()
        queue.claim()
        queue.done("b")
    with _open(tmp_path) as queue:
        assert queue.claim() == Claim(delivery=_delivery("a"), tries=2)
        assert queue.claim() is None


def test_what_is_to_be_tried_again_waits_for_its_time(tmp_path: Path) -> None:
    clock = Clock()
    with _open(tmp_path, clock=clock) as queue:
        queue.put(_delivery("a"))
        queue.claim()
        queue.again("a", timedelta(seconds=30))
        queue.put(_delivery("b"))
        assert [_claimed(queue), _claimed(queue)] == ["b", None]
        clock.now += timedelta(seconds=30)
        assert queue.claim() == Claim(delivery=_delivery("a"), tries=2)


def test_keys_are_remembered_for_three_days(tmp_path: Path) -> None:
    clock = Clock()
    with _open(tmp_path, clock=clock) as queue:
        for name in ("done", "aside", "waiting"):
            queue.put(_delivery(name))
        queue.done("done")
        queue.set_aside("aside")
        clock.now += timedelta(hours=72)
        assert queue.trim() == 0
        clock.now += timedelta(seconds=1)
        assert queue.trim() == 2
        assert queue.put(_delivery("done", clock.now)) is Receipt.ACCEPTED
        assert queue.put(_delivery("waiting")) is Receipt.DUPLICATE


def test_it_tells_how_many_wait_and_how_long(tmp_path: Path) -> None:
    clock = Clock()
    with _open(tmp_path, clock=clock) as queue:
        assert queue.waiting() == (0, 0.0)
        queue.put(_delivery("a"))
        queue.put(_delivery("b", NOW + timedelta(seconds=5)))
        clock.now += timedelta(seconds=20)
        assert queue.waiting() == (2, 20.0)
        queue.done("a")
        assert queue.waiting() == (1, 15.0)


def test_two_processes_do_not_share_a_queue(tmp_path: Path) -> None:
    with _open(tmp_path), pytest.raises(ArrakisError, match="another webhook"):
        Queue(tmp_path, limit=1, clock=Clock())
    with _open(tmp_path):
        pass


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    with _open(tmp_path / "queue") as queue:
        queue.put(_delivery("a"))
        assert stat.S_IMODE((tmp_path / "queue").stat().st_mode) == 0o700
        files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "queue").iterdir()}
    assert {"webhook.sqlite", "webhook.sqlite-wal", "webhook.lock"} <= set(files)
    assert set(files.values()) == {0o600}


def test_a_file_that_is_no_queue_is_said_so_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "webhook.sqlite").write_bytes(b"something else entirely\n" * 100)
    with pytest.raises(ArrakisError, match="cannot be used") as caught:
        Queue(tmp_path, limit=1, clock=Clock())
    assert "move webhook.sqlite away" in caught.value.hint
    assert (tmp_path / "webhook.sqlite").read_bytes().startswith(b"something else")


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArrakisError, match="cannot be used"):
        Queue(tmp_path / "file" / "folder", limit=1, clock=Clock())


def test_a_queue_that_cannot_be_written_says_so_and_works_again_later(tmp_path: Path) -> None:
    with _open(tmp_path) as queue:
        other = sqlite3.connect(tmp_path / "webhook.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unreachable, match="cannot be written"):
            queue.put(_delivery("a"))
        other.execute("ROLLBACK")
        other.close()
        assert queue.put(_delivery("a")) is Receipt.ACCEPTED


def test_what_is_answered_is_on_the_disk_itself(tmp_path: Path) -> None:
    """A process that is killed leaves its pages to the system; only a power cut shows what was not synced."""
    with _open(tmp_path) as queue:
        assert queue._file.execute("PRAGMA synchronous").fetchone() == (2,)
        assert queue._file.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_full_disk_is_said_so_and_what_was_kept_is_still_there(tmp_path: Path) -> None:
    with _open(tmp_path, limit=10_000) as queue:
        pages = queue._file.execute("PRAGMA page_count").fetchone()[0]
        queue._file.execute(f"PRAGMA max_page_count = {pages + 2}")
        kept = list(_until_full(queue))
        assert kept
        queue._file.execute("PRAGMA max_page_count = 10000")
        assert queue.put(_delivery("one more")) is Receipt.ACCEPTED
        assert queue.waiting()[0] == len(kept) + 1


def _until_full(queue: Queue) -> Iterator[str]:
    for number in range(5000):
        try:
            queue.put(_delivery(f"delivery-{number}"))
        except Unreachable:
            return
        yield f"delivery-{number}"
    raise AssertionError("it was never full")


def test_what_is_remembered_does_not_slow_down_what_waits(tmp_path: Path) -> None:
    """Nothing is scanned that grows by the day."""
    with _open(tmp_path) as queue:
        for statement in (
            _CLAIM.replace(":now", "0"),
            "SELECT count(*) FROM deliveries WHERE state IN ('waiting', 'claimed')",
            "SELECT min(received) FROM deliveries WHERE state IN ('waiting', 'claimed')",
            "DELETE FROM deliveries WHERE state IN ('done', 'aside') AND received < 7",
            "SELECT 1 FROM deliveries WHERE key = 'a'",
        ):
            steps = [row[3] for row in queue._file.execute(f"EXPLAIN QUERY PLAN {statement}")]
            assert steps
            assert all("INDEX" in step or "PRIMARY KEY" in step or "SCALAR" in step for step in steps), steps


def test_a_clock_that_is_set_back_leaves_nothing_behind(tmp_path: Path) -> None:
    clock = Clock()
    with _open(tmp_path, clock=clock) as queue:
        queue.put(_delivery("new"))
        queue.put(_delivery("tried"))
        queue.claim()
        queue.claim()
        queue.again("tried", timedelta(seconds=600))
        queue.put(_delivery("newer"))
        clock.now -= timedelta(days=1)
        assert [_claimed(queue), _claimed(queue), _claimed(queue)] == ["tried", "newer", None]


def test_threads_do_not_get_the_same_delivery(tmp_path: Path) -> None:
    with _open(tmp_path, limit=500) as queue:
        got: list[str] = []

        def put(part: int) -> None:
            for number in range(part, 40, 2):
                queue.put(_delivery(str(number)))

        def take() -> None:
            while len(got) < 40 and not failed.is_set():
                if claim := queue.claim():
                    queue.done(claim.delivery.key)
                    got.append(claim.delivery.key)
                else:
                    queue.wait(0.05)

        failed = threading.Event()
        work = [*(lambda part=part: put(part) for part in range(2)), take, take, take]
        threads = [threading.Thread(target=each) for each in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        failed.set()
        assert sorted(got, key=int) == [str(number) for number in range(40)]


def test_it_does_not_stay_open_for_children(tmp_path: Path) -> None:
    with _open(tmp_path) as queue:
        assert not os.get_inheritable(queue._guard)
