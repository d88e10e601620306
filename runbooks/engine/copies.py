"""The journal of a worker on its way to PostgreSQL, where all hosts read it: which endings have arrived there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from runbooks.engine.journal import Journal, JournalEntry
from runbooks.engine.lease import Mirror
from runbooks.engine.model import ENDED, Action
from sandbox.errors import ArrakisError
from sandbox.ports import SqlWriter

__all__ = ["Arrivals", "Copies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """The actions whose ending has arrived, and those that came to none because a server did not answer: they are tried again."""

    ended: set[str] = field(default_factory=set)
    unreachable: set[str] = field(default_factory=set)


class Copies:
    """A journal's way to PostgreSQL. `missed` is why something was not copied, if that is so."""

    def __init__(self, sql: SqlWriter, journal: Journal, run: str) -> None:
        """Become the mirror of a journal; what earlier runs could not copy is copied at once, if it can be."""
        self._mirror, self._journal, self._run = Mirror(sql), journal, run
        self._awaited: dict[int, tuple[set[str], Arrivals]] = {}  # an action may be awaited twice
        self.missed: ArrakisError | None = None
        self._mirror.catch_up(journal.entries())
        journal.mirror = self._copy

    @contextmanager
    def awaiting(self, actions: Sequence[Action]) -> Iterator[Arrivals]:
        """Yield what becomes of these actions, as it is written down.

        Two threads may await the same action: the queue hands out again what nobody was heard to be at.
        """
        arrivals = Arrivals()
        self._awaited[id(arrivals)] = {action.id for action in actions}, arrivals
        try:
            yield arrivals
        finally:
            del self._awaited[id(arrivals)]

    def catch_up(self) -> None:
        """Copy what could not be copied when it was written. Raises where it still cannot."""
        missed, self.missed = self.missed, None
        if missed:
            try:
                self._mirror.copy([entry for entry in self._journal.entries() if entry.run == self._run])
            except ArrakisError as error:
                self.missed = error
                raise

    def _copy(self, entries: list[JournalEntry]) -> None:
        copied = True
        try:
            self._mirror.copy(entries)
        except ArrakisError as error:  # on disk it is; it is not answered for until it is copied
            self.missed, copied = error, False
        for entry in entries:
            for names, arrivals in list(self._awaited.values()):  # others come and go meanwhile
                if entry.action in names and entry.phase in ENDED:
                    if entry.observed.get("unreachable"):
                        arrivals.unreachable.add(entry.action)
                    elif copied:
                        arrivals.ended.add(entry.action)
