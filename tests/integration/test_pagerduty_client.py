import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from runbooks.pagerduty.account import Account, account
from runbooks.pagerduty.client import Client, Declined
from sandbox.errors import ArrakisError, Denied, Missing, Throttled, Unreachable
from tests.pagerduty_stand_in import ALARM, StandIn, stand_in

HTML = "<html><body>Bad Gateway</body></html>"
SOON = 5.0  # seconds within which what has a bound of half a second has surely ended


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with stand_in() as running:
        monkeypatch.setenv("SSL_CERT_FILE", str(running.ca))
        yield running


@pytest.fixture
def client(stand: StandIn) -> Client:
    return Client(_account(stand))


def _account(stand: StandIn, timeout: float = 10.0) -> Account:
    found = account({}, stand.variables)
    assert found
    return replace(found, timeout=timeout)


def test_an_incident_is_read_by_id_and_by_number(stand: StandIn, client: Client) -> None:
    name = stand.add_incident()
    found = client.incident(name)
    assert (found["id"], found["title"]) == (name, ALARM)
    assert client.incident(str(found["incident_number"])) == found


def test_all_pages_of_alerts_are_read(stand: StandIn, client: Client) -> None:
    name = stand.add_incident(alerts=230)
    found = client.alerts(name)
    assert len({alert["id"] for alert in found}) == 230
    assert [asked.query["offset"] for asked in stand.asked("GET", "/alerts")] == [["0"], ["100"], ["200"]]


def test_pages_without_an_end_are_left_at_the_reach_of_the_api(stand: StandIn, client: Client) -> None:
    name = stand.add_incident()
    stand.trouble("refused", status=200, body={"alerts": [], "more": True})
    assert client.alerts(name) == []
    assert len(stand.requests) == 100


def test_the_first_event_is_read_with_its_channel(stand: StandIn, client: Client) -> None:
    incident = client.incident(stand.add_incident())
    found = client.trigger(incident)
    assert found
    assert found["channel"]["details"]["AlarmName"] == ALARM
    for reference in (None, {}, {"id": None}, {"id": "R1NONE"}, {"id": "../incidents"}, "R1"):
        assert client.trigger({**incident, "first_trigger_log_entry": reference}) is None
    stand.trouble("refused", status=500)
    assert client.trigger(incident) is None


def test_open_incidents_are_found_by_their_alerts_key(stand: StandIn, client: Client) -> None:
    one, two, three = (stand.add_incident(days=days) for days in (0, 90, 0))
    stand.add_incident("arrakis-production-other")
    stand.set_status(two, "acknowledged")
    stand.set_status(three, "resolved")
    assert {found["id"] for found in client.open_with(ALARM)} == {one, two}
    assert client.open_with("arrakis-none & other=1") == []


def test_notes_are_added_changed_and_taken_away(stand: StandIn, client: Client) -> None:
    name = stand.add_incident()
    by_hand = stand.add_note(name, "looking")
    client.add_note(name, "one\ntwo …")
    [_, note] = client.notes(name)
    assert note.text == "one\ntwo …"
    client.change_note(name, note.id, "three")
    assert stand.notes(name) == ["looking", "three"]
    client.remove_note(name, note.id)
    client.remove_note(name, note.id)  # it is gone already
    assert [left.id for left in client.notes(name)] == [by_hand]
    assert {asked.headers["from"] for asked in stand.requests} == {stand.sender}


def test_a_note_that_is_no_note_is_passed_over(stand: StandIn, client: Client) -> None:
    entries = [{"id": "P1", "content": None}, {"content": "x"}, None, 3, {"id": "P2", "content": "good"}]
    stand.trouble("refused", status=200, body={"notes": entries})
    assert [note.text for note in client.notes("Q1")] == ["good"]


def test_the_status_is_set_once_and_nothing_is_opened_again(stand: StandIn, client: Client) -> None:
    name = stand.add_incident()
    wanted = ("acknowledged", "acknowledged", "resolved", "resolved", "acknowledged")
    had = [client.set_status(name, status) for status in wanted]
    assert had == ["acknowledged", "acknowledged", "resolved", "resolved", "resolved"]
    assert stand.status(name) == "resolved"
    assert [asked.body["incident"]["status"] for asked in stand.asked("PUT")] == ["acknowledged", "resolved"]
    with pytest.raises(ValueError, match="triggered"):
        client.set_status(name, "triggered")


@pytest.mark.parametrize("code", [1001, 1002])
def test_what_somebody_else_did_first_is_no_error(stand: StandIn, client: Client, code: int) -> None:
    name = stand.add_incident()
    body = {"error": {"message": "Incident Already …", "code": code}}
    stand.trouble("refused", method="PUT", status=400, body=body, times=1)
    client.set_status(name, "resolved")
    assert len(stand.asked("PUT")) == 1


