"""The gate: what every remedy works with, and the only way to what can be changed."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from runbooks.engine.model import Action
from runbooks.engine.systems import Readers, Writers
from sandbox import registry, schemas
from sandbox.errors import Unreachable
from sandbox.orphans import Standing
from sandbox.ports import SqlTransaction
from sandbox.schemas import Existing
from sandbox.usage import look

__all__ = ["Gate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a remedy works with: the systems, the lease's fence, and who is told what happens on the way.

    `fence` goes first into every changing transaction: it raises where the lease is lost, or the stop flag is raised. `pause` is
    called between small steps of long work: it waits while production feels us, and raises as the fence does, and where the run
    is to end. `failed` is told of each target of a lot that failed, at once, and raises Halted where that is one too many. `alone`
    says whether nobody else is at work.
    """

    read: Readers
    write: Writers
    fence: Callable[[SqlTransaction], None]
    tell: Callable[[str], None]
    pause: Callable[[], None] = lambda: None
    failed: Callable[[Exception], None] = lambda _: None
    alone: Callable[[], bool] = lambda: False

    def orphan(self, token: str) -> AbstractContextManager[object]:
        """Hold the lease and the control table, so that what is an orphan now is one until this ends.

        Raises ArrakisError if a sandbox owns the token, LeaseHeld if the lease is not ours.
        """
        return schemas.holding_orphan(self.write.sql, token, fence=self.fence)

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Hold the lease until this ends."""
        with self.write.sql.transaction() as transaction:
            self.fence(transaction)
            yield

    def watch(
        self,
        action: Action,
        look: Callable[[], tuple[bool, str]],
        *,
        pause: float,
        longest: float,
        patience: float,
    ) -> str | None:
        """Look until it is done, at first every `pause` seconds, then up to `longest`; tell what changes on the way.

        `look` says whether it is done, and how it stands. What gives no answer goes on without us, and is asked again.
        Return None once it is done, or how it stood when `patience` seconds were over.
        """
        told, end = "", time.monotonic() + patience
        while True:
            try:
                done, status = look()
            except Unreachable as error:
                done, status = False, f"cannot tell: {error}"
            if done:
                return None
            if time.monotonic() > end:
                return status
            if status != told:
                self.tell(f"  {action.resource.id}: {status}")
            told = status
            time.sleep(pause)
            pause = min(pause * 1.5, longest)

    def user_of(self, token: str, schema: str | None) -> str | None:
        """Say who owns or uses a token's resources, or did in the last 15 minutes; None if nobody."""
        return self.users_of({token: schema}).get(token)

    def users_of(self, tokens: Mapping[str, str | None]) -> Mapping[str, str]:
        """Say it of many tokens, each with its schema if that is known, by one look at each server; of those in use alone."""
        with self.read.sql.snapshot() as snapshot:
            roster = registry.claimants(snapshot, tokens=tokens)
        placed = {token: roster.place_family(token) for token in tokens}
        users = {token: at.reason for token, at in placed.items() if at.standing is not Standing.ORPHAN}
        free = [token for token in tokens if token not in users]
        if not free:
            return users
        read, also = self.read, [schema for token in free if (schema := tokens[token])]
        usage = look(read.sql, read.keys, read.streams, free, tag=read.tag, also=also)
        return users | {token: user for token in free if (user := usage.of(token, tokens[token]))}

    def existing(self, names: Sequence[str]) -> Mapping[str, Existing]:
        """Return those of these schemas that exist, each with which object it is and how much was written."""
        with self.read.sql.snapshot() as snapshot:
            return schemas.existing(snapshot, names)
