"""What keeps a role from creating schemas: a right that is granted, a part of the migration that is made again; and a trial."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from diagnostics.migration import Fault, Part, faults, parts, read_items
from diagnostics.rights import Right, read_rights
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation, Resource, Reversibility, State
from runbooks.engine.page import Rights
from runbooks.rights import GRANTING, MIGRATING
from sandbox import registry
from sandbox.errors import ArrakisError
from sandbox.naming import schema_for
from sandbox.orphans import Standing
from sandbox.ports import SqlSnapshot, SqlTransaction

__all__ = ["GrantRight", "Migrate", "TryCreating", "grant_right", "migrate", "try_creating"]

_TABLES = 3  # that a sandbox's schema has
_DROPS = {"function": "DROP FUNCTION", "table": "DROP TABLE", "type": "DROP TYPE", "index": "DROP INDEX"}


def grant_right(right: Right, *, deployed: str, reason: str) -> Action:
    """Return the action that grants a right which a role lacks; `deployed` is the deployed system's role."""
    return Action(
        id="",
        verb=GrantRight.verb,
        resource=Resource(kind="right", id=right.statement.removeprefix("GRANT ")),
        before={**asdict(right), "deployed": deployed},
        after={"held": True},
        reason=reason,
        reversibility=Reversibility.REVERSIBLE,
    )


def migrate(part: Part, *, reason: str) -> Action:
    """Return the action that makes a missing object of the migration by its own statement."""
    return Action(
        id="",
        verb=Migrate.verb,
        resource=Resource(kind=part.kind, id=f"public.{part.name}"),
        before={"kind": part.kind, "name": part.name, "statement": part.statement},
        after={},
        reason=reason,
        reversibility=Reversibility.REVERSIBLE,
    )


def try_creating(id: UUID, *, role: str, acting: bool) -> Action:
    """Return the action that creates a schema for an id that nobody has, and drops it; `acting`: as another role."""
    return Action(
        id="a1",
        verb=TryCreating.verb,
        resource=Resource(kind="schema", id=schema_for(id)),
        before={"id": str(id), "schema": schema_for(id), "role": role, "acting": acting},
        after={},
        reason=f"asked for: created as {role}, timed, and dropped again",
        reversibility=Reversibility.REVERSIBLE,
    )


class GrantRight:
    """Grants one right that is lacking; undone by revoking it."""

    verb = "grant right"
    rights = GRANTING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether the role has it now."""
        with self._gate.read.sql.snapshot() as snapshot:
            right = _right(snapshot, action)
        if right is None:
            return Observation(state=State.CHANGED, reason="the role or what it is about is gone")
        if right.held:
            return Observation(state=State.AFTER, reason=f"{right.role} has it")
        return Observation(state=State.BEFORE, reason=f"{right.role} lacks it")

    def in_use(self, action: Action) -> str | None:
        """Say that it is not for this role to grant."""
        with self._gate.read.sql.snapshot() as snapshot:
            right = _right(snapshot, action)
        if right is None or right.may_grant:
            return None
        return f"it belongs to {right.owner}, and this role may not grant it"

    def apply(self, action: Action) -> None:
        """Grant it, by the statement that the server makes of the names."""
        with self._gate.write.sql.transaction() as transaction:
            self._gate.fence(transaction)
            transaction.run_made(_insist_on(_right(transaction, action)).statement)

    def revert(self, action: Action) -> None:
        """Revoke it."""
        with self._gate.write.sql.transaction() as transaction:
            self._gate.fence(transaction)
            transaction.run_made(_insist_on(_right(transaction, action)).taking)


class Migrate:
    """Makes one object of the migration that is not there; what is there, even otherwise, is never touched."""

    verb = "migrate"
    rights = MIGRATING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether all of it is missing still."""
        with self._gate.read.sql.snapshot() as snapshot:
            fault = _missing(snapshot, action)
        if fault is None:
            return Observation(state=State.AFTER, reason="it is there, as the migration makes it")
        if fault.part is None or fault.part.statement != action.before["statement"]:
            return Observation(state=State.CHANGED, reason=f"{fault.name}: {fault.told}")
        return Observation(state=State.BEFORE, reason="it does not exist")

    def in_use(self, action: Action) -> str | None:
        """Nobody uses what is not there."""
        return None

    def apply(self, action: Action) -> None:
        """Make it, if it is missing still, by the migration's own statement."""
        with self._gate.write.sql.transaction() as transaction:
            self._gate.fence(transaction)
            fault = _missing(transaction, action)
            if fault is None or fault.part is None or fault.part.statement != action.before["statement"]:
                raise ArrakisError(f"{action.resource.id} is not missing any more: it was left alone")
            transaction.run_made(fault.part.statement)

    def revert(self, action: Action) -> None:
        """Drop it again; with rows in it, or with anything that rests on it, it stays."""
        kind, name = action.before["kind"], action.before["name"]
        if not any((part.kind, part.name) == (kind, name) for part in parts()):
            raise ArrakisError(f"{name} is none of the migration's objects")
        with self._gate.write.sql.transaction() as transaction:
            self._gate.fence(transaction)
            if kind == "table":
                transaction.run_made(f"LOCK TABLE public.{name}")
                if transaction.newest({"public": [(name, "created_at")]})["public"]:
                    raise ArrakisError(f"public.{name} has rows by now: it stays")
            transaction.run_made(f"{_DROPS[kind]} public.{name}")


