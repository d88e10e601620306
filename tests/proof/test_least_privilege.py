"""Each procedure needs every right that its page names: of one that is taken away a look says so, and no change is begun."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name

from lab import binaries, control
from runbooks import rights
from runbooks.catalogue import RUNBOOKS
from runbooks.engine.errors import Exit, Refused
from runbooks.engine.model import Runbook, Severity
from runbooks.engine.operate import Diagnosis
from runbooks.engine.page import Rights
from runbooks.engine.permission import ASKING, HANDING_OVER, needed
from runbooks.reports import granting
from sandbox.adapters.nats import Nats
from sandbox.errors import Denied
from tests.acceptance.dump import dump
from tests.conftest import StartLab, follow
from tests.integration.desk import Desk
from tests.integration.logins import USER, aged, each_of, given, limited, prepared, without

ORPHANS = RUNBOOKS["rb-sb-003"]
FEW = (
    ("rb-sb-003", "+scan"),
    ("rb-sb-003", "$JS.API.CONSUMER.LIST.SANDBOX"),
    ("rb-sb-003", "cloudwatch:DescribeAlarms"),
    ("rb-sb-006", "SELECT ON runbooks.journal"),
)
HISTORY = {
    "cloudwatch:DescribeAlarmHistory",
    "rds:DescribeEvents",
    "elasticache:DescribeEvents",
    "ecs:DescribeTasks",
    "ec2:DescribeSecurityGroups",
}
"""What only tells how it was before, or is asked about tasks that there are: it is not missed, and what is found does not rest on it."""

BESIDE: Mapping[str, frozenset[str]] = {"rb-sb-005": (rights.JOB | rights.SERVICE | rights.CACHE).aws}
"""What a procedure reads along with the sandboxes that are over, and says nothing of while none is."""


@dataclass(frozen=True)
class Counter:
    """Logins with some rights, somebody who works with them, and the way to take one away."""

    lab: control.Lab
    rights: Rights
    folder: Path
    env: Mapping[str, str]

    @property
    def desk(self) -> Desk:
        return Desk(self.env, self.folder / "state")

    def refused(self, found: Diagnosis, word: str) -> str:
        """Apply without a right, and return what is said against it."""
        with without(self.lab.env, self.rights, word, self.folder), pytest.raises(Refused) as refusal:
            self.desk.apply(found)
        return str(refusal.value)

    def lost(self, runbook: Runbook, word: str) -> list[str]:
        """Look without a right, and return what cannot be told."""
        with without(self.lab.env, self.rights, word, self.folder):
            try:
                found = self.desk.diagnose(runbook)
            except Denied as error:
                return [str(error)]
        return [each.summary for each in found.findings if each.severity is Severity.UNKNOWN]


@contextmanager
def counter(lab: control.Lab, held: Rights, folder: Path, *, nats: bool = True) -> Iterator[Counter]:
    with limited(lab.env, held | ASKING, folder, nats=nats) as env:
        folder.mkdir(exist_ok=True)
        yield Counter(lab, held | ASKING, folder, env)


def taken(at: Counter, found: Diagnosis) -> list[str]:
    """Return the rights that a plan takes, by what its remedies say, and that can be taken away."""
    assert found.plan, [each.summary for each in found.findings]
    gate: Any = None
    takes = needed(found.plan.actions, found.runbook.remedies(gate))
    words = {word.partition(" on ")[0] for word in takes.postgres | takes.redis | takes.nats | takes.aws}
    return [word for word in each_of(at.rights) if word in words]


def see_each_refused(at: Counter, found: Diagnosis, words: list[str]) -> None:
    """See that an apply without any one of these rights is refused, and names it; and that all is as before."""
    before = dump(at.lab)
    for word in words:
        said = at.refused(found, word)
        assert said.startswith("refused by the guard 'rights': this login lacks rights at "), said
        assert re.search(rf"[:,] {re.escape(word)}[, ].*deploy/rights/{found.runbook.name} ", said), (
            word,
            said,
        )
    assert dump(at.lab) == before
    [journal] = at.folder.rglob("journal.jsonl")
    records = journal.read_text().splitlines()
    assert {json.loads(each)["phase"] for each in records} == {"planned"}


def test_no_change_is_begun_without_any_one_right_that_it_takes(guarded: control.Lab, tmp_path: Path) -> None:
    looking = RUNBOOKS["emergency-stop"].page.reads
    with counter(guarded, looking | ORPHANS.page.reads | ORPHANS.page.writes, tmp_path / "at") as at:
        found = at.desk.diagnose(ORPHANS)
        words = taken(at, found)
        assert {"owner of sandbox_*", "+renamenx", "~quarantine:*", "$SYS.REQ.SERVER.PING.CONNZ"} < set(words)
        see_each_refused(at, found, words)
        see_that_no_emergency_is_refused(at)


def see_that_no_emergency_is_refused(at: Counter) -> None:
    """With a login that may look and do nothing of it, each step is tried, and says so for itself."""
    desk = at.desk
    outcome = desk.apply(desk.diagnose(RUNBOOKS["emergency-stop"]))
    assert outcome.exit is Exit.ERROR
    told = " ".join(each.reason for each in outcome.results)
    assert all(said in told for said in ("permission denied", "AWS refused")), told


@pytest.mark.parametrize(("name", "word"), FEW)
def test_a_look_without_a_right_says_what_it_cannot_tell(
    guarded: control.Lab, tmp_path: Path, name: str, word: str
) -> None:
    with counter(guarded, RUNBOOKS[name].page.reads, tmp_path / "at") as at:
        assert names(at.lost(RUNBOOKS[name], word), word)


def names(told: list[str], word: str) -> bool:
    """Whether a right is named: by its own word, or as its server refuses what it is for."""
    service, _, action = word.partition(":")
    called = {
        word,
        f"permission denied for table {word.rpartition('.')[2]}",
        f"permission denied for schema {word.rpartition(' ')[2]}",
        f"AWS refused {service}:{xform_name(action)}",
    }
    if word == "cloudwatch:GetMetricData":
        called.add("its metrics cannot be read")
    return any(each in said for said in told for each in called)


def test_where_a_server_does_not_tell_that_is_told_and_nothing_is_refused(
    guarded: control.Lab, tmp_path: Path
) -> None:
    def no(*_: object) -> None:
        raise Refused("it was only a look")

    held = ORPHANS.page.reads | ORPHANS.page.writes
    with limited(guarded.env, replace(held, redis=held.redis - {"+renamenx"}), tmp_path / "nats") as env:
        desk = Desk(env, tmp_path)
        with pytest.raises(Refused, match="it was only a look"):
            desk.apply(desk.diagnose(ORPHANS), ask=no)
    told = {each.partition(":")[0].rpartition(" ")[2]: each for each in desk.told}
    assert set(told) == {"Redis", "NATS"}
    assert "+renamenx" in told["Redis"]
    assert "$SYS.REQ.SERVER.PING.CONNZ" in told["NATS"]


FOLDERS = ["", *sorted(RUNBOOKS)]


@pytest.mark.parametrize(
    "name", [FOLDERS[0], *(pytest.param(each, marks=pytest.mark.soak) for each in FOLDERS[1:])]
)
def test_each_file_is_taken_by_its_server(guarded: control.Lab, tmp_path: Path, name: str) -> None:
    for kind in ("read", "apply"):
        files = {
            each.partition("-")[0]: granting.FOLDER / name / each
            for each in (f"postgres-{kind}.sql", f"redis-{kind}.acl", f"nats-{kind}.conf", f"iam-{kind}.json")
        }
        see_taken(guarded, {system: file.read_text() for system, file in files.items()}, tmp_path / kind)


def see_taken(lab: control.Lab, texts: Mapping[str, str], folder: Path) -> None:
    """See that each server takes its text, more than once, and that the file of NATS is whole to its own checker."""
    with given(lab.env, texts, folder) as env:
        for url in (env["NATS_URL"], lab.env["NATS_URL"]):
            assert Nats(url).host
    argv = [str(binaries.nats()), "-t", "-c", str(folder / "nats.conf")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "is valid" in done.stderr


# ---- every right of every procedure


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(RUNBOOKS))
def test_each_right_to_look_is_missed(guarded: control.Lab, tmp_path: Path, name: str) -> None:
    runbook = RUNBOOKS[name]
    words = [each for each in each_of(runbook.page.reads) if each != "s3:ListBucket"]  # of an archive's alone
    with counter(guarded, runbook.page.reads, tmp_path / "at") as at:
        silent = [word for word in words if not names(at.lost(runbook, word), word)]
    assert set(silent) <= HISTORY | BESIDE.get(name, frozenset())


@pytest.fixture(scope="module")
def orphans(start_lab: StartLab) -> control.Lab:
    """Return a lab with orphans, something in quarantine, and audit rows that are old."""
    return aged(prepared(start_lab()))


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rb-sb-003", {"drop": True}),
        ("purge-quarantine", {}),
        ("mass-cleanup", {}),
        ("database-maintenance", {}),
    ],
)
def test_each_right_to_change_what_is_left_over_is_missed(
    orphans: control.Lab, tmp_path: Path, name: str, options: Mapping[str, Any]
) -> None:
    page = RUNBOOKS[name].page
    with counter(orphans, page.reads | page.writes, tmp_path / "at") as at:
        found = at.desk.diagnose(RUNBOOKS[name], options)
        see_each_refused(at, found, taken(at, found))


@pytest.mark.soak
@pytest.mark.parametrize(
    ("incident", "name", "options", "among"),
    [
        ("rule-disabled", "rb-sb-001", {}, "events:EnableRule"),
        ("rule-disabled", "rb-sb-001", {"via": "ecs"}, "iam:PassRole"),
        ("rule-disabled", "rb-sb-002", {}, "events:EnableRule"),
        ("routes-stale", "rb-sb-004", {}, "+set"),
        ("consumer-unserved", "rb-sb-004", {}, "ecs:UpdateService"),
        ("create-denied", "rb-sb-005", {}, "owner of the database"),
        ("disk-full", "rb-sb-005", {}, "rds:ModifyDBInstance"),
        ("index-dropped", "rb-sb-006", {}, "owner of public.sandboxes"),
    ],
)
def test_each_right_to_mend_an_incident_is_missed(
    start_lab: StartLab, tmp_path: Path, incident: str, name: str, options: Mapping[str, Any], among: str
) -> None:
    lab = follow(prepared(start_lab(incident)), incident)
    page = RUNBOOKS[name].page
    with counter(lab, page.reads | page.writes, tmp_path / "at", nats=False) as at:
        found = at.desk.diagnose(RUNBOOKS[name], options)
        words = [
            word for word in taken(at, found) if word not in at.rights.nats
        ]  # the lab's own knows no users
        assert among in words
        see_each_refused(at, found, words)


@pytest.mark.soak
def test_each_right_to_mend_streams_is_missed(guarded: control.Lab, tmp_path: Path) -> None:
    runbook = RUNBOOKS["rb-sb-004"]
    with counter(guarded, runbook.page.reads | runbook.page.writes, tmp_path / "at") as at:
        Nats(at.env["NATS_URL"].replace(f"{USER}:", "all:")).delete_stream("EVENTS")
        found = at.desk.diagnose(runbook)
        words = [word for word in taken(at, found) if word in at.rights.nats]
        assert "$JS.API.STREAM.CREATE.EVENTS" in words
        see_each_refused(at, found, words)


@pytest.mark.soak
def test_work_is_not_handed_over_without_the_queue_s_rights(orphans: control.Lab, tmp_path: Path) -> None:
    page = RUNBOOKS["mass-cleanup"].page
    with counter(orphans, page.reads | page.writes, tmp_path / "at") as at:
        found = at.desk.diagnose(RUNBOOKS["mass-cleanup"])
        for word in sorted(HANDING_OVER.nats):
            with without(at.lab.env, at.rights, word, at.folder), pytest.raises(Refused) as refusal:
                at.desk.hand_over(found)
            assert word in str(refusal.value)
