"""An emergency stop by its commands: from one host and another, while others work, and with what is no good answer."""

import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.developer import Developer
from tests.acceptance.engineer import Answer, Engineer
from tests.acceptance.production import FLAG, ROWS, RULE, SCALING, SERVICE, Production
from tests.acceptance.test_dead_servers import address, moved
from tests.acceptance.test_jobs import log
from tests.unit.test_document import VALIDATOR
from tests.waiting import eventually

ALL = {RULE, SERVICE, SCALING, ROWS, FLAG}
NO_DATABASE = {"DATABASE_URL": "postgresql://lab@127.0.0.1:1/arrakis"}
PATIENT = ("--timeout", "10")  # this machine may be busy
ELSEWHERE = {"NATS_URL": "nats://nats.arrakis.example:4222"}  # never asked here; with it this is no stand-in


@pytest.fixture
def production(engineer: Engineer) -> Iterator[Production]:
    """Return what can be stopped, all of which runs; afterwards it does again."""
    made = Production(engineer.lab)
    assert made.runs() == ALL
    yield made
    if made.still():
        answer = engineer.call("emergency-resume", "--yes", *PATIENT)
        runs = made.runs()
        made.restore()
        assert runs == ALL, answer.said


def done(answer: Answer, code: int = 0) -> dict[str, Any]:
    """Return the document of a call that ended so."""
    assert answer.code == code, answer.said
    assert "Traceback" not in answer.said
    assert answer.document["exit"] == code
    VALIDATOR.validate(answer.document)
    return answer.document


def stop(engineer: Engineer, *args: str, code: int = 0) -> dict[str, Any]:
    return done(engineer.call("emergency-stop", "--yes", "--json", *PATIENT, *args), code)


def resume(engineer: Engineer, *args: str, code: int = 0) -> dict[str, Any]:
    return done(engineer.call("emergency-resume", "--yes", "--json", *PATIENT, *args), code)


def verbs(document: dict[str, Any]) -> list[str]:
    return [action["verb"] for action in document["plan"]["actions"]] if document["plan"] else []


# ---- down on one host, back on another


def test_another_operator_on_another_host_sees_it_and_brings_back_all_of_it(
    engineer: Engineer, newcomer: Engineer, production: Production
) -> None:
    before = production.truth()
    audit = production.rows("SELECT * FROM sandbox_audit_log ORDER BY id")
    document = stop(engineer, "--reason", "events circle\x1b[2J\nand circle")
    assert production.runs() == set()
    assert stop(engineer)["plan"] is None
    [_, note] = [each["summary"] for each in document["findings"] if each["check"] == "what is left"]
    assert "The scheduled clean-up will not take what they leave" in note

    other = newcomer.but(SANDBOX_OWNER="stilgar")
    status = other.call("emergency-status")
    assert status.code == 2, status.said
    assert re.search(r"raised by chani, since \S+ \S+ UTC: events circle\\x1b\[2J\\nand circle;", status.out)
    assert "stopped by stop-" in status.out
    assert "of chani; 1 ran before" in status.out
    assert "4 steps to take" in status.out
    document = resume(other)
    assert verbs(document) == [
        "undo mark sandboxes", "undo stop service", "undo disable rule", "undo raise stop",
    ]  # fmt: skip
    assert production.truth() == before
    kept = {row["id"]: row for row in production.rows("SELECT * FROM sandbox_audit_log ORDER BY id")}
    assert [kept[row["id"]] for row in audit] == audit
    marked = len(production.rows("SELECT id FROM sandboxes WHERE status = 'running'"))
    assert len(kept) == len(audit) + 2 * marked
    assert done(other.call("emergency-status", "--json"))["plan"] is None
    assert resume(engineer)["plan"] is None
    assert production.truth() == before


