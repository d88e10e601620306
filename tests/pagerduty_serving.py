"""How a stand-in for PagerDuty is served on this machine, over TLS, and what befalls a request there."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from tests.pagerduty_shapes import HOST

__all__ = ["Account", "Asked", "Refusal", "Server", "Trouble"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it came in."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Any


@dataclass(slots=True, kw_only=True)
class Trouble:
    """What befalls the next requests that fit. Kinds:

    `lost` does the work and drops the connection · `dropped` only drops it · `hanging` never answers · `late` does the work when
    `StandIn.late` is set, whoever still listens · `dripping` answers a byte at a time · `refused` answers `status`, `headers`,
    and `body` (text as it is).
    """

    kind: str
    method: str = ""
    path: str = ""  # a part of it
    times: int = 1_000_000
    pause: float = 0.05  # seconds between two bytes
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str, code: int, *errors: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "code": code, **({"errors": errors} if errors else {})}}


class Account(Protocol):
    """What is served."""

    closing: threading.Event
    late: threading.Event

    def take(self, asked: Asked) -> Trouble | None:
        """Note a request, and return what is to befall it."""

    def answer(self, asked: Asked) -> tuple[int, Any]:
        """Do what is asked. Raises Refusal."""


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that its end waits for all of them

    def __init__(self, account: Account, context: ssl.SSLContext) -> None:
        super().__init__((HOST, 0), _Handler)
        self.account, self._context = account, context
        self._open: set[socket.socket] = set()
        self._serving = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._serving.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        plain, address = super().get_request()
        wrapped = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self._open.add(wrapped)
        return wrapped, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up, or does not trust the certificate, is no news."""

    def end(self) -> None:
        self.shutdown()
        for each in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def _serve(self) -> None:
        account, asked = self.server.account, self._asked()
        trouble = account.take(asked)
        kind = trouble.kind if trouble else ""
        if trouble and kind == "refused":
            self._send(trouble.status, trouble.body, trouble.headers)
            return
        if kind == "hanging":
            account.closing.wait()
        if kind in ("hanging", "dropped"):
            self._hang_up()
            return
        if kind == "late":
            account.late.wait()
        try:
            status, body = account.answer(asked)
        except Refusal as refusal:
            status, body = refusal.status, refusal.body
        if kind == "lost":
            self._hang_up()
            return
        self._send(status, body, {}, trouble.pause if trouble and kind == "dripping" else None)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _asked(self) -> Asked:
        parts = urlsplit(self.path)
        data = self.rfile.read(int(self.headers.get("content-length", 0)))
        return Asked(
            method=self.command,
            path=parts.path,
            query=parse_qs(parts.query),
            headers={key.lower(): value for key, value in self.headers.items()},
            body=json.loads(data) if data else None,
        )

    def _send(self, status: int, body: Any, headers: Mapping[str, str], pause: float | None = None) -> None:
        data = body.encode() if isinstance(body, str) else b"" if body is None else json.dumps(body).encode()
        lines = [
            f"HTTP/1.1 {status} Answer",
            "content-type: application/json",
            f"content-length: {len(data)}",
        ]
        lines += [f"{key}: {value}" for key, value in {"x-request-id": "canary", **headers}.items()]
        whole = "\r\n".join([*lines, "", ""]).encode() + data
        if pause is None:
            self.wfile.write(whole)
            return
        for byte in whole:
            self.wfile.write(bytes([byte]))
            if self.server.account.closing.wait(pause):
                return

    def _hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
