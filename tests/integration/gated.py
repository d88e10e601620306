"""Remedies as the engine hands them out: behind the lease."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runbooks.engine.environment import resolve
from runbooks.engine.gate import Gate
from runbooks.engine.lease import Lease
from runbooks.engine.model import Action, Remedy, State
from runbooks.engine.systems import Readers, Writers, readers, writers
from runbooks.remedies import remedies

__all__ = ["Gated", "gated"]


@dataclass(frozen=True)
class Gated:
    """The systems, and every remedy by its verb."""

    read: Readers
    write: Writers
    remedies: Mapping[str, Remedy]

    def state(self, action: Action) -> tuple[State, str]:
        """Return how an action's target stands, and why."""
        seen = self.remedies[action.verb].observe(action)
        return seen.state, seen.reason

    def apply(self, action: Action) -> tuple[State, str]:
        """Apply an action, and return how its target stands then."""
        self.remedies[action.verb].apply(action)
        return self.state(action)

    def in_use(self, action: Action) -> str | None:
        """Return who is in the way of an action."""
        return self.remedies[action.verb].in_use(action)


@contextmanager
def gated(env: Mapping[str, str], state: Path, **other: str) -> Iterator[Gated]:
    """Yield the remedies of an environment, with the lease held; `other` variables override its own."""
    environment = resolve(None, {**env, **other}, state, state)
    read = readers(environment, tag="tests:remedies", timeout=5)
    write = writers(environment, tag="tests:remedies", actor="chani", timeout=5)
    with Lease.held(write.sql, holder="chani", run="run-1") as lease:
        gate = Gate(read=read, write=write, fence=lease.fence, tell=lambda _: None)
        yield Gated(read=read, write=write, remedies=remedies(gate))
