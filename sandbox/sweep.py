"""One pass over the keyspace for all who need one at about the same time, as databases commit in groups."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from uuid import UUID

from sandbox import registry, teardown
from sandbox.errors import ArrakisError
from sandbox.keyspace import Hold
from sandbox.ports import KeyWriter, SqlReader
from sandbox.teardown import Condemned

__all__ = ["Clear", "Sweep"]

_PATIENCE = 5.0  # seconds that whoever is ready waits for those who are on their way

_Gone = Mapping[UUID, int] | ArrakisError

Clear = Callable[[Sequence[Condemned], Hold], _Gone]
"""Takes what is condemned and what holds while a batch is deleted; returns how many keys each had, or why they are left."""


class Sweep:
    """Deletes the cached routes and the keys of condemned sandboxes. Threads may share one, if they work on one run.

    What one of them holds while it deletes, and where, has to be as good for the others.
    """

    def __init__(self) -> None:
        """Begin with nobody on the way."""
        self._changed = threading.Condition()
        self._coming = set[Future[_Gone]]()
        self._ready: dict[Future[_Gone], Sequence[Condemned]] = {}

    @contextmanager
    def joined(self, database: SqlReader, keys: KeyWriter) -> Iterator[Clear]:
        """Yield what deletes, to be called once at most: until then, or until this ends, the others wait for us."""
        mine = Future[_Gone]()
        with self._changed:
            self._coming.add(mine)
        try:
            yield lambda condemned, hold: self._clear(mine, condemned, partial(_delete, database, keys, hold))
        finally:
            self._arrive(mine)

    def _arrive(self, mine: Future[_Gone]) -> None:
        with self._changed:
            self._coming.discard(mine)
            self._changed.notify_all()

    def _clear(
        self,
        mine: Future[_Gone],
        condemned: Sequence[Condemned],
        delete: Callable[[Sequence[Condemned]], _Gone],
    ) -> _Gone:
        with self._changed:
            self._ready[mine] = condemned
            self._arrive(mine)
            self._changed.wait_for(lambda: mine not in self._ready or not self._coming, _PATIENCE)
            together = self._ready if mine in self._ready else {}
            if together:
                self._ready = {}
                self._changed.notify_all()
        if together:
            _delete_for_all(together, delete)
        return mine.result()


def _delete_for_all(
    together: Mapping[Future[_Gone], Sequence[Condemned]], delete: Callable[[Sequence[Condemned]], _Gone]
) -> None:
    """Delete the keys of all of them in one pass, and tell each."""
    try:
        gone = delete([each for some in together.values() for each in some])
    except BaseException as error:
        for each in together:
            each.set_exception(error)
    else:
        for each in together:
            each.set_result(gone)


def _delete(database: SqlReader, keys: KeyWriter, hold: Hold, condemned: Sequence[Condemned]) -> _Gone:
    try:
        with database.snapshot() as snapshot:
            roster = registry.claimants(snapshot, tokens=[str(each.sandbox.id) for each in condemned])
        return teardown.clear(keys, roster, condemned, hold=hold)
    except ArrakisError as error:
        return error
