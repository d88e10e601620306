"""One operator at a time, on a real PostgreSQL: who holds the lease, how it is lost, and who may write then; and the journal's mirror."""

import getpass
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbooks.engine import lease
from runbooks.engine.errors import LeaseHeld, Refused, Stopped
from runbooks.engine.journal import Journal, Record
from runbooks.engine.lease import Lease, Mirror
from runbooks.engine.model import Phase
from sandbox.adapters.postgres import Postgres
from sandbox.errors import ArrakisError, Unreachable
from sandbox.ports import SqlTransaction
from tests.integration.hand import at_once, holding
from tests.integration.world import World
from tests.waiting import eventually

ROLLED_BACK = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()"
COMMITTED = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
LOST = "the lease is not ours any more: another operator took over"
NOWHERE = Postgres("postgresql://127.0.0.1:1/arrakis", tag="tests")


@pytest.fixture(autouse=True)
def _bare(world: World) -> Iterator[None]:
    """Begin where nothing was ever applied."""
    world.sql.execute("DROP SCHEMA IF EXISTS runbooks CASCADE")
    yield
    world.sql.execute("DROP SCHEMA IF EXISTS runbooks CASCADE")


def silent(world: World, seconds: float) -> None:
    """Let the holder have been heard of last so many seconds ago."""
    world.sql.execute(
        "UPDATE runbooks.lease SET heartbeat = clock_timestamp() - %s", (timedelta(seconds=seconds),)
    )


def row(world: World) -> tuple[Any, ...]:
    """Return who holds the lease, for which run, since when, when they were heard of, and how many held it."""
    found = world.sql.execute("SELECT holder, run, since, heartbeat, token FROM runbooks.lease").fetchone()
    assert found
    return found


def change(world: World, held: Lease) -> None:
    """Change something, as whoever holds the lease does."""
    with world.database.transaction() as transaction:
        held.fence(transaction)


def keep(world: World, holder: str, **how: Any) -> Any:
    """Return the lease as somebody's, for a run of theirs."""
    return Lease.held(world.database, holder=holder, run=how.pop("run", f"run of {holder}"), **how)


# ---- one holder


def test_it_is_one_holders_until_it_is_given_back(world: World) -> None:
    before = datetime.now(UTC)
    with keep(world, "chani") as held:
        holder, run, since, heartbeat, token = row(world)
        assert (holder, run, token) == ("chani", "run of chani", held.token)
        assert before - timedelta(seconds=5) < since <= heartbeat
        held.check()
        change(world, held)
        with pytest.raises(LeaseHeld) as told, keep(world, "stilgar"):
            pytest.fail("two have it")
        assert str(told.value) == f"chani is at work since {since:%Y-%m-%d %H:%M:%S} UTC, run run of chani"
        assert told.value.hint == "wait for it, or talk to them; a holder silent for 30 s loses the lease"
    assert row(world) == (None, None, None, None, token)
    for lost in (held.check, lambda: change(world, held)):
        with pytest.raises(LeaseHeld, match=f"^{LOST}$") as told:
            lost()
        assert told.value.hint == "see `history`"
    with keep(world, "stilgar") as next_one:
        assert next_one.token == token + 1


def test_it_is_given_back_by_whoever_fails_too(world: World) -> None:
    with pytest.raises(ZeroDivisionError), keep(world, "chani"):
        raise ZeroDivisionError
    assert row(world)[0] is None


@pytest.mark.parametrize(("seconds", "lost"), [(29, False), (31, True)])
def test_a_holder_that_was_silent_for_half_a_minute_loses_it_and_can_write_nothing(
    world: World, seconds: int, lost: bool
) -> None:
    with ExitStack() as ours, keep(world, "chani") as held:
        silent(world, seconds)
        if not lost:
            with pytest.raises(LeaseHeld):
                ours.enter_context(keep(world, "stilgar"))
            change(world, held)
            return
        other = ours.enter_context(keep(world, "stilgar"))
        assert other.token == held.token + 1
        for call in (held.check, lambda: change(world, held)):
            with pytest.raises(LeaseHeld, match=LOST):
                call()
        held.release()  # what is not ours is not given back
        change(world, other)
        assert row(world)[0] == "stilgar"


