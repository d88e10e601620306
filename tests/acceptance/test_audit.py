"""An audit: everything looked at together, compared with the last time, kept, and nothing changed anywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from runbooks.audit.sections import SECTIONS
from runbooks.audit.shelf import KEPT
from tests.acceptance.dump import dump
from tests.acceptance.engineer import Engineer
from tests.acceptance.program import ROOT

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "audit.json").read_text())


def audited(engineer: Engineer, *args: str, code: int = 2) -> dict[str, Any]:
    """Audit, and return the document, which is as the schema says."""
    answer = engineer.call("audit", "--json", *args)
    assert answer.code == code, answer.said
    jsonschema.validate(answer.document, SCHEMA)
    return answer.document


def kept(engineer: Engineer) -> list[str]:
    return sorted(path.name for path in engineer.state.glob("*/audits/*"))


def test_it_says_what_is_wrong_what_is_proposed_and_where_to_go_on(newcomer: Engineer) -> None:
    before = dump(newcomer.lab)
    answer = newcomer.call("audit")
    assert answer.code == 2, answer.said
    first, _, second, *_ = answer.out.splitlines()
    assert first.startswith("AUDIT of custom: ")
    assert "critical" in first
    assert second == "There is no earlier audit to compare it with."
    for name in SECTIONS:
        assert f"\n{name} " in answer.out
    assert "sandbox-orphaned-resources is ALARM" in answer.out
    assert "invoke rb-sb-003" in answer.out
    assert dump(newcomer.lab) == before
    assert not list(newcomer.state.glob("*/plans/*"))
    assert not list(newcomer.state.glob("*/journal.jsonl"))


def test_what_is_kept_is_one_audit_as_json_markdown_and_a_page(newcomer: Engineer) -> None:
    answer = newcomer.call("audit", "--only", "rb-sb-003")
    assert answer.code == 2, answer.said
    names = kept(newcomer)
    assert [Path(name).suffix for name in names] == [".html", ".json", ".md"]
    [page] = newcomer.state.glob("*/audits/*.html")
    assert f"report: {page}" in answer.err
    assert page.read_text().lower().startswith("<!doctype html>")
    jsonschema.validate(json.loads(page.with_suffix(".json").read_text()), SCHEMA)


@pytest.mark.soak
def test_the_newest_few_are_kept(newcomer: Engineer) -> None:
    first = audited(newcomer, "--only", "quarantine", code=0)
    [folder] = newcomer.state.glob("*/audits")
    for day in range(1, KEPT + 3):
        for suffix in (".json", ".md", ".html"):
            old = folder / f"audit-202601{day:02d}-000000-0000{suffix}"
            old.write_text((folder / f"{first['audit']}{suffix}").read_text())
    last = audited(newcomer, "--only", "quarantine", code=0)
    names = kept(newcomer)
    assert len(names) == 3 * KEPT
    assert f"{last['audit']}.json" in names
    assert "audit-20260104-000000-0000.json" not in names


@pytest.mark.soak
def test_what_has_changed_is_told_first(newcomer: Engineer) -> None:
    before = audited(newcomer, "--only", "rb-sb-003")
    answer = newcomer.call("audit", "--only", "rb-sb-003,quarantine")
    assert "There is no earlier audit to compare it with." in answer.out  # of both
    again = audited(newcomer, "--only", "rb-sb-003")
    assert again["changes"] is not None
    assert not any(again["changes"][kind] for kind in ("new", "worse", "better", "gone", "untold"))
    plan = newcomer.plan()
    run = newcomer.apply(plan["id"])["run"]["id"]
    try:
        answer = newcomer.call("audit", "--only", "rb-sb-003", "--since", before["audit"])
        assert answer.code == 0, answer.said
        assert answer.out.splitlines()[2].startswith(f"Since {before['audit']}: ")
        assert "gone" in answer.out.splitlines()[2]
        assert "GONE" in answer.out
        assert "sandbox_0b813439 is an orphan" in answer.out
    finally:
        assert newcomer.call("undo", "--run", run, "--yes").code == 0
    later = audited(newcomer, "--only", "rb-sb-003")
    assert any("sandbox_0b813439" in each["summary"] for each in later["changes"]["new"])


@pytest.mark.soak
def test_a_source_that_is_down_is_unknown_and_what_it_hides_is_not_gone(newcomer: Engineer) -> None:
    before = audited(newcomer, "--only", "rb-sb-003,rb-sb-006")
    blind = newcomer.but(REDIS_URL="redis://127.0.0.1:1/0")
    now = audited(blind, "--only", "rb-sb-003", "--since", before["audit"], "--timeout", "5", code=3)
    assert not now["changes"]["gone"]
    assert any("keys" in each["check"] for each in now["changes"]["untold"])
    assert now["procedures"][0]["outcome"] == "unknown"


def test_with_every_server_stopped_it_ends_in_time_and_can_tell_nothing(newcomer: Engineer) -> None:
    dead = newcomer.but(
        DATABASE_URL="postgresql://u:secret-1@127.0.0.1:1/none",
        REDIS_URL="redis://:secret-2@127.0.0.1:1/0",
        NATS_URL="nats://u:secret-3@127.0.0.1:1",
        AWS_ENDPOINT_URL="http://127.0.0.1:1",
    )
    answer = dead.call("audit", "--timeout", "3")
    assert answer.code == 3, answer.said
    assert answer.seconds < 30
    assert "Traceback" not in answer.said
    assert "secret-" not in answer.said
    assert "healthy" not in answer.out.splitlines()[0]
    for path in dead.state.glob("*/audits/*"):
        assert "secret-" not in path.read_text()


@pytest.mark.soak
def test_warnings_pass_where_only_what_is_critical_is_to_fail(newcomer: Engineer) -> None:
    calm = newcomer.call("audit", "--only", "rb-sb-002", "--fail-on", "critical")
    assert calm.code == 0, calm.said
    assert "warning" in calm.out
    assert newcomer.call("audit", "--only", "rb-sb-002").code == 2
    assert newcomer.call("audit", "--only", "rb-sb-003", "--fail-on", "critical").code == 2


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--only", "rb-sb-03"), "next: say --only rb-sb-003"),
        (("--fail-on", "unknown"), "--fail-on takes warning or critical, not 'unknown'"),
        (("--since", "audit-yesterday"), "there is no audit audit-yesterday"),
        (("--since", "pyproject.toml"), "cannot be read as an audit"),
        (("--since", "docs/schemas/audit.json"), "cannot be read as an audit"),
        (("--env", "prodution"), "did you mean production?"),
    ],
)
def test_bad_input_is_one_line_and_a_next_step(newcomer: Engineer, args: tuple[str, ...], told: str) -> None:
    answer = newcomer.call("audit", *args)
    assert answer.code == 1, answer.said
    assert told in answer.err
    assert len(answer.err.strip().splitlines()) == 2
    assert answer.out == ""


def test_a_state_folder_that_cannot_be_written_loses_nothing_of_the_answer(
    newcomer: Engineer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    answer = newcomer.but(RUNBOOKS_STATE_DIR=str(tmp_path / "file")).call("audit", "--only", "quarantine")
    assert answer.code == 0, answer.said
    assert "AUDIT of custom: healthy" in answer.out
    assert "the audit cannot be kept" in answer.err


@pytest.mark.soak
def test_what_cannot_be_read_on_the_shelf_is_passed_over(newcomer: Engineer) -> None:
    first = audited(newcomer, "--only", "quarantine", code=0)
    [folder] = newcomer.state.glob("*/audits")
    (folder / f"{first['audit']}.json").rename(folder / "audit-20260101-000000-0000.json")
    for number, text in enumerate(("{", '{"audit": "x"}', json.dumps({**first, "at": "yesterday"}), "[]")):
        (folder / f"audit-20260201-000000-000{number}.json").write_text(text)
    answer = newcomer.call("audit", "--only", "quarantine", "--json")
    assert answer.code == 0, answer.said
    assert answer.document["changes"]["since"] == first["audit"]
    assert answer.err.count("cannot be read as an audit: passed over") == 4


@pytest.mark.soak
def test_audits_of_the_future_go_first_and_the_one_just_made_stays(newcomer: Engineer) -> None:
    first = audited(newcomer, "--only", "quarantine", code=0)
    [folder] = newcomer.state.glob("*/audits")
    for day in range(KEPT):
        (folder / f"audit-209901{day + 1:02d}-000000-0000.json").write_text(json.dumps(first))
    again = audited(newcomer, "--only", "quarantine", code=0)
    assert again["changes"]["since"] == first["audit"]
    assert {f"{first['audit']}.json", f"{again['audit']}.json"} <= set(kept(newcomer))


def audited_into(stdout: int, engineer: Engineer) -> subprocess.CompletedProcess[str]:
    """Audit what is in quarantine, with the answer going to an open file."""
    return subprocess.run(
        [sys.executable, "-m", "runbooks", "audit", "--only", "quarantine"],
        cwd=ROOT,
        env=dict(engineer.env),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.soak
def test_a_reader_who_goes_away_loses_nothing_that_is_kept(newcomer: Engineer) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = audited_into(writing, newcomer)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["quarantine   healthy"]
    assert len(kept(newcomer)) == 3


@pytest.mark.soak
def test_a_disk_that_takes_no_answer_is_told_in_one_line(newcomer: Engineer) -> None:
    with Path("/dev/full").open("w") as full:
        done = audited_into(full.fileno(), newcomer)
    assert "the answer cannot be printed: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(kept(newcomer)) == 3


def test_a_stop_that_is_raised_is_critical(newcomer: Engineer) -> None:
    assert newcomer.call("emergency-stop", "--only", "cleanup", "--yes").code == 0
    try:
        found = audited(newcomer, "--only", "emergency", "--fail-on", "critical")
        assert (found["outcome"], found["findings"][0]["severity"]) == ("proposed", "critical")
    finally:
        assert newcomer.call("emergency-resume", "--yes").code == 0
    assert audited(newcomer, "--only", "emergency", code=0)["outcome"] == "healthy"


def test_what_passes_is_still_told_as_what_it_is(newcomer: Engineer) -> None:
    found = audited(newcomer, "--only", "rb-sb-002", "--fail-on", "critical", code=0)
    assert (found["outcome"], found["exit"]) == ("proposed", 0)


@pytest.mark.soak
def test_an_outage_is_told_once_with_all_that_it_hides(newcomer: Engineer) -> None:
    blind = newcomer.but(REDIS_URL="redis://127.0.0.1:1/0")
    answer = blind.call("audit", "--only", "rb-sb-003,quarantine", "--timeout", "5")
    assert answer.code == 3, answer.said
    told = [line for line in answer.out.splitlines() if ": cannot tell: Redis" in line]
    assert len(told) == 1, answer.out
    assert told[0].startswith("unknown  keys, families: cannot tell: Redis at 127.0.0.1:1")
    assert told[0].endswith("(rb-sb-003, quarantine)")


def test_what_was_refused_has_a_report_too(newcomer: Engineer, tmp_path: Path) -> None:
    answer = newcomer.call("apply", "--plan", "rb-sb-003-none", "--report", str(tmp_path / "reports"))
    assert answer.code == 1, answer.said
    [page] = (tmp_path / "reports").glob("*.html")
    assert "there is no plan rb-sb-003-none" in page.read_text()
