"""A wire to a server that can be cut and mended, as a network that fails."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from lab.processes import HOST


class Wire:
    """Carries what comes in at its port to a server and back, unless it is cut: then nobody gets through."""

    def __init__(self, url: str) -> None:
        """Take the server's address."""
        parts = urlsplit(url)
        self._server = (parts.hostname, parts.port)
        self._listening = socket.create_server((HOST, 0))
        self._ends: set[socket.socket] = set()
        self._whole = True
        user, at, _ = parts.netloc.rpartition("@")
        place = f"{user}{at}{HOST}:{self._listening.getsockname()[1]}"
        self.url = urlunsplit(parts._replace(netloc=place))
        """The server's address through the wire."""
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and let no new one through."""
        self._whole = False
        for end in list(self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self._whole = True

    def close(self) -> None:
        """End it."""
        self.cut()
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listening.accept()
                if not self._whole:
                    here.close()
                    continue
                try:
                    there = socket.create_connection(self._server)
                except OSError:  # it is dead, and may come back
                    here.close()
                    continue
                self._ends |= {here, there}
                self._join(here, there)

    def _join(self, here: socket.socket, there: socket.socket) -> None:
        for pair in ((here, there), (there, here)):
            threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()
        self._ends.discard(source)


@contextmanager
def wired(url: str) -> Iterator[Wire]:
    """Yield a wire to a server."""
    wire = Wire(url)
    try:
        yield wire
    finally:
        wire.close()
