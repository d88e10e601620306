"""Putting orphans into quarantine, and deleting them for good."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation, State
from runbooks.rights import DELETING_KEYS, DROPPING_SCHEMAS, QUARANTINING_KEYS, QUARANTINING_SCHEMAS
from sandbox import keyspace, registry, schemas
from sandbox.errors import ArrakisError
from sandbox.keyspace import Parked, Survey
from sandbox.naming import read_quarantined_schema, token_of_schema
from sandbox.orphans import Standing
from sandbox.removal import severally
from sandbox.schemas import Existing
from sandbox.text import counted

__all__ = ["DeleteKeys", "DropSchema", "QuarantineKeys", "QuarantineSchema"]


class QuarantineSchema:
    """Renames orphaned schemas; undone by the old name. Satisfies Remedy, Bulk and BulkUndo."""

    verb = "quarantine schema"
    rights = QUARANTINING_SCHEMAS

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look which of the two names exists."""
        return self.observe_all([action])[action.id]

    def observe_all(self, actions: Sequence[Action]) -> Mapping[str, Observation]:
        """Look by one reading of the catalog."""
        names = [str(side["name"]) for action in actions for side in (action.before, action.after)]
        found = self._gate.existing(names)
        return {action.id: _standing(action, found) for action in actions}

    def in_use(self, action: Action) -> str | None:
        """Say who uses it, or that somebody wrote to it since the plan."""
        return self.in_use_all([action]).get(action.id)

    def in_use_all(self, actions: Sequence[Action]) -> Mapping[str, str]:
        """Say it of all of them."""
        found = self._gate.existing([action.before["name"] for action in actions])
        users = self._gate.users_of({_token(action): action.before["name"] for action in actions})
        told: dict[str, str] = {}
        for action in actions:
            seen = found.get(action.before["name"])
            written = (seen.writes if seen else 0) - action.before["writes"]
            if written:
                more = f"{counted(written, 'row was', 'rows were')} written since the plan"
                told[action.id] = more if written > 0 else "its statistics were reset"
            elif user := users.get(_token(action)):
                told[action.id] = user
        return told

    def apply(self, action: Action) -> None:
        """Rename it, if it still is an orphan."""
        schemas.rename_orphan(
            self._gate.write.sql,
            action.before["name"],
            action.after["name"],
            token=_token(action),
            oid=action.before.get("oid"),
            fence=self._gate.fence,
        )

    def apply_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        """Rename them, each in a transaction of its own; none more where the database is gone, or we are halted."""

        return self._each(actions, self.apply)

    def revert(self, action: Action) -> None:
        """Give it its name back."""
        schemas.restore(
            self._gate.write.sql, action.after["name"], action.before["name"], fence=self._gate.fence
        )

    def revert_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        """Give them their names back, as `apply_all` takes them."""
        return self._each(actions, self.revert)

    def _each(self, actions: Sequence[Action], step: Callable[[Action], None]) -> Mapping[str, Exception]:
        def paced(action: Action) -> None:
            self._gate.pause()
            step(action)

        ended = severally(self._gate.read.sql, actions, paced, self._gate.failed)
        return {action.id: error for action, error in zip(actions, ended, strict=True) if error}


class QuarantineKeys:
    """Parks orphaned families' keys under another prefix, TTLs running on; undone by renaming them back.

    Many together take one pass over the keyspace a step. Satisfies Remedy, Bulk and BulkUndo.
    """

    verb = "quarantine keys"
    rights = QUARANTINING_KEYS

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Count the family's keys here and in quarantine."""
        return self.observe_all([action])[action.id]

    def observe_all(self, actions: Sequence[Action]) -> Mapping[str, Observation]:
        """Count all families in one pass."""
        found = keyspace.survey(self._gate.read.keys)
        return {action.id: _counted(action, found) for action in actions}

    def in_use(self, action: Action) -> str | None:
        """Say who uses it."""
        return self.in_use_all([action]).get(action.id)

    def in_use_all(self, actions: Sequence[Action]) -> Mapping[str, str]:
        """Say who uses which."""
        users = self._gate.users_of({_token(action): None for action in actions})
        return {action.id: user for action in actions if (user := users.get(_token(action)))}

    def apply(self, action: Action) -> None:
        """Park what is left of it; each batch makes sure first that it still is an orphan's."""
        for error in self.apply_all([action]).values():
            raise error

    def apply_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        """Park what is left of them, in one pass."""

        @contextmanager
        def holding(token: str) -> Iterator[None]:
            self._gate.pause()
            with ExitStack() as held:
                try:
                    held.enter_context(self._gate.orphan(token))
                except ArrakisError as error:
                    self._gate.failed(error)
                    raise
                yield

        by_token = {_token(action): action.id for action in actions}
        families = [_parked(action) for action in actions]
        _, failures = keyspace.park_families(self._gate.write.keys, families, hold=holding)
        return {by_token[token]: error for token, error in failures.items()}

    def revert(self, action: Action) -> None:
        """Rename the keys back; a name that was taken meanwhile is left alone."""
        self.revert_all([action])

    def revert_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        """Rename the keys of all of them back, in one pass."""

        @contextmanager
        def holding() -> Iterator[None]:
            self._gate.pause()
            with self._gate.lease():
                yield

        families = [_parked(action) for action in actions]
        keyspace.unpark_families(self._gate.write.keys, families, hold=holding)
        return {}


