"""A world full of names that mean something to SQL, shells, patterns, terminals and pages: nothing breaks, nothing else is touched."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import redis
from psycopg import sql

from lab.control import Lab
from lab.incidents.cloud import Account
from lab.names import LOG_GROUPS
from tests.acceptance.engineer import Answer, Engineer
from tests.integration.world import World

TEXTS = (
    *(
        '"',
        "'",
        "%",
        "%s %(tag)s",
        "_",
        "\\",
        "*",
        "[a-f]*",
        "?",
        "",
        " ",
        "-rf",
        "--yes",
        "route",
        "..",
        "/etc/passwd",
    ),
    "'; DROP SCHEMA public CASCADE; --",
    '"; DROP SCHEMA public CASCADE; --',
    "`id` $(id) ; id",
    "a\nb\r\nc\td",
    "\x1b[2J\x1b]0;owned\x07\x08\x7f",
    "\u202eevil\u2066\u200b\ufeff\u2028\x85\x9b31m",
    "</pre><script>alert(1)</script>",
    "x | y ``` # z [a](javascript:alert(1))",
    "{{ 7 * 7 }}{% raw %}",
    "x" * 63,
    "\u00e9" * 40,  # 63 bytes end in the middle of one
    "\U0001f3dc" * 20,
)
LIVES, OVER = ("running", "pending", "creating", "destroying"), ("expired", "destroyed")
ALARM = "sandbox-orphaned-resources"
RUNBOOKS = tuple(f"rb-sb-00{number}" for number in range(1, 7))
MOVED = re.compile(rb"quarantine([_:])\d{14}[_:](sandbox:)?(.*)", re.DOTALL)
_UNUSED = 7200  # seconds


@dataclass(frozen=True)
class Contents:
    """Schemas with their rows and rows of the control tables, by name; keys with what they hold."""

    tables: Mapping[bytes, Sequence[object]]
    keys: Mapping[bytes, object]


class Land:
    """A world that such names are in, beside three orphans, and a sandbox that lives."""

    def __init__(self, lab: Lab, world: World) -> None:
        self.lab, self.world = lab, world
        self.orphans = [str(uuid4()) for _ in range(3)]
        self.live = world.make("alive").id

    def lay_out(self) -> None:
        """Make everything; our session is gone at the end, so that it does not look like a user."""
        victim = self.orphans[0]
        alike = [
            f"{victim}\n",
            f"{victim}x",
            f" {victim}",
            f"{victim[:-1]}?",
            f"{victim[:8]}*",
            f"-{victim}",
            f"{victim}%",
        ]
        with psycopg.connect(self.lab.env["DATABASE_URL"], autocommit=True) as own:
            own.execute("SET client_min_messages = error")
            for number, (text, status) in enumerate(zip(TEXTS, cycle((*LIVES, *OVER)), strict=False)):
                self._write_row(own, number, text, status)
            names = {f"sandbox_{text}".encode()[:63].decode(errors="ignore") for text in (*TEXTS, *alike)}
            for name in sorted(names) + [f"sandbox_{each}" for each in self.orphans]:
                kept = sql.Identifier(name, "kept")
                own.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
                own.execute(sql.SQL("CREATE TABLE {} AS SELECT 1 AS id").format(kept))
        keys = [
            f"sandbox:{text}:k".encode("utf-8", "surrogateescape") for text in (*TEXTS, *alike, *self.orphans)
        ]
        keys += [
            b"sandbox:\xff\xfe\x00:k",
            b"sandbox:\x00" + victim.encode(),
            b"Sandbox:%b:k" % victim.encode(),
        ]
        keys += [f"sandbox:route:{text}".encode() for text in TEXTS] + [f"sandbox:{self.live}:k".encode()]
        self.put(keys)

    def _write_row(
        self, own: psycopg.Connection[tuple[object, ...]], number: int, text: str, status: str
    ) -> None:
        id, name = uuid4(), f"{text[:60]}{number}"
        own.execute(
            "INSERT INTO sandboxes (id, name, owner, status, schema_name, expires_at, destroyed_at, metadata)"
            " VALUES (%s, %s, %s, %s::sandbox_status, %s, now() - interval '2 hours',"
            " CASE WHEN %s = 'destroyed' THEN now() - interval '1 hour' END, jsonb_build_object('by', %s::text))",
            (id, name, text[:64], status, f"sandbox_{text[:55]}", status, text),
        )
        own.execute("INSERT INTO sandbox_guild_mapping VALUES (%s, %s)", (f"{text[:17]}{number}", id))
        own.execute(
            "INSERT INTO sandbox_audit_log (sandbox_id, event_type, actor, details) VALUES (%s, %s, %s, %s)",
            (id, text[:32], text[:64], json.dumps({text: text})),
        )

    def put(self, names: Sequence[bytes]) -> None:
        """Write keys that nobody used for long."""
        with redis.Redis.from_url(self.lab.env["REDIS_URL"]) as client:
            client.set("value", "1")
            value, pipeline = client.dump("value"), client.pipeline(transaction=False)
            for name in names:
                pipeline.execute_command("RESTORE", name, 0, value, "REPLACE", "IDLETIME", _UNUSED)
            pipeline.execute()
            client.delete("value")

    def contents(self) -> Contents:
        """Read all there is; no key looks used afterwards."""
        tables: dict[bytes, Sequence[object]] = {}
        with psycopg.connect(self.lab.env["DATABASE_URL"]) as own:
            found = own.execute(
                "SELECT n.nspname::text, c.relname::text FROM pg_namespace n LEFT JOIN pg_class c"
                " ON c.relnamespace = n.oid AND c.relkind = 'r'"
                " WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'runbooks')"
            )
            for schema, table in found.fetchall():
                rows = sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(
                    sql.Identifier(schema, table or "")
                )
                tables[f"{schema}\0{table}".encode()] = own.execute(rows).fetchall() if table else []
        with redis.Redis.from_url(self.lab.env["REDIS_URL"], single_connection_client=True) as client:
            client.execute_command("CLIENT", "NO-TOUCH", "ON")
            keys = {name: client.dump(name) for name in set(client.scan_iter(count=5000))}
        return Contents(tables, keys)


@pytest.fixture(scope="module")
def telling(grounds: Lab) -> Iterator[None]:
    """Let logs and an alarm say such things."""
    account = Account(grounds.env)
    logs, cloudwatch, stream = account.client("logs"), account.client("cloudwatch"), "hostile"
    now = int(datetime.now(UTC).timestamp() * 1000)
    lines = [
        f"ERROR {text} {json.dumps({'level': 'error', 'sandbox': text, 'error': text})}" for text in TEXTS
    ]
    for group in LOG_GROUPS:
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        events = [{"timestamp": now - 60_000 + number, "message": line} for number, line in enumerate(lines)]
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    cloudwatch.put_metric_alarm(
        AlarmName=ALARM, AlarmDescription=" ".join(TEXTS)[:1000], MetricName="Orphans\u202e", Namespace="<b>", Period=60,
        Statistic="Sum", EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    cloudwatch.set_alarm_state(AlarmName=ALARM, StateValue="ALARM", StateReason=" ".join(TEXTS)[:1000])
    yield
    cloudwatch.delete_alarms(AlarmNames=[ALARM])
    for group in LOG_GROUPS:
        logs.delete_log_stream(logGroupName=group, logStreamName=stream)


@pytest.fixture
def land(grounds: Lab, world: World, telling: None) -> Iterator[Land]:
    """Return such a world; world.wipe() is not for names like these."""
    world.wipe()
    made = Land(grounds, world)
    made.lay_out()
    yield made
    for name in world.schemas():
        world.sql.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))
    world.wipe()


@pytest.fixture
def chani(grounds: Lab, tmp_path: Path) -> Engineer:
    return Engineer(grounds, tmp_path / "state")


def assert_harmless(answer: Answer, codes: set[int]) -> None:
    """Insist that what was printed moves no cursor, turns no text, and is no traceback."""
    assert answer.code in codes, answer.said
    assert "Traceback" not in answer.said
    assert "probe failed" not in answer.said
    assert {char for char in answer.said if char != "\n" and not char.isprintable()} == set()


class Page(HTMLParser):
    """What a browser would run of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.runs += [
            f"{name}={value}" for name, value in attrs if name.startswith("on") or "script:" in (value or "")
        ]

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.runs.append(data)


