"""Another client of a Redis: `python -m bench.pinging PORT` sends PINGs until it is told to end, then prints what they took.

It is a process of its own: what it waits for must not be this one's interpreter.
"""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from lab.processes import HOST

__all__ = ["ping_alone", "ping_beside"]

_PAUSE = 0.001  # seconds between two
_ALONE = 1.0  # seconds


def ping_beside(port: int, what: Callable[[], object]) -> float:
    """Return what ninety-nine of a hundred PINGs took at the most, in milliseconds, while this was done."""
    command = [sys.executable, "-m", "bench.pinging", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        try:
            what()
        finally:
            process.terminate()
            took = sorted(map(float, process.stdout))
    return took[int(len(took) * 0.99)]


def ping_alone(port: int) -> float:
    """Return the same while nothing is done."""
    return ping_beside(port, partial(time.sleep, _ALONE))


def main(port: int) -> None:
    """Send them until SIGTERM, and print the milliseconds of each."""
    took: list[float] = []
    ended: list[object] = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    with socket.create_connection((HOST, port)) as connection:
        print("begun", flush=True)
        while not ended:
            began = time.perf_counter()
            connection.sendall(b"PING\r\n")
            connection.recv(64)
            took.append((time.perf_counter() - began) * 1000)
            time.sleep(_PAUSE)
    print(*took, sep="\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
