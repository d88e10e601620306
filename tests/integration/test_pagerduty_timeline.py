import importlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.pagerduty.account import Account, account
from runbooks.pagerduty.timeline import Flushed, Timeline, written
from sandbox.errors import Unreachable
from tests.pagerduty_stand_in import StandIn, stand_in
from tests.waiting import eventually

MARK = "-- arrakis-runbooks: "
SOON = 5.0  # seconds within which what has a bound of half a second has surely ended
ALL_SENT = Flushed(sent=1, left=0, reasons=())


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """The official client, whose loading is not what a time-out of half a second is for."""
    importlib.import_module("pagerduty")


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with stand_in() as running:
        monkeypatch.setenv("SSL_CERT_FILE", str(running.ca))
        yield running


class Host:
    """A host whose processes come and go: what it was told, and its disk."""

    def __init__(self, stand: StandIn, folder: Path, timeout: float = 10.0) -> None:
        found = account({}, stand.variables)
        assert found
        self.account: Account | None = replace(found, timeout=timeout)
        self.folder, self.told = folder, list[str]()

    def timeline(self) -> Timeline:
        """A new process."""
        return Timeline(lambda: self.account, self.folder, self.told.append)

    def put(self, incident: str, step: str, text: str) -> None:
        """A whole run of one."""
        timeline = self.timeline()
        timeline.keep(incident, step, text)
        timeline.send()

    def waiting(self) -> int:
        """How many items wait."""
        folder = self.folder / "outbox"
        return len(list(folder.glob("[0-9]*"))) if folder.exists() else 0

    def refused(self) -> list[str]:
        """What was set aside."""
        return [path.read_text() for path in sorted((self.folder / "refused").glob("*"))]


@pytest.fixture
def host(stand: StandIn, tmp_path: Path) -> Host:
    return Host(stand, tmp_path / "state")


@pytest.fixture
def hasty(stand: StandIn, tmp_path: Path) -> Host:
    return Host(stand, tmp_path / "state", timeout=0.5)


def test_a_step_has_one_note_that_is_changed_when_it_is_told_again(stand: StandIn, host: Host) -> None:
    name = stand.add_incident()
    stand.add_note(name, "I am looking.")
    stand.add_note(name, f"somebody quotes\n{MARK}diagnosis\nin between")
    by_hand = stand.notes(name)
    host.put(name, "diagnosis", "17 orphans")
    assert stand.notes(name) == [*by_hand, f"17 orphans\n{MARK}diagnosis"]
    host.put(name, "diagnosis", "17 orphans")
    assert (len(stand.asked("POST")), len(stand.asked("PUT"))) == (1, 0)
    host.put(name, "diagnosis", "3 orphans")
    host.put(name, "diagnosis 2", "another step")
    assert stand.notes(name) == [
        *by_hand,
        f"3 orphans\n{MARK}diagnosis",
        f"another step\n{MARK}diagnosis 2",
    ]
    assert host.waiting() == 0
    assert host.told == [f"put on the timeline of {name}"] * 4


def test_a_note_that_came_back_with_other_line_ends_is_still_ours(stand: StandIn, host: Host) -> None:
    name = stand.add_incident()
    stand.add_note(name, f"17 orphans \r\n{MARK}diagnosis\r\n\r\n")
    host.put(name, "diagnosis", "17 orphans")
    assert (len(stand.asked("POST")), len(stand.asked("PUT"))) == (0, 0)
    host.put(name, "diagnosis", "3 orphans")
    assert stand.notes(name) == [f"3 orphans\n{MARK}diagnosis"]


