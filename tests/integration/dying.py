"""A process that changes a sandbox and is killed before its Nth call to a server.

Reads `operation name step` lines on stdin, does each in a child, and answers `killed` or `done`.
"""

import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sandbox import lifecycle, removal
from sandbox.adapters import postgres
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.postgres_transaction import Transaction, bounded
from sandbox.adapters.redis import Redis
from tests.integration.world import request_for


def _dying_before(step: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wrap calls to a server: whoever makes call number `step` dies first."""
    left = step

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **more)

        return counted

    return wrap


def _work(operation: str, name: str, step: int) -> None:
    dying = _dying_before(step)
    # Every call to PostgreSQL is a connection made, or goes through a transaction's own bound.
    vars(postgres)["bounded"] = dying(bounded)
    Transaction._bounded = dying(Transaction._bounded)  # type: ignore[method-assign]
    database = Postgres(os.environ["DATABASE_URL"], tag="dying")
    keys = Redis(os.environ["REDIS_URL"])
    for method in ("unlink", "scan"):
        setattr(keys, method, dying(getattr(keys, method)))
    if operation == "create":
        lifecycle.create(database, keys, request_for(name, guilds=("1", "2")))
    else:
        removal.destroy(database, keys, name, actor="dying", now=datetime.now(UTC))


def main() -> None:
    """Serve until stdin ends."""
    for line in sys.stdin:
        operation, name, step = line.split()
        child = os.fork()
        if child == 0:
            _work(operation, name, int(step))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else f"done {os.WEXITSTATUS(status)}", flush=True)


if __name__ == "__main__":
    main()