def test_of_two_at_the_same_moment_one_gets_it(world: World) -> None:
    lease.prepare(world.database)
    with ExitStack() as open_ones:
        raised = at_once(
            *(lambda name=name: open_ones.enter_context(keep(world, name)) for name in ("chani", "stilgar"))
        )
        assert sorted(type(each).__name__ for each in raised) == ["LeaseHeld", "NoneType"]
        assert row(world)[4] == 1


def test_nobody_takes_it_over_in_the_midst_of_a_change(world: World) -> None:
    with keep(world, "chani") as held, world.database.transaction() as transaction:
        held.fence(transaction)
        with (
            pytest.raises(psycopg.errors.LockNotAvailable),
            psycopg.connect(world.env["DATABASE_URL"]) as other,
        ):
            other.execute("SELECT FROM runbooks.lease FOR UPDATE NOWAIT")


def test_a_stop_that_is_raised_is_said_by_whom_at_the_next_step(world: World) -> None:
    with keep(world, "chani") as held:
        world.sql.execute(
            "INSERT INTO runbooks.stops (id, raised_at, raised_by, reason, halting, parts)"
            " VALUES ('s1', '2026-03-01T10:00Z', 'liet', '', true, '[]')"
        )
        for call in (held.check, lambda: change(world, held)):
            with pytest.raises(Stopped) as told:
                call()
            assert str(told.value) == "an emergency stop is raised by liet, since 2026-03-01 10:00:00 UTC"
            assert told.value.hint == "`emergency-status` says what resuming would do"


# ---- kept alive


def test_it_is_kept_alive_whatever_happens_to_a_beat(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_BEAT", 0.01)
    with keep(world, "chani"):
        assert [each.daemon for each in threading.enumerate() if each.name == "lease heartbeat"] == [True]
        silent(world, 20)
        world.sql.execute("ALTER TABLE runbooks.lease RENAME COLUMN heartbeat TO heard")
        refused = world.count(ROLLED_BACK)
        eventually(lambda: world.count(ROLLED_BACK) > refused)
        world.sql.execute("ALTER TABLE runbooks.lease RENAME COLUMN heard TO heartbeat")
        eventually(lambda: bool(datetime.now(UTC) - row(world)[3] < timedelta(seconds=10)))
    eventually(lambda: "lease heartbeat" not in {each.name for each in threading.enumerate()})


def test_a_holder_is_heard_of_every_five_seconds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float | None] = []

    class Ended(threading.Event):
        """The end, which has come when it is waited for."""

        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            return True

    made = Lease(world.database, holder="chani", token=1)
    monkeypatch.setattr(made, "_ended", Ended())
    made._beat()
    assert waited == [5.0]


def test_a_beat_of_who_lost_it_keeps_nobodys_alive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_BEAT", 0.01)
    with keep(world, "chani"):
        silent(world, 31)
        world.sql.execute("UPDATE runbooks.lease SET holder = 'stilgar', token = token + 1")
        since = row(world)
        beats = world.count(COMMITTED)
        eventually(lambda: world.count(COMMITTED) > beats + 5)
        assert row(world) == since


def test_that_it_cannot_be_given_back_hides_nothing(world: World) -> None:
    with keep(world, "chani"):
        world.sql.execute("DROP SCHEMA runbooks CASCADE")


def test_where_it_cannot_be_kept_the_hint_says_what_that_takes(world: World, no_tables: None) -> None:
    with pytest.raises(ArrakisError, match="no tables") as told, keep(world, "chani"):
        pytest.fail("kept nowhere")
    assert told.value.hint == (
        "nothing was changed: the lease is kept in PostgreSQL, which has to take writes; otherwise do it by hand"
    )


