"""A proxy before a server that does to its answers what networks, dying servers and strangers in their place do."""

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from tests.integration.wire import Wire

__all__ = ["Fault", "Kind", "Proxy", "standing_before"]

_RESET = struct.pack("ii", 1, 0)  # to close is to reset, with nothing sent that waits


class Kind(Enum):
    """What becomes of a connection."""

    LATE = "each answer comes some seconds later"
    DRIP = "answers come byte by byte, with some seconds between"
    RESET = "it is reset"
    CLOSED = "it is closed in the middle of an answer"
    HANGUP = "it is closed between a request and its answer"
    SILENT = "it stays open, and nothing is answered any more"
    STRANGER = "something else answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What becomes of a connection once so many bytes of its answers have passed; `said` is what a stranger says."""

    kind: Kind
    after: int = 0
    seconds: float = 0.0
    said: bytes = b""


class Proxy(Wire):
    """Carries everything, until it has a fault: it meets the connections that there are, and those to come."""

    def __init__(self, url: str) -> None:
        """Take the server's address."""
        super().__init__(url)
        self.fault: Fault | None = None
        self.struck = threading.Event()
        """Whether anybody has met a fault."""

    def _join(self, here: socket.socket, there: socket.socket) -> None:
        threading.Thread(target=self._talk, args=(here, there), daemon=True).start()

    def _talk(self, here: socket.socket, there: socket.socket) -> None:
        passed, open_ = 0, True
        with contextlib.suppress(OSError):
            while open_:
                ready, _, _ = select.select([here, there], [], [])
                if here in ready:
                    open_ = self._ask(here, there)
                if open_ and there in ready:
                    data = there.recv(65536)
                    open_ = bool(data) and self._answer(data, passed, here)
                    passed += len(data)
        for end in (here, there):
            self._ends.discard(end)
            end.close()

    def _ask(self, here: socket.socket, there: socket.socket) -> bool:
        """Carry a request; return whether the connection goes on."""
        data = here.recv(65536)
        if self.fault and self.fault.kind is Kind.STRANGER:
            self.struck.set()
            here.sendall(self.fault.said)
            return False
        there.sendall(data)
        return bool(data)

    def _answer(self, data: bytes, passed: int, here: socket.socket) -> bool:
        """Carry a piece of an answer as the fault has it; return whether the connection goes on."""
        fault = self.fault
        if fault is None or passed + len(data) <= fault.after:
            here.sendall(data)
            return True
        self.struck.set()
        whole = max(0, fault.after - passed)  # of it passes unharmed
        match fault.kind:
            case Kind.LATE:
                time.sleep(fault.seconds)
                here.sendall(data)
            case Kind.DRIP:
                here.sendall(data[:whole])
                for byte in data[whole:]:
                    time.sleep(fault.seconds)
                    here.sendall(bytes([byte]))
            case Kind.RESET:
                here.sendall(data[:whole])
                here.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            case Kind.CLOSED:
                here.sendall(data[: whole + len(data[whole:]) // 2])
            case Kind.SILENT:
                here.sendall(data[:whole])
        return fault.kind in (Kind.LATE, Kind.DRIP, Kind.SILENT)


@contextmanager
def standing_before(url: str) -> Iterator[Proxy]:
    """Yield a proxy before a server."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
