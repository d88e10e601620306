"""Cleaning up what is over, sandbox by sandbox; and clearing what keeps it from going."""

from collections.abc import Mapping
from uuid import UUID

from diagnostics.postgres import in_the_way
from runbooks.engine.model import Action, Observation, State
from runbooks.remedies.gate import Gate
from sandbox import cleanup, lifecycle, registry, schemas, teardown
from sandbox.errors import ArrakisError, Unreachable
from sandbox.model import Sandbox, Status
from sandbox.ports import SqlSnapshot, SqlTransaction
from sandbox.text import clean

__all__ = ["CleanUp", "DropBlocker"]


class CleanUp:
    """Takes a sandbox that is over away, as the scheduled job does: routes, keys, schemas, mappings. For good."""

    verb = "clean up sandbox"

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether it is still over, and what is left of it."""
        with self._gate.read.sql.snapshot() as snapshot:
            row = _row(snapshot, UUID(action.before["id"]))
            if row is None:
                return Observation(state=State.CHANGED, reason="its row is gone")
            left = teardown.belongings(snapshot, row).schemas
            keyed = any(each.id == row.id for each in registry.unfinished(snapshot))
            over = _is_over(snapshot, row)
        if more := set(left) - set(action.before["schemas"]):
            return Observation(state=State.CHANGED, reason=f"it has {', '.join(sorted(more))} as well now")
        if over or (keyed and action.before["status"] == Status.DESTROYED):
            return Observation(state=State.BEFORE, reason=f"it is {row.status}, and over")
        if row.live:
            ends = f" until {row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else ""
            return Observation(state=State.CHANGED, reason=f"it is {row.status}{ends}")
        if left or keyed:
            what = ", ".join(left) or "keys"
            return Observation(state=State.PARTLY, reason=f"it is destroyed, but {what} are left")
        return Observation(state=State.AFTER, reason="nothing of it is left")

    def in_use(self, action: Action) -> str | None:
        """Say what elsewhere would go with its schemas, or who holds them."""
        with self._gate.read.sql.snapshot() as snapshot:
            row = _row(snapshot, UUID(action.before["id"]))
            names = teardown.belongings(snapshot, row).schemas if row else []
            if denied := schemas.not_ours(snapshot, names):
                return f"this role may not drop {', '.join(denied)}"
            outside = schemas.blockers(snapshot, names)
            holders = in_the_way(
                snapshot, names, sandboxes=[UUID(action.before["id"])], tag=self._gate.read.tag
            )
        if outside:
            return f"{outside[0].kind} {outside[0].name} rests on {outside[0].schema}"
        return f"session {holders[0].pid} of {holders[0].user} {holders[0].how}" if holders else None

    def apply(self, action: Action) -> None:
        """Take it away, if it is still over when its row is held; each step is told."""
        gate = self._gate

        def insist(transaction: SqlTransaction, row: Sandbox) -> None:
            gate.fence(transaction)
            if row.live and not _is_over(transaction, row):
                raise ArrakisError(f"{row.name} is not over any more: it is {row.status}")
            if set(teardown.belongings(transaction, row).schemas) - set(action.before["schemas"]):
                raise ArrakisError(f"{row.name} has another schema than planned")

        def tell(step: str, seen: Mapping[str, object]) -> None:
            told = " ".join(f"{name}={clean(value)}" for name, value in seen.items())
            gate.tell(f"  {clean(action.resource.id)}: {step} {told}")

        gone = lifecycle.clean_up(
            gate.write.sql,
            gate.write.keys,
            UUID(action.before["id"]),
            actor=gate.write.actor,
            now=registry.time_of(gate.read.sql),
            insist=insist,
            tell=tell,
        )
        if gone.unsettled:
            raise Unreachable(f"its keys are left: {gone.unsettled}", hint="the clean-up job deletes them")

    def revert(self, action: Action) -> None:
        """Impossible."""
        raise ArrakisError(f"{action.resource.id} was taken away for good", hint="create another one")


class DropBlocker:
    """Drops one object outside of a sandbox's schema that rests on it, and was named; never with CASCADE."""

    verb = "drop object"

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


def _is_over(snapshot: SqlSnapshot, row: Sandbox) -> bool:
    """Whether a sandbox may be taken away: nothing brings back one that is being destroyed, whoever began it."""
    return row.status is Status.DESTROYING or bool(
        cleanup.due_at(snapshot, registry.now(snapshot), id=row.id)
    )


def _row(snapshot: SqlSnapshot, id: UUID) -> Sandbox | None:
    rows = registry.claimants(snapshot, tokens=[str(id)]).rows
    return next((row for row in rows if row.id == id), None)