def test_notes_are_sent_in_the_order_they_were_kept_and_the_status_after(stand: StandIn, host: Host) -> None:
    name = stand.add_incident()
    timeline = host.timeline()
    for step in ("b", "a", "c"):
        timeline.keep(name, step, step)
    timeline.keep_status(name, "acknowledged")
    timeline.keep_status(name, "resolved")
    timeline.send()
    assert stand.notes(name) == [f"{step}\n{MARK}{step}" for step in ("b", "a", "c")]
    assert stand.status(name) == "resolved"
    assert [asked.method for asked in stand.requests if asked.method != "GET"] == [
        "POST",
        "POST",
        "POST",
        "PUT",
    ]
    assert host.told == [f"put on the timeline of {name}", f"{name} is resolved"]


def test_nothing_waits_so_nothing_is_asked(stand: StandIn, host: Host) -> None:
    host.timeline().send()
    assert host.timeline().flush() == Flushed(sent=0, left=0, reasons=())
    assert (stand.requests, host.told) == ([], [])


def _refuse(status: int, **headers: str) -> Callable[[StandIn], None]:
    return lambda stand: stand.trouble("refused", status=status, headers=headers, body="<html>")


TROUBLES: dict[str, Callable[[StandIn], None]] = {
    "down": _refuse(503),
    "refusing the key": _refuse(401),
    "without rights": _refuse(403),
    "rate-limited": _refuse(429),
    "rate-limited for long": _refuse(429, **{"ratelimit-reset": "50"}),
    "rate-limited again and again": _refuse(429, **{"ratelimit-reset": "0"}),
    "behind a proxy": _refuse(200),
    "redirecting": _refuse(302, location="https://evil.test/"),
    "hanging": lambda stand: stand.trouble("hanging"),
    "dripping": lambda stand: stand.trouble("dripping"),
    "hanging up": lambda stand: stand.trouble("dropped"),
    "losing answers": lambda stand: stand.trouble("lost"),
    "losing the note's answer": lambda stand: stand.trouble("lost", method="POST"),
}


@pytest.mark.parametrize("how", TROUBLES)
def test_whatever_ails_pagerduty_the_run_goes_on_and_the_note_waits(
    stand: StandIn, hasty: Host, how: str
) -> None:
    name = stand.add_incident()
    TROUBLES[how](stand)
    began = time.monotonic()
    hasty.put(name, "diagnosis", "17 orphans")
    assert time.monotonic() - began < SOON
    assert hasty.waiting() == 1
    assert hasty.told[-1] == "1 note waits on disk; `invoke pagerduty-flush` sends it"
    assert hasty.told[:-1], "and why"
    stand.recover()
    assert replace(Host(stand, hasty.folder).timeline().flush(), reasons=()) == ALL_SENT
    assert stand.notes(name) == [f"17 orphans\n{MARK}diagnosis"]
    assert len(stand.asked("POST", "/notes")) <= (1 if "los" in how else 3)


def test_the_next_run_sends_what_waits_for_others_too(stand: StandIn, hasty: Host) -> None:
    one, two = stand.add_incident(), stand.add_incident()
    stand.trouble("refused", status=500)
    hasty.put(one, "a", "first")
    hasty.put(two, "a", "second")
    stand.recover()
    hasty.told.clear()
    Host(stand, hasty.folder).put(two, "b", "third")
    assert (stand.notes(one), len(stand.notes(two)), hasty.waiting()) == ([f"first\n{MARK}a"], 2, 0)
    assert [asked.path.split("/")[2] for asked in stand.asked("POST")] == [two, two, one]  # its own first


