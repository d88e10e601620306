"""Reading once for many: what several procedures ask is asked once, and the database is seen as of one moment.

Nothing is kept beyond the look that it is for. What takes time to measure is not to be shared: it would be told too short.
"""

import json
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar, cast

from runbooks.engine.systems import Asking, Readers
from sandbox.errors import ArrakisError, Unreachable
from sandbox.ports import AwsReader, SqlReader, SqlSnapshot

__all__ = ["Once", "sharing"]

T = TypeVar("T")

_STREAMED = frozenset({"get_object"})  # what is read from its answer is gone
_AT_ONCE = 2  # connections beside the one that holds the moment: there may be few left


class Once(Asking):
    """Answers that are asked for once: whoever asks again meanwhile waits for it, and gets the same, be it an error."""

    def __init__(self) -> None:
        """Begin with none."""
        self._one = threading.Lock()
        self._answers: dict[Hashable, Future[Any]] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether somebody has asked by this key, answered or not."""
        return key in self._answers

    def __call__(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return what `read()` returned for the first who asked by this key, or raise what it raised."""
        with self._one:
            answer = self._answers.get(key)
            first = answer is None
            if answer is None:
                answer = self._answers[key] = Future()
        if first:
            try:
                answer.set_result(read())
            except BaseException as error:  # it is for all who ask
                answer.set_exception(error)
        return cast(T, answer.result())


@contextmanager
def sharing(readers: Readers) -> Iterator[Readers]:
    """Return readers that ask once for all who use them, until this ends. Nothing is asked yet."""
    once, held = Once(), _Held(readers.sql)
    try:
        yield replace(readers, sql=_Sql(readers.sql, once, held), aws=_Aws(readers.aws, once), ask=once)
    finally:
        held.let_go()


class _Held:
    """The moment that is held, until all have looked."""

    def __init__(self, database: SqlReader) -> None:
        self._database, self._stack = database, ExitStack()
        self._one, self._over = threading.Lock(), False

    def moment(self) -> SqlReader:
        """Hold the moment from now on, and return the database as of it; who comes too late is left with nothing open."""
        with ExitStack() as stack:
            reader = stack.enter_context(self._database.moment())
            with self._one:
                if self._over:
                    raise Unreachable("this look is over")
                self._stack.push(stack.pop_all())
            return reader

    def let_go(self) -> None:
        """Let go of the moment. Whatever becomes of its connection, what was read is read."""
        with self._one:
            self._over = True
        with suppress(ArrakisError):
            self._stack.close()


class _Sql:
    """A database of one moment, which is held from the first question on. Satisfies SqlReader."""

    def __init__(self, database: SqlReader, once: Once, held: _Held) -> None:
        self._database, self._once, self._held = database, once, held
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self.host = database.host

    @contextmanager
    def snapshot(self) -> Iterator[SqlSnapshot]:
        reader = self._once("moment", self._held.moment)
        with ExitStack() as stack:

            def begin() -> SqlSnapshot:
                with ExitStack() as begun:  # what cannot be opened has no turn any more
                    begun.enter_context(self._turns)
                    snapshot = begun.enter_context(reader.snapshot())
                    stack.push(begun.pop_all())
                return snapshot

            yield _Snapshot(begin, self._once)

    @contextmanager
    def moment(self) -> Iterator[SqlReader]:
        yield self

    def keeping(self, connections: int) -> AbstractContextManager[None]:
        return self._database.keeping(connections)


class _Snapshot:
    """What is asked through it was perhaps asked already; a transaction is opened for what was not. Satisfies SqlSnapshot.

    It has its turn before it is the one that asks: who has a turn may wait for an answer, so whoever is to give it must not
    wait for a turn.
    """

    def __init__(self, begin: Callable[[], SqlSnapshot], once: Once) -> None:
        self._begin, self._once = begin, once
        self._begun: SqlSnapshot | None = None

    def rows(self, statement: str, row: type[T], /, **params: object) -> list[T]:
        key = (statement, row, _frozen(params))
        if key not in self._once:
            self._inner()
        return list(self._once(key, lambda: self._inner().rows(statement, row, **params)))

    def newest(self, columns: Mapping[str, Sequence[tuple[str, str]]], /) -> Mapping[str, Any]:
        return self._inner().newest(columns)

    def explain(self, statement: str, /, **params: object) -> Mapping[str, Any]:
        return self._inner().explain(statement, **params)

    def _inner(self) -> SqlSnapshot:
        if self._begun is None:
            self._begun = self._begin()
        return self._begun


class _Aws:
    """An account that is asked once. Satisfies AwsReader."""

    def __init__(self, account: AwsReader, once: Once) -> None:
        self._account, self._once = account, once

    def read(self, service: str, operation: str, /, **params: object) -> Mapping[str, Any]:
        if operation in _STREAMED:
            return self._account.read(service, operation, **params)
        key = (service, operation, _frozen(params))
        return self._once(key, lambda: self._account.read(service, operation, **params))


def _frozen(params: Mapping[str, object]) -> str:
    return json.dumps(params, default=repr, sort_keys=True)
