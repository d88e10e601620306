"""The rights that each procedure's page names are enough for its diagnosis, and a diagnosis changes nothing."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lab import control
from lab.incidents import INCIDENTS
from lab.incidents.cloud import Account
from runbooks.audit.sections import SECTIONS
from runbooks.catalogue import RUNBOOKS
from runbooks.engine.model import Severity
from runbooks.engine.permission import ASKING
from sandbox.adapters.aws import Aws
from sandbox.adapters.nats import Nats
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.errors import Denied
from tests.conftest import StartLab, follow
from tests.integration.desk import Desk
from tests.integration.logins import limited, prepared
from tests.integration.needs import beyond, idle, used
from tests.wires import recording

ALL = sorted(RUNBOOKS)
FEW = ("rb-sb-003", "rb-sb-006")  # the others are in the audit
READS = reduce(or_, (each.page.reads for each in RUNBOOKS.values()))
ARCHIVE = "arrakis-archive"
ON_CLUSTERS = {"+cluster|info", "+cluster|nodes", "+cluster|slots", "+info"}
ON_TASKS = {"ecs:DescribeTasks"}
"""What is asked about the clean-up's tasks of the last hour: where storage or connections are short, none of the incidents has any."""

SILENT = ("connections-exhausted", "redis-stopped", "control-lock-held")
"""Incidents in which a server, or the control tables, answer nobody: what they would be asked is not seen."""


@pytest.fixture(scope="module")
def reader(guarded: control.Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Return the variables of logins that may look at all that the procedures look at, and at nothing else."""
    with limited(guarded.env, READS | ASKING, tmp_path_factory.mktemp("reader") / "nats") as env:
        yield env


@pytest.mark.parametrize(
    "name", [each if each in FEW else pytest.param(each, marks=pytest.mark.soak) for each in ALL]
)
def test_logins_that_may_only_read_are_enough_for_a_diagnosis_in_full(
    guarded: control.Lab, reader: Mapping[str, str], name: str, tmp_path: Path
) -> None:
    runbook = RUNBOOKS[name]
    with recording(reader, asking=guarded.env) as wires:
        found = Desk(wires.env, tmp_path).diagnose(runbook)
        assert wires.changes() == {}
        assert wires.postgres.said
        assert beyond(used(wires), runbook.page.reads | ASKING) == []
    assert [each.summary for each in found.findings if each.severity is Severity.UNKNOWN] == []


def test_an_audit_in_full_needs_no_more_and_changes_nothing(
    guarded: control.Lab, reader: Mapping[str, str], tmp_path: Path
) -> None:
    with recording(reader, asking=guarded.env) as wires:
        sections = Desk(wires.env, tmp_path).audit()
        assert wires.changes() == {}
        assert all((wires.postgres.said, wires.redis.said, wires.nats.said, wires.aws.said))
        assert beyond(used(wires), READS | ASKING) == []
    assert [section.name for section in sections] == list(SECTIONS)
    found = [each for section in sections for each in section.findings]
    assert [each.summary for each in found if each.severity is Severity.UNKNOWN] == []


def test_those_logins_can_change_nothing(
    guarded: control.Lab, reader: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in reader.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Denied), Postgres(reader["DATABASE_URL"], tag="tests").transaction() as transaction:
        transaction.execute("write/stops/lower", id="stop-1")
    with pytest.raises(Denied, match="no permissions"):
        Redis(reader["REDIS_URL"]).unlink([b"sandbox:route:1"])
    with pytest.raises(Denied, match=r"(?i)permissions violation"):
        Nats(reader["NATS_URL"]).delete_stream("SANDBOX")
    aws = Aws(region=reader["AWS_DEFAULT_REGION"])
    with pytest.raises(Denied, match="AWS refused"):
        aws.write("events", "disable_rule", Name="arrakis-sandbox-cleanup")
    with pytest.raises(Denied, match="AWS refused"):  # nor look at more than they need
        aws.read("iam", "list_users")


@pytest.mark.soak
def test_each_right_that_is_named_is_used_in_some_incident_and_no_other(
    start_lab: StartLab, tmp_path: Path
) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for lab, incident in labs_with_each_incident(start_lab):
        for name, runbook in RUNBOOKS.items():
            for number, about in enumerate(asked(name, lab.env)):
                with recording(lab.env) as wires:
                    Desk(wires.env, tmp_path / f"{incident}-{name}-{number}").diagnose(runbook, **about)
                    assert wires.changes() == {}, (incident, name)
                    seen[name] |= used(wires)
                    assert beyond(used(wires), runbook.page.reads | ASKING) == [], (incident, name)
    unused = {name: set(idle(RUNBOOKS[name].page.reads, words)) - ON_CLUSTERS for name, words in seen.items()}
    assert {name: words for name, words in unused.items() if words} == {"rb-sb-005": ON_TASKS}


def labs_with_each_incident(start_lab: StartLab) -> Iterator[tuple[control.Lab, str]]:
    """Yield labs with one incident after the other; those of one world share a lab."""
    labs: dict[object, control.Lab] = {}
    for name, incident in INCIDENTS.items():
        if name in SILENT:
            continue
        if incident.world in labs:
            labs[incident.world] = lab = follow(labs[incident.world], name)
        else:
            lab = prepared(start_lab(name))
            if incident.world:
                labs[incident.world] = lab
            where = {"LocationConstraint": lab.env["AWS_DEFAULT_REGION"]}
            Account(lab.env).client("s3").create_bucket(Bucket=ARCHIVE, CreateBucketConfiguration=where)
        yield lab, name
        if incident.world is None:
            control.stop(lab.home)


def asked(runbook: str, env: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what a procedure is asked about: nothing in particular, and what its options name."""
    if runbook == "rb-sb-004":
        with psycopg.connect(env["DATABASE_URL"]) as connection:
            found = connection.execute("SELECT name FROM public.sandboxes WHERE status = 'running' LIMIT 1")
            return [{}, *({"sandbox": name} for (name,) in found)]
    if runbook == "database-maintenance":
        return [{"archive": f"s3://{ARCHIVE}/old"}]
    return [{}]