def test_nobody_listens_at_all(stand: StandIn, hasty: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # it takes connections and never says a word
        assert hasty.account
        for url in (f"https://127.0.0.1:{deaf.getsockname()[1]}", "https://127.0.0.1:1"):
            hasty.account = replace(hasty.account, url=url)
            began = time.monotonic()
            hasty.put("Q1", "a", url)
            assert time.monotonic() - began < SOON
            assert "1 note waits" in hasty.told[-1]


def test_without_a_key_notes_wait_for_one(stand: StandIn, host: Host) -> None:
    name, right = stand.add_incident(), host.account

    def locked_up() -> Account | None:
        raise Unreachable("AWS secretsmanager: no answer", hint="set PAGERDUTY_TOKEN yourself")

    host.account = None
    host.put(name, "a", "x")
    timeline = Timeline(locked_up, host.folder, host.told.append)
    timeline.keep(name, "b", "y")
    timeline.send()
    assert host.told == [
        "PAGERDUTY_TOKEN is not set",
        "1 note waits on disk; `invoke pagerduty-flush` sends it",
        "AWS secretsmanager: no answer; set PAGERDUTY_TOKEN yourself",
        "2 notes wait on disk; `invoke pagerduty-flush` sends them",
    ]
    assert stand.requests == []
    host.account = right
    assert host.timeline().flush() == Flushed(sent=2, left=0, reasons=())


def test_what_is_refused_for_good_is_set_aside_and_told_and_the_rest_is_sent(
    stand: StandIn, host: Host
) -> None:
    gone, full, good = (stand.add_incident() for _ in range(3))
    stand.remove(gone)
    for number in range(2000):
        stand.add_note(full, f"by hand {number}")
    timeline = host.timeline()
    for incident in (gone, full, "../no-id", good):
        timeline.keep(incident, "a", f"for {incident}")
        timeline.keep_status(incident, "acknowledged")
    timeline.send()
    assert stand.notes(good) == [f"for {good}\n{MARK}a"]
    assert (stand.status(full), stand.status(good)) == ("acknowledged", "acknowledged")
    assert (host.waiting(), len(host.refused()), len(stand.notes(full))) == (0, 5, 2000)
    told = "\n".join(host.told)
    for said in (f"{gone} was to be told is set aside in {host.folder / 'refused'}: ", "2000 notes", "no id"):
        assert said in told
    assert "waits on disk" not in told
    assert f"for {full}" in "".join(host.refused())
    stand.requests.clear()
    assert host.timeline().flush() == Flushed(sent=0, left=0, reasons=())
    assert stand.requests == []


def test_a_step_of_a_full_timeline_can_still_be_changed(stand: StandIn, host: Host) -> None:
    name = stand.add_incident()
    host.put(name, "a", "first")
    for number in range(1999):
        stand.add_note(name, f"by hand {number}")
    host.put(name, "a", "second")
    assert stand.notes(name)[0] == f"second\n{MARK}a"
    assert host.refused() == []


def test_one_incident_that_fails_holds_up_no_other(stand: StandIn, host: Host) -> None:
    sick, well = stand.add_incident(), stand.add_incident()
    timeline = host.timeline()
    for incident in (sick, well):
        timeline.keep(incident, "a", "x")
        timeline.keep_status(incident, "acknowledged")
    stand.trouble("refused", path=sick, status=500)
    done = timeline.flush()
    assert (done.sent, done.left, len(done.reasons)) == (2, 2, 1)
    assert len(stand.asked("GET", sick)) == 1  # the status waits with the note
    assert stand.status(well) == "acknowledged"


def test_a_service_that_fails_is_not_asked_for_every_incident(stand: StandIn, host: Host) -> None:
    timeline = host.timeline()
    for _ in range(10):
        timeline.keep(stand.add_incident(), "a", "x")
    stand.trouble("refused", status=503)
    done = timeline.flush()
    assert (done.sent, done.left, len(stand.requests)) == (0, 10, 3)
    stand.recover()
    stand.trouble("refused", status=429)
    stand.requests.clear()
    assert (timeline.flush().left, len(stand.requests)) == (10, 1)
    stand.recover()
    assert timeline.flush() == Flushed(sent=10, left=0, reasons=())


def test_what_fails_now_and_then_does_not_end_the_round(stand: StandIn, host: Host) -> None:
    timeline, names = host.timeline(), [stand.add_incident() for _ in range(9)]
    for number, name in enumerate(names):
        timeline.keep(name, "a", "x")
        if number % 3:
            stand.trouble("refused", path=name, status=500)
    assert timeline.flush().sent == 3
    assert [len(stand.notes(name)) for name in names] == [1, 0, 0] * 3


def test_a_keeper_of_the_key_that_hangs_is_left(
    stand: StandIn, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbooks.pagerduty.timeline._ASKING", 0.2)

    def hangs() -> None:
        stand.closing.wait(60)

    timeline = Timeline(hangs, host.folder, host.told.append)
    timeline.keep(stand.add_incident(), "a", "x")
    began = time.monotonic()
    timeline.send()
    assert time.monotonic() - began < SOON
    assert "keeper of PagerDuty's key gave no answer" in host.told[0]
    assert host.waiting() == 1


def test_a_step_is_found_again_whatever_its_name(stand: StandIn, hasty: Host) -> None:
    name = stand.add_incident()
    stand.trouble("refused", status=500)
    for step in (" two\nlines", "two\\nlines", "two\nlines  "):
        hasty.put(name, step, step)
    assert hasty.waiting() == 1
    stand.recover()
    hasty.put(name, "x" * 1000, "long")
    assert [note.rpartition("\n")[2] for note in stand.notes(name)] == [
        f"{MARK}two\\nlines",
        f"{MARK}{'x' * 200}",
    ]


def test_after_a_lost_answer_the_notes_are_read_before_anything_is_sent(stand: StandIn, host: Host) -> None:
    name = stand.add_incident()
    for method, text in (("POST", "first"), ("PUT", "second")):
        stand.trouble("lost", method=method)
        host.put(name, "a", text)
        host.put(name, "a", text)
        stand.recover()
        host.put(name, "a", text)
        assert stand.notes(name) == [f"{text}\n{MARK}a"]
        assert len(stand.asked(method)) == 1


def test_a_note_that_arrives_after_it_was_sent_again_is_taken_away(stand: StandIn, host: Host) -> None:
    name, hasty = stand.add_incident(), Host(stand, host.folder, timeout=1.0)
    stand.trouble("late", method="POST", times=1)
    hasty.put(name, "a", "17 orphans")
    stand.wait_for("POST")
    assert hasty.waiting() == 1
    host.put(name, "a", "17 orphans")  # there is none to be seen yet
    stand.add_note(name, f"17 orphans, and I looked\n{MARK}a")  # not ours, though somebody left the line in
    stand.late.set()
    eventually(lambda: len(stand.notes(name)) == 3)
    host.put(name, "a", "3 orphans")
    assert stand.notes(name) == [f"3 orphans\n{MARK}a", f"17 orphans, and I looked\n{MARK}a"]


def test_a_note_that_was_just_taken_away_is_added(stand: StandIn, host: Host) -> None:
    name = stand.add_incident()
    host.put(name, "a", "first")
    stand.trouble("refused", method="PUT", status=404, times=1)
    host.put(name, "a", "second")
    assert stand.notes(name)[-1] == f"second\n{MARK}a"
    assert host.refused() == []


def test_reading_and_writing_share_one_time_out(stand: StandIn, tmp_path: Path) -> None:
    name, hurried = stand.add_incident(), Host(stand, tmp_path / "state", timeout=1.5)
    stand.trouble("dripping", method="GET", pause=0.009)  # about 130 bytes
    stand.trouble("hanging", method="POST")
    began = time.monotonic()
    hurried.put(name, "a", "x")
    assert time.monotonic() - began < 2.3
    assert hurried.waiting() == 1


def test_what_there_is_no_time_for_waits_without_a_complaint(stand: StandIn, tmp_path: Path) -> None:
    hurried = Host(stand, tmp_path / "state", timeout=1.5)
    timeline = hurried.timeline()
    for name in (stand.add_incident(), stand.add_incident()):
        for step in range(30):
            timeline.keep(name, f"step {step}", "x")
    stand.trouble("dripping", pause=0.0001)
    began = time.monotonic()
    timeline.send()
    assert time.monotonic() - began < SOON
    left = hurried.waiting()
    assert 0 < left < 60
    assert [told[:6] for told in hurried.told[:-1]] == ["put on"]
    assert hurried.told[-1] == f"{left} notes wait on disk; `invoke pagerduty-flush` sends them"


def test_the_official_client_is_loaded_only_to_send() -> None:
    names = "'pagerduty', 'httpx2', 'boto3', 'cryptography'"
    program = f"import sys, runbooks.pagerduty.timeline; print([n for n in ({names}) if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_a_resolved_incident_is_not_opened_again(stand: StandIn, host: Host) -> None:
    name = stand.add_incident()
    stand.set_status(name, "resolved")
    timeline = host.timeline()
    timeline.keep_status(name, "acknowledged")
    timeline.send()
    assert (stand.status(name), host.waiting()) == ("resolved", 0)
    assert host.told == [f"{name} is resolved"]


@pytest.mark.parametrize(
    ("minutes", "after", "ends"), [(5, 1, "acknowledged"), (5, -1, "resolved"), (11, -1, "acknowledged")]
)
def test_a_status_that_was_overtaken_or_is_old_is_left(
    stand: StandIn, host: Host, minutes: int, after: int, ends: str
) -> None:
    """Kept minutes ago; somebody acknowledged it a minute after, or a minute before."""
    name = stand.add_incident()
    stand.set_status(name, "acknowledged", at=time.time() + 60 * (after - minutes))
    host.timeline().keep_status(name, "resolved")
    _age(host.folder, 60 * minutes)
    done, left = host.timeline().flush(), ends == "acknowledged"
    assert stand.status(name) == ends
    assert (done.left, len(host.refused()), bool(done.reasons)) == (0, left, left)


def test_a_disk_that_takes_nothing_costs_only_the_waiting(stand: StandIn, host: Host) -> None:
    name = stand.add_incident()
    host.folder.write_text("a file where the folder should be")
    host.put(name, "a", "x")
    assert stand.notes(name) == [f"x\n{MARK}a"]
    assert "only in memory" in host.told[0]
    stand.trouble("refused", status=500)
    timeline = host.timeline()
    timeline.keep(name, "b", "y")
    timeline.send()
    assert host.told[-1] == "1 note could be neither sent nor kept, and will be lost"
    stand.recover()
    timeline.send()
    asked = len(stand.requests)
    timeline.send()
    assert len(stand.requests) == asked
    assert stand.notes(name) == [f"x\n{MARK}a", f"y\n{MARK}b"]


def test_a_file_that_cannot_be_read_is_told_and_holds_up_nothing(stand: StandIn, host: Host) -> None:
    name = stand.add_incident()
    timeline = host.timeline()
    timeline.keep(name, "a", "x")
    (host.folder / "outbox" / f"{1:020d}-0-0-0.json").write_text("{")
    done = timeline.flush()
    assert (done.sent, done.left, len(done.reasons)) == (1, 0, 1)
    assert "set aside" in done.reasons[0]


def test_the_key_is_in_no_note_is_not_set_aside_and_never_told(stand: StandIn, host: Host) -> None:
    name = stand.add_incident()
    host.put(name, "a", f"curl -H 'Token token={stand.token}' https://…")
    echo = {"error": {"message": f"no {stand.token}", "code": 1}}
    for status in (400, 401, 403, 404, 500):
        stand.trouble("refused", status=status, body=echo, times=1)
        host.put(name, "b", f"the key is {stand.token}")
    host.put(name, "b", f"the key is {stand.token}")
    assert (len(stand.notes(name)), len(host.refused())) == (2, 2)
    for text in (*stand.notes(name), *host.told, *host.refused()):
        assert stand.token not in text
    assert "no …" in "\n".join(host.told)


def test_what_is_kept_while_another_process_sends_is_sent_after(stand: StandIn, hasty: Host) -> None:
    name = stand.add_incident()
    stand.trouble("late", method="POST", times=1)
    slow = Host(stand, hasty.folder)
    sending = threading.Thread(target=slow.put, args=(name, "a", "first"))
    sending.start()
    stand.wait_for("POST")
    hasty.put(name, "a", "second")
    assert "another process is sending" in "\n".join(hasty.told)
    stand.late.set()
    sending.join(20)
    assert hasty.waiting() == 1
    assert slow.timeline().flush() == ALL_SENT
    assert stand.notes(name) == [f"second\n{MARK}a"]


def test_processes_that_send_the_same_step_at_once_add_one_note(stand: StandIn, host: Host) -> None:
    names = [stand.add_incident() for _ in range(5)]
    work = "for name in names.split():\n    timeline.keep(name, 'a', who)\n    timeline.send()"
    running = [_start(stand, host.folder, work, names=" ".join(names), who=who) for who in "xy"]
    for each in running:
        assert each.wait(60) == 0
    host.timeline().flush()
    for name in names:
        [note] = stand.notes(name)
        assert note in {f"{who}\n{MARK}a" for who in "xy"}
    assert len(stand.asked("POST")) == len(names)
    assert host.waiting() == 0


@pytest.mark.parametrize(("method", "done"), [("GET", False), ("POST", True), ("POST", False), ("PUT", True)])
def test_a_kill_at_any_request_loses_and_doubles_nothing(
    stand: StandIn, host: Host, method: str, done: bool
) -> None:
    name = stand.add_incident()
    if method == "PUT":
        host.put(name, "a", "before")
    stand.requests.clear()
    stand.trouble("late" if done else "hanging", method=method, times=1)
    process = _start(stand, host.folder, "timeline.keep(name, 'a', 'x'); timeline.send()", name=name)
    stand.wait_for(method, "/notes")
    process.kill()
    process.wait()
    if done:  # what it asked for is done after its death
        stand.late.set()
        eventually(lambda: stand.notes(name) == [f"x\n{MARK}a"])
    assert host.waiting() == 1
    assert host.timeline().flush() == ALL_SENT
    assert stand.notes(name) == [f"x\n{MARK}a"]


@pytest.mark.soak
def test_kills_at_any_moment_lose_and_double_nothing(stand: StandIn, host: Host) -> None:
    rolled = random.Random(7)
    names = [stand.add_incident() for _ in range(3)]
    work = (
        "for turn in range(10**6):\n"
        "    for name in names.split():\n"
        "        timeline.keep(name, f'step {turn % 5}', f'{turn} of {who}')\n"
        "        print(name, turn % 5, turn, 'of', who, flush=True)\n"
        "    timeline.send()"
    )
    for round_ in range(40):
        for kind in rolled.choices(["lost", "dropped"], k=3):
            stand.trouble(kind, times=rolled.randrange(1, 4), method=rolled.choice(["", "POST", "PUT"]))
        process = _start(stand, host.folder, work, heard=True, names=" ".join(names), who=str(round_))
        assert process.stdout
        lines = [process.stdout.readline().strip() for _ in range(rolled.randrange(1, 60))]
        time.sleep(rolled.random() / 50)
        process.kill()
        lines += process.communicate()[0].splitlines()
        said = {
            tuple(line.split()[:2]): int(line.split()[2]) for line in lines if line.endswith(f" of {round_}")
        }
        stand.recover()
        assert host.timeline().flush().left == 0
        for name in names:
            told = {note.partition(f"{MARK}step ")[2]: note.split("\n")[0] for note in stand.notes(name)}
            assert len(told) == len(stand.notes(name))
            for step, text in told.items():
                turn, _, who = text.split()
                if who == str(round_):  # it may have been killed before it said that it had kept a later one
                    assert int(turn) >= said.get((name, step), 0)
                else:
                    assert (name, step) not in said


def test_any_sequence_of_failures_and_restarts_ends_right(stand: StandIn, tmp_path: Path) -> None:
    for seed in range(25):
        rolled = random.Random(seed)
        host = Host(stand, tmp_path / str(seed))
        names = [stand.add_incident() for _ in range(2)]
        by_hand = {name: stand.add_note(name, "by hand") for name in names}
        wanted: dict[str, dict[str, str]] = {name: {} for name in names}
        timeline = host.timeline()
        for turn in range(12):
            name, step = rolled.choice(names), rolled.choice("abc")
            match rolled.randrange(5):
                case 0:
                    timeline = host.timeline()
                case 1:
                    timeline.send()
                case 2:
                    stand.trouble(
                        rolled.choice(["lost", "lost", "dropped", "refused"]),
                        method=rolled.choice(["", "POST", "PUT", "GET"]),
                        status=rolled.choice([401, 429, 500, 503]),
                        times=rolled.randrange(1, 4),
                    )
                case _:
                    wanted[name][step] = f"{turn}"
                    timeline.keep(name, step, f"{turn}")
        stand.recover()
        assert host.timeline().flush().left == 0
        for name in names:
            texts = [f"{text}\n{MARK}{step}" for step, text in wanted[name].items()]
            assert sorted(stand.notes(name)) == sorted(["by hand", *texts]), f"seed {seed}"
            assert by_hand[name]


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300), st.text(max_size=40), st.integers(min_value=0, max_value=1200))
def test_a_note_always_fits_and_is_plain(text: str, step: str, times: int) -> None:
    note = written(step, text * times)
    assert len(note.encode()) <= 65_535
    assert all(char.isprintable() or char == "\n" for char in note)
    lines = note.split("\n")
    assert lines[-1].startswith(MARK)
    assert written(step, text * times) == note
    cut = re.fullmatch(r"\[cut: ([\d,]+) bytes left out\]", lines[-2]) if len(lines) > 1 else None
    if cut:
        assert len(note.encode()) > 65_535 - 64