@pytest.mark.soak
def test_without_postgresql_the_tags_tell_another_operator(
    engineer: Engineer, newcomer: Engineer, production: Production
) -> None:
    before = production.truth()
    stop(engineer)
    blind = newcomer.but(**NO_DATABASE)
    status = blind.call("emergency-status")
    assert status.code == 3, status.said
    assert "of chani; 1 ran before" in status.out
    document = resume(blind, code=5)
    assert verbs(document) == ["undo stop service", "undo disable rule"]
    assert production.still() == {ROWS, FLAG}
    assert verbs(resume(newcomer)) == ["undo mark sandboxes", "undo raise stop"]
    assert production.truth() == before


@pytest.mark.soak
def test_stopped_without_postgresql_it_is_known_by_its_tags_and_recorded_later(
    engineer: Engineer, newcomer: Engineer, production: Production
) -> None:
    before = production.truth()
    answer = engineer.but(**NO_DATABASE).call("emergency-stop", "--yes")
    assert answer.code == 5, answer.said
    assert production.runs() == {ROWS, FLAG}
    assert "`emergency-stop --only sandboxes` does it once that can be told" in answer.out
    [run] = re.findall(r"resume --run (\S+)", answer.out)
    shown = engineer.call("show", "--run", run)
    assert "connection refused" in shown.out
    assert f"{run}  " in engineer.call("history").out
    still_down = engineer.but(**NO_DATABASE).call("resume", "--run", run, "--yes")
    assert still_down.code == 5, still_down.said
    assert verbs(stop(newcomer)) == ["raise stop", "mark sandboxes"]
    [recorded] = production.rows("SELECT parts FROM runbooks.stops WHERE lifted_at IS NULL")
    assert recorded["parts"].keys() == {"disable rule", "stop service"}
    assert recorded["parts"]["stop service"]["before"]["desired"] == 1
    resume(newcomer)
    assert production.truth() == before


@pytest.mark.parametrize(
    ("variable", "timeout", "still"),
    [
        ("DATABASE_URL", "1", {RULE, SERVICE, SCALING}),
        pytest.param("DATABASE_URL", "3", {RULE, SERVICE, SCALING}, marks=pytest.mark.soak),
        pytest.param("AWS_ENDPOINT_URL", "3", {ROWS, FLAG}, marks=pytest.mark.soak),
    ],
)
def test_what_hangs_does_not_hold_up_the_rest(
    engineer: Engineer, production: Production, variable: str, timeout: str, still: set[str]
) -> None:
    with address(hangs=True) as port:
        there = engineer.but(**{variable: moved(engineer.lab.env[variable], port)})
        answer = there.call("emergency-stop", "--yes", "--timeout", timeout)
    assert answer.code == 5, answer.said
    assert answer.seconds < 12, answer.said
    assert production.still() == still
    stop(engineer)
    assert production.runs() == set()


# ---- parts of it


@pytest.mark.soak
def test_a_part_is_stopped_and_comes_back_alone(engineer: Engineer, production: Production) -> None:
    before = production.truth()
    stop(engineer, "--only", "router")
    assert production.still() == {SERVICE, SCALING}
    stop(engineer, "--only", "sandboxes,cleanup")
    assert production.runs() == set()
    assert verbs(resume(engineer, "--only", "router")) == ["undo stop service"]
    assert production.still() == {RULE, ROWS, FLAG}
    production.desire(2)
    assert verbs(stop(engineer, "--only", "router")) == ["raise stop", "stop service"]
    assert verbs(resume(engineer, "--only", "cleanup")) == ["undo disable rule", "undo raise stop"]
    assert production.still() == {SERVICE, SCALING, ROWS}
    assert verbs(resume(engineer, "--only", "sandboxes")) == ["undo mark sandboxes"]
    assert production.rows("SELECT id FROM runbooks.stops WHERE lifted_at IS NULL")
    assert verbs(resume(engineer, "--only", "router")) == ["undo stop service", "undo raise stop"]
    assert not production.rows("SELECT id FROM runbooks.stops WHERE lifted_at IS NULL")
    assert production.truth()["service"]["desiredCount"] == 2  # as it was before the last stop
    production.desire(1)
    assert production.truth() == before


