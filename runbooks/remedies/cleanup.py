"""Cleaning up what is over, sandbox by sandbox; and clearing what keeps it from going."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from diagnostics.postgres import in_the_way
from runbooks.engine import stops
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation, State
from runbooks.engine.page import Rights
from runbooks.rights import CLEANING
from sandbox import cleanup, registry, removal, schemas
from sandbox.errors import ArrakisError
from sandbox.model import Sandbox, Status
from sandbox.ports import SqlSnapshot, SqlTransaction
from sandbox.removal import Destroyed, Terms
from sandbox.sweep import Sweep
from sandbox.text import clean

__all__ = ["CleanUp", "DropBlocker"]


class CleanUp:
    """Takes sandboxes that are over away, as the scheduled job does: routes, keys, schemas, mappings. For good.

    One, or many together: their keys go in one pass over the keyspace. Satisfies Remedy and Bulk.
    """

    verb = "clean up sandbox"
    rights = CLEANING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate. The workers of a run share a remedy, and so a pass over the keyspace."""
        self._gate = gate
        self._sweep = Sweep()

    def observe(self, action: Action) -> Observation:
        """Look whether it is still over, and what is left of it."""
        return self.observe_all([action])[action.id]

    def observe_all(self, actions: Sequence[Action]) -> Mapping[str, Observation]:
        """Look, by one reading of the tables for all of them."""
        with self._gate.read.sql.snapshot() as snapshot:
            seen = _Seen.of(snapshot, [_id(action) for action in actions])
        marked = stops.marked(self._gate.read.sql)
        return {action.id: _MARKED if _id(action) in marked else seen.standing(action) for action in actions}

    def in_use(self, action: Action) -> str | None:
        """Say what elsewhere would go with its schemas, or who holds them."""
        return self.in_use_all([action]).get(action.id)

    def in_use_all(self, actions: Sequence[Action]) -> Mapping[str, str]:
        """Say it of all of them."""
        tag, ids = self._gate.read.tag, [_id(action) for action in actions]
        with self._gate.read.sql.snapshot() as snapshot:
            left = _Seen.of(snapshot, ids).schemas
            names = [name for each in left.values() for name in each]
            denied = schemas.not_ours(snapshot, names)
            outside = schemas.dependents(snapshot, names)
            holders = in_the_way(snapshot, names, sandboxes=ids, tag=tag)
        users: dict[str, str] = {}
        for action in actions:
            mine = left[_id(action)]
            held = [each for each in holders if each.schema in mine or each.sandbox == _id(action)]
            if barred := [name for name in denied if name in mine]:
                users[action.id] = f"this role may not drop {', '.join(barred)}"
            elif resting := [f"{each} rests on {name}" for name in mine for each in outside.get(name, ())]:
                users[action.id] = resting[0]
            elif held:
                users[action.id] = f"session {held[0].pid} of {held[0].user} {held[0].how}"
        return users

    def apply(self, action: Action) -> None:
        """Take it away; each step is told."""
        for error in self._take_away([action], tell=True).values():
            raise error

    def apply_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        """Take away those that are still over when their rows are held; of one alone each step is told."""
        return self._take_away(actions, tell=len(actions) == 1)

    def revert(self, action: Action) -> None:
        """Impossible."""
        raise ArrakisError(f"{action.resource.id} was taken away for good", hint="create another one")

    def _take_away(self, actions: Sequence[Action], *, tell: bool) -> Mapping[str, Exception]:
        gate, planned = self._gate, {_id(action): action for action in actions}

        def insist(transaction: SqlTransaction, rows: Sequence[Sandbox]) -> None:
            # With their rows held, nobody marks them now.
            marked = () if all(row.live for row in rows) else stops.marked(gate.read.sql)
            seen = _Seen.of(transaction, [row.id for row in rows])
            for row in rows:
                if not row.live and row.id in marked:
                    raise ArrakisError(f"{row.name}: {_MARKED.reason}")
                if row.live and row.id not in seen.over:
                    raise ArrakisError(f"{row.name} is not over any more: it is {row.status}")
                if set(seen.schemas[row.id]) - set(planned[row.id].before["schemas"]):
                    raise ArrakisError(f"{row.name} has another schema than planned")

        def say(row: Sandbox, step: str, seen: Mapping[str, object]) -> None:
            told = " ".join(f"{name}={clean(value)}" for name, value in seen.items())
            gate.tell(f"  {clean(row.name)}: {step} {told}")

        terms = Terms(
            actor=gate.write.actor,
            now=registry.time_of(gate.read.sql),
            fence=gate.fence,
            pause=gate.pause,
            failed=gate.failed,
        )
        if tell:
            terms = replace(terms, tell=say)
        gone = removal.clean_up(
            gate.write.sql, gate.write.keys, list(planned), terms, insist=insist, sweep=self._sweep
        )
        return {planned[id].id: error for id, each in gone.items() if (error := _failure(each))}


