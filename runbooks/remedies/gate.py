"""What every remedy works with."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from runbooks.engine.model import Action
from runbooks.engine.systems import Readers, Writers
from sandbox import registry, schemas
from sandbox.errors import Unreachable
from sandbox.orphans import Standing
from sandbox.ports import SqlTransaction
from sandbox.usage import look

__all__ = ["Gate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a remedy works with: the systems, the lease's fence, and who is told what happens on the way."""

    read: Readers
    write: Writers
    fence: Callable[[SqlTransaction], None]
    tell: Callable[[str], None]

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
        with self.read.sql.snapshot() as snapshot:
            placement = registry.claimants(snapshot, tokens=[token]).place_family(token)
        if placement.standing is not Standing.ORPHAN:
            return placement.reason
        read, also = self.read, [schema] if schema else []
        usage = look(read.sql, read.keys, read.streams, [token], tag=read.tag, also=also)
        return usage.of(token, schema)

    def schema_names(self) -> Mapping[str, int]:
        """Return every schema's count of writes, by its name."""
        with self.read.sql.snapshot() as snapshot:
            return {schema.name: schema.writes for schema in schemas.census(snapshot)}
