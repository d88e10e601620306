"""waitress, with a bound on how long a request may take to arrive, and on who may crowd out whom.

By itself it closes a connection that is silent; one that drips a byte now and then would stay, and enough of them would keep all
others out.
"""

import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from waitress.adjustments import Adjustments  # type: ignore[import-untyped]
from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.server import TcpWSGIServer  # type: ignore[import-untyped]

from runbooks.pagerduty.webhook.handler import LARGEST

__all__ = ["Listener", "listener"]

_ARRIVAL = 10.0  # seconds for a whole request
_SILENCE = 75  # seconds without any; proxies keep theirs open for 60
# Connections: from how many on each new one costs another its place, and when no more are taken.
_CROWD, _MOST = 150, 200
_THREADS = 8
_HEADERS = 16 * 1024
_IN_MEMORY = 64 * 1024  # bytes of a body; the rest of a larger one is on disk until it is whole


class _Connection(HTTPChannel):  # type: ignore[misc]
    """A connection that knows since when its request has been arriving."""

    begun: float | None = None

    def handle_read(self) -> None:
        """Read what has come."""
        super().handle_read()
        if self.request is None:
            self.begun = None
        elif self.begun is None:
            self.begun = time.time()  # waitress' own clock

    @property
    def idle(self) -> bool:
        """Whether no request of it is being answered."""
        return not self.requests and not self.will_close

    @property
    def since(self) -> float:
        """Return since when it has been idle, or its request arriving."""
        return float(self.begun or self.last_activity)


class Listener(TcpWSGIServer):  # type: ignore[misc]
    """The socket that is listened on, and its loop."""

    channel_class = _Connection

    def maintenance(self, now: float) -> None:
        """Close what is silent, and what drips."""
        super().maintenance(now)
        for connection in list(self.active_channels.values()):
            if connection.idle and connection.begun is not None and now - connection.begun > _ARRIVAL:
                connection.will_close = True

    def handle_accept(self) -> None:
        """Let one in; where it is crowded, another has to go."""
        super().handle_accept()
        if len(self.active_channels) > _CROWD:
            idle = [connection for connection in self.active_channels.values() if connection.idle]
            if idle:
                min(idle, key=lambda connection: connection.since).will_close = True

    def run_until(self, ended: Callable[[], bool]) -> None:
        """Serve until `ended()`, which is asked each second; then answer what was begun."""
        while not ended():
            self.asyncore.loop(timeout=1, use_poll=True, map=self._map, count=1)
        self.task_dispatcher.shutdown()
        self.asyncore.loop(timeout=0, use_poll=True, map=self._map, count=1)  # the last answers
        self.asyncore.close_all(self._map)


def listener(
    application: Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]], host: str, port: int
) -> Listener:
    """Return the socket, listening. Raises OSError where the address is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.create_server(
        (host, port), family=family
    )  # waitress would leave threads behind where it fails
    return Listener(
        application,
        _sock=sock,
        bind_socket=False,
        sockinfo=(sock.family, sock.type, sock.proto, sock.getsockname()),
        adj=Adjustments(
            threads=_THREADS,
            connection_limit=_MOST,
            channel_timeout=_SILENCE,
            cleanup_interval=1,
            inbuf_overflow=_IN_MEMORY,
            max_request_header_size=_HEADERS,
            max_request_body_size=LARGEST + 1,
            ident=None,
            expose_tracebacks=False,
            asyncore_use_poll=True,
        ),
    )