@pytest.mark.soak
def test_what_somebody_else_changed_is_left_alone_and_told(
    engineer: Engineer, production: Production
) -> None:
    before = production.truth()
    stop(engineer)
    marked = production.rows("SELECT sandbox FROM runbooks.stopped_sandboxes WHERE restored_at IS NULL")
    gone = str(marked[0]["sandbox"])
    production.rows("UPDATE sandboxes SET destroyed_at = now() WHERE id = %s", gone)
    production.limit(MaxCapacity=9)
    document = resume(engineer, code=5)
    left = [each["summary"] for each in document["findings"] if each["check"] == "left alone"]
    assert any("cannot come back: it is destroyed by somebody else's hand" in each for each in left)
    assert any("somebody else changed it" in each and "--desired-count 1" in each for each in left), left
    assert production.still() == {SERVICE, SCALING}
    assert len(production.rows("SELECT id FROM sandboxes WHERE status = 'running'")) == len(marked) - 1
    assert resume(engineer, code=2)["plan"] is None  # of the stop no more is left
    production.desire(1)
    production.limit(MinCapacity=1, MaxCapacity=4, SuspendedState=before["scaling"][0]["SuspendedState"])
    production.rows("UPDATE sandboxes SET status = 'running', destroyed_at = NULL WHERE id = %s", gone)
    assert verbs(resume(engineer)) == ["undo stop service"]  # whose tags are left
    assert production.truth() == before


# ---- beside others


@pytest.mark.soak
def test_who_stops_at_the_same_moment_stops_the_same(
    engineer: Engineer, newcomer: Engineer, production: Production
) -> None:
    before = production.truth()
    both = [("emergency-stop", "--yes", *PATIENT)] * 2
    codes, said = at_once((engineer, newcomer), both)
    assert codes == [0, 0], said
    assert production.runs() == set()
    at_once((engineer, newcomer), [both[0], ("emergency-resume", "--yes", *PATIENT)])
    resume(engineer)
    assert production.truth() == before
    assert not production.rows("SELECT id FROM runbooks.stops WHERE lifted_at IS NULL")


def at_once(who: tuple[Engineer, ...], what: Sequence[tuple[str, ...]]) -> tuple[list[int], str]:
    """Call tasks side by side; return how they ended, and all that they said."""
    with ExitStack() as stack:
        begun = [stack.enter_context(each.calling(*args))[0] for each, args in zip(who, what, strict=True)]
        said = ["".join(each.communicate(60)) for each in begun]
        return [each.wait() for each in begun], "\n".join(said)


@pytest.mark.soak
def test_an_apply_under_way_halts_and_goes_on_after_the_resume(
    engineer: Engineer, newcomer: Engineer, production: Production
) -> None:
    plan = newcomer.plan()
    journal = newcomer.state / "custom" / "journal.jsonl"
    with newcomer.calling("apply", "--plan", plan["id"], "--yes") as (program, _):
        eventually(lambda: b'"phase":"done"' in journal.read_bytes() or program.poll() is not None, pause=0)
        os.kill(program.pid, signal.SIGSTOP)
        begun = _phases(newcomer, "started")
        stop(engineer, "--only", "cleanup")
        os.kill(program.pid, signal.SIGCONT)
        out, _ = program.communicate(10)
        assert program.wait() == 5, out
    assert "an emergency stop is raised by chani" in out
    assert len(_phases(newcomer, "started")) <= len(begun) + 1  # what it had in hand
    run = re.findall(r"resume --run (\S+)", out)[0]

    for args in (("resume", "--run", run, "--yes"), ("undo", "--run", run, "--yes")):
        answer = newcomer.call(*args)
        assert answer.code == 4, answer.said
        assert "an emergency stop is raised by chani" in answer.err
    job = engineer.but(ARRAKIS_ENV="lab").call("cleanup")
    assert job.code == 4, job.said
    assert [each["msg"] for each in log(job)][-2:] == ["Job halted", "Sandbox cleanup job finished"]

    resume(engineer)
    answer = newcomer.call("resume", "--run", run, "--yes")
    assert answer.code == 0, answer.said
    newcomer.undo(run)