def assert_pages_hold(state: Path) -> None:
    """Insist that nothing has broken out of a report."""
    [page] = state.glob("*/audits/*.html")
    browser = Page()
    browser.feed(page.read_text())
    assert not [each for each in browser.runs if "alert" in each]
    document = json.loads(page.with_suffix(".json").read_text())
    assert any("<script>" in json.dumps(finding) for finding in document["findings"])
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert {char for char in text if char not in "\n\t" and not char.isprintable()} == set()
    assert "<script>alert" not in page.with_suffix(".md").read_text()


def test_everything_is_told_and_nothing_breaks_out(land: Land, chani: Engineer) -> None:
    before = land.contents()
    assert_harmless(chani.call("audit", "--timeout", "20"), {2, 3})
    assert_pages_hold(chani.state)
    assert land.contents() == before


@pytest.mark.soak
@pytest.mark.parametrize("runbook", RUNBOOKS)
def test_every_runbook_tells_it(land: Land, chani: Engineer, runbook: str) -> None:
    codes = {0, 2, 3} if runbook == "rb-sb-006" else {2, 3}  # names make nothing slow
    assert_harmless(chani.call(runbook, "--timeout", "20"), codes)
    answer = chani.call(runbook, "--timeout", "20", "--json")
    assert_harmless(answer, codes)
    assert answer.document["runbook"] == runbook


