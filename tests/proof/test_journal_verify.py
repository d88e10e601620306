"""`journal-verify` on a thousand records, with a real mirror and a log group: what was done to any of the three is told."""

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from jsonschema import Draft202012Validator
from moto import mock_aws

from diagnostics.stack import Stack
from runbooks.engine.anchors import Anchors
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit
from runbooks.engine.integrity import Kind, Source
from runbooks.engine.journal import Journal, read
from runbooks.engine.lease import Mirror, prepare
from runbooks.engine.lease import records as mirrored_records
from runbooks.engine.model import Phase
from runbooks.engine.verification import Verification, verification
from runbooks.reports import runs
from sandbox.adapters.aws import Aws
from sandbox.adapters.postgres import Postgres
from tests.integration.world import World
from tests.proof.journals import (
    RECORDS,
    deleted_span,
    edited,
    forged,
    joined,
    keep,
    moved,
    records_of,
    ticking,
)

GROUP, REGION = "/arrakis/journal", "us-east-1"
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "journal.json"
ANYTHING = 60.0  # seconds: how long it may take is not what these tests are about


@dataclass(frozen=True, repr=False)
class Host:
    """A host whose journal was mirrored and anchored; each test finds all as it was written."""

    world: World
    environment: Environment
    journal: Journal
    data: bytes
    logs: Any
    aws: Aws

    @property
    def lines(self) -> list[bytes]:
        return self.data.split(b"\n")[:-1]

    @property
    def chain(self) -> str:
        return str(json.loads(self.lines[0])["chain"])

    def verified(self, **changes: Any) -> Verification:
        sql = changes.pop("sql", self.world.database)
        environment = replace(self.environment, **changes)
        return verification(environment, sql=sql, aws=self.aws, timeout=ANYTHING)

    def found(self, **changes: Any) -> list[tuple[Source, str, int, Kind]]:
        """Return what is wrong: where, as what shows, the first record, and what was done to it."""
        flaws = self.verified(**changes).flaws
        return [(flaw.source, flaw.found_by, flaw.record, flaw.kind) for flaw in flaws]

    def write(self, data: bytes) -> None:
        self.journal.path.write_bytes(data)

    def said(self) -> str:
        return told(self.verified())[0]


def told(verified: Verification) -> tuple[str, dict[str, Any]]:
    """Return what is printed, as text and as the document, which is as its schema says."""
    text, document = runs.verified(verified, colour=False, width=200)
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(json.loads(json.dumps(document)))
    return text, document


