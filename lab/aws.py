"""The AWS endpoint: `python -m lab.aws PORT` serves moto, mended, on 127.0.0.1 until its parent ends."""

import logging
import signal
import sys
import threading

from moto.server import ThreadedMotoServer

from lab import moto_shims
from lab.processes import HOST, die_with_parent

__all__ = ["main"]


def main(port: int) -> None:
    """Serve until SIGTERM."""
    die_with_parent()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    # moto's verbose=False does not silence the server's log of every request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto_shims.install()
    server = ThreadedMotoServer(HOST, port, verbose=False)
    server.start()
    ended.wait()  # its thread is a daemon and it keeps nothing: stopping it in order would only take time


if __name__ == "__main__":
    main(int(sys.argv[1]))