def _phases(engineer: Engineer, phase: str) -> list[dict[str, Any]]:
    return [entry for entry in engineer.journal() if entry["phase"] == phase]


@pytest.mark.soak
def test_the_clean_up_job_takes_nothing_of_what_is_marked(engineer: Engineer, production: Production) -> None:
    stop(engineer, "--only", "sandboxes")
    before = production.truth()
    job = engineer.but(ARRAKIS_ENV="lab").call("cleanup")
    assert job.code == 0, job.said
    assert production.truth()["mappings"] == before["mappings"]
    marked = production.rows("SELECT sandbox AS id FROM runbooks.stopped_sandboxes WHERE restored_at IS NULL")
    assert marked
    assert not [each for each in marked if str(each["id"])[:8] in job.said]
    resume(engineer)
    running = production.rows("SELECT id FROM sandboxes WHERE status = 'running'")
    assert all(each in running for each in marked)


@pytest.mark.soak
def test_the_clean_up_job_under_way_halts(engineer: Engineer, production: Production) -> None:
    made = production.rows(
        "INSERT INTO sandboxes (name, owner, status, schema_name, expires_at)"
        " SELECT 'over-' || n, 'chani', 'running', 'over_' || n, now() FROM generate_series(1, 40) AS n RETURNING id"
    )
    production.rows("SELECT create_sandbox_schema(id::text) FROM sandboxes WHERE name LIKE 'over-%'")
    query = "SELECT count(*) AS n FROM sandboxes WHERE name LIKE 'over-%' AND status = 'running'"

    def left() -> int:
        return int(production.rows(query)[0]["n"])

    with engineer.but(ARRAKIS_ENV="lab").calling("cleanup") as (program, _):
        eventually(lambda: left() < len(made) or program.poll() is not None, pause=0)
        os.kill(program.pid, signal.SIGSTOP)
        stop(engineer, "--only", "cleanup")
        os.kill(program.pid, signal.SIGCONT)
        _, err = program.communicate(10)
        assert program.wait() == 4, err
    assert "an emergency stop is raised by chani" in err
    assert left() > len(made) / 2
    resume(engineer)
    again = engineer.but(ARRAKIS_ENV="lab").call("cleanup")
    assert again.code in (0, 5), again.said
    assert left() == 0


@pytest.mark.soak
def test_developers_go_on(engineer: Engineer, newcomer: Engineer, production: Production) -> None:
    stop(engineer)
    env = {**newcomer.env, "SANDBOX_OWNER": "paul"}
    paul = Developer.at(newcomer.state / "home", env, owner="paul")
    made = paul.call("sandbox", "create", "meanwhile")
    assert made.code == 0, made.said
    assert verbs(stop(engineer)) == ["raise stop", "mark sandboxes"]
    resume(engineer)
    gone = paul.call("sandbox", "destroy", "meanwhile", "--yes")
    assert gone.code == 0, gone.said


# ---- the runs of a stop


@pytest.mark.soak
def test_undoing_the_run_of_a_stop_does_what_a_resume_does(
    engineer: Engineer, production: Production
) -> None:
    before = production.truth()
    run = stop(engineer)["run"]["id"]
    assert json.loads(engineer.call("history", "--json").out)[-1]["run"] == run
    assert engineer.call("show", "--run", run).out.count("done") == 4
    engineer.undo(run)
    assert production.truth() == before
    assert resume(engineer)["plan"] is None


@pytest.mark.soak
def test_a_stop_that_was_taken_back_is_not_gone_on_with(engineer: Engineer, production: Production) -> None:
    before = production.truth()
    answer = engineer.but(**NO_DATABASE).call("emergency-stop", "--only", "cleanup", "--yes")
    assert answer.code == 5, answer.said
    [run] = re.findall(r"resume --run (\S+)", answer.out)
    resume(engineer)
    again = engineer.call("resume", "--run", run, "--yes")
    assert again.code == 4, again.said
    assert "was run since; `emergency-status` says how all stands" in again.err
    assert production.truth() == before


