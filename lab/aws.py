"""The AWS endpoint: `python -m lab.aws PORT` serves moto, mended, on 127.0.0.1 until its parent ends.

DATABASE_URL and REDIS_URL go into the clean-up job's task definition; LAB_STATE is the supervisor's file.
"""

import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from botocore.loaders import JSONFileLoader

from lab.processes import HOST, die_with_parent

__all__ = ["main"]

_PAUSE = 0.1


def main(port: int) -> None:
    """Serve until SIGTERM."""
    die_with_parent()
    # It keeps nothing, and taking all of moto apart in order would take half a second.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with _spared():
        _serve(port)
    # A wait without an end would sleep through a signal that comes just before it, or that another thread takes.
    while True:
        time.sleep(_PAUSE)


def _serve(port: int) -> None:
    """Serve in a thread of its own, from now on."""
    from moto import backends
    from moto.server import ThreadedMotoServer

    from lab import alarms, ecs, elapse, moto_shims, policies, services, stack, storage

    # More than a thousand machine images, which nobody starts here.
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
    modules = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: modules  # moto looks them up on the disk at each request
    # moto's verbose=False does not silence the server's log of every request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    for each in (moto_shims, alarms, ecs, services, elapse, policies):
        each.install()
    storage.install(Path(os.environ["LAB_STATE"]))
    addresses = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}
    stack.lay_out({**addresses, "LOG_LEVEL": "info", "ARRAKIS_ENV": "lab"})
    ThreadedMotoServer(HOST, port, verbose=False).start()


@contextlib.contextmanager
def _spared() -> Iterator[None]:
    """Halve what importing moto takes: nothing of it becomes garbage, and it reads the same large files several times."""
    gc.disable()
    read = cache(JSONFileLoader().load_file)
    JSONFileLoader.load_file = lambda _, path: read(path)
    yield
    gc.freeze()
    gc.enable()


if __name__ == "__main__":
    main(int(sys.argv[1]))
