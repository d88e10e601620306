"""The control tables' indexes and statistics: an index made without keeping writers waiting, a table analyzed."""

import time
from contextlib import suppress
from datetime import datetime

from diagnostics.indexes import (
    EXPECTED,
    TABLES,
    Expected,
    Index,
    Table,
    read_indexes,
    read_progress,
    read_tables,
    stands_for,
)
from runbooks.engine.errors import LeaseHeld
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation, Resource, Reversibility, State
from runbooks.remedies.alone import run_alone
from runbooks.rights import INDEXING, MAINTAINING
from sandbox.errors import ArrakisError
from sandbox.ports import SqlSnapshot
from sandbox.text import counted

__all__ = ["AnalyzeTable", "CreateIndex", "analyze_table", "create_index"]

_PATIENCE, _BRIEF = 30 * 60.0, 60.0  # seconds for making an index, and for dropping one
_POLL, _SOON = 0.1, 5.0  # seconds between two looks at the statistics, and in all


def create_index(expected: Expected, *, leftover: bool, reason: str) -> Action:
    """Return the action that makes an expected index; `leftover`: an invalid one of its name is dropped first."""
    return Action(
        id="",
        verb=CreateIndex.verb,
        resource=Resource(kind="index", id=expected.name),
        before={"name": expected.name, "table": expected.table, "leftover": leftover},
        after={"definition": expected.definition},
        reason=reason,
        reversibility=Reversibility.REVERSIBLE,
    )


def analyze_table(table: Table, *, reason: str) -> Action:
    """Return the action that analyzes a control table. Nothing is lost by it: there is nothing to undo."""
    return Action(
        id="",
        verb=AnalyzeTable.verb,
        resource=Resource(kind="table", id=table.name),
        before={
            "name": table.name,
            "analyzed_at": table.analyzed_at.isoformat() if table.analyzed_at else None,
        },
        after={},
        reason=reason,
        reversibility=Reversibility.NOTHING,
    )


class CreateIndex:
    """Makes an index of the migration's that is missing, concurrently; undone by dropping it, concurrently.

    It works for minutes, outside of any transaction: the lease is made sure of before each statement and every few seconds
    while it runs, and a lease that is lost cancels it. What a failure leaves behind is invalid, and dropped.
    """

    verb = "create index"
    rights = INDEXING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look for an index of its name, whether it is as it should be, and belongs to its constraint."""
        expected = _expected(action)
        found = self._found(expected)
        if found is None:
            return Observation(state=State.BEFORE, reason="there is no such index")
        if not found.does(expected):
            return Observation(
                state=State.CHANGED, reason=f"it is there, but defined otherwise: {found.definition}"
            )
        if found.usable and (found.constraint or not expected.constraint):
            named = "" if found.name == expected.name else f" as {found.name}"
            return Observation(state=State.AFTER, reason=f"it is there{named}, and valid")
        if found.usable:
            return Observation(state=State.PARTLY, reason="it is there, but no constraint's yet")
        if found.constraint:
            return Observation(
                state=State.CHANGED, reason="it is invalid, and a constraint's: REINDEX mends it"
            )
        state = State.BEFORE if action.before["leftover"] else State.PARTLY
        return Observation(state=state, reason="an invalid one is left of an earlier attempt")

    def in_use(self, action: Action) -> str | None:
        """Say whether another index is being made on the same table: the two would wait for each other."""
        with self._gate.read.sql.snapshot() as snapshot:
            progress = read_progress(snapshot, action.before["table"])
        return f"another index is being made on its table: {progress.told}" if progress else None

    def apply(self, action: Action) -> None:
        """Drop what is left of an earlier attempt, make it, and give it to its constraint."""
        expected = _expected(action)
        found = self._found(expected)
        if found is not None and not found.usable:
            self._drop(expected)
            found = None
        if found is None:
            self._create(expected)
        if expected.constraint:
            self._attach(expected)

    def revert(self, action: Action) -> None:
        """Drop it, concurrently; one that is a constraint's goes with it, in a moment."""
        expected = _expected(action)
        found = self._found(expected)
        if found is None:
            return
        if found.name != expected.name or not found.does(expected):
            raise ArrakisError(
                f"{expected.name} is not the index that was made", hint="look before you drop it"
            )
        if not found.constraint:
            self._drop(expected)
            return
        with self._gate.write.sql.transaction() as transaction:
            self._gate.fence(transaction)
            transaction.run_made(f"ALTER TABLE public.{expected.table} DROP CONSTRAINT {expected.name}")

    def _found(self, expected: Expected) -> Index | None:
        with self._gate.read.sql.snapshot() as snapshot:
            return stands_for(expected, read_indexes(snapshot))

    def _create(self, expected: Expected) -> None:
        try:
            self._alone(expected, expected.concurrently, patience=_PATIENCE)
        except BaseException as error:
            left = self._clear(expected)
            if isinstance(error, ArrakisError) and not isinstance(error, LeaseHeld):
                raise ArrakisError(
                    f"{expected.name} was not made: {error}; {left}", hint=error.hint
                ) from error
            self._gate.tell(f"  {expected.name} was not made; {left}")
            raise

    def _clear(self, expected: Expected) -> str:
        """Drop what a failure left behind, and say whether that could be done."""
        with suppress(ArrakisError):
            found = self._found(expected)
            if found is None or found.usable:
                return "nothing is left of it"
            self._drop(expected)
            return "what was left of it is dropped"
        return f"an invalid index is left: DROP INDEX CONCURRENTLY public.{expected.name}"

    def _drop(self, expected: Expected) -> None:
        self._alone(expected, f"DROP INDEX CONCURRENTLY IF EXISTS public.{expected.name}", patience=_BRIEF)

    def _attach(self, expected: Expected) -> None:
        with self._gate.write.sql.transaction() as transaction:
            self._gate.fence(transaction)
            transaction.run_made(
                f"ALTER TABLE public.{expected.table} ADD CONSTRAINT {expected.name} UNIQUE USING INDEX {expected.name}"
            )

    def _alone(self, expected: Expected, statement: str, *, patience: float) -> None:
        def progress(snapshot: SqlSnapshot) -> str | None:
            seen = read_progress(snapshot, expected.table)
            return seen.told if seen else None

        run_alone(self._gate, expected.name, statement, patience=patience, progress=progress)