@pytest.mark.parametrize(
    "name", ["", "../users", "Q1/notes", "Q1?x=1", "Q1 ", "Q1\n", "%2e%2e", "Ǫ1", "Q" * 41]
)
def test_no_path_is_built_from_what_is_no_id(stand: StandIn, client: Client, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: client.incident(name),
        lambda: client.alerts(name),
        lambda: client.notes(name),
        lambda: client.add_note(name, "x"),
        lambda: client.change_note("Q1", name, "x"),
        lambda: client.remove_note(name, "P1"),
        lambda: client.set_status(name, "resolved"),
    ]
    for call in calls:
        with pytest.raises(Declined, match="no id"):
            call()
    assert stand.requests == []


def _error(message: str, code: int = 2001, **more: Any) -> Mapping[str, Any]:
    return {"error": {"message": message, "code": code, **more}}


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (400, _error("Invalid", errors=["too long", "or not"]), Declined, "Invalid; too long; or not"),
        (400, _error("Invalid", errors={"a": 1}), Declined, "Invalid"),
        (400, _error('Malformed "From" header', 1028), Denied, "PAGERDUTY_FROM"),
        (400, _error("Requester User Not Found", 1008), Denied, "PAGERDUTY_FROM"),
        (
            400,
            _error('You must specify a user\'s email address in the "From" header'),
            Denied,
            "PAGERDUTY_FROM",
        ),
        (400, {"error": "a text"}, Declined, "a text"),
        (400, {"error": ["x"]}, Declined, "answered 400"),
        (400, HTML, Declined, "answered 400"),
        (401, None, Denied, "does not accept the key"),
        (401, HTML, Denied, "EU region"),
        (402, _error("Account does not have the abilities", 2014), Denied, "has no right"),
        (403, _error("Access Denied", 2010), Denied, "has no right"),
        (404, _error("Not Found", 2100), Missing, "no such thing"),
        (405, None, Declined, "405"),
        (408, None, Unreachable, "408"),
        (413, None, Declined, "413"),
        (302, None, Unreachable, "302"),
        (500, HTML, Unreachable, "500"),
        (502, _error("request took too long", 2016), Unreachable, "too long"),
        (503, None, Unreachable, "503"),
        (200, HTML, Unreachable, "not what PagerDuty gives"),
        (200, "", Unreachable, "not what PagerDuty gives"),
        (200, "[" * 100_000, Unreachable, "not what PagerDuty gives"),
        (200, ["x"], Unreachable, "not what PagerDuty gives"),
        (200, {"notes": {"a": 1}}, Unreachable, "not what PagerDuty gives"),
    ],
)
def test_each_answer_is_told_as_what_it_means(
    stand: StandIn, client: Client, status: int, body: Any, kind: type[ArrakisError], said: str
) -> None:
    stand.trouble("refused", status=status, body=body, headers={"location": "https://evil.test/"})
    with pytest.raises(kind) as caught:
        client.notes("Q1")
    assert type(caught.value) is kind
    assert said in f"{caught.value} {caught.value.hint}"
    assert len(stand.requests) == 1


def test_the_wrong_key_and_the_wrong_sender_are_told_apart(stand: StandIn) -> None:
    name, right = stand.add_incident(), _account(stand)
    with pytest.raises(Denied, match="key"):
        Client(replace(right, token="u+wrong")).notes(name)
    for sender in ("nobody@example.com", "nobody"):
        with pytest.raises(Denied) as caught:
            Client(replace(right, sender=sender)).add_note(name, "x")
        assert "PAGERDUTY_FROM" in caught.value.hint
    assert stand.notes(name) == []


def test_too_many_calls_are_waited_out_once(stand: StandIn, client: Client) -> None:
    name = stand.add_incident()
    headers = {"ratelimit-limit": "960", "ratelimit-remaining": "0", "ratelimit-reset": "1"}
    stand.trouble("refused", status=429, headers=headers, times=1)
    began = time.monotonic()
    client.add_note(name, "x")
    assert time.monotonic() - began >= 1
    assert (len(stand.requests), stand.notes(name)) == (2, ["x"])
    stand.trouble("refused", status=429, headers={**headers, "ratelimit-reset": "0"})
    with pytest.raises(Throttled) as caught:
        client.add_note(name, "x")
    assert "0 s" in caught.value.hint
    assert len(stand.requests) == 4


@pytest.mark.parametrize("reset", [None, "6", "999999", "-1", "soon", "1.5", "٣", "nan", ""])
def test_a_long_or_unknown_wait_is_left_to_the_operator(
    stand: StandIn, client: Client, reset: str | None
) -> None:
    headers = {} if reset is None else {"ratelimit-reset": reset.encode().decode("latin-1")}
    stand.trouble("refused", status=429, headers=headers)
    with pytest.raises(Throttled):
        client.notes("Q1")
    assert len(stand.requests) == 1