def test_where_it_cannot_be_taken_nothing_was_changed() -> None:
    with pytest.raises(Unreachable), Lease.held(NOWHERE, holder="chani", run="r1"):
        pytest.fail("held by nobody")


# ---- whose process has ended


@pytest.fixture(scope="module")
def ended() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_who_we_are_is_a_person_a_host_and_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    place = f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
    assert lease.holder("chani") == f"chani on {socket.gethostname()} ({place}, pid {os.getpid()})"
    monkeypatch.setenv("SANDBOX_OWNER", "liet\udcff")
    assert lease.actor() == "liet?"
    monkeypatch.delenv("SANDBOX_OWNER")
    assert lease.actor() == getpass.getuser()


PLACES: Mapping[str, tuple[Callable[[str, int], str], bool]] = {
    "ended": (lambda us, pid: us.replace(f"pid {os.getpid()})", f"pid {pid})"), True),
    "at work": (lambda us, _: us, False),
    "of another machine": (lambda us, pid: f"chani on elsewhere (0.0, pid {pid})", False),
    "of another boot": (lambda us, pid: f"chani on {socket.gethostname()} (0.0, pid {pid})", False),
    "of no number": (lambda us, _: us.replace(f"pid {os.getpid()})", "pid 7x)"), False),
    "of no process": (lambda us, _: us.replace(f"pid {os.getpid()})", "pid )"), False),
    "of a number and more": (lambda us, pid: us.replace(f"pid {os.getpid()})", f"pid {pid}X)"), False),
    "of a name like a place": (
        lambda us, pid: f"{us.replace(')', '')} {us.replace(f'pid {os.getpid()})', f'pid {pid})')[5:]}",
        True,
    ),
    "a run": (lambda us, pid: f"workers of {pid}", False),
}


@pytest.mark.parametrize("which", PLACES)
def test_the_lease_of_a_process_of_this_machine_that_has_ended_is_free_at_once(
    world: World, ended: int, which: str
) -> None:
    named, free = PLACES[which]
    lease.prepare(world.database)
    name = named(lease.holder("chani"), ended)
    world.sql.execute(
        "UPDATE runbooks.lease SET holder = %s, run = 'r1', since = now(), heartbeat = now(), token = 7",
        (name,),
    )
    if free:
        with keep(world, "stilgar") as held:
            assert held.token == 8
    else:
        with pytest.raises(LeaseHeld, match="is at work since"), keep(world, "stilgar"):
            pytest.fail("taken from somebody who is at work")


def test_where_machines_cannot_be_told_apart_nobody_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path, **_: object) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    assert f" on {socket.gethostname()} (-, pid " in lease.holder("chani")


# ---- held in common


def test_workers_of_a_run_hold_it_in_common_until_nobody_keeps_it_alive(world: World) -> None:
    with keep(world, "workers of r1", run="r1", shared=True) as first:
        since = row(world)
        with keep(world, "workers of r1", run="r1", shared=True) as second:
            assert (second.token, row(world)) == (first.token, since)
        first.check()
        change(world, first)
        with pytest.raises(LeaseHeld, match=r"^workers of r1 is at work since"), keep(world, "stilgar"):
            pytest.fail("taken from workers")
    assert row(world)[0] == "workers of r1"
    silent(world, 31)
    with keep(world, "workers of r1", run="r1", shared=True) as third:  # after a rest it is theirs anew
        assert third.token == first.token + 1
    silent(world, 31)
    with keep(world, "stilgar"):
        pass