@pytest.fixture(scope="module")
def anchored_host(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Write a journal of a thousand records, with its mirror and its anchors."""
    state = tmp_path_factory.mktemp("state")
    prepare(world.database)
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        logs = boto3.client("logs", region_name=REGION)
        logs.create_log_group(logGroupName=GROUP)
        journal = Journal(state / "journal.jsonl", actor="chani", clock=ticking())
        told: list[str] = []
        journal.mirror = Mirror(world.database).copy
        aws = Aws(region=REGION)
        journal.anchor = Anchors(lambda: aws, GROUP, tell=told.append)
        keep(journal)
        assert told == []
        environment = Environment(
            name="staging",
            database_url=world.env["DATABASE_URL"],
            redis_url="",
            nats_url="",
            stack=Stack(journal_log_group=GROUP),
            state=state,
        )
        yield Host(world, environment, journal, journal.path.read_bytes(), logs, aws)


@pytest.fixture
def host(anchored_host: Host) -> Iterator[Host]:
    """Return the host, and put everything back as it was afterwards."""
    sql = anchored_host.world.sql
    sql.execute("CREATE TABLE kept AS SELECT * FROM runbooks.journal")
    yield anchored_host
    anchored_host.write(anchored_host.data)
    sql.execute("TRUNCATE runbooks.journal")
    sql.execute("INSERT INTO runbooks.journal SELECT * FROM kept")
    sql.execute("DROP TABLE kept")


def test_what_nobody_touched_is_whole(host: Host) -> None:
    verified = host.verified()
    assert (verified.flaws, verified.exit) == ((), Exit.HEALTHY)
    assert [witness.vouches for witness in verified.witnesses] == [RECORDS, RECORDS]
    text, document = told(verified)
    assert text.startswith("JOURNAL  staging: whole\n")
    assert "the mirror has 1000 records of it, the last 1000\n" in text
    assert "the log group /arrakis/journal has 10 anchors of it, the last on record 1000" in text
    assert (document["outcome"], document["exit"], document["records"]) == ("whole", 0, RECORDS)
    assert {finding["severity"] for finding in document["findings"]} == {"ok"}


@pytest.mark.parametrize("mutation", [edited, deleted_span, moved])
def test_what_is_done_to_the_file_is_told_first(host: Host, mutation: Callable[..., Any]) -> None:
    changed = mutation(host.lines, 321, 654)
    host.write(joined(changed.lines))
    verified = host.verified()
    assert verified.exit is Exit.PROPOSED
    assert (verified.flaws[0].record, verified.flaws[0].kind) == (changed.record, changed.kind)
    text, document = told(verified)
    assert f"{changed.kind}: " in text
    assert text.startswith("JOURNAL  staging: NOT as it was written: ")
    worst = document["findings"][0]
    assert (worst["severity"], worst["evidence"]["record"]) == ("critical", changed.record)
    assert "RUNBOOKS_STATE_DIR elsewhere" in worst["evidence"]["hint"]


def test_who_makes_all_hashes_anew_is_found_by_both(host: Host) -> None:
    records = records_of(host.lines)
    records[776]["observed"] = {"number": 0}
    host.write(joined(forged(records)))
    assert host.found() == [
        (Source.FILE, "mirror", 777, Kind.EDITED),
        (Source.FILE, "log group", 701, Kind.EDITED),
    ]
    said = host.said()
    assert "records 701 to 800: the anchored hash is another" in said
    assert f"WHERE chain = '{host.chain}' AND seq = 777" in said
    assert f"--log-stream-name {host.chain}" in said


def test_who_does_it_in_the_mirror_too_is_found_by_the_anchors(host: Host) -> None:
    records = records_of(host.lines)
    records[776]["actor"] = "eve"
    lines = forged(records)
    host.write(joined(lines))
    host.world.sql.execute("TRUNCATE runbooks.journal")
    Mirror(host.world.database).copy(host.journal.entries())
    assert host.found() == [(Source.FILE, "log group", 701, Kind.EDITED)]


def test_one_whose_anchors_are_out_of_reach_is_found_by_the_mirror(host: Host) -> None:
    host.write(joined(host.lines[:900]))
    stack = Stack(journal_log_group="/no/such/group")
    assert host.found(stack=stack) == [(Source.FILE, "mirror", 901, Kind.TRUNCATED)]
    assert host.verified(stack=stack).exit is Exit.PROPOSED
    host.write(host.data)
    assert host.verified(stack=stack).exit is Exit.UNKNOWN


def test_without_the_mirror_what_the_file_and_the_anchors_show_is_told(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    gone = Postgres(f"postgresql://nobody:hush@127.0.0.1:{port}/arrakis", tag="proof", timeout=2)
    verified = host.verified(sql=gone)
    assert (verified.flaws, verified.exit) == ((), Exit.UNKNOWN)
    text, document = told(verified)
    assert "whole as far as this host shows; no answer from mirror" in text
    assert document["outcome"] == "unknown"
    assert "hush" not in text + json.dumps(document)
    host.write(joined(edited(host.lines, 321, 6).lines))
    assert host.found(sql=gone) == [(Source.FILE, "file", 321, Kind.EDITED)]
    assert host.verified(sql=gone).exit is Exit.PROPOSED


def test_its_schema_is_one() -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))


def test_a_torn_end_is_told_and_is_no_fault(host: Host) -> None:
    host.write(host.data + b'{"action":')
    assert host.verified().exit is Exit.HEALTHY
    assert "10 bytes of a write that was cut short: it was never acted on" in host.said()


def test_what_is_not_mirrored_yet_is_told(host: Host) -> None:
    host.world.sql.execute("DELETE FROM runbooks.journal WHERE seq > 990 OR seq = 5")
    stack = Stack()
    verified = host.verified(stack=stack)
    assert verified.exit is Exit.HEALTHY
    text, _ = told(verified)
    assert "whole; for the last 10 records the file alone vouches" in text
    assert "has 989 records of it, the last 990; the next run copies the rest" in text


# The file is gone


def test_a_file_that_is_gone_is_missed_by_both(host: Host) -> None:
    host.journal.path.unlink()
    assert host.found() == [(Source.FILE, "mirror", 1, Kind.MISSING)]
    assert f"{host.chain}, which was kept here, is gone (1000 records of it mirrored" in host.said()
    host.world.sql.execute("TRUNCATE runbooks.journal")
    assert host.found() == [(Source.FILE, "log group", 1, Kind.MISSING)]


def test_another_chain_in_its_place_is_told(host: Host) -> None:
    host.journal.path.unlink()
    Journal(host.journal.path, actor="eve", clock=lambda: datetime.now(UTC)).append("r1", Phase.RUN_ENDED)
    assert host.found() == [(Source.FILE, "mirror", 1, Kind.REPLACED)]
    host.write(joined(forged(records_of(host.lines), chain="eve")))
    assert host.found() == [(Source.FILE, "mirror", 1, Kind.REPLACED)]
    host.world.sql.execute("TRUNCATE runbooks.journal")
    assert host.found() == [(Source.FILE, "log group", 1, Kind.REPLACED)]


def test_where_nothing_was_ever_done_there_is_nothing_wrong(host: Host, tmp_path: Path) -> None:
    verified = host.verified(state=tmp_path / "elsewhere")
    assert (verified.flaws, verified.exit) == ((), Exit.HEALTHY)
    assert [chain.name for chain in verified.others] == [host.chain]
    host.world.sql.execute("ALTER SCHEMA runbooks RENAME TO away")
    try:
        assert host.verified(state=tmp_path / "elsewhere").exit is Exit.HEALTHY
        assert host.verified().exit is Exit.HEALTHY
    finally:
        host.world.sql.execute("ALTER SCHEMA away RENAME TO runbooks")


# The mirror


@pytest.mark.parametrize(
    "change",
    [
        "record = jsonb_set(record, '{actor}', '\"eve\"')",
        "record = jsonb_set(record, '{observed,number}', '0')",
        "record = record - 'error'",
        "record = jsonb_set(record, '{seq}', '\"322\"')",
        "record = '[]'",
        "run = 'rb-sb-001-other'",
        "phase = 'skipped'",
    ],
)
def test_a_mirrored_record_that_was_edited_is_told(host: Host, change: str) -> None:
    host.world.sql.execute(f"UPDATE runbooks.journal SET {change} WHERE seq = 322".encode())
    assert host.found() == [(Source.MIRROR, "mirror", 322, Kind.EDITED)]


def test_a_mirrored_record_that_was_given_a_new_hash_is_told(host: Host) -> None:
    record = {**json.loads(host.lines[321]), "actor": "eve"}
    [line] = forged([record], after=host.lines[:321])
    query = "UPDATE runbooks.journal SET record = %s::jsonb WHERE seq = 322"
    host.world.sql.execute(query, (line.decode(),))
    assert host.found() == [(Source.MIRROR, "mirror", 323, Kind.EDITED)]


def test_what_is_mirrored_of_another_host_is_verified_by_itself(host: Host, tmp_path: Path) -> None:
    other = Journal(tmp_path / "journal.jsonl", actor="stilgar", clock=ticking())
    other.mirror = Mirror(host.world.database).copy
    keep(other, records=200, run="rb-sb-001-other")
    chain = other.entries()[0].chain
    verified = host.verified()
    assert (verified.flaws, [each.name for each in verified.others]) == ((), [chain])
    assert (
        "1 journal of other hosts in the mirror, 200 records: each follows from the one before" in host.said()
    )

    host.world.sql.execute("DELETE FROM runbooks.journal WHERE chain = %s AND seq IN (1, 40, 41)", (chain,))
    assert host.verified().exit is Exit.HEALTHY  # it may not have been copied yet; only that host can tell
    where = "WHERE chain = %s AND seq = 77"
    host.world.sql.execute(
        f'UPDATE runbooks.journal SET record = record || \'{{"error": "x"}}\' {where}'.encode(), (chain,)
    )
    [flaw] = host.verified().flaws
    assert (flaw.chain, flaw.record, flaw.source, flaw.kind) == (chain, 77, Source.MIRROR, Kind.EDITED)
    assert f"mirror of {chain}, edited: record 77 is not as it was written" in host.said()


ODD: tuple[object, ...] = (
    "a\0b",
    "\ud800",
    {"a\0": ["\0"]},
    float("nan"),
    float("-inf"),
    1e16,
    -1e300,
    -0.0,
    1e-7,
    10**30,
    "\\u0000",
    "\U0001f600\u202e",
)
"""What jsonb cannot hold, or gives back otherwise, and what looks like that."""


def test_whatever_a_record_holds_it_is_mirrored_and_found_as_it_was_written(
    host: Host, tmp_path: Path
) -> None:
    odd = Journal(tmp_path / "journal.jsonl", actor="chani", clock=ticking())
    odd.mirror = Mirror(host.world.database).copy
    for value in ODD:
        odd.append("rb-sb-003-odd", Phase.STARTED, action="a1", observed={"value": value})
    assert [repr(each) for each in mirrored_records(host.world.database, "rb-sb-003-odd")] == [
        repr(each) for each in odd.entries()
    ]
    where = "WHERE run = 'rb-sb-003-odd' AND seq = 1"
    assert (
        host.world.one(f"SELECT record #>> '{{observed,value}}' FROM runbooks.journal {where}") == "a\ufffdb"
    )
    assert host.verified().flaws == ()
    host.world.sql.execute(
        f"UPDATE runbooks.journal SET record = jsonb_set(record, '{{action}}', '\"a2\"') {where}".encode()
    )
    [flaw] = host.verified().flaws
    assert (flaw.record, flaw.source, flaw.kind) == (1, Source.MIRROR, Kind.EDITED)


# Behind both


def test_a_run_that_is_under_way_is_not_taken_for_an_end_that_is_missing(host: Host) -> None:
    """What the mirror has was on disk before: so the file is read after it."""

    class Meanwhile(Postgres):
        """A database that is asked while a run goes on."""

        def snapshot(self) -> Any:
            host.journal.append("r2", Phase.RUN_STARTED)
            return super().snapshot()

    host.write(host.data)
    verified = host.verified(sql=Meanwhile(host.world.env["DATABASE_URL"], tag="proof"))
    assert (verified.flaws, len(verified.file.entries)) == ((), RECORDS + 1)


def test_a_chain_that_is_named_to_be_pasted_cannot_break_out(host: Host) -> None:
    chain = "';\x1b[2J\"$(reboot)"
    entries = read(joined(forged(records_of(host.lines[:3]), chain=chain))).entries
    Mirror(host.world.database).copy(entries)
    host.world.sql.execute("UPDATE runbooks.journal SET run = 'x' WHERE chain = %s AND seq = 2", (chain,))
    said = host.said()
    assert "\x1b" not in said
    assert "seq = 2" in said
    assert "$(reboot)" not in said.split("To see it by hand:")[1]