_MARKED = Observation(
    state=State.CHANGED,
    reason="an emergency stop marked it destroyed, and `emergency-resume` may bring it back",
)


class DropBlocker:
    """Drops one object outside of a sandbox's schema that rests on it, and was named; never with CASCADE."""

    verb = "drop object"
    rights = Rights()  # of whoever owns what was named: PostgreSQL asks it of the one statement that does it

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether it still rests on the schema, and would be dropped by the same statement."""
        schema, name = action.before["schema"], action.before["name"]
        with self._gate.read.sql.snapshot() as snapshot:
            found = [each for each in schemas.blockers(snapshot, [schema]) if each.name == name]
        if not found:
            return Observation(state=State.AFTER, reason=f"no {name} rests on {schema}")
        if any(getattr(found[0], what) != action.before[what] for what in ("statement", "definition")):
            return Observation(state=State.CHANGED, reason=f"{name} is another {found[0].kind} now")
        return Observation(state=State.BEFORE, reason=f"it rests on {schema}")

    def in_use(self, action: Action) -> str | None:
        """Nobody is asked: it was named, and a lock that somebody holds is waited for two seconds only."""
        return None

    def apply(self, action: Action) -> None:
        """Drop it."""
        gate, before = self._gate, action.before
        schemas.drop_blocker(
            gate.write.sql,
            before["schema"],
            before["name"],
            fence=gate.fence,
            definition=before["definition"],
        )

    def revert(self, action: Action) -> None:
        """Impossible: what it rested on may be gone; its definition is in the plan and the journal."""
        raise ArrakisError(f"{action.before['name']} was dropped", hint="its definition is in the plan")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """Some sandboxes as they are now: their rows, the schemas that are each one's alone, which are over, which left keys."""

    rows: Mapping[UUID, Sandbox]
    schemas: Mapping[UUID, Sequence[str]]
    over: frozenset[UUID]
    keyed: frozenset[UUID]

    @classmethod
    def of(cls, snapshot: SqlSnapshot, ids: Sequence[UUID]) -> "_Seen":
        """Read them, and no others: there may be thousands."""
        rows = {row.id: row for row in registry.by_ids(snapshot, ids)}
        due = {row.id for row in cleanup.due_at(snapshot, registry.now(snapshot), ids=ids)}
        # Nothing brings back one that is being destroyed, whoever began it.
        begun = {row.id for row in rows.values() if row.status is Status.DESTROYING}
        owned = registry.owned_schemas(snapshot, schemas.named(snapshot, list(rows.values())))
        return cls(
            rows=rows,
            schemas={id: owned.get(id, ()) for id in ids},
            over=frozenset(due | begun),
            keyed=frozenset(row.id for row in registry.unfinished(snapshot, ids=ids)),
        )

    def standing(self, action: Action) -> Observation:
        """Say how one stands to its action."""
        row = self.rows.get(_id(action))
        if row is None:
            return Observation(state=State.CHANGED, reason="its row is gone")
        left, keyed = self.schemas[row.id], row.id in self.keyed
        if more := set(left) - set(action.before["schemas"]):
            return Observation(state=State.CHANGED, reason=f"it has {', '.join(sorted(more))} as well now")
        if row.id in self.over or (keyed and action.before["status"] == Status.DESTROYED):
            return Observation(state=State.BEFORE, reason=f"it is {row.status}, and over")
        if row.live:
            ends = f" until {row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else ""
            return Observation(state=State.CHANGED, reason=f"it is {row.status}{ends}")
        if left or keyed:
            what = ", ".join(left) or "keys"
            return Observation(state=State.PARTLY, reason=f"it is destroyed, but {what} are left")
        return Observation(state=State.AFTER, reason="nothing of it is left")


def _id(action: Action) -> UUID:
    return UUID(action.before["id"])


def _failure(gone: Destroyed | ArrakisError) -> ArrakisError | None:
    """Return what went wrong with one, if anything did. Keys that are left are found again by their row."""
    return gone if isinstance(gone, ArrakisError) else gone.unsettled