def test_workers_that_begin_at_the_same_moment_have_one_lease(world: World) -> None:
    lease.prepare(world.database)
    tokens = list[int]()

    def begin(open_ones: ExitStack) -> None:
        tokens.append(open_ones.enter_context(keep(world, "workers of r1", run="r1", shared=True)).token)

    with ExitStack() as open_ones:
        assert at_once(*[lambda: begin(open_ones)] * 4) == [None] * 4
        assert tokens == [1] * 4


@pytest.mark.parametrize("holder", ["workers of r1", "stilgar"])
def test_workers_of_a_run_take_nobody_elses(world: World, holder: str) -> None:
    with keep(world, holder, shared=holder.startswith("workers")):
        with (
            pytest.raises(LeaseHeld, match=f"^{holder} is at work"),
            keep(world, "workers of r2", shared=True),
        ):
            pytest.fail("two runs at once")
        assert row(world)[0] == holder


def test_of_workers_that_saw_it_free_the_second_has_that_of_the_first(world: World) -> None:
    lease.prepare(world.database)
    taken = list[tuple[str | None, int]]()

    def take(name: str) -> None:
        with world.database.transaction() as transaction:
            found = lease._acquired(transaction, name, "r1", shared=True)
            taken.append((found.holder, found.token))

    with holding(world, "SELECT FROM runbooks.lease FOR UPDATE") as other:
        workers = [threading.Thread(target=take, args=("workers of r1",)) for _ in range(2)]
        for each in workers:
            each.start()
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        eventually(lambda: world.count(query) == 2)
        other.rollback()
        for each in workers:
            each.join(10)
    assert taken == [("workers of r1", 1)] * 2


def test_who_left_a_moment_ago_is_told_so(world: World) -> None:
    class Left:
        """A transaction in whose midst the holder gives it back."""

        def __init__(self, transaction: SqlTransaction) -> None:
            self._transaction, self._looks = transaction, 0

        def rows(self, statement: str, kind: type[Any], **params: object) -> Sequence[Any]:
            self._looks += statement == "read/runs/lease"
            if self._looks == 2:
                held.release()
            return self._transaction.rows(statement, kind, **params)

    with keep(world, "chani") as held, world.database.transaction() as transaction:
        left: Any = Left(transaction)
        with pytest.raises(LeaseHeld, match=r"^another operator was at work a moment ago$") as told:
            lease._acquired(left, "stilgar", "r2", shared=False)
    assert told.value.hint == "try again"


# ---- its tables


@pytest.fixture
def no_tables(world: World) -> Iterator[None]:
    """Let nobody make a table, not even one that is there."""
    world.sql.execute(
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no tables'; END$$"
    )
    world.sql.execute(
        "CREATE EVENT TRIGGER refused ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION refuse()"
    )
    yield
    world.sql.execute("DROP FUNCTION refuse CASCADE")


def test_its_tables_are_made_where_one_is_missing(world: World) -> None:
    lease.prepare(world.database)
    world.sql.execute("DROP TABLE runbooks.stopped_sandboxes, runbooks.stops")
    lease.prepare(world.database)
    assert world.count("SELECT count(*) FROM pg_tables WHERE schemaname = 'runbooks'") == 5


def test_where_its_tables_are_no_right_to_make_them_is_needed(
    world: World, request: pytest.FixtureRequest
) -> None:
    lease.prepare(world.database)
    request.getfixturevalue("no_tables")
    lease.prepare(world.database)
    world.sql.execute("DROP TABLE runbooks.stopped_sandboxes")
    with pytest.raises(ArrakisError, match="no tables"):
        lease.prepare(world.database)