class TryCreating:
    """Creates a schema as the deployed system does, for an id that nobody has, and drops it; both are timed.

    Its name is known before: whatever is left of an interrupted trial is found by it, and dropped.
    """

    verb = "create probe schema"
    rights = Rights()  # what the deployed system may is what is tried

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate
        self._done: dict[str, Mapping[str, Any]] = {}

    def observe(self, action: Action) -> Observation:
        """Look whether the schema is there; where it is not, only who has just tried knows whether it was."""
        with self._gate.read.sql.snapshot() as snapshot:
            found, owned = _probe(snapshot, action), _owned(snapshot, action)
        if owned:
            return Observation(state=State.CHANGED, reason=owned)
        if found:
            return Observation(state=State.PARTLY, reason="it was made, and not dropped")
        if done := self._done.get(action.before["schema"]):
            return Observation(state=State.AFTER, reason=_told(done), evidence=done)
        return Observation(state=State.BEFORE, reason="there is no such schema")

    def in_use(self, action: Action) -> str | None:
        """Nobody knows its name."""
        return None

    def apply(self, action: Action) -> None:
        """Create it, and drop it; of an interrupted trial, drop what is left. Raises what the server said."""
        done: dict[str, Any] = {"role": action.before["role"]}
        tables = _TABLES
        if self._find(action) is None:
            done["created_ms"] = _milliseconds(lambda: self._call(action, "write/schemas/create"))
            made = self._find(action)
            if made is None:
                raise ArrakisError("create_sandbox_schema said nothing, and made no schema")
            tables = made.tables
        done["dropped_ms"] = self._drop(action)
        if tables != _TABLES:
            raise ArrakisError(f"create_sandbox_schema made {tables} tables in place of {_TABLES}")
        self._done[action.before["schema"]] = done

    def revert(self, action: Action) -> None:
        """Drop it, if it was left."""
        if self._find(action) is not None:
            self._drop(action)

    def _find(self, action: Action) -> "_Probe | None":
        with self._gate.read.sql.snapshot() as snapshot:
            return _probe(snapshot, action)

    def _call(self, action: Action, statement: str) -> None:
        with self._gate.write.sql.transaction() as transaction:
            self._enter(transaction, action)
            transaction.execute(statement, token=action.before["id"])

    def _drop(self, action: Action) -> float:
        """Drop it by the deployed function, or directly where that fails; return how long it took, in ms."""
        try:
            taken = _milliseconds(lambda: self._call(action, "write/rights/drop_probe"))
            if self._find(action) is None:
                return taken
            why = "it said nothing, and the schema is there still"
        except ArrakisError as error:
            why = str(error)
        with self._gate.write.sql.transaction() as transaction:
            self._enter(transaction, action)
            transaction.drop_schema(action.before["schema"])
        raise ArrakisError(
            f"it was created; but drop_sandbox_schema fails, so it was dropped directly: {why}"
        )

    def _enter(self, transaction: SqlTransaction, action: Action) -> None:
        """Hold the lease, make sure that the name is nobody's, and work as the role that was planned."""
        self._gate.fence(transaction)
        if owned := _owned(transaction, action):
            raise ArrakisError(owned)
        if action.before["acting"]:
            transaction.execute("write/rights/act_as", role=action.before["role"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    owner: str
    tables: int


def _right(snapshot: SqlSnapshot, action: Action) -> Right | None:
    """The planned right as it is now, if the server would grant it by the very same statement."""
    seen = read_rights(snapshot, deployed=action.before["deployed"])
    return next((right for right in seen.rights if right.statement == action.before["statement"]), None)


def _insist_on(right: Right | None) -> Right:
    if right is None:
        raise ArrakisError("the role or what the right is about is gone")
    return right


def _missing(snapshot: SqlSnapshot, action: Action) -> Fault | None:
    """What is wrong with the planned object, or with a part of it."""
    kind, name = action.before["kind"], action.before["name"]
    mine = {
        (item.kind, item.name)
        for part in parts()
        if (part.kind, part.name) == (kind, name)
        for item in part.items
    }
    return next(
        (
            fault
            for fault in faults(read_items(snapshot))
            if (fault.kind, fault.name) == (kind, name)
            or (kind == "table" and (fault.kind, fault.name) in mine)
        ),
        None,
    )


def _probe(snapshot: SqlSnapshot, action: Action) -> _Probe | None:
    return next(iter(snapshot.rows("read/rights/probe", _Probe, schema=action.before["schema"])), None)


def _owned(snapshot: SqlSnapshot, action: Action) -> str | None:
    """Why the schema would not be ours: a sandbox has that id."""
    placement = registry.claimants(snapshot, tokens=[action.before["id"]]).place_family(action.before["id"])
    return None if placement.standing is Standing.ORPHAN else placement.reason


def _milliseconds(call: Callable[[], None]) -> float:
    began = time.monotonic()
    call()
    return round((time.monotonic() - began) * 1000, 1)


def _told(done: Mapping[str, Any]) -> str:
    created = f"created in {done['created_ms']:.0f} ms, " if "created_ms" in done else ""
    return f"{created}dropped in {done['dropped_ms']:.0f} ms as {done['role']}"
