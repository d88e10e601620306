"""What is fetched from SNS, from a stand-in for it on the loopback, over TLS."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from runbooks.pagerduty.webhook import certificates
from runbooks.pagerduty.webhook.certificates import fetch
from sandbox.errors import Unreachable
from tests.unit.webhooks import certificate, key

CERTIFICATE = certificate(key())


class _Sns(BaseHTTPRequestHandler):
    """Answers by the path: /good, /moved, /large, /silent, /drips, /broken, /missing."""

    over = threading.Event()

    def do_GET(self) -> None:
        name = self.path.split("/")[-1]
        if name == "moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
        elif name in ("good", "large", "silent", "drips"):
            self._answer(name)
        elif name == "broken":
            self.wfile.write(b"no HTTP at all")
        else:
            self.send_error(404)

    def _answer(self, name: str) -> None:
        if name == "silent":
            self.over.wait(20)
        body = CERTIFICATE if name != "large" else b"x" * 100_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        step = 1 if name == "drips" else len(body)
        for at in range(0, len(body), step):
            self.wfile.write(body[at : at + step])
            if name == "drips" and self.over.wait(0.1):
                return

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """The other side went away, as it should."""


def _identity(folder: Path) -> Path:
    """Return a file with a key and a certificate for 127.0.0.1."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key("tls").public_key())
        .serial_number(2)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key("tls"), hashes.SHA256())
    )
    file = folder / "identity.pem"
    secret = key("tls").private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return file


@contextmanager
def _serving(identity: Path) -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), _Sns)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        _Sns.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _identity(tmp_path_factory.mktemp("identity"))


@pytest.fixture(scope="module")
def stand_in(identity: Path) -> Iterator[str]:
    with _serving(identity) as url:
        yield url


@pytest.fixture(scope="module")
def trust(identity: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(identity))


@pytest.fixture(autouse=True)
def _directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever proxy this host has is not for the loopback."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_what_is_there_is_returned(stand_in: str, trust: ssl.SSLContext) -> None:
    assert fetch(f"{stand_in}/good", trust=trust) == CERTIFICATE


@pytest.mark.parametrize(
    ("name", "said"),
    [("moved", "302"), ("missing", "404"), ("large", "too large"), ("broken", "cannot be reached")],
)
def test_anything_else_is_not(stand_in: str, trust: ssl.SSLContext, name: str, said: str) -> None:
    with pytest.raises(Unreachable, match=said):
        fetch(f"{stand_in}/{name}", trust=trust)


@pytest.mark.parametrize("name", ["silent", "drips"])
def test_it_waits_for_a_while_and_no_longer(
    stand_in: str, trust: ssl.SSLContext, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert certificates._SECONDS == 3
    monkeypatch.setattr(certificates, "_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        fetch(f"{stand_in}/{name}", trust=trust)
    assert 0.4 < time.monotonic() - began < 3


def test_a_stranger_with_a_certificate_of_his_own_is_not_believed(stand_in: str) -> None:
    with pytest.raises(Unreachable, match="cannot be reached"):
        fetch(f"{stand_in}/good")


def test_nobody_there_is_said_so() -> None:
    with pytest.raises(Unreachable, match="cannot be reached"):
        fetch("https://127.0.0.1:1/good")