class DropSchema:
    """Drops an orphaned or quarantined schema for good."""

    verb = "drop schema"
    rights = DROPPING_SCHEMAS

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether it exists, and whether anything was written since the plan."""
        name = action.before["name"]
        found = self._gate.existing([name]).get(name)
        if found is None:
            return Observation(state=State.AFTER, reason=f"{name} does not exist")
        if _other(action, found):
            return Observation(state=State.CHANGED, reason=f"another schema is called {name} now")
        if found.writes != action.before["writes"]:
            return Observation(state=State.CHANGED, reason="rows were written since the plan")
        return Observation(state=State.BEFORE, reason="as planned")

    def in_use(self, action: Action) -> str | None:
        """Say who uses it, or what elsewhere depends on it."""
        with self._gate.read.sql.snapshot() as snapshot:
            outside = schemas.dependents(snapshot, [action.before["name"]])
        for described in outside.values():
            return f"{', '.join(described)} depends on it"
        return self._gate.user_of(_token(action), action.before["name"])

    def apply(self, action: Action) -> None:
        """Drop it, if it still is an orphan and nothing elsewhere depends on it."""
        schemas.drop_orphan(
            self._gate.write.sql,
            action.before["name"],
            token=_token(action),
            oid=action.before.get("oid"),
            fence=self._gate.fence,
        )

    def revert(self, action: Action) -> None:
        """Impossible."""
        raise ArrakisError(f"{action.before['name']} was dropped for good", hint="restore it from a backup")


class DeleteKeys:
    """Deletes an orphaned or parked family's keys for good."""

    verb = "delete keys"
    rights = DELETING_KEYS

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Count the keys that are left."""
        found = keyspace.survey(self._gate.read.keys)
        stamp = action.before.get("stamp")
        left = found.parked.get(_parked(action), 0) if stamp else found.families.get(_token(action), 0)
        if left > action.before["keys"]:
            why = f"{counted(left - action.before['keys'], 'key was', 'keys were')} written since the plan"
            return Observation(state=State.CHANGED, reason=why)
        state = State.BEFORE if left else State.AFTER
        return Observation(state=state, reason=f"{counted(left, 'key')} left", evidence={"keys": left})

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


def _other(action: Action, seen: Existing) -> bool:
    """Whether a name has come to another schema since the plan; a plan of an earlier version does not say which it meant."""
    return bool(action.before.get("oid", seen.oid) != seen.oid)


def _standing(action: Action, found: Mapping[str, Existing]) -> Observation:
    """Say which of a schema's two names exists."""
    original, parked = action.before["name"], action.after["name"]
    if parked in found:
        state = State.CHANGED if original in found else State.AFTER
        why = f"{original} exists again beside {parked}" if original in found else f"it is {parked} now"
        return Observation(state=state, reason=why)
    if original not in found:
        return Observation(state=State.CHANGED, reason=f"{original} is gone")
    if _other(action, found[original]):
        return Observation(state=State.CHANGED, reason=f"another schema is called {original} now")
    writes = found[original].writes
    return Observation(state=State.BEFORE, reason="as planned", evidence={"writes": writes})


def _counted(action: Action, found: Survey) -> Observation:
    """Say how many of a family's keys are here, and how many in quarantine."""
    parked = _parked(action)
    here, there = found.families.get(parked.token, 0), found.parked.get(parked, 0)
    counts = {"keys": here, "parked": there}
    match bool(here), bool(there):
        case True, False if here > action.before["keys"]:
            why = f"{counted(here - action.before['keys'], 'key was', 'keys were')} written since the plan"
            return Observation(state=State.CHANGED, reason=why, evidence=counts)
        case True, False:
            return Observation(state=State.BEFORE, reason=counted(here, "key"), evidence=counts)
        case False, True:
            return Observation(state=State.AFTER, reason=f"{counted(there, 'key')} parked", evidence=counts)
        case True, True:
            why = f"{counted(there, 'key')} parked, {here} not"
            return Observation(state=State.PARTLY, reason=why, evidence=counts)
    return Observation(state=State.CHANGED, reason="its keys are gone", evidence=counts)