@pytest.mark.soak
def test_undoing_an_old_run_does_not_end_a_new_stop(engineer: Engineer, production: Production) -> None:
    old = stop(engineer)["run"]["id"]
    resume(engineer)
    stop(engineer)
    all_of_it = production.still()
    answer = engineer.call("undo", "--run", old, "--yes")
    assert answer.code in (1, 4, 5), answer.said
    assert "only `emergency-resume` takes it back" in answer.said
    assert "stopped it again since" in answer.said
    assert production.still() == all_of_it


@pytest.mark.soak
@pytest.mark.parametrize("task", ["emergency-stop", "emergency-resume"])
@pytest.mark.parametrize("records", range(2, 11))
def test_killed_anywhere_it_is_finished_from_another_host(
    engineer: Engineer, newcomer: Engineer, production: Production, task: str, records: int
) -> None:
    before = production.truth()
    if task == "emergency-resume":
        stop(engineer)
    journal = newcomer.state / "custom" / "journal.jsonl"

    def written() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    with newcomer.calling(task, "--yes") as (program, _):
        eventually(lambda: written() >= records or program.poll() is not None, pause=0)
        program.kill()
        program.communicate()
    if task == "emergency-stop":
        stop(engineer)
        assert production.runs() == set()
    engineer.call("emergency-resume", "--yes", *PATIENT)
    assert production.truth() == before
    assert resume(engineer)["plan"] is None


# ---- what is no good answer, and no good question


def test_what_is_no_part_of_it(engineer: Engineer, production: Production) -> None:
    for task, given in (("stop", "foo"), ("stop", "router,foo"), ("stop", "cleanup,"), ("resume", "Router")):
        answer = engineer.call(f"emergency-{task}", "--only", given, "--yes")
        assert answer.code == 1, answer.said
        assert "--only takes cleanup or router or sandboxes" in answer.err
        assert answer.err.count("\n") == 2
    assert production.runs() == ALL


def test_production_is_asked_for_its_name(engineer: Engineer, production: Production) -> None:
    typed = engineer.but(**ELSEWHERE)
    for args, typing, why in (
        (("--yes",), None, "not confirmed: it cannot be undone or is production"),
        ((), None, "there is no terminal to ask on"),
        ((), "y", "not confirmed by the operator"),
        (("--yes",), "\x04", "not confirmed by the operator"),  # Ctrl-D
    ):
        answer = typed.call("emergency-stop", *args, typing=typing)
        assert answer.code == 4, answer.said
        assert why in answer.err
        assert production.runs() == ALL
    answer = typed.call("emergency-stop", "--json", typing="custom")
    assert done(answer)["outcome"] == "applied"
    assert production.runs() == set()
    answer = typed.call("emergency-resume", typing="custom")
    assert answer.code == 0, answer.said


def test_elsewhere_yes_or_no_will_do(engineer: Engineer, production: Production) -> None:
    assert engineer.call("emergency-stop").code == 4
    assert engineer.call("emergency-stop", typing="n").code == 4
    assert production.runs() == ALL
    assert engineer.call("emergency-stop", "--only", "router", typing="y").code == 0
    assert production.still() == {SERVICE, SCALING}


@pytest.mark.soak
def test_an_unusual_name_is_no_obstacle(engineer: Engineer, production: Production) -> None:
    odd = engineer.but(SANDBOX_OWNER='O\'Brien "沙" ' + "x" * 200)
    stop(odd)
    status = odd.but(**NO_DATABASE).call("emergency-status")
    assert "of O_Brien____" in status.out, status.said
    assert 'raised by O\'Brien "沙" xxx' in odd.call("emergency-status").out
    resume(odd)
    assert not any(production.tags())


def test_without_a_place_for_the_journal_it_says_where_to_put_it(
    engineer: Engineer, production: Production, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    answer = engineer.but(RUNBOOKS_STATE_DIR=str(tmp_path / "file")).call("emergency-stop", "--yes")
    assert answer.code == 1, answer.said
    assert "RUNBOOKS_STATE_DIR" in answer.err
    assert production.runs() == ALL
