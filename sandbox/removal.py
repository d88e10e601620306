"""The last change of a sandbox: taking it away, alone or many together.

Step by step as teardown has it: condemned, its keys deleted, its schemas dropped. Of those that are taken away together some are
condemned in one short transaction, or each alone where one of them cannot go; the keys of all go in one pass over the keyspace.
Redis being down leaves keys to the clean-up job.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from sandbox import registry, teardown
from sandbox.errors import ArrakisError, Blocked, Busy, Halted, SandboxCode, SandboxError, Unreachable
from sandbox.keyspace import Hold
from sandbox.limits import check_name
from sandbox.model import Sandbox, Status
from sandbox.ports import KeyWriter, SqlReader, SqlTransaction, SqlWriter
from sandbox.schemas import Fence
from sandbox.sweep import Sweep
from sandbox.teardown import Condemned

__all__ = ["Destroyed", "Tell", "Terms", "clean_up", "destroy", "severally"]

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 25  # sandboxes condemned by one transaction

Tell = Callable[[Sandbox, str, Mapping[str, object]], None]
"""Takes a sandbox, a step that was done with it, and what that did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed:
    """What went with a sandbox. `unsettled` says why its keys are left for the clean-up job."""

    sandbox: Sandbox
    schemas: Sequence[str]
    guilds: Sequence[str]
    keys: int
    unsettled: ArrakisError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How sandboxes are taken away: by whom, and at what time, UTC.

    `fence` goes first into every transaction that changes something, and again where it waited for others' locks; `pause` is called
    before each step, and `failed` with each error at once. All three may raise Halted. `tell` is called after each step.
    """

    actor: str
    now: datetime
    fence: Fence = lambda _: None
    pause: Callable[[], None] = lambda: None
    failed: Callable[[ArrakisError], None] = lambda _: None
    tell: Tell = lambda *_: None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """One that is condemned. `left`: it was destroyed before, and keys of it were known to be left."""

    condemned: Condemned
    left: bool


def destroy(database: SqlWriter, keys: KeyWriter, name: str, *, actor: str, now: datetime) -> Destroyed:
    """Take a sandbox away: routes, keys, schemas, mappings. Safe to repeat and to take up after any step.

    Raises SandboxError: 004 not found, 006 a step failed; Blocked, with nothing changed, where something elsewhere depends
    on its schema.
    """
    check_name(name)

    def hold(transaction: SqlTransaction, names: Sequence[str]) -> list[Sandbox]:
        return [registry.locked(transaction, name=each) for each in names]

    [gone] = _take_away(database, keys, [name], hold, Terms(actor=actor, now=now), Sweep())
    if isinstance(gone, Destroyed):
        return gone
    raise gone


def clean_up(
    database: SqlWriter,
    keys: KeyWriter,
    ids: Sequence[UUID],
    terms: Terms,
    *,
    insist: Callable[[SqlTransaction, Sequence[Sandbox]], None],
    sweep: Sweep | None = None,
) -> Mapping[UUID, Destroyed | ArrakisError]:
    """Take away sandboxes that are over, as `destroy` does; return what went with each, or what `destroy` would raise.

    `insist` is called with some rows held, before anything of them is changed, and raises where one of them must not go. `sweep` is
    shared with other threads that do the same for the same run.
    """

    def hold(transaction: SqlTransaction, some: Sequence[UUID]) -> list[Sandbox]:
        # Together only at once: those that are held already are not to wait for one that somebody else holds.
        alone = len(some) == 1
        rows = [registry.locked(transaction, id=some[0])] if alone else registry.locked_all(transaction, some)
        insist(transaction, rows)
        return rows

    return dict(zip(ids, _take_away(database, keys, ids, hold, terms, sweep or Sweep()), strict=True))


def severally(
    database: SqlReader,
    items: Iterable[T],
    step: Callable[[T], R],
    failed: Callable[[ArrakisError], None],
) -> list[R | ArrakisError]:
    """Return what the step returned or raised for each. After a halt, or a dead database, it is not tried for the rest.

    `failed` is called with what was raised, and may raise Halted.
    """
    results: list[R | ArrakisError] = []
    ended: ArrakisError | None = None
    for item in items:
        if ended:
            results.append(ended)
            continue
        try:
            results.append(step(item))
        except ArrakisError as error:
            results.append(error)
            ended = error if isinstance(error, Halted) or _is_lost(database, error) else _halt(failed, error)
    return results


def _halt(failed: Callable[[ArrakisError], None], error: ArrakisError) -> Halted | None:
    """Tell of an error; return what that ends everything with, if it does."""
    try:
        failed(error)
    except Halted as halted:
        return halted
    return None


def _is_lost(database: SqlReader, error: ArrakisError) -> bool:
    """Whether the database is gone: one session alone may have been ended."""
    if not isinstance(error, Unreachable) and not isinstance(error.__cause__, Unreachable):
        return False
    try:
        registry.time_of(database)
    except ArrakisError:
        return True
    return False


def _take_away(
    database: SqlWriter,
    keys: KeyWriter,
    items: Sequence[T],
    hold: Callable[[SqlTransaction, Sequence[T]], list[Sandbox]],
    terms: Terms,
    sweep: Sweep,
) -> list[Destroyed | ArrakisError]:
    with sweep.joined(database, keys) as clear:
        taken = _take_all(database, items, lambda some: _take(database, some, hold, terms), terms.failed)
        condemned = [each for each in taken if isinstance(each, _Taken)]
        going = [each.condemned for each in condemned]
        gone = clear(going, _holding(database, terms)) if going else {}
    ended = iter(
        severally(database, condemned, lambda each: _finish(database, each, gone, terms), terms.failed)
    )
    return [each if isinstance(each, ArrakisError) else next(ended) for each in taken]


def _take_all(
    database: SqlReader,
    items: Sequence[T],
    take: Callable[[Sequence[T]], list[_Taken]],
    failed: Callable[[ArrakisError], None],
) -> list[_Taken | ArrakisError]:
    """Take some at a time; where that cannot be, each of them alone, to learn which of them it is."""

    def together(some: Sequence[T]) -> list[_Taken | ArrakisError]:
        try:
            return [*take(some)]
        except ArrakisError as error:
            if len(some) == 1 or isinstance(error, Halted) or _is_lost(database, error):
                raise
        return severally(database, some, lambda item: take([item])[0], failed)

    lots = [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]
    results: list[_Taken | ArrakisError] = []
    for lot, result in zip(lots, severally(database, lots, together, failed), strict=True):
        results += [result] * len(lot) if isinstance(result, ArrakisError) else result
    return results


def _take(
    database: SqlWriter,
    some: Sequence[T],
    hold: Callable[[SqlTransaction, Sequence[T]], list[Sandbox]],
    terms: Terms,
) -> list[_Taken]:
    terms.pause()
    with database.transaction() as transaction:
        terms.fence(transaction)
        held = hold(transaction, some)
        terms.fence(transaction)  # a stop may have been raised while we waited for the rows
        condemned = teardown.condemn_all(transaction, held, actor=terms.actor, at=terms.now)
        dead = [row.id for row in held if not row.live]
        left = {row.id for row in registry.unfinished(transaction, ids=dead)} if dead else set()
    for each in condemned:
        told = {"status": each.sandbox.status.value, "guilds": len(each.guilds)}
        terms.tell(each.sandbox, "condemned", told)
    return [_Taken(condemned=each, left=each.sandbox.id in left) for each in condemned]


def _holding(database: SqlWriter, terms: Terms) -> Hold:
    """Return what holds the fence while a batch of keys is deleted."""

    @contextmanager
    def fenced() -> Iterator[None]:
        terms.pause()
        with database.transaction() as transaction:
            terms.fence(transaction)
            yield

    return fenced


def _finish(
    database: SqlWriter, taken: _Taken, gone: Mapping[UUID, int] | ArrakisError, terms: Terms
) -> Destroyed:
    row, deleted = taken.condemned.sandbox, 0
    unsettled: ArrakisError | None = None
    if isinstance(gone, Halted):
        raise gone
    if isinstance(gone, ArrakisError):
        unsettled = Unreachable(f"its keys are left: {gone}", hint="the clean-up job deletes them")
        unsettled.__cause__ = gone
        terms.tell(row, "keys left", {"error": gone})
        terms.failed(unsettled)
    else:
        deleted = gone.get(row.id, 0)
        terms.tell(row, "keys deleted", {"keys": deleted})
    terms.pause()
    schemas = _raze(database, taken.condemned, terms, keys_left=unsettled is not None)
    terms.tell(row, "schemas dropped", {"schemas": ",".join(schemas)})
    if taken.left and not unsettled:  # even if they are gone by themselves by now: nobody need look again
        teardown.finish(database, row, actor=terms.actor, fence=terms.fence)
    return Destroyed(
        sandbox=replace(row, status=Status.DESTROYED, destroyed_at=row.destroyed_at or terms.now),
        schemas=schemas,
        guilds=taken.condemned.guilds,
        keys=deleted,
        unsettled=unsettled,
    )


def _raze(database: SqlWriter, condemned: Condemned, terms: Terms, *, keys_left: bool) -> Sequence[str]:
    name = condemned.sandbox.name
    try:
        return teardown.raze(
            database, condemned, actor=terms.actor, at=terms.now, keys_left=keys_left, fence=terms.fence
        ).schemas
    except Blocked as error:  # no refusal any more: its keys are gone
        raise SandboxError(error.code, f"{name}: {error.reason}", hint=error.hint) from error
    except (SandboxError, Halted):
        raise
    except ArrakisError as error:
        hint = error.hint if isinstance(error, Busy) else "repeat it: it takes up where it stopped"
        raise SandboxError(SandboxCode.CLEANUP_FAILED, f"{name}: {error}", hint=hint) from error