def test_only_true_orphans_are_moved(land: Land, chani: Engineer) -> None:
    before = land.contents()
    answer = chani.call("rb-sb-003", "--apply", "--yes", "--timeout", "20", "--max-targets", "99")
    assert_harmless(answer, {0, 2, 3, 5})
    after = land.contents()
    assert {was(name): rows for name, rows in after.tables.items()} == before.tables
    assert {was(name): value for name, value in after.keys.items()} == before.keys
    gone = set(before.tables) - set(after.tables) | set(before.keys) - set(after.keys)
    schemas = {f"sandbox_{each}\0kept".encode() for each in land.orphans}
    assert gone == schemas | {f"sandbox:{each}:k".encode() for each in land.orphans}


def was(name: bytes) -> bytes:
    """Return what something in quarantine was called."""
    found = MOVED.fullmatch(name)
    return b"sandbox%b%b" % (found[1], found[3]) if found else name


@pytest.mark.soak
@pytest.mark.parametrize("count", [100_000, 1_000_000])
def test_so_many_keys_of_one_id_are_moved_all_or_none(
    grounds: Lab, world: World, chani: Engineer, count: int
) -> None:
    world.wipe()
    land = Land(grounds, world)
    orphan = land.orphans[0].encode()
    for start in range(0, count, 50_000):
        land.put([b"sandbox:%b:%d" % (orphan, number) for number in range(start, start + 50_000)])
    before = world.redis.dbsize()
    words = ("rb-sb-003", "--apply", "--yes", "--max-targets", "9", "--timeout", "120")
    try:
        with chani.calling(*words) as (program, _):
            out, err = program.communicate(600)
            code = program.wait()
        left = sum(orphan in key for key in world.redis.scan_iter(match="sandbox:*", count=10_000))
        assert (code, left) in ((0, 0), (3, count)), out + err  # not in time is unknown: nothing is done
        assert world.redis.dbsize() == before
    finally:
        world.wipe()