def test_an_answer_that_is_lost_is_not_asked_for_again(stand: StandIn, client: Client) -> None:
    name = stand.add_incident()
    stand.trouble("lost")
    with pytest.raises(Unreachable):
        client.add_note(name, "x")
    with pytest.raises(Unreachable):
        client.set_status(name, "resolved")
    assert [asked.method for asked in stand.requests] == ["POST", "GET"]
    stand.recover()
    assert [note.text for note in client.notes(name)] == ["x"]  # over a new connection


@pytest.mark.parametrize("kind", ["hanging", "dripping"])
def test_a_call_ends_in_time(stand: StandIn, kind: str) -> None:
    client = Client(_account(stand, timeout=0.5))
    stand.trouble(kind, times=1)
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"no answer within 0\.5 s|cannot be reached"):
        client.notes("Q1")
    assert 0.4 <= time.monotonic() - began < SOON
    with pytest.raises(Missing):  # the next call has a connection of its own
        client.notes("Q1")


def test_pages_share_the_time_of_one_call(stand: StandIn) -> None:
    client = Client(_account(stand, timeout=0.6))
    stand.add_incident(alerts=1000)
    stand.trouble("dripping", pause=0.0005)  # each page takes its time, and none too long
    began = time.monotonic()
    with pytest.raises(Unreachable):
        client.alerts("4711")
    assert time.monotonic() - began < SOON


def test_all_calls_share_a_budget(stand: StandIn) -> None:
    client = Client(_account(stand), budget=0.5)
    stand.trouble("hanging", times=1)
    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(Unreachable):
            client.notes("Q1")
    assert time.monotonic() - began < SOON
    assert len(stand.requests) == 1


def test_a_server_that_takes_no_handshake_is_left_and_sent_nothing(stand: StandIn) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"https://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(Unreachable):
            Client(replace(_account(stand, timeout=0.5), url=url)).add_note("Q1", "x")
        connection, _ = deaf.accept()
        with connection:
            connection.settimeout(20)
            received = b""
            with suppress(ConnectionResetError):
                while data := connection.recv(65_536):  # it ends: nobody is left to go on later
                    received += data
    assert received[:1] == b"\x16"  # a greeting, and no more than that
    assert stand.token.encode() not in received


def test_nobody_there_and_a_stranger_there_are_told(stand: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    right = _account(stand)
    with pytest.raises(Unreachable, match="refused"):
        Client(replace(right, url="https://127.0.0.1:1")).notes("Q1")
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(Unreachable, match="certificate"):
        Client(right).notes("Q1")
    assert stand.requests == []


def test_a_stand_in_is_not_looked_for_behind_a_proxy(stand: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    name = stand.add_incident()
    assert Client(_account(stand)).incident(name)["id"] == name


def test_the_key_is_in_no_error_and_no_log(
    stand: StandIn, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    said, right = [], _account(stand)
    echo = {"error": {"message": f"no {stand.token}", "code": 1, "errors": [stand.token]}}
    for status in (200, 302, 400, 401, 403, 404, 429, 500):
        stand.trouble("refused", status=status, body=echo, times=1)
        with pytest.raises(ArrakisError) as caught:
            Client(right).notes("Q1")
        said.append(_everything(caught.value))
    for kind in ("lost", "dropped"):
        stand.trouble(kind, times=1)
        with pytest.raises(ArrakisError) as caught:
            Client(right).add_note("Q1", "x")
        said.append(_everything(caught.value))
    printed = capfd.readouterr()
    assert "/notes" in caplog.text  # it does log
    for text in (*said, caplog.text, printed.out, printed.err, repr(right)):
        assert stand.token not in text
        assert stand.token[-4:] not in text


def test_the_official_client_says_nothing_on_the_terminal(stand: StandIn) -> None:
    for status in (401, 429, 500):
        stand.trouble("refused", status=status, times=1)
    program = (
        "import os\n"
        "from runbooks.pagerduty.account import account\n"
        "from runbooks.pagerduty.client import ArrakisError, Client\n"
        "for _ in range(3):\n"
        "    try: Client(account({}, os.environ)).notes('Q1')\n"
        "    except ArrakisError: pass\n"
    )
    environment = {**os.environ, **stand.variables}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr, len(stand.requests)) == (0, "", "", 3)


@pytest.mark.parametrize("kind", ["hanging", "dripping"])
def test_no_thread_is_left_behind(stand: StandIn, kind: str) -> None:
    before = threading.enumerate()
    stand.trouble(kind, pause=0.1)  # each byte comes before a read is given up, for minutes
    for _ in range(3):
        with pytest.raises(Unreachable):
            Client(_account(stand, timeout=0.2)).notes("Q1")
    for thread in threading.enumerate():
        if thread.name.startswith("within") and thread not in before:
            thread.join(SOON)
            assert not thread.is_alive()


def _everything(error: BaseException | None) -> str:
    """What an error says, and those behind it."""
    text = ""
    while error is not None:
        text += f"{error!r} {getattr(error, 'hint', '')} "
        error = error.__cause__ or error.__context__
    return text
