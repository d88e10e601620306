"""Putting orphans into quarantine, and deleting them for good."""

from runbooks.engine.model import Action, Observation, State
from runbooks.remedies.gate import Gate
from sandbox import keyspace, registry, schemas
from sandbox.errors import ArrakisError
from sandbox.keyspace import Parked
from sandbox.naming import read_quarantined_schema, token_of_schema
from sandbox.orphans import Standing

__all__ = ["DeleteKeys", "DropSchema", "QuarantineKeys", "QuarantineSchema"]


class QuarantineSchema:
    """Renames an orphaned schema; undone by the old name."""

    verb = "quarantine schema"

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look which of the two names exists."""
        original, parked = action.before["name"], action.after["name"]
        found = self._gate.schema_names()
        if parked in found:
            state = State.CHANGED if original in found else State.AFTER
            why = f"{original} exists again beside {parked}" if original in found else f"it is {parked} now"
            return Observation(state=state, reason=why)
        if original not in found:
            return Observation(state=State.CHANGED, reason=f"{original} is gone")
        return Observation(state=State.BEFORE, reason="as planned", evidence={"writes": found[original]})

    def in_use(self, action: Action) -> str | None:
        """Say who uses it, or that somebody wrote to it since the plan."""
        name = action.before["name"]
        written = self._gate.schema_names().get(name, 0) - action.before["writes"]
        if written:
            return (
                f"{written} rows were written since the plan" if written > 0 else "its statistics were reset"
            )
        return self._gate.user_of(_token(action), name)

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
            case True, False if here > action.before["keys"]:
                why = f"{here - action.before['keys']} keys were written since the plan"
                return Observation(state=State.CHANGED, reason=why, evidence=counts)
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
            hold=lambda: self._gate.orphan(parked.token),
        )

    def revert(self, action: Action) -> None:
        """Rename the keys back; a name that was taken meanwhile is left alone."""
        keyspace.unpark(self._gate.write.keys, _parked(action), hold=self._gate.lease)


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
        if left > action.before["keys"]:
            why = f"{left - action.before['keys']} keys were written since the plan"
            return Observation(state=State.CHANGED, reason=why)
        state = State.BEFORE if left else State.AFTER
        return Observation(state=state, reason=f"{left} keys left", evidence={"keys": left})

    def in_use(self, action: Action) -> str | None:
        """Say who uses it; of what is parked, whether a sandbox owns its id again."""
        if action.before.get("stamp"):
            with self._gate.read.sql.snapshot() as snapshot:
                placement = registry.claimants(snapshot, tokens=[_token(action)]).place_family(_token(action))
            return None if placement.standing is Standing.ORPHAN else placement.reason
        return self._gate.user_of(_token(action), None)

    def apply(self, action: Action) -> None:
        """Delete what is left of it."""
        gate, token = self._gate, _token(action)
        if action.before.get("stamp"):
            keyspace.delete_parked(gate.write.keys, _parked(action), hold=lambda: gate.orphan(token))
        else:
            keyspace.delete_family(gate.write.keys, token, hold=lambda: gate.orphan(token))

    def revert(self, action: Action) -> None:
        """Impossible."""
        raise ArrakisError(f"the keys of {_token(action)} were deleted for good")


def _token(action: Action) -> str:
    """The id that an action is about: read from the very name that is acted on, where there is one."""
    if "name" not in action.before:
        return str(action.before["token"])
    name = str(action.before["name"])
    quarantined = read_quarantined_schema(name)
    token = token_of_schema(quarantined.original if quarantined else name)
    if token is None:
        raise ArrakisError(f"{name} is no sandbox's schema")
    return token


def _parked(action: Action) -> Parked:
    stamp = action.after.get("stamp") or action.before.get("stamp")
    return Parked(stamp=str(stamp), token=_token(action))
