"""Log lines of both formats are read, and equal errors share a fingerprint, whatever differs each time."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.loglines import LogLine, failed_step, fingerprint, folded, parse

AT = datetime(2026, 3, 1, 9, 12, tzinfo=UTC)
ID = "3f2b8c1e-82b6-49b7-a7f6-d86f86e45136"
OTHER = "83963dd9-0c1d-4a55-9b1e-0a1b2c3d4e5f"


def pino(message: str, *, level: object = 50, component: str | None = "CleanupProvider", **more: Any) -> str:
    named = {"component": component} if component else {}
    head = {"level": level, "time": 1700000000000, "pid": 1, "hostname": "ip-10-0-3-17", **named}
    return json.dumps({**head, "msg": message, **more}, separators=(",", ":"))


def line(text: str) -> LogLine:
    return parse(AT, text)


POSTGRES_ERROR = {
    "name": "PostgresError",
    "severity": "ERROR",
    "code": "2BP01",
    "detail": "view public.report depends on table communities",
    "hint": "Use DROP ... CASCADE to drop the dependent objects too.",
}
REFUSED = {
    "code": "ECONNREFUSED",
    "errno": -111,
    "syscall": "connect",
    "address": "10.0.1.5",
    "port": 5432,
}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("connect ECONNREFUSED 10.0.1.5:5432", "connect ECONNREFUSED 10.0.1.5:5432"),
        (
            POSTGRES_ERROR,
            "PostgresError SQLSTATE=2BP01: view public.report depends on table communities"
            " Use DROP ... CASCADE to drop the dependent objects too.",
        ),
        (
            {"type": "Error", "message": "canceling statement due to lock timeout", "code": "55P03"},
            "Error SQLSTATE=55P03: canceling statement due to lock timeout",
        ),
        (REFUSED, "ECONNREFUSED connect 10.0.1.5:5432"),
        (
            {"code": "ECONNREFUSED", "errors": [REFUSED, {}]},
            "ECONNREFUSED: ECONNREFUSED connect 10.0.1.5:5432",
        ),
        (
            {"name": "ReplyError", "command": {"name": "del", "args": ["k"]}},
            "ReplyError Redis command del",
        ),
        (
            {"command": {"name": "scan"}, "previousErrors": [REFUSED]},
            "Redis command scan: ECONNREFUSED connect 10.0.1.5:5432",
        ),
        (
            {"code": "ENOTFOUND", "syscall": "getaddrinfo", "hostname": "db.internal"},
            "ENOTFOUND getaddrinfo db.internal",
        ),
        ({"type": "Blocked", "message": "SANDBOX_006: no", "hint": "drop it"}, "Blocked: SANDBOX_006: no"),
        ({"code": "404", "api_error": {"description": "stream not found"}}, "404: stream not found"),
        ({}, ""),
        (None, ""),
        (["odd", 1], "['odd', 1]"),
    ],
)
def test_an_error_is_put_into_words(error: object, said: str) -> None:
    assert line(pino("Failed", error=error)).error == said


def test_a_pino_line() -> None:
    completed = ["mark_destroying", "remove_guild_mappings", "invalidate_cache"]
    found = line(pino("Sandbox cleanup failed", sandboxId=ID, stepsCompleted=completed, error={}))
    assert found == LogLine(
        at=AT,
        level=50,
        component="CleanupProvider",
        message="Sandbox cleanup failed",
        step="delete_redis_keys",
        sandboxes=(ID,),
    )
    assert found.text == "Sandbox cleanup failed (at step delete_redis_keys)"


@pytest.mark.parametrize(
    ("completed", "failed"),
    [
        ([], "mark_destroying"),
        (
            ["mark_destroying", "remove_guild_mappings", "invalidate_cache", "delete_redis_keys"],
            "drop_schema",
        ),
        (
            [
                "mark_destroying",
                "remove_guild_mappings",
                "invalidate_cache",
                "delete_redis_keys",
                "drop_schema",
                "mark_destroyed",
            ],
            None,
        ),
    ],
)
def test_the_step_that_failed_is_the_first_that_was_not_completed(
    completed: list[str], failed: str | None
) -> None:
    assert failed_step(completed) == failed


def test_our_own_job_names_its_step() -> None:
    error = {"type": "Busy", "message": "PostgreSQL could not take the lock"}
    found = line(pino("Sandbox cleanup failed", sandboxId=ID, name="a", step="drop schema", error=error))
    assert (found.step, found.sandboxes) == ("drop schema", (ID,))
    assert fingerprint(found).endswith("[drop schema]")


@pytest.mark.parametrize(
    ("text", "level", "component", "message", "rest"),
    [
        ("ERROR no route", 50, None, "ERROR no route", ""),
        ("EventRouter ERROR no route", 50, "EventRouter", "EventRouter ERROR no route", ""),
        ("\x1b[31mERROR\x1b[39m: no route", 50, None, "ERROR: no route", ""),
        (
            "2026-03-01 09:12:00 UTC [7] FATAL:  sorry",
            60,
            None,
            "2026-03-01 09:12:00 UTC [7] FATAL:  sorry",
            "",
        ),
        ("Error: connect ECONNREFUSED", 50, None, "Error: connect ECONNREFUSED", ""),
        (
            "PostgresError: no\n    at x (/app/a.js:1:2)",
            50,
            None,
            "PostgresError: no",
            "    at x (/app/a.js:1:2)",
        ),
        ("[ioredis] Unhandled error event: no", 50, None, "[ioredis] Unhandled error event: no", ""),
        ("psql: error: no", 50, None, "psql: error: no", ""),
        ("INFO tried again after Error: no", 30, None, "INFO tried again after Error: no", ""),
        ("WARN Error rate rises", 40, None, "WARN Error rate rises", ""),
        ("0 Errors", 30, None, "0 Errors", ""),
        ("", 30, None, "", ""),
        ("[1, 2] is no object", 30, None, "[1, 2] is no object", ""),
    ],
)
def test_a_plain_line(text: str, level: int, component: str | None, message: str, rest: str) -> None:
    found = line(text)
    assert (found.level, found.component, found.message) == (level, component, message)
    assert found.error.strip() == rest.strip()


@pytest.mark.parametrize(
    ("level", "read"),
    [
        (30, 30),
        (55, 55),
        ("error", 50),
        ("ERROR", 50),
        ("fatal", 60),
        ("odd", 30),
        ("9" * 5000, 30),
        (None, 30),
    ],
)
def test_levels(level: object, read: int) -> None:
    assert line(pino("x", level=level)).level == read


def test_a_line_that_the_log_driver_cut_is_still_an_error() -> None:
    text = pino('Failed to "route"', component="EventRouter", stack="x" * 20_000)[:16_384]
    found = line(text)
    assert (found.level, found.component, found.message) == (50, "EventRouter", r"Failed to \"route\"")
    for level, read in ((30, 30), ("error", 50), ("fatal", 60), ("info", 30), ("odd", 30)):
        cut = line(pino("x", padding="Error " * 5_000, level=level)[:16_384])
        assert (cut.level, cut.message) == (read, "x")


def test_a_line_nested_too_deep_to_read_is_plain() -> None:
    assert line('{"a":' + "[" * 100_000).level == 30


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("ERROR cannot reach postgresql://u:S3cr/et@h:5432/x", "S3cr"),
        ("ERROR cannot reach redis://:S3cr@et@h:6379", "S3cr"),
        ("ERROR password=S3cret refused", "S3cret"),
        (pino("x", error={"message": "redis://:S3cret@h"}), "S3cret"),
        (pino("x", error={"type": "Error", "detail": 'PASSWORD: "S3cret"'}), "S3cret"),
        ("ERROR x\nDATABASE_URL=postgresql://u:S3cret@h/x", "S3cret"),
    ],
)
def test_no_password_is_repeated(text: str, secret: str) -> None:
    found = line(text)
    assert secret not in repr(found)
    assert secret not in fingerprint(found)


@pytest.mark.parametrize(
    ("text", "sandboxes"),
    [
        (f"ERROR Sandbox {ID} marked destroyed with its schema left", (ID,)),
        (f"ERROR cannot drop sandbox_{ID}, sandbox_83963dd9 and sandbox_{ID.upper()}", (ID, "83963dd9")),
        ("ERROR cannot read sandbox:3f2b8c1e:session", ("3f2b8c1e",)),
        (f"ERROR request {ID} failed", ()),
        ("ERROR relation sandbox_guild_mapping does not exist", ()),
        (pino("Failed to drop orphaned schema", schemaName=f"sandbox_{ID}"), (ID,)),
        (pino("Failed", error=f"cannot drop schema sandbox_{ID} because"), (ID,)),
        (pino("Failed", sandboxId=7), ()),
    ],
)
def test_which_sandboxes_a_line_concerns(text: str, sandboxes: tuple[str, ...]) -> None:
    assert line(text).sandboxes == sandboxes


@pytest.mark.parametrize(
    ("one", "another"),
    [
        (f"schema sandbox_{ID} is gone", f"schema sandbox_{OTHER} is gone"),
        ("schema sandbox_3f2b8c1e is gone", "schema sandbox_deadbeef is gone"),
        ("sandbox 3f2b8c1e is gone", "sandbox deadbeef is gone"),
        ("took 812ms", "took 1.2s"),
        ("took 812 ms", "took 5000 ms"),
        ("connect ECONNREFUSED 10.0.1.5:41234", "connect ECONNREFUSED 127.0.0.1:5999"),
        ("refused by db-a.internal:5432", "refused by db-b.internal:5432"),
        ("at https://a.example/x", "at https://b.example/y"),
        ('relation "report" is there', 'relation "my own" is there'),
        ("owner 'chani' has it", "owner 'stilgar' has it"),
        ("guild 123456789012345678", "guild 987654321098765432"),
        ("at x (/app/a.js:10:5)", "at x (/app/a.js:11:7)"),
    ],
)
def test_what_differs_each_time_is_folded(one: str, another: str) -> None:
    assert folded(one) == folded(another)
    assert "*" in folded(one)


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("connect ECONNREFUSED 10.0.1.5:5432", "connect ECONNREFUSED 10.0.1.5:6379"),
        ("PostgresError SQLSTATE=53100", "PostgresError SQLSTATE=53200"),
        ("cannot reach redis://a", "cannot reach postgresql://a"),
        ("permission denied for table communities", "permission denied for table profiles"),
        ("it isn't there, can't be", "it isn't here, can't be"),
    ],
)
def test_what_tells_causes_apart_is_kept(one: str, another: str) -> None:
    assert folded(one) != folded(another)


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        (pino("Failed", sandboxId=ID, durationMs=3), pino("Failed", sandboxId=OTHER, durationMs=4), True),
        (pino("Failed"), pino("Failed", component="EventRouter"), False),
        (pino("Failed", error={"code": "2BP01"}), pino("Failed", error={"code": "53300"}), False),
        (pino("Failed", error={"code": "53100"}), pino("Failed", error={"code": "53300"}), False),
        (pino("Failed", error=REFUSED), pino("Failed", error={**REFUSED, "address": "10.0.9.9"}), True),
        (pino("Failed", error=REFUSED), pino("Failed", error={**REFUSED, "port": 6379}), False),
        (pino("Failed", stepsCompleted=[]), pino("Failed", stepsCompleted=["mark_destroying"]), False),
    ],
)
def test_fingerprints(one: str, another: str, same: bool) -> None:
    assert (fingerprint(line(one)) == fingerprint(line(another))) is same


TEXTS = st.text(alphabet=st.sampled_from("ab1 f5432:.-_/'\"*=(),@\n\x1bé²") | st.characters(), max_size=80)


@given(TEXTS)
def test_folding_twice_is_folding_once(text: str) -> None:
    assert folded(folded(text)) == folded(text)


@given(st.uuids(), st.integers(min_value=0), st.uuids(), st.integers(min_value=0))
def test_any_id_and_any_number_fold_alike(one: object, count: int, other: object, number: int) -> None:
    assert folded(f"schema sandbox_{one} of {count}") == folded(f"schema sandbox_{other} of {number}") or {
        count,
        number,
    } & {5432, 6432, 6379, 4222}


@given(TEXTS)
def test_any_text_can_be_read(text: str) -> None:
    for each in (text, "{" + text, pino(text), pino("x", error=text)):
        fingerprint(line(each))


def test_a_huge_line_is_cut() -> None:
    found = line("ERROR " + "a1" * 200_000)
    assert len(found.message) == 2000
    assert len(fingerprint(found)) < 500
