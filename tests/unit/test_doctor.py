"""What an examination says of what was seen: pure, case by case."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from botocore.validate import ParamValidator
from jsonschema import Draft202012Validator

from diagnostics import policies
from diagnostics.privileges import REDIS_WORDS
from diagnostics.stack import Stack
from runbooks.catalogue import RUNBOOKS
from runbooks.doctor import cache, cloud, database, machine, messaging, paging
from runbooks.doctor.checks import Clock, Needs, Takes, clock, rights, untold, version, well, wrong
from runbooks.doctor.examination import Evidence, diagnose
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit
from runbooks.engine.model import Finding, Severity
from runbooks.reports import checkup
from sandbox.adapters.credentials import Credentials
from sandbox.errors import ArrakisError, Denied, Unreachable
from sandbox.facts import Known, Unknown

NOW = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "doctor.json"
READS = reduce(or_, (each.page.reads for each in RUNBOOKS.values()))
WRITES = reduce(or_, (each.page.writes for each in RUNBOOKS.values()))

MACHINE = machine.Machine(
    system="Linux",
    python=(3, 12, 1),
    packages=machine.Packages(pinned=38, missing=(), differing=()),
    folder=machine.Folder(path=Path("/srv/state"), mode=0o700, writable=True, free=2**40),
    encoding="utf-8",
)
ENVIRONMENT = Environment(
    name="production",
    database_url="postgresql://stilgar:hunter2@db/arrakis",
    redis_url="redis://:hunter2@cache",
    nats_url="tls://bus",
    region="eu-central-1",
    account="123456789012",
)
KEYS = Credentials(source="sso", temporary=True, expires=NOW + timedelta(hours=8))
AGREES = Clock(ahead=0.01, give=0.01)
CLOUD = cloud.Cloud(
    account="123456789012",
    arn="arn:aws:sts::123456789012:assumed-role/OnCall/stilgar",
    seconds=0.1,
    clock=AGREES,
    held=dict.fromkeys((each for each in READS.aws | WRITES.aws if not each.startswith("s3:")), True),
    silent={},
    why="",
)
DATABASE = database.Database(
    host="db:5432/arrakis",
    seconds=0.02,
    version="15.8",
    clock=AGREES,
    role="stilgar",
    read_only=False,
    missing=(),
    held=dict.fromkeys(READS.postgres | WRITES.postgres, True),
)
CACHE = cache.Cache(
    host="cache:6379/0",
    seconds=0.01,
    product="redis",
    version="7.0.15",
    clock=AGREES,
    held=dict.fromkeys(READS.redis | WRITES.redis, True),
)
BUS = messaging.Messaging(
    host="bus:4222",
    seconds=0.01,
    version="2.10.4",
    silence="",
    held=dict.fromkeys(READS.nats | WRITES.nats, True),
)
PAGING = paging.Paging(sender="stilgar@sietch.example", seconds=0.2)


def seen(**changes: Any) -> Evidence:
    """Return what is seen where all is well, but for some systems."""
    systems: dict[str, Any] = {
        "AWS": Known(CLOUD),
        "PostgreSQL": Known(DATABASE),
        "PgBouncer": Known("PgBouncer 1.18.0"),
        "Redis": Known(CACHE),
        "NATS": Known(BUS),
        "PagerDuty": Known(PAGING),
    }
    facts: dict[str, Any] = {
        "machine": Known(MACHINE),
        "environment": Known(ENVIRONMENT),
        "credentials": Known(KEYS),
        "region": "eu-central-1",
    }
    for name, value in changes.items():
        (facts if name in facts else systems)[name] = value
    return Evidence(now=NOW, systems=systems, **facts)


def told(evidence: Evidence) -> tuple[str, Exit]:
    found = diagnose(evidence)
    return checkup.verdict(found), checkup.exit_of(found)


def odd(evidence: Evidence) -> list[Finding]:
    return [each for each in diagnose(evidence) if each.severity is not Severity.OK]


def test_where_all_is_well_it_is_ready() -> None:
    assert told(seen()) == ("ready", Exit.HEALTHY)
    assert {each.resource.id for each in diagnose(seen()) if each.resource} == {
        "this machine",
        "AWS",
        "PostgreSQL",
        "Redis",
        "NATS",
        "PagerDuty",
    }


SILENT = Unknown("no answer within 6 s", "is it up?")
REFUSED = Unknown("it refuses the login", "check the password", Denied("it refuses the login"))
CASES: list[tuple[dict[str, Any], str, Exit]] = [
    ({"environment": Unknown("no environment is named", "--env NAME", ArrakisError("x"))}, "not ready: this machine: no environment is named", Exit.PROPOSED),
    ({"credentials": Unknown("AWS: no credentials found", "log in", Denied("x"))}, "not ready: AWS: no credentials found", Exit.PROPOSED),
    ({"credentials": Known(replace(KEYS, expires=NOW - timedelta(minutes=1)))}, "not ready: AWS: the credentials of sso have expired", Exit.PROPOSED),
    ({"credentials": Known(replace(KEYS, expires=NOW + timedelta(minutes=59)))}, "ready, with 1 warning", Exit.HEALTHY),
    ({"credentials": Known(replace(KEYS, expires=None))}, "ready as far as can be told: AWS: cannot tell: when the credentials of sso end", Exit.UNKNOWN),
    ({"credentials": Known(replace(KEYS, expires=None, temporary=False))}, "ready", Exit.HEALTHY),
    ({"AWS": Known(replace(CLOUD, account="999999999999"))}, "not ready: AWS: account 999999999999, as OnCall/stilgar; but production is account 123456789012", Exit.PROPOSED),
    ({"AWS": Known(replace(CLOUD, silent={"rds": "no answer"}))}, "not ready: AWS: no answer", Exit.PROPOSED),
    ({"AWS": Known(replace(CLOUD, held={**CLOUD.held, "logs:FilterLogEvents": False}))}, "not ready: AWS: lacks 1 of 19: logs:FilterLogEvents", Exit.PROPOSED),
    ({"AWS": Known(replace(CLOUD, held={**CLOUD.held, "ecs:UpdateService": False}))}, "ready to look, not to change: AWS: lacks 1 of 11: ecs:UpdateService", Exit.PROPOSED),
    ({"AWS": Known(replace(CLOUD, held={**CLOUD.held, "ecs:UpdateService": None}, why="refused"))}, "ready as far as can be told: AWS: cannot tell: 1 right of 11: refused", Exit.UNKNOWN),
    ({"AWS": Known(replace(CLOUD, clock=Clock(ahead=400, give=0.5)))}, "ready, with 1 warning", Exit.HEALTHY),
    ({"region": None}, "not ready: AWS: no region is named", Exit.PROPOSED),
    ({"PostgreSQL": SILENT}, "not ready: PostgreSQL: no answer within 6 s", Exit.PROPOSED),
    ({"PostgreSQL": Unknown("KeyError", "", KeyError("x"))}, "ready as far as can be told: PostgreSQL: cannot tell: KeyError", Exit.UNKNOWN),
    ({"PostgreSQL": Known(replace(DATABASE, read_only=True))}, "ready to look, not to change: PostgreSQL: it takes no writes", Exit.PROPOSED),
    ({"PostgreSQL": Known(replace(DATABASE, missing=("public.sandboxes",)))}, "not ready: PostgreSQL: there is no public.sandboxes", Exit.PROPOSED),
    ({"PostgreSQL": Known(replace(DATABASE, missing=("runbooks.lease",)))}, "ready", Exit.HEALTHY),
    ({"PostgreSQL": Known(replace(DATABASE, missing=("runbooks.lease",), held={**DATABASE.held, "CREATE ON DATABASE": False}))}, "ready to look, not to change: PostgreSQL: the schema runbooks lacks 1 of its tables", Exit.PROPOSED),
    ({"PostgreSQL": Known(replace(DATABASE, version="14.9"))}, "ready to look, not to change: PostgreSQL 14.9 is older", Exit.PROPOSED),
    ({"PostgreSQL": Known(replace(DATABASE, version="19.0"))}, "ready, with 1 warning", Exit.HEALTHY),
    ({"PgBouncer": Unknown("its console does not answer", "", Unreachable("x"))}, "ready", Exit.HEALTHY),
    ({"Redis": REFUSED}, "not ready: Redis: it refuses the login", Exit.PROPOSED),
    ({"Redis": Known(replace(CACHE, clock=None))}, "ready", Exit.HEALTHY),
    ({"Redis": Known(replace(CACHE, version="6.2.6"))}, "ready to look, not to change: Redis 6.2.6 is older", Exit.PROPOSED),
    ({"Redis": Known(replace(CACHE, product="valkey", version="7.2.4"))}, "ready", Exit.HEALTHY),
    ({"Redis": Known(replace(CACHE, held={**CACHE.held, "~quarantine:*": False}))}, "ready to look, not to change: Redis: lacks 1 of 5: ~quarantine:*", Exit.PROPOSED),
    ({"NATS": Known(replace(BUS, silence="JetStream does not answer"))}, "not ready: NATS: JetStream does not answer", Exit.PROPOSED),
    ({"PagerDuty": REFUSED}, "ready, with 1 warning", Exit.HEALTHY),
    ({"PagerDuty": Known(None)}, "ready", Exit.HEALTHY),
    ({"machine": Known(replace(MACHINE, python=(3, 14, 0)))}, "ready, with 1 warning", Exit.HEALTHY),
    ({"machine": Known(replace(MACHINE, python=(3, 10, 0)))}, "not ready: this machine: Python 3.10.0", Exit.PROPOSED),
    ({"machine": Known(replace(MACHINE, encoding="ascii"))}, "ready, with 1 warning", Exit.HEALTHY),
    ({"machine": Known(replace(MACHINE, packages=None))}, "ready, with 1 warning", Exit.HEALTHY),
    ({"machine": Known(replace(MACHINE, packages=machine.Packages(pinned=2, missing=("boto3",), differing=())))}, "not ready: this machine: 1 package is missing: boto3", Exit.PROPOSED),
    ({"machine": Known(replace(MACHINE, packages=machine.Packages(pinned=2, missing=(), differing=("redis 6, not 7",))))}, "ready, with 1 warning", Exit.HEALTHY),
    ({"machine": Known(replace(MACHINE, folder=replace(MACHINE.folder, writable=False)))}, "not ready: this machine: plans and journal in /srv/state: it cannot be written", Exit.PROPOSED),
    ({"machine": Known(replace(MACHINE, folder=replace(MACHINE.folder, free=10**6)))}, "ready to look, not to change: this machine: plans and journal in /srv/state: 977 kB are free", Exit.PROPOSED),
    ({"machine": Known(replace(MACHINE, folder=replace(MACHINE.folder, mode=0o755)))}, "ready, with 1 warning", Exit.HEALTHY),
    ({"machine": Known(replace(MACHINE, folder=replace(MACHINE.folder, mode=None)))}, "ready", Exit.HEALTHY),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "verdict", "code"), CASES)
def test_what_is_wrong_is_weighed_by_what_it_takes_away(
    changes: dict[str, Any], verdict: str, code: Exit
) -> None:
    said, found = told(seen(**changes))
    assert said.startswith(verdict)
    assert found is code


@pytest.mark.parametrize("changes", [case[0] for case in CASES if case[1] != "ready"])
def test_whatever_is_not_well_comes_with_the_next_step(changes: dict[str, Any]) -> None:
    for each in odd(seen(**changes)):
        if each.summary != "cannot tell: KeyError":  # our own fault
            assert each.evidence["hint"] or "AWS" in changes, each.summary


def test_without_an_environment_the_machine_alone_is_examined() -> None:
    evidence = replace(seen(environment=Unknown("no environment is named", "--env NAME")), systems={})
    assert {each.resource.id for each in diagnose(evidence) if each.resource} == {"this machine", "AWS"}
    [lost] = odd(evidence)
    assert (lost.check, lost.evidence["hint"]) == ("environment", "--env NAME")


def test_without_credentials_aws_is_told_of_once() -> None:
    evidence = seen(
        credentials=Unknown("AWS: no credentials found", "log in", Denied("x")),
        AWS=Unknown("AWS: no credentials found", "log in", Denied("x")),
    )
    assert [each.check for each in odd(evidence)] == ["credentials"]


def test_a_right_that_is_lacking_names_who_needs_it_and_the_command_that_gives_it() -> None:
    held = {**DATABASE.held, "pg_monitor": False, "SELECT ON runbooks.journal": False}
    [lost] = odd(seen(PostgreSQL=Known(replace(DATABASE, held=held))))
    assert lost.evidence["details"] == [
        "pg_monitor, for rb-sb-005",
        "SELECT ON runbooks.journal, for rb-sb-006",
    ]
    assert lost.evidence["commands"] == [
        "GRANT pg_monitor TO stilgar;",
        "GRANT SELECT ON runbooks.journal TO stilgar;",
    ]


@pytest.mark.parametrize(
    ("number", "severity", "takes"),
    [
        ("2.9", Severity.OK, None),
        ("2.8.9", Severity.WARNING, "changing"),
        ("2.15.1", Severity.OK, None),
        ("3.0", Severity.WARNING, "nothing"),
    ],
)
def test_a_version_is_within_what_was_tried_or_not(
    number: str, severity: Severity, takes: str | None
) -> None:
    found = version("NATS", "NATS", number, least=(2, 9), most=(2,))
    assert (found.severity, found.evidence.get("takes")) == (severity, takes)


@pytest.mark.parametrize(
    ("said", "step", "severity"),
    [(0.0, 0.0, Severity.OK), (5.4, 0.0, Severity.OK), (6.0, 0.0, Severity.WARNING), (-6.0, 0.0, Severity.WARNING), (6.0, 1.0, Severity.OK)],
)  # fmt: skip
def test_a_clock_is_compared_as_far_as_the_answer_s_own_time_allows(
    said: float, step: float, severity: Severity
) -> None:
    middle = NOW + timedelta(seconds=0.5)
    seen = Clock.of(
        middle + timedelta(seconds=said - step / 2), before=NOW, after=NOW + timedelta(seconds=1), step=step
    )
    assert seen.ahead == pytest.approx(said)
    assert clock("Redis", seen).severity is severity


def test_rights_to_look_are_not_told_again_as_rights_to_change() -> None:
    needs = Needs(reads={"+scan": ["a"]}, writes={"+scan": ["a"], "+set": ["b"]})
    found = list(rights("Redis", needs, {"+scan": False, "+set": True}, fix={}))
    assert [(each.check, each.severity) for each in found] == [
        ("rights to look", Severity.CRITICAL),
        ("rights to change", Severity.OK),
    ]


# ---- what is asked


def test_aws_is_asked_for_exactly_the_actions_that_the_pages_name() -> None:
    place = policies.Place(partition="aws", region="eu-central-1", account="123456789012")
    asked = policies.questions(Stack(), place, now=NOW)
    assert {*asked, "s3:ListBucket"} == READS.aws  # which bucket, only whoever asks for an archive knows
    session = botocore.session.get_session()
    for action, calls in asked.items():
        service, name = action.split(":")
        for each in calls:
            model = session.get_service_model(each.service).operation_model(name)
            assert (each.service, each.operation) == (service, xform_name(name))
            report = ParamValidator().validate(dict(each.params), model.input_shape)
            assert not report.has_errors(), report.generate_report()


def test_a_policy_is_asked_about_what_a_change_would_touch() -> None:
    place = policies.Place(partition="aws-cn", region="cn-north-1", account="123456789012")
    found = policies.simulations(Stack(), place, WRITES.aws - READS.aws)
    asked = {action: arn for arn, actions in found.items() for action in actions}
    assert set(asked) == {each for each in WRITES.aws - READS.aws if not each.startswith(("s3:", "iam:"))}
    assert (
        asked["events:DisableRule"]
        == "arn:aws-cn:events:cn-north-1:123456789012:rule/arrakis-sandbox-cleanup"
    )
    assert asked["ecs:UpdateService"].endswith(":service/arrakis/arrakis-worker")


@pytest.mark.parametrize(
    ("arn", "principal"),
    [
        ("arn:aws:iam::1:user/chani", "arn:aws:iam::1:user/chani"),
        ("arn:aws:sts::1:assumed-role/OnCall/stilgar", "arn:aws:iam::1:role/OnCall"),
    ],
)
def test_policies_are_those_of_the_role_behind_a_session(arn: str, principal: str) -> None:
    assert policies.principal(arn) == principal


def test_redis_is_asked_about_every_right_that_the_pages_name() -> None:
    assert READS.redis | WRITES.redis == REDIS_WORDS


def test_packages_are_compared_with_what_is_pinned() -> None:
    lock = (
        "pytest==0.1 \\\n    --hash=sha256:00\nno-such-package==1.0 \\\n    --hash=sha256:00\n"
        "for-windows==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"
    )
    found = machine.Packages.of(lock)
    assert found.pinned == 3
    assert found.missing == ("no-such-package",)
    assert [each.split(",")[1] for each in found.differing] == [" not 0.1"]


def test_a_folder_that_is_not_there_yet_is_judged_by_where_it_would_be_made(tmp_path: Path) -> None:
    found = machine.Folder.of(tmp_path / "state" / "arrakis")
    assert (found.mode, found.writable) == (None, True)
    assert list(tmp_path.iterdir()) == []
    made = tmp_path / "made"
    made.mkdir(mode=0o750)
    assert machine.Folder.of(made).mode == 0o750
    (tmp_path / "file").write_text("")
    assert not machine.Folder.of(tmp_path / "file" / "state").writable


# ---- how it is told


FOUND = [
    well("this machine", "Python", "Python 3.12.1 on Linux"),
    wrong(
        "PostgreSQL",
        "rights to look",
        "lacks 2 of 6: pg_monitor, SELECT ON runbooks.journal\x1b[2J",
        fix="GRANT pg_monitor TO stilgar;",
        takes=Takes.LOOKING,
        details=["pg_monitor, for rb-sb-005", "SELECT ON runbooks.journal, for rb-sb-006"],
    ),
    untold("NATS", "rights to change", Unknown("22 rights: it does not say", "allow this user to ask")),
]


def test_the_answer_comes_first_and_then_each_system() -> None:
    assert checkup.text(FOUND, environment=ENVIRONMENT, colour=False, width=80).splitlines() == [
        "production: not ready: PostgreSQL: lacks 2 of 6: pg_monitor, SELECT ON",
        "runbooks.journal\\x1b[2J",
        "",
        "this machine",
        "  ok       Python: Python 3.12.1 on Linux",
        "",
        "PostgreSQL",
        "  critical rights to look: lacks 2 of 6: pg_monitor, SELECT ON",
        "           runbooks.journal\\x1b[2J",
        "           pg_monitor, for rb-sb-005",
        "           SELECT ON runbooks.journal, for rb-sb-006",
        "           next: GRANT pg_monitor TO stilgar;",
        "",
        "NATS",
        "  unknown  rights to change: cannot tell: 22 rights: it does not say",
        "           next: allow this user to ask",
    ]


def test_every_case_fits_into_80_columns() -> None:
    for changes, _, _ in CASES:
        said = checkup.text(diagnose(seen(**changes)), environment=ENVIRONMENT, colour=False, width=80)
        assert max(map(len, said.splitlines())) <= 80, changes


def test_colour_is_beside_the_word() -> None:
    said = checkup.text(FOUND, environment=None, colour=True)
    assert "\x1b[31;1mcritical\x1b[0m" in said
    assert "\x1b" not in checkup.text(FOUND, environment=None, colour=False)


@pytest.mark.parametrize("changes", [{}, *(case[0] for case in CASES)])
def test_the_document_is_as_its_schema_says(changes: dict[str, Any]) -> None:
    found = diagnose(seen(**changes))
    made = checkup.document(found, environment=ENVIRONMENT, at=NOW, by="stilgar@sietch")
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(json.dumps(made)))
    assert "hunter2" not in json.dumps(made)
    assert made["exit"] == checkup.exit_of(found)
