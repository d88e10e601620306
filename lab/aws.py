"""The AWS endpoint: `python -m lab.aws PORT` serves moto, mended, on 127.0.0.1 until its parent ends.

DATABASE_URL and REDIS_URL go into the clean-up job's task definition.
"""

import logging
import os
import signal
import sys
import time

from moto.server import ThreadedMotoServer

from lab import alarms, ecs, moto_shims, stack
from lab.processes import HOST, die_with_parent

__all__ = ["main"]

_PAUSE = 0.1


def main(port: int) -> None:
    """Serve until SIGTERM."""
    die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    # moto's verbose=False does not silence the server's log of every request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    for mend in (moto_shims.install, alarms.install, ecs.install):
        mend()
    addresses = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}
    stack.lay_out({**addresses, "LOG_LEVEL": "info", "ARRAKIS_ENV": "lab"})
    server = ThreadedMotoServer(HOST, port, verbose=False)
    server.start()
    # Its thread is a daemon and it keeps nothing: stopping it in order would only take time. A wait without an end would
    # sleep through a signal that comes just before it, or that another thread takes.
    while True:
        time.sleep(_PAUSE)


if __name__ == "__main__":
    main(int(sys.argv[1]))