# ---- the journal's copy


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Return a journal with a run of 250 records, of which an undo is the last, and one record of another run."""
    journal = Journal(tmp_path / "journal.jsonl", actor="chani", clock=lambda: datetime.now(UTC))
    journal.extend("r1", [Record(phase=Phase.DONE, action=f"a{number}") for number in range(249)])
    undone = {"plan": {"undoes": "r0", "actions": [{"resource": {"id": "sandbox_1"}}]}}
    journal.append("r1", Phase.RUN_STARTED, observed=undone)
    journal.append("r2", Phase.RUN_STARTED, observed={"plan": {**undone["plan"], "undoes": None}})
    return journal


def copied(world: World) -> int:
    return world.count("SELECT count(*) FROM runbooks.journal")


def test_records_are_copied_once_and_read_back_as_they_are_in_the_file(
    world: World, journal: Journal
) -> None:
    lease.prepare(world.database)
    entries, mirror = journal.entries(), Mirror(world.database)
    mirror(entries[:3])
    mirror(entries[1:5])
    assert copied(world) == 5
    assert lease.records(world.database, "r1") == entries[:5]
    world.sql.execute("UPDATE runbooks.journal SET mirrored = now() - interval '1 hour'")
    mirror.catch_up(entries)
    assert copied(world) == 251
    assert (
        world.count("SELECT count(*) FROM runbooks.journal WHERE mirrored < now() - interval '1 minute'") == 5
    )
    assert lease.records(world.database, "r1") == entries[:250]
    assert lease.records(world.database, "r2") == entries[250:]
    assert lease.records(world.database, "r3") == []


def test_what_is_there_is_not_sent_again_and_the_rest_by_two_hundred_at_once(
    world: World, journal: Journal
) -> None:
    lease.prepare(world.database)
    entries, mirror = journal.entries(), Mirror(world.database)
    world.sql.execute("CREATE SEQUENCE runbooks.sent")
    world.sql.execute(
        "CREATE FUNCTION runbooks.count() RETURNS trigger LANGUAGE plpgsql"
        " AS $$BEGIN PERFORM nextval('runbooks.sent'); RETURN NULL; END$$"
    )
    world.sql.execute(
        "CREATE TRIGGER counted BEFORE INSERT ON runbooks.journal EXECUTE FUNCTION runbooks.count()"
    )
    mirror.catch_up(entries)
    assert (copied(world), world.count("SELECT last_value FROM runbooks.sent")) == (251, 2)
    mirror.catch_up(entries)
    mirror.catch_up([])
    assert world.count("SELECT last_value FROM runbooks.sent") == 2


def test_a_copy_that_cannot_be_made_holds_up_nothing(journal: Journal) -> None:
    mirror = Mirror(NOWHERE)
    mirror(journal.entries())
    mirror.catch_up(journal.entries())
    with pytest.raises(Unreachable):
        mirror.copy(journal.entries())


@pytest.mark.parametrize(
    "change",
    [
        """jsonb_set(record, '{action}', '"a9"')""",
        """jsonb_set(record, '{seq}', '"x"')""",
        "jsonb_set(record, '{at}', 'null')",
        "record - 'at'",
    ],
)
def test_a_copy_that_was_changed_is_refused(world: World, journal: Journal, change: str) -> None:
    lease.prepare(world.database)
    Mirror(world.database).copy(journal.entries()[:2])
    world.sql.execute(f"UPDATE runbooks.journal SET record = {change} WHERE seq = 1".encode())
    with pytest.raises(Refused, match=r"^the mirrored records of r1 were changed$") as told:
        lease.records(world.database, "r1")
    assert told.value.hint == "use the host it was started on"


def test_what_undo_runs_gave_back_lately_is_known(world: World, journal: Journal) -> None:
    lease.prepare(world.database)
    Mirror(world.database).copy(journal.entries())
    hour = timedelta(hours=1)
    assert lease.given_back(world.database, within=hour) == {"sandbox_1"}
    world.sql.execute("UPDATE runbooks.journal SET mirrored = now() - interval '61 minutes'")
    assert lease.given_back(world.database, within=hour) == frozenset()


def test_where_nothing_was_ever_applied_there_are_no_records(world: World) -> None:
    assert lease.records(world.database, "r1") == []
    assert lease.given_back(world.database, within=timedelta(hours=1)) == frozenset()
