"""A server that is dead or hangs costs seconds and one unknown finding; nothing is proposed that rests on it."""

import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.acceptance.engineer import Answer, Engineer

VARIABLES = ["DATABASE_URL", "REDIS_URL", "NATS_URL", "AWS_ENDPOINT_URL"]
CHECKS = dict(zip(VARIABLES, ["database", "keys", "listeners", "alarm"], strict=True))
HANGS = pytest.mark.parametrize(
    "hangs", [pytest.param(False, id="dead", marks=pytest.mark.soak), pytest.param(True, id="hanging")]
)
SECONDS = 8  # for --timeout 3: Python's start, the diagnosis, and the look at the account


@contextlib.contextmanager
def address(*, hangs: bool) -> Iterator[int]:
    """A port that refuses, or one that takes connections and never says a word."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if hangs:
            taken.listen(64)
        yield taken.getsockname()[1]


def moved(url: str, port: int) -> str:
    parts = urlsplit(url)
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return urlunsplit(parts._replace(netloc=f"{login}127.0.0.1:{port}"))


def diagnosed(engineer: Engineer, variables: list[str], *, hangs: bool, runbook: str = "rb-sb-003") -> Answer:
    with address(hangs=hangs) as port:
        changed = {name: moved(engineer.lab.env[name], port) for name in variables}
        return engineer.but(**changed).call(runbook, "--json", "--timeout", "3")


def unknown(answer: Answer) -> set[str]:
    findings = answer.document["findings"]
    return {finding["check"] for finding in findings if finding["severity"] == "unknown"}


@HANGS
@pytest.mark.parametrize(
    "variable",
    [
        pytest.param(each, marks=() if each in ("DATABASE_URL", "AWS_ENDPOINT_URL") else pytest.mark.soak)
        for each in VARIABLES
    ],
)
def test_one_that_does_not_answer_is_one_unknown(engineer: Engineer, variable: str, hangs: bool) -> None:
    answer = diagnosed(engineer, [variable], hangs=hangs)
    assert answer.code == 3, answer.said
    assert answer.seconds < SECONDS
    assert CHECKS[variable] in unknown(answer)
    assert answer.document["outcome"] == "unknown"
    assert "Traceback" not in answer.said
    others = set(CHECKS.values()) - {CHECKS[variable]}
    assert not others & unknown(answer)
    if variable != "AWS_ENDPOINT_URL":
        assert answer.document["plan"] is None


@HANGS
def test_all_that_do_not_answer(engineer: Engineer, hangs: bool) -> None:
    answer = diagnosed(engineer, VARIABLES, hangs=hangs)
    assert answer.code == 3, answer.said
    assert answer.seconds < SECONDS
    assert set(CHECKS.values()) <= unknown(answer)
    assert answer.document["plan"] is None


@HANGS
@pytest.mark.parametrize("runbook", ["rb-sb-001", pytest.param("rb-sb-002", marks=pytest.mark.soak)])
@pytest.mark.soak
def test_the_others_name_the_dead_servers_as_the_cause(engineer: Engineer, runbook: str, hangs: bool) -> None:
    answer = diagnosed(engineer, VARIABLES, hangs=hangs, runbook=runbook)
    assert answer.code == 3, answer.said
    assert answer.seconds < SECONDS
    causes = [each["summary"] for each in answer.document["findings"] if each["check"] == "cause"]
    assert ["PostgreSQL" in causes[0], "Redis" in causes[1], len(causes)] == [True, True, 2]
    assert {"alarm", "database", "schedule", "tasks", "log", "RDS"} <= unknown(answer)
    assert answer.document["plan"] is None


def test_the_alarm_is_still_told_when_the_database_is_dead(engineer: Engineer) -> None:
    answer = diagnosed(engineer, ["DATABASE_URL"], hangs=False)
    [alarm] = [finding for finding in answer.document["findings"] if finding["check"] == "alarm"]
    assert alarm["severity"] == "critical"


def test_a_plan_is_not_applied_when_the_account_cannot_be_told(newcomer: Engineer) -> None:
    plan = newcomer.plan()
    with address(hangs=False) as port:
        blind = newcomer.but(AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
        answer = blind.call("apply", "--plan", plan["id"], "--yes", "--timeout", "3")
    assert answer.code == 4, answer.said
    assert "cannot tell this environment's account" in answer.err
