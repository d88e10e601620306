"""The webhook over real sockets, in a process of its own."""

import http.client
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from runbooks.pagerduty.webhook import server
from runbooks.pagerduty.webhook.handler import LARGEST, Request
from sandbox.errors import ArrakisError
from tests.integration.webhooks import Server, now, running
from tests.unit.webhooks import (
    ACTION_SECRET,
    EVENT_SECRET,
    SECRET,
    SECRETS,
    SETTINGS,
    encoded,
    event,
    notification,
    pressed,
    sealed,
    signature,
    signed,
    webhook,
    with_secret,
)
from tests.waiting import eventually


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for tests that leave it as it was, but for new keys."""
    with running(tmp_path_factory.mktemp("webhook")) as found:
        yield found


def _fresh(identity: str) -> Request:
    return signed(webhook(identity, at=now()))


def _raw(request: Request, *, length: int | None = None) -> bytes:
    lines = [f"{request.method} {request.path} HTTP/1.1", "host: localhost"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    lines.append(f"content-length: {len(request.body) if length is None else length}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + request.body


def _status(connection: socket.socket) -> int:
    """Return the status that comes, or 0 where the connection ends without one."""
    try:
        data = b""
        while b"\r\n" not in data:
            if not (more := connection.recv(4096)):
                return 0
            data += more
    except ConnectionError:
        return 0
    return int(data.split()[1])


# ---------------------------------------------------------------- what it answers


def test_a_signed_webhook_is_triaged(shared: Server) -> None:
    assert shared.send(_fresh("triaged")) == 202
    eventually(lambda: "pagerduty:triaged" in shared.triaged)


def test_the_button_and_eventbridge_come_in_by_the_same_door(shared: Server) -> None:
    assert shared.send(with_secret("/action", pressed("button"), ACTION_SECRET)) == 202
    assert shared.send(with_secret("/events", event("bridge"), EVENT_SECRET)) == 202
    eventually(lambda: {"action:button", "event:bridge"} <= set(shared.triaged))


def test_it_says_that_it_is_well_and_counts(shared: Server) -> None:
    assert shared.get("/healthz") == (200, "ok\n")
    before = shared.metric('arrakis_webhook_requests_total{path="/pagerduty",status="403"}')
    assert shared.send(replace(_fresh("x"), headers={})) == 403
    assert shared.metric('arrakis_webhook_requests_total{path="/pagerduty",status="403"}') == before + 1
    assert shared.metric("arrakis_webhook_queue_depth") == 0
    for path in ("/a", "/b", "/c"):
        assert shared.get(path)[0] == 404
    assert 'path="other",status="404"' in shared.get("/metrics")[1]
    assert "/b" not in shared.get("/metrics")[1]


def test_a_chunked_body_is_read_whole(shared: Server) -> None:
    request = _fresh("chunked")
    connection = http.client.HTTPConnection(*shared.address, timeout=30)
    chunks = [request.body[at : at + 7] for at in range(0, len(request.body), 7)]
    connection.request("POST", "/pagerduty", iter(chunks), dict(request.headers), encode_chunked=True)
    assert connection.getresponse().status == 202
    connection.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(shared: Server, chunked: bool) -> None:
    with shared.connect() as connection:
        head = "transfer-encoding: chunked" if chunked else f"content-length: {LARGEST + 1}"
        connection.sendall(f"POST /pagerduty HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n".encode())
        if chunked:
            connection.sendall(f"{LARGEST + 1:x}\r\n".encode() + b"x" * (LARGEST + 1))
        assert _status(connection) == 413


def test_a_body_of_the_largest_size_is_read(shared: Server) -> None:
    body = encoded(webhook("largest", at=now()))
    assert shared.send(signed(body + b" " * (LARGEST - len(body)))) == 202


def test_another_address_in_use_is_said_so(shared: Server, tmp_path: Path) -> None:
    with pytest.raises(ArrakisError, match="cannot be listened on"):
        server.serve(SETTINGS, print, folder=tmp_path, port=shared.address[1])
    with pytest.raises(ArrakisError, match="another webhook"):
        server.serve(SETTINGS, print, folder=shared.folder / "queue", port=0)


def test_in_a_thread_it_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    addresses: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    def told(url: str) -> None:
        addresses.append(url)
        ready.set()

    thread = threading.Thread(
        target=lambda: server.serve(SETTINGS, print, folder=tmp_path, port=0, ready=told, stop=stop)
    )
    thread.start()
    assert ready.wait(30)
    assert addresses[0].startswith("http://127.0.0.1:")
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


# ---------------------------------------------------------------- slow, crowded


@pytest.mark.soak
def test_requests_that_drip_hold_nobody_up_and_are_cut_off(shared: Server) -> None:
    """Forty of them, more than it has threads."""
    dripping = [shared.connect() for _ in range(40)]
    whole = _raw(_fresh("dripped"))
    for connection in dripping:
        connection.sendall(whole[:40])
    began = time.monotonic()
    for number in range(5):
        assert shared.send(_fresh(f"beside {number}".replace(" ", "-"))) == 202
    assert time.monotonic() - began < 5
    at = 40
    open_ = list(dripping)
    while open_:  # a byte now and then does not help
        assert time.monotonic() - began < 30, "they are let drip for ever"
        open_ = [connection for connection in open_ if _drips(connection, whole[at : at + 1])]
        at += 1
        time.sleep(0.25)
    for connection in dripping:
        connection.close()
    assert "pagerduty:dripped" not in shared.triaged


def _drips(connection: socket.socket, byte: bytes) -> bool:
    """Send another byte; return whether the other side still listens."""
    try:
        connection.sendall(byte)
        connection.setblocking(False)
        return connection.recv(1) != b""
    except BlockingIOError:
        connection.setblocking(True)
        return True
    except ConnectionError:
        return False


def test_a_crowd_of_idle_connections_makes_room_for_one_that_asks(shared: Server) -> None:
    """More than it lets be open."""
    idle: list[socket.socket] = []
    try:
        for number in range(120):
            idle.append(shared.connect())
            if number % 20 == 19:
                with shared.connect() as connection:
                    connection.sendall(_raw(_fresh(f"crowd-{number}")))
                    assert _status(connection) == 202
    finally:
        for connection in idle:
            connection.close()


# ---------------------------------------------------------------- duplicates, bursts, crashes


def _duplicates(server: Server, count: int) -> None:
    request = _fresh("again-and-again")
    raw = _raw(request)

    def send(times: int) -> Counter[int]:
        found: Counter[int] = Counter()
        with server.connect() as connection:
            for _ in range(times):
                connection.sendall(raw)
                found[_whole_status(connection)] += 1
        return found

    with ThreadPoolExecutor(8) as pool:
        statuses = sum(pool.map(send, [count // 8] * 8), Counter())
    assert statuses == {202: count}
    assert server.send(_fresh("last")) == 202
    eventually(lambda: "pagerduty:last" in server.triaged)
    assert server.triaged.count("pagerduty:again-and-again") == 1
    assert server.metric('arrakis_webhook_deliveries_total{outcome="duplicate"}') == count - 1


def _whole_status(connection: socket.socket) -> int:
    """Read one answer to its end, so that the next can be told from it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(4096)
        assert more, "the connection ended"
        data += more
    head, rest = data.split(b"\r\n\r\n", 1)
    length = next(
        int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")
    )
    while len(rest) < length:
        rest += connection.recv(4096)
    return int(head.split()[1])


