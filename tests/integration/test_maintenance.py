"""The control tables' upkeep on a real server: old audit rows archived, trimmed and put back; tables vacuumed, and who is in the way."""

import gzip
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from diagnostics import upkeep
from diagnostics.explain import read_plan
from diagnostics.postgres import last_events
from diagnostics.stack import Stack
from diagnostics.upkeep import AUDIT_LOG, read_upkeep
from runbooks.database_maintenance import RUNBOOK, Facts
from runbooks.engine.errors import LeaseHeld, Stopped
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Finding, Resource, State
from runbooks.remedies import alone, maintenance, trimming
from runbooks.remedies.maintenance import VacuumTable
from runbooks.remedies.trimming import TrimAuditLog
from sandbox import archive, registry
from sandbox.adapters import postgres
from sandbox.archive import Damaged, Summary
from sandbox.depots import Folder
from sandbox.errors import ArrakisError, Missing
from sandbox.facts import Known
from sandbox.ports import SqlTransaction
from tests.integration.gated import Gated, gated
from tests.integration.world import World
from tests.waiting import eventually

ROWS = 20_000
FEW = 2_000
SHELF = "s3://arrakis-archive/audit"


@pytest.fixture(scope="module")
def gate(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    """Return the remedies."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.env.items():
            patch.setenv(name, value)
        with gated(world.env, tmp_path_factory.mktemp("state")) as remedies:
            yield remedies


@pytest.fixture(autouse=True)
def emptied(world: World) -> Iterator[None]:
    """Give the next test empty tables."""
    yield
    world.sql.execute("TRUNCATE sandbox_audit_log")
    world.wipe()


def fill(world: World, rows: int) -> None:
    """Write audit rows of a hundred destroyed sandboxes, a hundred days old and older, one a minute."""
    world.sql.execute(
        "INSERT INTO sandboxes (name, owner, status, schema_name, created_at, expires_at) SELECT 'old-' || n, 'stilgar',"
        " 'destroyed', 'sandbox_old_' || n, now() - interval '200 d', now() FROM generate_series(1, 100) AS n"
    )
    world.sql.execute(
        "INSERT INTO sandbox_audit_log (sandbox_id, event_type, actor, details, created_at)"
        " SELECT s.id, 'status_changed', 'chani', jsonb_build_object('n', n), now() - interval '100 d' - n * interval '1 min'"
        " FROM generate_series(1, %s) AS n JOIN sandboxes AS s ON s.name = 'old-' || 1 + n %% 100",
        (rows,),
    )


def write(world: World, sandbox: UUID, event: str, details: str | None, *, ago: timedelta) -> UUID:
    """Write one audit row, its details as JSON; return its id."""
    id = uuid4()
    world.sql.execute(
        "INSERT INTO sandbox_audit_log VALUES (%s, %s, %s, 'chani', %s::jsonb, %s)",
        (id, sandbox, event, details, datetime.now(UTC) - ago),
    )
    return id


def dump(world: World) -> set[tuple[object, ...]]:
    """Return every audit row, field by field, as text."""
    query = (
        "SELECT id, sandbox_id, event_type, actor, jsonb_typeof(details), details::text, created_at::text,"
        " date_part('microseconds', created_at) FROM sandbox_audit_log"
    )
    return set(world.sql.execute(query))


def count(world: World) -> int:
    return world.count("SELECT count(*) FROM sandbox_audit_log")


def look(gate: Gated, **about: Any) -> Facts:
    """Gather, as the runbook does."""
    facts: Facts = RUNBOOK.gather(gate.read, now=datetime.now(UTC), deadline=10, stack=Stack(), **about)
    return facts


def trim(gate: Gated, **about: Any) -> Action:
    """Return the trim that is proposed."""
    return RUNBOOK.propose(look(gate, **about))[0][0]


def archive_of(action: Action) -> Path:
    return Path(action.before["archive"]["address"], action.before["archive"]["name"])


def stopping(gate: Gated, after: int, error: type[ArrakisError] = LeaseHeld) -> tuple[Gate, list[str]]:
    """Return a gate that lets nothing through after so many transactions, and what it tells."""
    told: list[str] = []
    looks = iter(range(after))

    def fence(_: SqlTransaction) -> None:
        if next(looks, None) is None:
            raise error("no more")

    return Gate(read=gate.read, write=gate.write, fence=fence, tell=told.append), told


# ---- the walk


def test_the_log_is_walked_once_by_ranges_of_its_pages(
    gate: Gated, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, ROWS)
    cutoff = datetime.now(UTC) - timedelta(days=101)
    for analyzed in (False, True):
        if analyzed:
            world.sql.execute("ANALYZE sandbox_audit_log")
        for statement in ("old_count", "old_ids", "old_rows"):
            with gate.read.sql.snapshot() as snapshot:
                params = {"first": "(64,0)", "last": "(128,0)", "cutoff": cutoff, "kept": []}
                plan = read_plan(statement, snapshot.explain(f"read/maintenance/{statement}", **params))
            scans = [node for node in plan.nodes() if node.relation == AUDIT_LOG]
            assert [node.kind for node in scans] == ["Tid Range Scan"]
            assert 64 <= scans[0].hit + scans[0].read < 70
    monkeypatch.setattr(upkeep, "_FIRST_PAGES", 7)
    found = list(upkeep.walk(gate.read.sql, "old_ids", trimming._Id, most=50, cutoff=cutoff, kept=[]))
    ids = [row.id for rows in found for row in rows]
    wanted = world.sql.execute("SELECT id FROM sandbox_audit_log WHERE created_at < %s", (cutoff,)).fetchall()
    assert len(found) > 5
    assert len(ids) == len(set(ids))
    assert set(ids) == {id for (id,) in wanted}
    assert 0 < len(ids) < ROWS
    assert upkeep.read_log(gate.read.sql, cutoff).rows == len(ids)


# ---- the trim


def test_old_rows_go_a_few_at_a_time_and_those_that_are_young_stay(
    gate: Gated, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, ROWS)
    young = world.make("box")
    pauses: list[int] = []
    told: list[str] = []
    waiting = replace(stopping(gate, 10_000)[0], pause=lambda: pauses.append(1), tell=told.append)
    action = trim(gate)
    assert action.before["rows"] == ROWS
    assert action.before["archive"] is None
    remedy = TrimAuditLog(waiting)
    assert remedy.observe(action).state is State.BEFORE
    remedy.apply(action)
    seen = remedy.observe(action)
    assert (seen.state, seen.reason) == (
        State.AFTER,
        f"none of 20,000 rows older than {datetime.fromisoformat(action.before['cutoff']):%Y-%m-%d %H:%M} UTC is left",
    )
    assert count(world) == len(world.events(young.id)) > 0
    assert len(pauses) >= ROWS / trimming._MOST
    assert told[-1] == f"  {AUDIT_LOG}: 20,000 of 20,000 rows deleted"
    with pytest.raises(ArrakisError, match="they are lost"):
        remedy.revert(action)


def test_what_others_rest_on_stays(gate: Gated, world: World) -> None:
    day = timedelta(days=1)
    stuck = world.write_row("stuck", "destroying", ago=200 * day)
    quiet, lively = world.write_row("quiet", "running"), world.write_row("lively", "running")
    keyless, finished = world.write_row("keyless", "destroyed"), world.write_row("finished", "destroyed")
    left, done = '{"keysLeft": true}', '{"keysLeft": false}'
    write(world, stuck, "sandbox_created", "{}", ago=200 * day)
    stays = {write(world, stuck, "sandbox_destroying", '{"error": "x"}', ago=199 * day)}
    write(world, quiet, "sandbox_created", "{}", ago=150 * day)
    stays |= {write(world, quiet, "ttl_extended", "{}", ago=120 * day)}
    write(world, lively, "sandbox_created", "{}", ago=150 * day)
    stays |= {write(world, lively, "ttl_extended", "{}", ago=day)}
    write(world, keyless, "sandbox_destroyed", left, ago=130 * day)
    stays |= {write(world, keyless, "sandbox_destroyed", left, ago=120 * day)}
    write(world, keyless, "guild_unregistered", "{}", ago=119 * day)
    write(world, finished, "sandbox_destroyed", left, ago=130 * day)
    write(world, finished, "sandbox_destroyed", done, ago=120 * day)

    def rests() -> tuple[object, object]:
        with gate.read.sql.snapshot() as snapshot:
            events = last_events(snapshot, [stuck, quiet, lively])
            return {each.name for each in registry.unfinished(snapshot)}, events

    before = rests()
    assert before[0] == {"keyless"}
    facts = look(gate)
    assert isinstance(facts.log, Known)
    assert [(each.sandbox, str(each.status)) for each in facts.log.value.kept] == [
        ("keyless", "destroyed"),
        ("quiet", "running"),
        ("stuck", "destroying"),
    ]
    action = trim(gate)
    assert action.before["rows"] == 7
    assert gate.apply(action)[0] is State.AFTER
    assert {row[0] for row in dump(world)} == stays
    assert rests() == before
    assert RUNBOOK.propose(look(gate))[0][0].verb == "vacuum table"  # nothing more is old


def test_an_interrupted_trim_goes_on_where_it_was(
    gate: Gated, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, FEW)
    monkeypatch.setattr(trimming, "_FIRST", 200)
    monkeypatch.setattr(trimming, "_MOST", 200)
    action = trim(gate)
    with pytest.raises(LeaseHeld):
        TrimAuditLog(stopping(gate, 3)[0]).apply(action)
    assert count(world) == FEW - 600
    state, why = gate.state(action)
    assert (state, why.partition(" older")[0]) == (State.PARTLY, "1,400 of 2,000 rows")
    assert gate.apply(action)[0] is State.AFTER
    assert count(world) == 0


def test_rows_that_were_put_back_since_are_no_longer_the_plans(gate: Gated, world: World) -> None:
    fill(world, FEW)
    action = trim(gate)
    write(world, world.write_row("more", "destroyed"), "x", "{}", ago=timedelta(days=100))
    assert gate.state(action)[0] is State.CHANGED


# ---- the archive


def test_an_archive_restores_what_was_trimmed_field_by_field(
    gate: Gated, world: World, tmp_path: Path
) -> None:
    fill(world, FEW)
    odd = world.write_row("odd", "destroyed")
    world.sql.execute("ALTER TABLE sandbox_audit_log ALTER details DROP NOT NULL")
    for number, details in enumerate(
        (
            '{"n": 1.50, "big": 12345678901234567890123456789.000}',
            '"{\\"createdBy\\": \\"chani\\"}"',  # as the deployed code stores it
            '"Muad\'Dib ❄ \\u2028 \\n \\\\ \\" 𝕊 \\u0001"',
            "null",
            None,
            "[]",
            "true",
        )
    ):
        write(world, odd, "sandbox_created", details, ago=timedelta(days=100, microseconds=number))
    world.sql.execute(
        "UPDATE sandbox_audit_log SET created_at = '-infinity' WHERE details = 'true' AND sandbox_id = %s",
        (odd,),
    )
    before = dump(world)
    action = trim(gate, archive=str(tmp_path), environment="staging")
    assert action.before["rows"] == len(before) == FEW + 7
    assert gate.apply(action)[0] is State.AFTER
    assert dump(world) == set()
    file = archive_of(action)
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
    assert file.name.startswith("sandbox_audit_log-staging-before-")
    assert (file.stat().st_mode & 0o777) == 0o600
    assert len(gzip.decompress(file.read_bytes()).splitlines()) == FEW + 9
    undo, remedy = replace(action, verb=f"undo {action.verb}"), gate.remedies[action.verb]
    assert remedy.observe(undo).state is State.AFTER
    remedy.revert(action)
    assert dump(world) == before
    assert remedy.observe(undo).state is State.BEFORE
    world.sql.execute("DELETE FROM sandbox_audit_log WHERE details ->> 'n' LIKE '%7'")
    assert remedy.observe(undo).state is State.PARTLY
    remedy.revert(action)
    assert dump(world) == before
    world.sql.execute("DELETE FROM sandbox_audit_log WHERE details IS NULL")
    world.sql.execute("ALTER TABLE sandbox_audit_log ALTER details SET NOT NULL")


def test_rows_whose_sandbox_is_gone_are_told_and_do_not_come_back(
    gate: Gated, world: World, tmp_path: Path
) -> None:
    fill(world, FEW)
    before = dump(world)
    action = trim(gate, archive=str(tmp_path))
    gate.remedies[action.verb].apply(action)
    gone = world.one("SELECT id FROM sandboxes WHERE name = 'old-7'")
    world.sql.execute("DELETE FROM sandboxes WHERE id = %s", (gone,))
    gate.remedies[action.verb].revert(action)
    assert dump(world) == {row for row in before if row[1] != gone}
    seen = gate.remedies[action.verb].observe(replace(action, verb=f"undo {action.verb}"))
    assert seen.state is State.BEFORE
    assert seen.reason == "1,980 of 2,000 rows are there; the sandboxes of 20 are gone, and they with them"


def spoilt(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        file.write_bytes(change(file.read_bytes()))

    return spoil


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    return spoilt(
        lambda data: gzip.compress(b"".join(change(gzip.decompress(data).splitlines(keepends=True))))
    )


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (spoilt(lambda data: data[: len(data) // 2]), "cut short"),
        (lines(lambda all: [*all[:5], *all[6:]]), "its 1999 rows are not those"),
        (
            lines(lambda all: [*all[:5], all[5].replace(b"chani", b"stilg"), *all[6:]]),
            "its 2000 rows are not",
        ),
        (lines(lambda all: [all[0].replace(b"custom", b"others"), *all[1:]]), "another one"),
        (lines(lambda all: [all[0], *all[1:3], b'{"id": 1}\n', *all[4:]]), "no id"),
    ],
)
def test_an_archive_that_is_spoilt_deletes_nothing(
    gate: Gated, world: World, tmp_path: Path, spoil: Callable[[Path], None], why: str
) -> None:
    fill(world, FEW)
    action = trim(gate, archive=str(tmp_path))
    with pytest.raises(LeaseHeld):
        TrimAuditLog(stopping(gate, 0)[0]).apply(action)  # it lies there, and nothing is deleted yet
    spoil(archive_of(action))
    with pytest.raises(Damaged, match=why):
        gate.remedies[action.verb].apply(action)
    assert count(world) == FEW


def test_an_archive_that_is_not_read_back_as_it_was_written_deletes_nothing(
    gate: Gated, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Folder.keep

    def keep_otherwise(folder: Folder, name: str, write: Callable[[IO[bytes]], Summary]) -> Summary:
        """Keep it as a disk does that loses a row and finds another: whole by its own last line."""
        made = keep(folder, name, write)
        file, header = tmp_path / name, action.before["archive"]["header"]
        with file.open("r+b") as opened:
            rows = [row.line for row in archive.read(opened, header)]
            opened.seek(0)
            opened.truncate()
            archive.write(opened, header, [*rows[:-1], rows[0]])
        return made

    fill(world, FEW)
    action = trim(gate, archive=str(tmp_path))
    monkeypatch.setattr(Folder, "keep", keep_otherwise)
    with pytest.raises(Damaged, match="2,000 rows were written, and 2,000 other ones read back"):
        gate.remedies[action.verb].apply(action)
    assert count(world) == FEW


def test_an_archive_of_fewer_rows_than_were_planned_deletes_nothing(
    gate: Gated, world: World, tmp_path: Path
) -> None:
    fill(world, FEW)
    action = trim(gate, archive=str(tmp_path))
    with pytest.raises(LeaseHeld):
        TrimAuditLog(stopping(gate, 0)[0]).apply(action)
    other = replace(action, before={**action.before, "rows": FEW + 1})
    with pytest.raises(Damaged, match="it has 2,000 rows in place of 2,001"):
        gate.remedies[action.verb].apply(other)
    archive_of(action).unlink()
    with pytest.raises(
        ArrakisError, match="the audit log changed meanwhile: 2,000 old rows in place of 2,001"
    ):
        gate.remedies[action.verb].apply(other)
    assert count(world) == FEW
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_trim_uses_its_archive_again(
    gate: Gated, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, FEW)
    monkeypatch.setattr(trimming, "_FIRST", 200)
    monkeypatch.setattr(trimming, "_MOST", 200)
    before, action = dump(world), trim(gate, archive=str(tmp_path))
    with pytest.raises(LeaseHeld):
        TrimAuditLog(stopping(gate, 3)[0]).apply(action)
    assert count(world) == FEW - 600
    file = archive_of(action)
    written = (file.stat().st_ino, file.stat().st_mtime_ns)
    assert gate.apply(action)[0] is State.AFTER
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == written
    gate.remedies[action.verb].revert(action)
    assert dump(world) == before


def test_without_its_archive_an_interrupted_trim_is_left_alone(
    gate: Gated, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, FEW)
    monkeypatch.setattr(trimming, "_MOST", 200)
    action = trim(gate, archive=str(tmp_path))
    with pytest.raises(LeaseHeld):
        TrimAuditLog(stopping(gate, 1)[0]).apply(action)
    file = archive_of(action)
    file.rename(tmp_path / "elsewhere")
    state, why = gate.state(action)
    assert state is State.CHANGED
    assert why.endswith(f"and there is no {file.name} in {tmp_path}")
    seen = gate.remedies[action.verb].observe(replace(action, verb=f"undo {action.verb}"))
    assert (seen.state, seen.reason.partition(": ")[0]) == (State.CHANGED, f"there is no archive {file}")


def test_an_archive_lies_in_s3_as_in_a_folder(gate: Gated, world: World) -> None:
    fill(world, FEW)
    with pytest.raises(Missing, match="bucket does not exist"):
        look(gate, archive=SHELF)
    aws = gate.write.aws
    aws.write(
        "s3",
        "create_bucket",
        Bucket="arrakis-archive",
        CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
    )
    sent: list[Any] = []
    events = aws._client("s3").meta.events  # type: ignore[attr-defined]
    events.register("before-send.s3.PutObject", lambda request, **_: sent.append(request.headers))
    before, action = dump(world), trim(gate, archive=SHELF)
    key = f"audit/{action.before['archive']['name']}"
    assert gate.apply(action)[0] is State.AFTER
    assert count(world) == 0
    [headers] = sent
    assert (headers["If-None-Match"], len(headers["x-amz-checksum-sha256"])) == (b"*", 44)
    undo, remedy = replace(action, verb=f"undo {action.verb}"), gate.remedies[action.verb]
    remedy.revert(action)
    assert dump(world) == before
    assert remedy.observe(undo).state is State.BEFORE

    body = aws.read("s3", "get_object", Bucket="arrakis-archive", Key=key)["Body"].read()
    aws.write("s3", "put_object", Bucket="arrakis-archive", Key=key, Body=body[: len(body) // 2])
    with pytest.raises(Damaged, match="cut short"):
        remedy.apply(action)
    assert dump(world) == before
    aws.write("s3", "delete_object", Bucket="arrakis-archive", Key=key)
    assert remedy.observe(undo).state is State.CHANGED


# ---- VACUUM


def vacuum(gate: Gated, name: str) -> Action:
    """Return the VACUUM that is proposed for a table."""
    actions = RUNBOOK.propose(look(gate))[0]
    return next(each for each in actions if each.verb == "vacuum table" and each.resource.id == name)


def dead(world: World) -> int:
    with world.database.snapshot() as snapshot:
        return read_upkeep(snapshot)[AUDIT_LOG].dead


@pytest.fixture
def dying(world: World) -> Iterator[None]:
    """Leave dead rows, and have the statistics know of them."""
    world.sql.execute("ALTER TABLE sandbox_audit_log SET (autovacuum_enabled = off)")
    world.sql.execute("SELECT pg_stat_force_next_flush()")  # of what the tests before counted
    world.sql.execute("SELECT pg_stat_reset_single_table_counters('sandbox_audit_log'::regclass)")
    fill(world, FEW)
    world.sql.execute("DELETE FROM sandbox_audit_log")
    world.sql.execute("SELECT pg_stat_force_next_flush()")
    eventually(lambda: dead(world) == FEW)
    yield
    world.sql.execute("ALTER TABLE sandbox_audit_log RESET (autovacuum_enabled)")


def test_a_vacuum_removes_dead_rows_and_the_statistics_prove_it(
    gate: Gated, world: World, dying: None
) -> None:
    action = vacuum(gate, AUDIT_LOG)
    assert action.before["dead"] == FEW
    assert gate.state(action)[0] is State.BEFORE
    assert gate.in_use(action) is None
    state, why = gate.apply(action)
    assert state is State.AFTER
    assert ": 0 dead rows, " in why
    assert "; 2,000 and " in why
    assert dead(world) == 0
    undone = gate.remedies[action.verb].observe(replace(action, verb=f"undo {action.verb}"))
    assert undone.state is State.BEFORE
    with pytest.raises(ArrakisError, match="none of the control tables"):
        gate.remedies[action.verb].apply(replace(action, before={**action.before, "name": "pg_class"}))


def outlook(gate: Gated) -> list[Finding]:
    assert RUNBOOK.outlook
    return RUNBOOK.outlook(look(gate))


def test_dead_rows_that_somebody_may_still_see_are_told_with_who(
    gate: Gated, world: World, dying: None
) -> None:
    fill_again = (
        "INSERT INTO sandbox_audit_log (sandbox_id, event_type, actor) SELECT id, 'x', 'y' FROM sandboxes"
    )
    with psycopg.connect(world.env["DATABASE_URL"]) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM sandboxes")
        for _ in range(20):
            world.sql.execute(fill_again)
        world.sql.execute("DELETE FROM sandbox_audit_log")
        assert gate.apply(vacuum(gate, AUDIT_LOG))[0] is State.AFTER
        [stuck] = [each for each in outlook(gate) if each.check == "stuck"]
        assert stuck.resource == Resource(kind="table", id=AUDIT_LOG)
        assert stuck.summary.startswith(f"{AUDIT_LOG}: 2,000 dead rows stay")
        [told] = [each for each in stuck.evidence["details"] if f"session {reader.info.backend_pid}," in each]
        assert ", since " in told
    assert gate.apply(vacuum(gate, AUDIT_LOG))[0] is State.AFTER
    assert [each.check for each in outlook(gate)] == ["table"] * 3


@contextmanager
def vacuuming(world: World) -> Iterator[int]:
    """Have somebody's VACUUM wait at a page that a cursor looks at; yield its pid."""
    url = make_conninfo(world.env["DATABASE_URL"], application_name="psql")
    pids: list[int] = []

    def run() -> None:
        with psycopg.connect(url, autocommit=True) as other:
            pids.append(other.info.backend_pid)
            other.execute("VACUUM (FREEZE) public.sandboxes")

    with psycopg.connect(url) as reader:
        reader.execute("DECLARE c CURSOR FOR SELECT * FROM public.sandboxes")
        reader.execute("FETCH 1 FROM c")
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        at_work = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE phase = 'scanning heap'"
        eventually(lambda: world.count(at_work) == 1)
        yield pids[0]
    thread.join(10)
    assert not thread.is_alive()


def test_a_table_that_somebody_vacuums_is_left_alone(gate: Gated, world: World) -> None:
    fill(world, 1)
    action = vacuum(gate, "sandboxes")
    with vacuuming(world) as pid:
        told = gate.in_use(action)
        actions, left = RUNBOOK.propose(look(gate))
    assert told
    assert told.startswith(f"session {pid} (lab, psql) since 20")
    assert re.search(r"Z: VACUUM, scanning heap \d+ %$", told)
    assert "sandboxes" not in [each.resource.id for each in actions]
    assert [each.summary for each in left] == [f"sandboxes: somebody is at work on it: {told}"]
    assert gate.in_use(action) is None


@pytest.mark.soak
def test_an_autovacuum_is_waited_for_and_then_left_alone(
    gate: Gated, world: World, dying: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_GIVE_WAY", 0.3)
    action = vacuum(gate, AUDIT_LOG)
    slow = "autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay, autovacuum_vacuum_cost_limit"
    world.sql.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
    world.sql.execute("SELECT pg_reload_conf()")
    world.sql.execute(
        "ALTER TABLE sandbox_audit_log SET (autovacuum_enabled = on, autovacuum_vacuum_threshold = 1,"
        " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)"
    )
    try:
        at_work = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = 'sandbox_audit_log'::regclass"
        eventually(lambda: world.count(at_work) == 1)
        told = gate.in_use(action)
        assert told
        assert "(autovacuum worker) since 20" in told
        monkeypatch.setattr(maintenance, "_GIVE_WAY", 30.0)
        world.sql.execute("ALTER TABLE sandbox_audit_log SET (autovacuum_enabled = off)")  # which ends it
        assert gate.in_use(action) is None
    finally:
        world.sql.execute(f"ALTER TABLE sandbox_audit_log RESET ({slow})".encode())
        world.sql.execute("ALTER SYSTEM RESET autovacuum_naptime")
        world.sql.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("error", [LeaseHeld, Stopped])
def test_a_lost_lease_and_an_emergency_stop_cancel_a_vacuum(
    gate: Gated, world: World, monkeypatch: pytest.MonkeyPatch, error: type[ArrakisError]
) -> None:
    fill(world, 1)
    action = vacuum(gate, "sandboxes")
    monkeypatch.setattr(postgres, "_GLANCE", 0.02)
    monkeypatch.setattr(alone, "_CHECK", 0.1)
    halted, told = stopping(gate, 2, error)
    ours = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '/*%VACUUM (ANALYZE)%'"
    with vacuuming(world):
        with pytest.raises(error):  # ours waits for theirs
            VacuumTable(halted).apply(action)
        eventually(lambda: world.count(ours) == 0)
        assert gate.state(action)[0] is State.BEFORE
    assert [re.sub(r"\d+ %$", "", line) for line in told] == ["  sandboxes: scanning heap "]


def test_a_stop_that_is_raised_just_after_a_look_cancels_a_vacuum_within_a_second(
    gate: Gated, world: World
) -> None:
    fill(world, 1)
    looks: list[float] = []

    def fence(_: SqlTransaction) -> None:
        looks.append(time.monotonic())
        if len(looks) == 3:
            raise Stopped("it was raised after the second look")

    halted = Gate(read=gate.read, write=gate.write, fence=fence, tell=lambda _: None)
    action = vacuum(gate, "sandboxes")
    with vacuuming(world):
        with pytest.raises(Stopped):
            VacuumTable(halted).apply(action)
        assert time.monotonic() - looks[1] < 1


def test_a_role_that_may_not_vacuum_is_told_before_and_never_called_done(
    gate: Gated, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sql.execute("CREATE ROLE reader LOGIN")
    try:
        for schema in ("public", "runbooks"):
            world.sql.execute(f"GRANT USAGE ON SCHEMA {schema} TO reader".encode())
            world.sql.execute(f"GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA {schema} TO reader".encode())
        theirs = make_conninfo(world.env["DATABASE_URL"], user="reader")
        action = vacuum(gate, "sandboxes")
        monkeypatch.setattr(maintenance, "_SOON", 0.3)
        read = replace(gate.read, sql=postgres.Postgres(theirs, tag="tests"))
        write = replace(gate.write, sql=postgres.Postgres(theirs, tag="tests"))
        theirs_gate = Gate(read=read, write=write, fence=lambda _: None, tell=lambda _: None)
        with read.sql.snapshot() as snapshot:
            seen = read_upkeep(snapshot)["sandbox_audit_log"]
        assert (seen.may_vacuum, seen.owner, list(seen.lacks)) == (False, "lab", ["INSERT", "DELETE"])
        with pytest.raises(ArrakisError, match="sandboxes was not vacuumed: PostgreSQL passes it over"):
            VacuumTable(theirs_gate).apply(action)
        maintain = world.sql.info.server_version >= 170_000
        world.sql.execute("GRANT MAINTAIN ON sandboxes TO reader" if maintain else "GRANT lab TO reader")
        with read.sql.snapshot() as snapshot:
            assert read_upkeep(snapshot)["sandboxes"].may_vacuum
        VacuumTable(theirs_gate).apply(action)
        assert VacuumTable(theirs_gate).observe(action).state is State.AFTER
    finally:
        world.sql.execute("DROP OWNED BY reader; DROP ROLE reader")
