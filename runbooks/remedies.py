"""What the procedures may change, one remedy a verb. Each looks again before it acts, and can say who is in the way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from runbooks.engine.model import Action, Observation, Remedy, State
from runbooks.engine.systems import Readers, Writers
from sandbox import keyspace, registry, schemas
from sandbox.errors import ArrakisError
from sandbox.keyspace import Parked
from sandbox.naming import same_sandbox, token_of_schema
from sandbox.orphans import Placement, Standing
from sandbox.ports import SqlTransaction
from sandbox.streams import listeners

__all__ = ["RECENT", "DeleteKeys", "DropSchema", "Gate", "QuarantineKeys", "QuarantineSchema", "remedies"]

RECENT = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a remedy works with: the systems, and the lease's fence."""

    read: Readers
    write: Writers
    fence: Callable[[SqlTransaction], None]

    def insist_on_orphan(self, token: str) -> None:
        """Raise unless the lease is ours and no sandbox owns the token, now."""
        with self.write.sql.transaction() as transaction:
            self.fence(transaction)
            placement = registry.claimants(transaction, token).place_family(token)
        if placement.standing is not Standing.ORPHAN:
            raise ArrakisError(f"{token} is not an orphan any more: {placement.reason}")

    def user_of(self, token: str, schema: str | None) -> str | None:
        """Say who owns or uses a token's resources, or did in the last 15 minutes; None if nobody."""
        with self.read.sql.snapshot() as snapshot:
            placement: Placement = registry.claimants(snapshot, token).place_family(token)
            if placement.standing is Standing.LIVE or len(placement.sandboxes) > 1:
                return placement.reason
            known = [found.name for found in schemas.census(snapshot)]
            names = [
                name for name in known if name == schema or same_sandbox(token_of_schema(name) or "", token)
            ]
            using = schemas.users(snapshot, names, tag=self.read.tag, recent=RECENT)
        if using:
            one = using[0]
            return f"{one.user_name} ({one.application or 'no application name'}, pid {one.pid}) {one.how}"
        related = keyspace.spellings(keyspace.survey(self.read.keys).families, token)
        for family, use in keyspace.usage(self.read.keys, related).items():
            if use.idle_seconds is not None and use.idle_seconds < RECENT.total_seconds():
                return f"a key of sandbox:{family} was used {use.idle_seconds} s ago"
        heard = listeners(self.read.streams.subscriptions(), token)
        return f"{', '.join(heard)} listens to its subjects" if heard else None

    def schema_names(self) -> Mapping[str, int]:
        """Return every schema's count of writes, by its name."""
        with self.read.sql.snapshot() as snapshot:
            return {schema.name: schema.writes for schema in schemas.census(snapshot)}


class QuarantineSchema:
    """Renames an orphaned schema; undone by the old name."""

    verb = "quarantine schema"

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look which of the two names exists, and whether anything was written since the plan."""
        original, parked = action.before["name"], action.after["name"]
        found = self._gate.schema_names()
        if parked in found:
            state = State.CHANGED if original in found else State.AFTER
            why = f"{original} exists again beside {parked}" if original in found else f"it is {parked} now"
            return Observation(state=state, reason=why)
        if original not in found:
            return Observation(state=State.CHANGED, reason=f"{original} is gone")
        written = found[original] - action.before["writes"]
        if written:
            return Observation(state=State.CHANGED, reason=f"{abs(written)} rows were written since the plan")
        return Observation(state=State.BEFORE, reason="as planned", evidence={"writes": found[original]})

    def in_use(self, action: Action) -> str | None:
        """Say who uses it."""
        return self._gate.user_of(_token(action), action.before["name"])

    def apply(self, action: Action) -> None:
        """Rename it, if it still is an orphan."""
        schemas.rename_orphan(
            self._gate.write.sql,
            action.before["name"],
            action.after["name"],
            token=_token(action),
            fence=self._gate.fence,
        )

    def revert(self, action: Action) -> None:
        """Give it its name back."""
        schemas.restore(
            self._gate.write.sql, action.after["name"], action.before["name"], fence=self._gate.fence
        )


class QuarantineKeys:
    """Parks an orphaned family's keys under another prefix, TTLs running on; undone by renaming them back."""

    verb = "quarantine keys"

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Count the family's keys here and in quarantine."""
        parked = _parked(action)
        found = keyspace.survey(self._gate.read.keys)
        here, there = found.families.get(parked.token, 0), found.parked.get(parked, 0)
        counts = {"keys": here, "parked": there}
        match bool(here), bool(there):
            case True, False:
                return Observation(state=State.BEFORE, reason=f"{here} keys", evidence=counts)
            case False, True:
                return Observation(state=State.AFTER, reason=f"{there} keys parked", evidence=counts)
            case True, True:
                why = f"{there} keys parked, {here} not"
                return Observation(state=State.PARTLY, reason=why, evidence=counts)
        return Observation(state=State.CHANGED, reason="its keys are gone", evidence=counts)

    def in_use(self, action: Action) -> str | None:
        """Say who uses it."""
        return self._gate.user_of(_token(action), None)

    def apply(self, action: Action) -> None:
        """Park what is left of it; each batch makes sure first that it still is an orphan's."""
        parked = _parked(action)
        keyspace.park(
            self._gate.write.keys,
            parked.token,
            parked.stamp,
            check=lambda: self._gate.insist_on_orphan(parked.token),
        )

    def revert(self, action: Action) -> None:
        """Rename the keys back; a name that was taken meanwhile is left alone."""
        with self._gate.write.sql.transaction() as transaction:
            self._gate.fence(transaction)
        keyspace.unpark(self._gate.write.keys, _parked(action))