@pytest.mark.parametrize("char", ["x", "é", "…", "🦀"])
def test_a_long_note_is_cut_at_the_limit_in_bytes(stand: StandIn, host: Host, char: str) -> None:
    name, size = stand.add_incident(), len(char.encode())
    last = f"{MARK}a"
    fits = (65_535 - len(last) - 1) // size
    for count in (fits, fits + 1, 5 * fits):
        host.put(name, "a", char * count)
        [note] = stand.notes(name)
        kept = note.count(char)
        assert note.endswith(f"\n{last}")
        if count == fits:
            assert note == f"{char * count}\n{last}"
        else:
            assert note == f"{char * kept}\n[cut: {(count - kept) * size:,} bytes left out]\n{last}"
            assert 65_535 - 8 < len(note.encode()) <= 65_535
    assert host.refused() == []


def test_a_note_reads_as_plain_text() -> None:
    text = "\x1b[31mred\x1b[0m\ttab  \r\nnext\u2028line\x00 \u202eturned\n\n"
    assert written("two\nlines", text) == (
        f"\\x1b[31mred\\x1b[0m    tab\nnext\nline\\x00 \\u202eturned\n{MARK}two\\nlines"
    )


def _age(folder: Path, seconds: float) -> None:
    """Let what waits look as if it had been kept earlier."""
    for path in list((folder / "outbox").iterdir()):
        name = f"{int(path.name[:20]) - int(seconds * 1e9):020d}{path.name[20:]}"
        path.with_name(name).write_text(json.dumps({**json.loads(path.read_text()), "name": name}))
        path.unlink()


def _start(
    stand: StandIn, folder: Path, work: str, *, heard: bool = False, **names: str
) -> "subprocess.Popen[str]":
    """A process of its own with a timeline in it."""
    assigned = "\n".join(f"{name} = {value!r}" for name, value in names.items())
    program = f"""
import os, sys
from pathlib import Path
from runbooks.pagerduty.account import account
from runbooks.pagerduty.timeline import Timeline
timeline = Timeline(lambda: account({{}}, os.environ), Path(sys.argv[1]), lambda told: None)
{assigned}
{work}
"""
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdout=subprocess.PIPE if heard else None,
        text=True,
        env={**os.environ, **stand.variables},
    )