class AnalyzeTable:
    """Gathers a control table's statistics anew. Nothing is lost by it, and there is nothing to take back."""

    verb = "analyze table"
    rights = MAINTAINING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether it was analyzed since the plan."""
        table = self._table(action)
        if table is None:
            return Observation(state=State.CHANGED, reason="there is no such table any more")
        before = action.before["analyzed_at"]
        if table.analyzed_at and (before is None or table.analyzed_at > datetime.fromisoformat(before)):
            return Observation(
                state=State.AFTER, reason=f"it was analyzed at {table.analyzed_at:%H:%M:%S} UTC"
            )
        return Observation(
            state=State.BEFORE,
            reason=f"{counted(table.modified, 'row was', 'rows were')} changed since its last ANALYZE",
        )

    def in_use(self, action: Action) -> str | None:
        """Nobody is asked: it keeps neither readers nor writers waiting."""
        return None

    def apply(self, action: Action) -> None:
        """Analyze it, and wait until the statistics say so. A role that may not gets a warning only, not an error."""
        name = action.before["name"]
        if name not in TABLES:
            raise ArrakisError(f"{name} is none of the control tables")
        with self._gate.write.sql.transaction() as transaction:
            self._gate.fence(transaction)
            transaction.execute(f"write/indexes/analyze_{name}")
        end = time.monotonic() + _SOON
        while self.observe(action).state is not State.AFTER:
            if time.monotonic() > end:
                raise ArrakisError(
                    f"{name} was not analyzed: PostgreSQL skips it for a role that may not",
                    hint="its owner may, or a role with MAINTAIN",
                )
            time.sleep(_POLL)

    def revert(self, action: Action) -> None:
        """Impossible, and of no use."""
        raise ArrakisError(f"the statistics of {action.before['name']} are nothing to take back")

    def _table(self, action: Action) -> Table | None:
        with self._gate.read.sql.snapshot() as snapshot:
            return next((each for each in read_tables(snapshot) if each.name == action.before["name"]), None)


def _expected(action: Action) -> Expected:
    """The index of an action. Raises ArrakisError unless it is one of the migration's, as the plan has it."""
    expected = EXPECTED.get(str(action.before["name"]))
    if expected is None or action.after["definition"] != expected.definition or expected.primary:
        raise ArrakisError(
            f"{action.before['name']} is no index to be made here", hint="run the runbook again"
        )
    return expected