def test_duplicates_give_one_triage(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        _duplicates(server, 400)


@pytest.mark.soak
def test_ten_thousand_duplicates_give_one_triage(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        _duplicates(server, 10_000)


@pytest.mark.soak
def test_a_duplicate_is_known_after_a_restart(tmp_path: Path) -> None:
    request = _fresh("before")
    with running(tmp_path) as server:
        assert server.send(request) == 202
        eventually(lambda: server.triaged == ["pagerduty:before"])
        assert server.end() == 0
    with running(tmp_path) as server:
        assert server.send(request) == 202
        assert server.send(_fresh("after")) == 202
        eventually(lambda: "pagerduty:after" in server.triaged)
        assert server.triaged == ["pagerduty:before", "pagerduty:after"]


def test_a_replay_under_another_header_is_still_a_duplicate(tmp_path: Path) -> None:
    """x-webhook-id is not signed, so that it says nothing."""
    request = _fresh("signed")
    with running(tmp_path) as server:
        for name in ("first", "second"):
            assert server.send(replace(request, headers={**request.headers, "x-webhook-id": name})) == 202
        assert server.send(_fresh("last")) == 202
        eventually(lambda: "pagerduty:last" in server.triaged)
        assert server.triaged == ["pagerduty:signed", "pagerduty:last"]


def test_a_burst_is_answered_at_once_and_none_is_lost_though_it_is_killed(tmp_path: Path) -> None:
    """Five hundred different ones; killed when some are triaged, others wait, and others are still to be sent."""
    requests = {f"pagerduty:burst-{number}": _fresh(f"burst-{number}") for number in range(500)}
    answered: dict[str, float] = {}
    with running(tmp_path) as server:

        def send(key: str) -> None:
            began = time.monotonic()
            with server.connect() as connection:
                connection.sendall(_raw(requests[key]))
                if _status(connection) == 202:
                    answered[key] = time.monotonic() - began

        with ThreadPoolExecutor(16) as pool:
            sent = [pool.submit(send, key) for key in requests]
            eventually(lambda: len(answered) > 250)
            server.kill()
            for each in sent:
                if each.exception():  # the connection was refused: it is sent again below
                    assert isinstance(each.exception(), OSError)
    assert 250 < len(answered) < 500
    quickest = sorted(answered.values())
    assert quickest[len(quickest) * 9 // 10] < 1
    assert quickest[-1] < 5  # PagerDuty waits no longer; a test's machine may be busy
    with running(tmp_path) as server:
        lost = [key for key in requests if key not in answered]
        assert {server.send(requests[key]) for key in lost} == {202}
        eventually(lambda: set(server.triaged) == set(requests))
        twice = [key for key, times in Counter(server.triaged).items() if times > 1]
        assert len(twice) <= 1  # what was in hand when it died


def test_a_full_queue_says_so_and_loses_nothing(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with running(tmp_path, limit=5, gate=gate) as server:
        statuses = [server.send(_fresh(f"full-{number}")) for number in range(8)]
        assert statuses == [202] * 5 + [503] * 3
        assert server.metric('arrakis_webhook_deliveries_total{outcome="full"}') == 3
        assert server.metric("arrakis_webhook_queue_depth") == 5
        gate.touch()
        eventually(lambda: len(server.triaged) == 5)
        eventually(lambda: server.metric("arrakis_webhook_queue_depth") == 0)
        assert server.send(_fresh("full-5")) == 202
        eventually(lambda: "pagerduty:full-5" in server.triaged)


def test_what_was_in_hand_when_it_was_killed_is_triaged_after_the_next_start(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with running(tmp_path, gate=gate) as server:
        assert server.send(_fresh("in-hand")) == 202
        assert server.send(_fresh("behind-it")) == 202
        eventually((tmp_path / "begun").exists)
        server.kill()
        assert not server.triaged
    gate.touch()
    with running(tmp_path, gate=gate) as server:
        eventually(lambda: len(server.triaged) == 2)
        assert server.triaged == ["pagerduty:in-hand", "pagerduty:behind-it"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.soak
def test_it_ends_calmly_with_what_is_in_hand(tmp_path: Path, number: signal.Signals) -> None:
    gate = tmp_path / "gate"
    with running(tmp_path, gate=gate) as server:
        assert server.send(_fresh("in-hand")) == 202
        eventually((tmp_path / "begun").exists)
        server.process.send_signal(number)
        gate.touch()
        assert server.process.wait(30) == 0
        assert server.triaged == ["pagerduty:in-hand"]
        assert "Traceback" not in server.log.read_text()


# ---------------------------------------------------------------- ten thousand bad ones


def _bad(chance: random.Random, number: int) -> bytes:
    """Return a request that must not be taken, in one of many ways, as the bytes of a connection of its own."""
    good = chance.choice(
        [
            _fresh(f"bad-{number}"),
            with_secret("/action", pressed(f"bad-{number}"), ACTION_SECRET),
            with_secret("/events", event(f"bad-{number}"), EVENT_SECRET),
            sealed(notification("{}", f"bad-{number}")),  # of another year, with nobody to fetch from
        ]
    )
    whole = _raw(good)
    headless = replace(good, headers={})
    ways: list[Callable[[], bytes]] = [
        lambda: _raw(headless),
        lambda: _raw(replace(headless, headers={"x-pagerduty-signature": signature(good.body, "x" * 20)})),
        lambda: _raw(replace(headless, headers={"x-arrakis-secret": chance.choice(SECRETS)[:-1]})),
        lambda: _raw(replace(headless, headers={"x-pagerduty-signature": "v1=" + "é" * 64})),
        lambda: _raw(replace(good, body=_flipped(chance, good.body), headers=_unsecret(good))),
        lambda: whole[: chance.randrange(1, len(whole))],
        lambda: _raw(good, length=len(good.body) + 1 + chance.randrange(1000)),
        lambda: _raw(signed(_odd(chance))),
        lambda: _raw(with_secret("/action", _odd(chance), ACTION_SECRET)),
        lambda: _raw(with_secret("/events", _odd(chance), EVENT_SECRET)),
        lambda: _raw(Request(method="POST", path="/sns", headers={}, body=_odd(chance))),
        lambda: _raw(replace(good, method=chance.choice(["GET", "PUT", "PATCH", "BREW"]))),
        lambda: _raw(replace(good, path=chance.choice(["/", "/apply", "/../pagerduty", "/pagerduty/x"]))),
        lambda: whole.replace(b"content-length: ", b"content-length: -", 1),
        lambda: whole.replace(b"content-length: ", b"content-length: 9999999", 1),
        lambda: whole.replace(b"content-length: ", b"transfer-encoding: chunked\r\nx: ", 1),
        lambda: whole.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\n" + b"x" * 20_000 + b": y\r\n", 1),
        lambda: chance.randbytes(chance.randrange(1, 400)),
    ]
    return chance.choice(ways)()


def _unsecret(request: Request) -> dict[str, str]:
    """Return headers that were right for the body before it was changed; a shared secret is right for any."""
    return {name: value for name, value in request.headers.items() if name != "x-arrakis-secret"}


def _flipped(chance: random.Random, body: bytes) -> bytes:
    at = chance.randrange(len(body))
    return body[:at] + bytes([body[at] ^ (1 << chance.randrange(8))]) + body[at + 1 :]


def _odd(chance: random.Random) -> bytes:
    """Return a body of which nothing can be made, though its sender is known."""
    odd: list[object] = [None, 7, -1e308, "", "x" * 300, "a\x00b", "\u202e", [], {}, [[]], {"id": {}}, True]
    ways: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: chance.randbytes(chance.randrange(300)),
        lambda: b"[" * chance.randrange(200_000),
        lambda: encoded(chance.choice(odd)),
        lambda: encoded({"event": chance.choice(odd)}),
        lambda: encoded({"event": {"event_type": "incident.triggered", "id": chance.choice(odd)}}),
        lambda: encoded({"messages": [chance.choice([{"event": "incident.custom"}, 7, None, []])]}),
        lambda: encoded({"source": "aws.cloudwatch", "detail-type": "CloudWatch Alarm State Change"}),
        lambda: encoded(webhook("odd", data=chance.choice(odd))).decode().encode("utf-16"),
        lambda: encoded(webhook("odd", at=now(), incident=chance.choice(["../x", "", "ä", "x" * 99]))),
    ]
    return chance.choice(ways)()


def _attack(server: Server, count: int, seed: int) -> None:
    def send(part: int) -> Counter[int]:
        chance, found = random.Random(f"{seed} {part}"), Counter[int]()
        for number in range(count // 8):
            with server.connect() as connection:
                try:
                    connection.sendall(_bad(chance, number))
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # it has heard enough, and is gone
                found[_status(connection)] += 1
        return found

    with ThreadPoolExecutor(8) as pool:
        statuses = sum(pool.map(send, range(8)), Counter())
    assert set(statuses) <= {0, 202, 400, 403, 404, 405, 411, 413, 414, 431, 501, 503}, statuses
    assert statuses[403] > count / 20
    assert statuses[400] > count / 20


def _attacked(tmp_path: Path, *, first: int, then: int, seed: int) -> None:
    with running(tmp_path) as server:
        _attack(server, first, seed)
        before = server.memory()
        _attack(server, then, seed + 1)
        assert server.memory() < before + 8 * 1024
        assert server.get("/healthz")[0] == 200
        assert server.metric('arrakis_webhook_deliveries_total{outcome="accepted"}') == 0
        assert server.send(_fresh("good")) == 202
        eventually(lambda: server.triaged == ["pagerduty:good"])
        assert server.end() == 0
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert "Request failed" not in log
    assert not [secret for secret in SECRETS if secret in log]


def test_bad_requests_are_not_taken_and_break_nothing(tmp_path: Path) -> None:
    _attacked(tmp_path, first=400, then=800, seed=1)


@pytest.mark.soak
def test_ten_thousand_bad_requests_are_not_taken_and_the_memory_stays_flat(tmp_path: Path) -> None:
    _attacked(tmp_path, first=2_000, then=10_000, seed=time.time_ns())


# ---------------------------------------------------------------- canaries


def test_no_secret_is_in_any_log_metric_or_file(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        for request in (
            _fresh("canary"),
            with_secret("/action", pressed("canary"), ACTION_SECRET),
            with_secret("/events", event("canary"), EVENT_SECRET),
            signed(SECRET.encode()),
            with_secret("/action", {"messages": ACTION_SECRET}, ACTION_SECRET),
            with_secret("/nowhere", {}, EVENT_SECRET),
        ):
            server.send(request)
        eventually(lambda: len(server.triaged) == 3)
        told = server.get("/metrics")[1]
        assert server.end() == 0
    log = (tmp_path / "log").read_text()
    files = b"".join(file.read_bytes() for file in (tmp_path / "queue").iterdir())
    assert "pagerduty:canary" in log
    assert b"pagerduty:canary" in files
    for secret in SECRETS:
        assert secret not in told + log
        assert secret.encode() not in files
