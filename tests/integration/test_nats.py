"""Reaching NATS: dead, hanging and forbidding servers, TLS, and a cluster of three."""

import asyncio
import contextlib
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import nats
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from nats.aio.client import Client
from nats.aio.msg import Msg

from lab import binaries
from lab.processes import HOST, free_ports, spawn, talk
from sandbox.adapters.nats import Nats
from sandbox.errors import ArrakisError, Denied, Unreachable
from sandbox.streams import (
    Condition,
    Config,
    check,
    ensure,
    expected_consumers,
    expected_streams,
    publish,
    read,
)
from tests.integration.messaging import by_hand
from tests.integration.natscluster import Nodes, cluster
from tests.waiting import eventually

T = TypeVar("T")
SANDBOX, EVENTS = expected_streams()
WORKERS, ROUTER = expected_consumers()
ALL = (SANDBOX, EVENTS, WORKERS, ROUTER)
TRIPLE: tuple[Config, ...] = (*expected_streams(3), WORKERS, ROUTER)
SOON = 1.5  # seconds; without a deadline of its own the adapter would wait for ten


CALLS: list[Callable[[Nats], object]] = [
    lambda system: system.stream("SANDBOX"),
    lambda system: system.consumer("SANDBOX", "sandbox-consumer"),
    lambda system: read(system, uuid4()),
    lambda system: publish(system, uuid4(), "message", b"{}"),
    lambda system: ensure(system, ALL),
    lambda system: system.subscriptions(),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("hangs", [False, True], ids=["dead", "hanging"])
def test_a_dead_or_hanging_server_costs_no_more_than_the_timeout(
    hangs: bool, call: Callable[[Nats], object]
) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        if hangs:
            taken.listen(8)
        port = taken.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(Unreachable, match=f"NATS at {HOST}:{port}") as unreachable:
            call(Nats(f"nats://user:hunter2@{HOST}:{port}", timeout=0.4))
        assert time.monotonic() - started < 0.4 + SOON
        assert "hunter2" not in str(unreachable.value)


def test_a_dead_server_says_why_without_waiting_for_the_timeout() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port = taken.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(Unreachable, match="Connect call failed"):
            Nats(f"nats://{HOST}:{port},nats://{HOST}:{port}", timeout=30).stream("SANDBOX")
        assert time.monotonic() - started < SOON


def test_a_server_of_several_that_hangs_does_not_hide_the_others(guarded: int) -> None:
    living = f"nats://all:hunter2@{HOST}:{guarded}"
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen(8)
        hanging = f"nats://{HOST}:{taken.getsockname()[1]}"
        assert Nats(f"{hanging},{living}", timeout=2).stream("SANDBOX")


@contextlib.contextmanager
def server(folder: Path, config: str, *, port: int | None = None, jetstream: bool = True) -> Iterator[int]:
    """A server of the newest kind with a configuration of its own; yields its port."""
    port = port or free_ports(1)[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nats.conf").write_text(config)
    argv = [binaries.nats(), "-c", folder / "nats.conf", "-a", HOST, "-p", port]
    argv += ["-js", "-sd", folder / "data"] * jetstream
    process = spawn(argv, log=folder / "nats.log")
    try:
        eventually(lambda: talk(int(port)).startswith(b"INFO "))
        yield port
    finally:
        process.kill()
        process.wait()


USERS = """
authorization { users = [
  { user: all, password: hunter2 }
  { user: some, password: hunter2, permissions: {
      publish: ["_INBOX.>", "$JS.API.STREAM.INFO.*"], subscribe: "_INBOX.>" } }
] }
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with server(tmp_path_factory.mktemp("guarded"), USERS) as port:
        ensure(Nats(f"nats://all:hunter2@{HOST}:{port}"), [SANDBOX, WORKERS])
        yield port


def test_without_jetstream_nothing_is_known(tmp_path: Path) -> None:
    with server(tmp_path, "", jetstream=False) as port:
        reader = Nats(f"nats://{HOST}:{port}")
        started = time.monotonic()
        with pytest.raises(Unreachable, match="JetStream does not answer"):
            check(reader, ALL)
        assert time.monotonic() - started < SOON

        async def impostor(client: Client) -> None:
            async def hello(message: Msg) -> None:
                await message.respond(b"hello")

            await client.subscribe("$JS.API.STREAM.INFO.SANDBOX", cb=hello)
            await client.flush()
            with pytest.raises(ArrakisError, match="somebody else than JetStream answered"):
                await asyncio.to_thread(check, reader, ALL)

        by_hand(f"nats://{HOST}:{port}", impostor)


SILENT = {"consumers": [{"name": "one", "config": {}}], "missing": ["another"], "total": 2}
LED = {
    "name": "SANDBOX",
    "subjects": ["sandbox.>"],
    "retention": "limits",
    "storage": "memory",
    "max_age": 0,
    "max_msgs": -1,
}
THERE = {
    "config": {**LED, "num_replicas": 3},
    "state": {"messages": 0, "bytes": 0, "first_seq": 0, "last_seq": 0},
    "cluster": {},
}


def test_what_a_cluster_cannot_tell_while_it_elects_is_unknown_not_missing(tmp_path: Path) -> None:
    """It says of some consumers only that it knows them, and of a stream that it is there; nobody takes what is published."""
    with server(tmp_path, "", jetstream=False) as port:
        system = Nats(f"nats://{HOST}:{port}", timeout=2)

        async def electing(client: Client) -> None:
            for subject, said in (("CONSUMER.LIST.SANDBOX", SILENT), ("STREAM.INFO.SANDBOX", THERE)):

                async def answer(message: Msg, said: object = said) -> None:
                    await message.respond(json.dumps(said).encode())

                await client.subscribe(f"$JS.API.{subject}", cb=answer)
            await client.flush()
            with pytest.raises(Unreachable, match="no server leads consumers of SANDBOX: another just now"):
                await asyncio.to_thread(system.subscriptions)
            with pytest.raises(Unreachable, match="no server leads stream SANDBOX just now"):
                await asyncio.to_thread(publish, system, uuid4(), "message", b"{}")

        by_hand(f"nats://{HOST}:{port}", electing)


def test_a_wrong_password_is_denied(guarded: int) -> None:
    with pytest.raises(Denied, match="Authorization Violation") as denied:
        Nats(f"nats://all:wrong-one@{HOST}:{guarded}").stream("SANDBOX")
    assert "wrong-one" not in str(denied.value)


@pytest.mark.parametrize(
    "call", [call for number, call in enumerate(CALLS) if number], ids=[str(n) for n in range(1, len(CALLS))]
)
def test_what_a_user_may_not_is_denied_at_once(guarded: int, call: Callable[[Nats], object]) -> None:
    user = Nats(f"nats://some:hunter2@{HOST}:{guarded}")
    assert user.stream("SANDBOX") is not None
    started = time.monotonic()
    with pytest.raises(Denied, match=r"(?i)permissions violation"):
        call(user)
    assert time.monotonic() - started < SOON


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority's ca.pem and a server's cert.pem and key.pem that it signed."""
    folder = tmp_path_factory.mktemp("authority")
    ca_key, ca = certificate("ca")
    key, signed = certificate(HOST, (ca_key, ca))
    for name, one in (("ca.pem", ca), ("cert.pem", signed)):
        (folder / name).write_bytes(one.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
Signed = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]


def certificate(name: str, by: Signed | None = None) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, issuer = (by[0], by[1].subject) if by else (key, subject)
    now = datetime.now(UTC)
    unsigned = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if not by:  # Python 3.13 asks for it
        signs = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
        unsigned = unsigned.add_extension(x509.KeyUsage(**signs), critical=True)
    if by:
        host = x509.IPAddress(ipaddress.ip_address(name))
        unsigned = unsigned.add_extension(x509.SubjectAlternativeName([host]), critical=False)
    return key, unsigned.sign(signer, hashes.SHA256())


@pytest.fixture(scope="module")
def encrypted(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    files = f'tls {{ cert_file: "{authority}/cert.pem", key_file: "{authority}/key.pem" }}'
    with server(tmp_path_factory.mktemp("encrypted"), files) as port:
        yield port


@pytest.mark.parametrize("scheme", ["tls", "nats"])
def test_a_server_is_trusted_through_its_authority(encrypted: int, authority: Path, scheme: str) -> None:
    writer = Nats(f"{scheme}://{HOST}:{encrypted}", tls_ca=authority / "ca.pem")
    ensure(writer, [SANDBOX])
    sandbox = uuid4()
    publish(writer, sandbox, "message", b"{}")
    assert [each.data for each in read(writer, sandbox)] == [b"{}"]


@pytest.mark.parametrize("scheme", ["tls", "nats"])
def test_a_server_nobody_vouches_for_is_not_spoken_to(encrypted: int, scheme: str) -> None:
    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        Nats(f"{scheme}://{HOST}:{encrypted}").stream("SANDBOX")


@pytest.mark.parametrize("content", [None, b"", b"no certificate"], ids=["missing", "empty", "garbage"])
def test_an_unusable_authority_is_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ArrakisError, match=r"NATS_TLS_CA: cannot use .*ca\.pem") as refused:
        Nats("tls://nats.example:4222", tls_ca=str(file)).stream("SANDBOX")
    assert not isinstance(refused.value, Unreachable)
    assert "PEM file" in refused.value.hint


def test_no_password_travels_unencrypted_where_tls_was_asked_for() -> None:
    """Somebody in between who hides that the server wants TLS gets nothing."""
    got: list[bytes] = []
    with socket.create_server((HOST, 0)) as listener:

        def in_between() -> None:
            listener.settimeout(5)
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(b"INFO " + json.dumps({"version": "2.10.0"}).encode() + b"\r\n")
                        connection.settimeout(2)
                        got.append(connection.recv(4096))

        thread = threading.Thread(target=in_between)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(Unreachable, match="secure connection not available"):
            Nats(f"tls://user:hunter2@{HOST}:{port}").stream("SANDBOX")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert got
    assert not any(got), "the client said something in the clear"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three servers that hold the streams three times over."""
    with cluster(tmp_path_factory.mktemp("cluster")) as started:
        # What is asked before the servers have elected one is never answered.
        eventually(lambda: ensured(Nats(started.url, timeout=1), TRIPLE))
        yield started


def test_three_replicas_are_made_counted_and_led(nodes: Nodes) -> None:
    writer = Nats(nodes.url)
    assert {each.condition for each in check(writer, TRIPLE)} == {Condition.AS_EXPECTED}
    eventually(lambda: copies(writer) == 3)
    state = writer.stream("SANDBOX")
    assert state is not None
    assert state.leader in {each.name for each in nodes.members}
    sandbox = uuid4()
    publish(writer, sandbox, "message", b"{}")
    assert len(read(writer, sandbox)) == 1


def test_who_listens_is_asked_of_every_server(nodes: Nodes) -> None:
    subject = f"sandbox.{uuid4()}.>"

    async def listen() -> set[str]:
        async with contextlib.AsyncExitStack() as open_clients:
            for each in nodes.members:
                client = await nats.connect(each.url, name=f"at {each.name}")
                open_clients.push_async_callback(client.close)
                await client.subscribe(subject)
                await client.flush()
            found = await asyncio.to_thread(Nats(nodes.members[0].url).subscriptions)
        return {each.client for each in found if each.subject == subject}

    assert asyncio.run(listen()) == {f"at {each.name}" for each in nodes.members}


@pytest.mark.soak
def test_a_copy_that_is_lost_is_not_counted(nodes: Nodes) -> None:
    writer = Nats(nodes.url)
    eventually(lambda: copies(writer) == 3)
    state = writer.stream("SANDBOX")
    assert state is not None
    next(each for each in nodes.members if each.name != state.leader).kill()
    eventually(lambda: copies(writer) == 2, seconds=30)


def ensured(writer: Nats, expected: tuple[Config, ...]) -> bool:
    """Whether it could be made: a cluster that has not elected its leader yet says so, or nothing."""
    try:
        ensure(writer, expected)
    except ArrakisError:
        return False
    return True


def copies(writer: Nats) -> int | None:
    try:
        state = writer.stream("SANDBOX")
    except Unreachable:
        return None
    return state.replicas_current if state else None
