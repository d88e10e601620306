"""A statement that PostgreSQL runs in no transaction, and that works for minutes: run with the lease looked after."""

import time
from collections.abc import Callable

from runbooks.engine.errors import LeaseHeld, Stopped
from runbooks.engine.gate import Gate
from sandbox.errors import ArrakisError
from sandbox.ports import SqlSnapshot

__all__ = ["run_alone"]

_CHECK = 0.5  # seconds between two looks at the lease, and at the stop flag with it: it has to be honoured within one


def run_alone(
    gate: Gate, name: str, statement: str, *, patience: float, progress: Callable[[SqlSnapshot], str | None]
) -> None:
    """Run it; what `progress` says of it is told as it changes.

    A lease that is lost, and an emergency stop, cancel it: LeaseHeld, Stopped. Raises Busy after `patience` seconds.
    """
    told, checked = "", time.monotonic()
    with gate.lease():
        pass

    def watch() -> None:
        nonlocal told, checked
        if time.monotonic() - checked < _CHECK:
            return
        try:
            with gate.lease():
                checked = time.monotonic()
            with gate.read.sql.snapshot() as snapshot:
                now = progress(snapshot)
        except (LeaseHeld, Stopped):
            raise
        except ArrakisError:  # one look that fails says nothing about the statement
            return
        if now and now != told:
            told = now
            gate.tell(f"  {name}: {told}")

    gate.write.sql.alone(statement, patience=patience, watch=watch)