class DropSchema:
    """Drops an orphaned or quarantined schema for good."""

    verb = "drop schema"

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether it exists, and whether anything was written since the plan."""
        found = self._gate.schema_names()
        name = action.before["name"]
        if name not in found:
            return Observation(state=State.AFTER, reason=f"{name} does not exist")
        if found[name] != action.before["writes"]:
            return Observation(state=State.CHANGED, reason="rows were written since the plan")
        return Observation(state=State.BEFORE, reason="as planned")

    def in_use(self, action: Action) -> str | None:
        """Say who uses it, or what elsewhere depends on it."""
        with self._gate.read.sql.snapshot() as snapshot:
            outside = schemas.dependents(snapshot, action.before["name"])
        if outside:
            return f"{', '.join(outside)} depends on it"
        return self._gate.user_of(_token(action), action.before["name"])

    def apply(self, action: Action) -> None:
        """Drop it, if it still is an orphan and nothing elsewhere depends on it."""
        schemas.drop_orphan(
            self._gate.write.sql, action.before["name"], token=_token(action), fence=self._gate.fence
        )

    def revert(self, action: Action) -> None:
        """Impossible."""
        raise ArrakisError(f"{action.before['name']} was dropped for good", hint="restore it from a backup")


class DeleteKeys:
    """Deletes an orphaned or parked family's keys for good."""

    verb = "delete keys"

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Count the keys that are left."""
        found = keyspace.survey(self._gate.read.keys)
        stamp = action.before.get("stamp")
        left = found.parked.get(_parked(action), 0) if stamp else found.families.get(_token(action), 0)
        state = State.BEFORE if left else State.AFTER
        return Observation(state=state, reason=f"{left} keys left", evidence={"keys": left})

    def in_use(self, action: Action) -> str | None:
        """Say who uses it; what is parked is out of everybody's reach."""
        if action.before.get("stamp"):
            return None
        return self._gate.user_of(_token(action), None)

    def apply(self, action: Action) -> None:
        """Delete what is left of it."""
        gate, token = self._gate, _token(action)
        if action.before.get("stamp"):
            gate.insist_on_orphan(token)
            keyspace.delete_parked(gate.write.keys, _parked(action))
        else:
            keyspace.delete_family(gate.write.keys, token, check=lambda: gate.insist_on_orphan(token))

    def revert(self, action: Action) -> None:
        """Impossible."""
        raise ArrakisError(f"the keys of {_token(action)} were deleted for good")


def remedies(read: Readers, write: Writers, fence: Callable[[SqlTransaction], None]) -> dict[str, Remedy]:
    """Return every remedy by its verb."""
    gate = Gate(read=read, write=write, fence=fence)
    made: list[Remedy] = [QuarantineSchema(gate), QuarantineKeys(gate), DropSchema(gate), DeleteKeys(gate)]
    return {remedy.verb: remedy for remedy in made}


def _token(action: Action) -> str:
    before: Mapping[str, Any] = action.before
    return str(before["token"]) if "token" in before else token_of_schema(before["name"]) or ""


def _parked(action: Action) -> Parked:
    stamp = action.after.get("stamp") or action.before.get("stamp")
    return Parked(stamp=str(stamp), token=_token(action))
