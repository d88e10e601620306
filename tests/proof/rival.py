"""An operator's program that stalls, as one whose machine is suspended: `python -m tests.proof.rival POINT TASK …`.

It stops itself where it is worst: `sql` is before the fence of a change to PostgreSQL, `keys` before a change to Redis, with
the fence behind it. Whoever sends SIGCONT wakes it up.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from runbooks.engine.lease import Lease
from runbooks.program import program
from sandbox.adapters.redis import Redis

__all__ = ["main"]

_FENCES = 5  # for the plan, and two a schema


def _stalling(call: Callable[..., Any], *, before: int) -> Callable[..., Any]:
    """Wrap a call: before so manieth time, the process stops."""
    left = before

    def stalled(*args: Any, **more: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        return call(*args, **more)

    return stalled


def main(point: str, words: list[str]) -> None:
    """Run a task that stalls at a point."""
    if point == "sql":
        Lease.fence = _stalling(Lease.fence, before=_FENCES)  # type: ignore[method-assign]
    else:
        Redis.rename = _stalling(Redis.rename, before=1)  # type: ignore[method-assign]
    sys.argv = ["invoke", *words]
    program.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
