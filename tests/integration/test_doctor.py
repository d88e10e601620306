"""The examination on real servers: all well, stopped, refusing, lacking one thing; and that it changes nothing and tells no secret."""

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import or_
from pathlib import Path

import psycopg
import pytest
import redis

from lab import control
from runbooks.catalogue import RUNBOOKS
from runbooks.doctor import examine
from runbooks.engine.environment import FOLDER, Environment, resolve
from runbooks.engine.errors import Exit
from runbooks.engine.model import Finding, Severity
from runbooks.engine.page import Rights
from runbooks.engine.permission import ASKING
from runbooks.reports import checkup
from tests.integration.logins import PASSWORD, USER, limited
from tests.integration.pgbouncer import pooled
from tests.pagerduty_stand_in import stand_in
from tests.wires import recording

READS = reduce(or_, (each.page.reads for each in RUNBOOKS.values()))
CLOSED = "127.0.0.1:1"
SECRET = "canary-5f3759df"


@pytest.fixture
def lab(guarded: control.Lab) -> control.Lab:
    """Return a lab that is not changed."""
    return guarded


@pytest.fixture
def examined(
    lab: control.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Finding, ...]]:
    """Return how to examine this machine with some variables, and an environment that may be altered."""

    def with_variables(
        variables: Mapping[str, str] = lab.env,
        *,
        timeout: float = 10,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        altered: Callable[[Environment], Environment] = lambda environment: environment,
    ) -> tuple[Finding, ...]:
        for name in list(os.environ):
            if name.startswith(("AWS_", "DATABASE_", "REDIS_", "NATS_", "PAGERDUTY_", "ARRAKIS_")):
                monkeypatch.delenv(name)
        for name, value in {**variables, "RUNBOOKS_STATE_DIR": str(tmp_path / "state")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        return examine(lambda: altered(resolve(None, os.environ, FOLDER, tmp_path)), timeout=timeout, now=now)

    return with_variables


Examined = Callable[..., tuple[Finding, ...]]


def of(findings: tuple[Finding, ...], system: str) -> dict[str, Finding]:
    """Return what was found of a system, by its check."""
    return {each.check: each for each in findings if each.resource and each.resource.id == system}


def severities(findings: tuple[Finding, ...], check: str) -> dict[str, Severity]:
    """Return how a check ended, by the system."""
    return {each.resource.id: each.severity for each in findings if each.resource and each.check == check}


def everywhere(severity: Severity) -> dict[str, Severity]:
    return dict.fromkeys(("AWS", "PostgreSQL", "Redis", "NATS"), severity)


def test_in_the_lab_all_is_well_and_nothing_is_changed(
    lab: control.Lab, examined: Examined, tmp_path: Path
) -> None:
    with recording(lab.env) as wires:
        found = examined(wires.env)
        assert wires.changes() == {}
        assert wires.postgres.said
        assert wires.redis.said
        assert wires.nats.published() >= {"$SYS.REQ.USER.INFO"}
        assert wires.aws.actions() >= READS.aws - {"s3:ListBucket"}
    assert (checkup.verdict(found), checkup.exit_of(found)) == ("ready", Exit.HEALTHY)
    assert list(tmp_path.iterdir()) == []


def test_logins_that_may_only_read_are_ready_to_look(
    lab: control.Lab, examined: Examined, tmp_path: Path
) -> None:
    with limited(lab.env, READS | ASKING, tmp_path / "nats") as env, recording(env, asking=lab.env) as wires:
        found = examined(wires.env)
        assert wires.changes() == {}
    assert severities(found, "rights to look") == everywhere(Severity.OK)
    assert severities(found, "rights to change") == everywhere(Severity.WARNING)
    assert checkup.verdict(found).startswith("ready to look, not to change: AWS: lacks 11 of 11")
    assert checkup.exit_of(found) is Exit.PROPOSED
    lacking = of(found, "PostgreSQL")["rights to change"].evidence
    assert f"GRANT UPDATE ON public.sandboxes TO {USER};" in lacking["commands"]
    assert any(each.startswith("owner of sandbox_*, for rb-sb-001") for each in lacking["details"])


def test_where_a_login_may_not_ask_what_it_may_do_that_is_unknown_and_looking_is_tried(
    lab: control.Lab, examined: Examined, tmp_path: Path
) -> None:
    with limited(lab.env, READS, tmp_path / "nats") as env, recording(env, asking=lab.env) as wires:
        found = examined(wires.env)
        assert wires.changes() == {}
    assert {name: each for name, each in severities(found, "rights to look").items() if name != "NATS"} == {
        "AWS": Severity.OK,
        "PostgreSQL": Severity.OK,
        "Redis": Severity.OK,
    }
    assert of(found, "NATS")["rights to look"].severity is Severity.UNKNOWN
    unsure = {**everywhere(Severity.UNKNOWN), "PostgreSQL": Severity.WARNING}
    assert severities(found, "rights to change") == unsure


def test_one_right_less_on_each_server_is_named_with_who_needs_it(
    lab: control.Lab, examined: Examined, tmp_path: Path
) -> None:
    less = Rights(
        postgres=READS.postgres - {"SELECT ON runbooks.journal"},
        redis=READS.redis - {"+slowlog|get"},
        nats=READS.nats - {"$JS.API.STREAM.MSG.GET.EVENTS"},
        aws=READS.aws - {"logs:FilterLogEvents"},
    )
    with limited(lab.env, less | ASKING, tmp_path / "nats") as env:
        found = examined(env)
    assert checkup.verdict(found).startswith("not ready: AWS: lacks 1 of 19: logs:FilterLogEvents")
    details = {
        each.resource.id: each.evidence["details"]
        for each in found
        if each.resource and each.check == "rights to look"
    }
    assert details == {
        "AWS": ["logs:FilterLogEvents, for rb-sb-001, rb-sb-002, rb-sb-004, rb-sb-005"],
        "PostgreSQL": ["SELECT ON runbooks.journal, for rb-sb-006"],
        "Redis": ["+slowlog|get, for rb-sb-006"],
        "NATS": ["$JS.API.STREAM.MSG.GET.EVENTS, for rb-sb-004"],
    }


def stopped(env: Mapping[str, str], place: str) -> dict[str, str]:
    """Return the variables with all servers at a place where none answers, each address with a secret in it."""
    return {
        **env,
        "DATABASE_URL": f"postgresql://lab:{SECRET}@{place}/arrakis",
        "REDIS_URL": f"redis://lab:{SECRET}@{place}/0",
        "NATS_URL": f"nats://lab:{SECRET}@{place}",
        "AWS_ENDPOINT_URL": f"http://{place}",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


def see_that_no_secret_is_told(found: tuple[Finding, ...]) -> None:
    said = checkup.text(found, environment=None, colour=False, width=80)
    made = checkup.document(found, environment=None, at=datetime.now(UTC), by="chani")
    assert SECRET not in said + json.dumps(made)
    assert max(map(len, said.splitlines())) <= 110  # an address is not cut


def test_with_every_server_stopped_each_is_told_of_once(lab: control.Lab, examined: Examined) -> None:
    found = examined(stopped(lab.env, CLOSED))
    assert severities(found, "reach") == everywhere(Severity.CRITICAL)
    assert checkup.verdict(found).startswith("not ready: AWS")
    assert checkup.exit_of(found) is Exit.PROPOSED
    for system in everywhere(Severity.CRITICAL):
        assert set(of(found, system)) <= {"reach", "credentials"}
        assert of(found, system)["reach"].evidence["hint"]
    see_that_no_secret_is_told(found)


@pytest.mark.soak
def test_servers_that_hang_cost_no_more_than_the_time_that_is_given(
    lab: control.Lab, examined: Examined
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hanging:
        began = time.monotonic()
        found = examined(stopped(lab.env, f"127.0.0.1:{hanging.getsockname()[1]}"), timeout=3)
        assert time.monotonic() - began < 5
    assert severities(found, "reach") == everywhere(Severity.CRITICAL)
    see_that_no_secret_is_told(found)


@pytest.mark.soak
def test_a_login_that_is_refused_is_told_without_its_password(
    lab: control.Lab, examined: Examined, tmp_path: Path
) -> None:
    with limited(lab.env, READS, tmp_path / "nats") as env:
        wrong = {
            **env,
            "DATABASE_URL": lab.env["DATABASE_URL"].replace("//lab@", f"//nobody:{SECRET}@"),
            "REDIS_URL": env["REDIS_URL"].replace(PASSWORD, SECRET),
            "NATS_URL": env["NATS_URL"].replace(PASSWORD, SECRET),
            "AWS_ACCESS_KEY_ID": "AKIANOBODY",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        found = examined(wrong)
    assert severities(found, "reach") == everywhere(Severity.CRITICAL)
    assert 'role "nobody" does not exist' in of(found, "PostgreSQL")["reach"].summary
    assert "REDIS_URL" in of(found, "Redis")["reach"].evidence["hint"]
    assert "NATS_URL" in of(found, "NATS")["reach"].evidence["hint"]
    see_that_no_secret_is_told(found)


@pytest.mark.parametrize(
    ("variable", "value", "system"),
    [
        ("DATABASE_URL", f"postgresql://lab:5432/{SECRET}@{CLOSED}/arrakis", "PostgreSQL"),
        ("REDIS_URL", f"redis://:{SECRET}@127.0.0.1:port/0", "this machine"),
        ("NATS_URL", f"nats://lab:{SECRET}@127.0.0.1:port", "this machine"),
        ("REDIS_URL", f"cache://:{SECRET}@{CLOSED}/0", "Redis"),
    ],
)
def test_a_malformed_address_is_one_system_s_trouble(
    lab: control.Lab, examined: Examined, variable: str, value: str, system: str
) -> None:
    found = examined({**lab.env, variable: value})
    [lost] = [each for each in found if each.severity is not Severity.OK]
    assert lost.resource
    assert (lost.resource.id, lost.severity) == (system, Severity.CRITICAL)
    assert f"{variable} is malformed" in lost.summary
    see_that_no_secret_is_told(found)


def test_without_an_environment_it_says_how_to_name_one(examined: Examined) -> None:
    found = examined({"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})
    [lost] = [each for each in found if each.severity is not Severity.OK]
    assert (lost.check, lost.summary) == ("environment", "no environment is named")
    assert "--env NAME (production, staging)" in lost.evidence["hint"]


def in_minutes(count: int) -> str:
    return (datetime.now(UTC) + timedelta(minutes=count)).isoformat()


@pytest.mark.parametrize(
    ("minutes", "severity", "words"),
    [
        (-5, Severity.CRITICAL, "have expired"),
        (30, Severity.WARNING, "more, until"),
        (600, Severity.OK, "more, until"),
        (None, Severity.UNKNOWN, "cannot tell: when the credentials of env end"),
    ],
)
def test_the_login_s_end_is_told(
    lab: control.Lab, examined: Examined, minutes: int | None, severity: Severity, words: str
) -> None:
    ends = {"AWS_SESSION_TOKEN": SECRET}
    if minutes is not None:
        ends["AWS_CREDENTIAL_EXPIRATION"] = in_minutes(minutes)
    found = examined({**lab.env, **ends})
    credentials = of(found, "AWS")["credentials"]
    assert credentials.severity is severity
    assert words in credentials.summary
    assert ("reach" in of(found, "AWS")) is (severity is not Severity.CRITICAL)
    see_that_no_secret_is_told(found)


@pytest.mark.soak
def test_another_account_than_the_environment_s_is_not_looked_at_for_it(examined: Examined) -> None:
    found = examined(altered=lambda environment: replace(environment, account="999999999999"))
    assert of(found, "AWS")["account"].severity is Severity.CRITICAL
    assert checkup.verdict(found).startswith("not ready: AWS: account 123456789012")


def test_a_clock_that_is_wrong_is_seen_against_every_server_that_tells_its_own(examined: Examined) -> None:
    found = examined(now=lambda: datetime.now(UTC) - timedelta(seconds=60))
    assert severities(found, "clock") == {
        "AWS": Severity.WARNING,
        "PostgreSQL": Severity.WARNING,
        "Redis": Severity.WARNING,
    }
    assert of(found, "PostgreSQL")["clock"].evidence["seconds"] == pytest.approx(60, abs=2)
    assert checkup.exit_of(found) is Exit.HEALTHY


def test_a_database_without_the_toolkit_s_tables_is_told_apart_from_a_strange_one(
    lab: control.Lab, examined: Examined
) -> None:
    with psycopg.connect(lab.env["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("CREATE DATABASE strange")
        url = lab.env["DATABASE_URL"].replace("/arrakis", "/strange")
        found = of(examined({**lab.env, "DATABASE_URL": url}), "PostgreSQL")["tables"]
        connection.execute("DROP DATABASE strange WITH (FORCE)")
    assert (found.severity, found.evidence["takes"]) == (Severity.CRITICAL, "looking")
    assert "no public.sandboxes" in found.summary


@pytest.mark.parametrize(
    ("console", "told"),
    [(True, "through PgBouncer 1."), pytest.param(False, "through PgBouncer in ", marks=pytest.mark.soak)],
)
def test_a_pooler_before_the_database_is_seen(
    lab: control.Lab, examined: Examined, tmp_path: Path, console: bool, told: str
) -> None:
    with pooled(lab.env["DATABASE_URL"], tmp_path, console=console) as url:
        found = of(examined({**lab.env, "DATABASE_URL": url}), "PostgreSQL")
    assert told in found["reach"].summary
    assert {each.severity for each in found.values()} == {Severity.OK}


@pytest.mark.soak
def test_pagerduty_s_key_is_tried_by_looking(examined: Examined, lab: control.Lab) -> None:
    with stand_in() as stand:
        env = {**lab.env, **stand.variables, "SSL_CERT_FILE": str(stand.ca)}
        well = of(examined(env), "PagerDuty")["reach"]
        assert {asked.method for asked in stand.requests} == {"GET"}
        wrong = examined({**env, "PAGERDUTY_TOKEN": SECRET})
    assert well.severity is Severity.OK
    assert of(wrong, "PagerDuty")["reach"].severity is Severity.WARNING
    assert checkup.exit_of(wrong) is Exit.HEALTHY  # a diagnosis does without
    see_that_no_secret_is_told(wrong)


@pytest.mark.soak
def test_redis_keys_that_the_examination_asks_for_need_not_be_there(
    lab: control.Lab, examined: Examined
) -> None:
    with redis.Redis.from_url(lab.env["REDIS_URL"]) as client:
        before = sorted(client.scan_iter(count=5000))
        examined()
        assert sorted(client.scan_iter(count=5000)) == before
