"""`invoke webhook`: an HTTP server on this host, with its queue on this disk."""

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from logging import Logger
from pathlib import Path
from typing import Any

from runbooks.pagerduty.webhook.certificates import fetch
from runbooks.pagerduty.webhook.delivery import Delivery
from runbooks.pagerduty.webhook.handler import Answer, Handler, Ports, Request
from runbooks.pagerduty.webhook.listener import Listener, listener
from runbooks.pagerduty.webhook.metrics import Metrics
from runbooks.pagerduty.webhook.queue import Queue
from runbooks.pagerduty.webhook.settings import Settings
from runbooks.pagerduty.webhook.worker import Worker
from sandbox.errors import ArrakisError, Unreachable
from sandbox.joblog import logger

__all__ = ["serve"]

_GRACE = 25.0  # seconds for what is being triaged to end; what does not is triaged again after the next start
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_PLAIN = "text/plain; charset=utf-8"
_PHRASES = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def serve(
    settings: Settings,
    triage: Callable[[Delivery], None],
    *,
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 8080,
    limit: int = 1000,
    workers: int = 1,
    ready: Callable[[str], None] = lambda _: None,
    stop: threading.Event | None = None,
    level: str = "info",
) -> None:
    """Serve until SIGTERM, Ctrl-C or `stop`; each delivery that comes in is handed to `triage`, in order.

    `limit` is how many may wait in the queue, which is in `folder`; `ready` is told the address. `triage` raising ArrakisError is
    asked again later, raising anything else is not. Raises ArrakisError where the folder or the address is not to be had.
    """
    log, ended = logger("Webhook", level=level, stream=sys.stderr), stop or threading.Event()
    with closing(Queue(folder, limit=limit, clock=_now)) as queue, _ending_calmly(ended), _heard(log):
        metrics = Metrics(queue.waiting)
        worker = Worker(queue=queue, triage=triage, log=log, stop=ended, heard=metrics.triaged)
        crew = [threading.Thread(target=worker.run, daemon=True, name="triage") for _ in range(workers)]
        ports = Ports(put=queue.put, fetch=fetch, clock=_now, log=log, kept=metrics.kept)
        listening = _listening(_Application(Handler(settings, ports), queue, metrics, crew), host, port)
        for thread in crew:
            thread.start()
        ready(f"http://{listening.effective_host}:{listening.effective_port}")
        listening.run_until(ended.is_set)
        over = time.monotonic() + _GRACE
        for thread in crew:
            thread.join(max(0.0, over - time.monotonic()))


def _listening(application: "_Application", host: str, port: int) -> Listener:
    try:
        return listener(application, host, port)
    except OSError as error:
        raise ArrakisError(
            f"{host}:{port} cannot be listened on: {error.strerror}", hint="say another --port"
        ) from error


@dataclass(frozen=True, slots=True)
class _Application:
    """What waitress calls: the handler behind WSGI, and what looks after it."""

    handler: Handler
    queue: Queue
    metrics: Metrics
    crew: list[threading.Thread]

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        began = time.monotonic()
        path = environ["PATH_INFO"]
        status, body, kind = self._answer(environ, path)
        self.metrics.answered(path, status, time.monotonic() - began)
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        start(f"{status} {_PHRASES[status]}", headers)
        return [body]

    def _answer(self, environ: dict[str, Any], path: str) -> tuple[int, bytes, str]:
        if environ["REQUEST_METHOD"] == "GET" and path in ("/healthz", "/metrics"):
            try:
                return (200, self.metrics.render(), _METRICS) if path == "/metrics" else self._health()
            except Unreachable:
                return 503, b"the queue cannot be read\n", _PLAIN
        found: Answer = self.handler.handle(
            Request(
                method=environ["REQUEST_METHOD"],
                path=path,
                headers={
                    name[5:].replace("_", "-").lower(): value
                    for name, value in environ.items()
                    if name.startswith("HTTP_")
                },
                body=environ["wsgi.input"].read(),
            )
        )
        return found.status, f"{found.text}\n".encode(), _PLAIN

    def _health(self) -> tuple[int, bytes, str]:
        self.queue.waiting()
        if all(thread.is_alive() for thread in self.crew):
            return 200, b"ok\n", _PLAIN
        return 503, b"nobody triages\n", _PLAIN


@contextmanager
def _ending_calmly(ended: threading.Event) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C set `ended`, where signals can be had: in the main thread."""
    here = threading.current_thread() is threading.main_thread()
    caught = (signal.SIGTERM, signal.SIGINT) if here else ()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _heard(log: Logger) -> Iterator[None]:
    """Let what waitress has to say come out in our log, and in its form."""
    theirs = logging.getLogger("waitress")
    before = theirs.handlers, theirs.propagate, theirs.level
    theirs.handlers, theirs.propagate = list(log.handlers), False
    theirs.setLevel(logging.ERROR)  # below that it tells of every burst
    try:
        yield
    finally:
        theirs.handlers, theirs.propagate = before[0], before[1]
        theirs.setLevel(before[2])


def _now() -> datetime:
    return datetime.now(UTC)
