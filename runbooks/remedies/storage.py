"""More storage for the RDS instance. It can be enlarged, and never made smaller again."""

import math
from datetime import UTC, datetime, timedelta

from diagnostics.servers import Instance, read_instance
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation, Resource, Reversibility, State
from runbooks.rights import ENLARGING
from sandbox.errors import ArrakisError

__all__ = ["SETTLING", "EnlargeStorage", "enlarge_storage", "enlarged", "settles_until"]

SETTLING = timedelta(hours=6)
"""How long after a change of its storage RDS takes no other."""

_GIB = 2**30
_LEAST_GROWTH = 1.2  # RDS itself asks for a tenth
_FREE_AFTER = 0.2  # of what there is then
_READY = ("available", "storage-full")
_CHANGED = "modification to allocated storage"
_POLL, _LONGEST_POLL = 1.0, 20.0  # seconds between two looks at the instance
_PATIENCE = 30 * 60.0


def enlarged(gib: int, left: float) -> int:
    """Return the size in GiB that an instance needs, of which `left` bytes are left: a fifth more at least, and a fifth free."""
    used = max(0.0, gib - left / _GIB)
    return max(math.ceil(gib * _LEAST_GROWTH), math.ceil(used / (1 - _FREE_AFTER)))


def settles_until(instance: Instance) -> datetime | None:
    """Return until when RDS takes no change of the storage, by the last one that its events tell of."""
    changes = [at for at, message in instance.events or () if _CHANGED in message.lower()]
    return max(changes) + SETTLING if changes else None


def enlarge_storage(instance: Instance, to_gib: int, *, reason: str) -> Action:
    """Return the action that enlarges an instance's storage."""
    return Action(
        id="",
        verb=EnlargeStorage.verb,
        resource=Resource(kind="instance", id=instance.identifier),
        before={"identifier": instance.identifier, "gib": instance.storage_gib, "to_gib": to_gib},
        after={"gib": to_gib},
        reason=(
            f"{reason}; {instance.storage_gib} GiB become {to_gib}, which can never be made less, "
            f"and RDS takes no other change within {SETTLING // timedelta(hours=1)} h"
        ),
        reversibility=Reversibility.IRREVERSIBLE,
    )


class EnlargeStorage:
    """Enlarges the storage at once, and watches until the instance has it. RDS goes on by itself if this is interrupted."""

    verb = "enlarge storage"
    rights = ENLARGING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look how much it has, and whether a change is under way or not to be had now."""
        instance, before = self._look(action), action.before
        gib, told = instance.storage_gib, f"it has {instance.storage_gib} GiB and is {instance.status}"
        if gib >= before["to_gib"]:
            return Observation(state=State.AFTER, reason=told, evidence={"gib": gib})
        if instance.pending_gib == before["to_gib"]:
            return Observation(
                state=State.PARTLY, reason=f"{told}; {instance.pending_gib} GiB are on the way"
            )
        if gib != before["gib"] or instance.pending_gib:
            return Observation(state=State.CHANGED, reason=f"{told}; another change was made")
        until = settles_until(instance)
        if instance.status not in _READY or (until and until > datetime.now(UTC)):
            when = f" until {until:%H:%M} UTC" if until else ""
            return Observation(
                state=State.CHANGED, reason=f"{told}: RDS takes no change of its storage{when}"
            )
        return Observation(state=State.BEFORE, reason=told)

    def in_use(self, action: Action) -> str | None:
        """Nobody is disturbed: it stays in use meanwhile, slower for a while."""
        return None

    def apply(self, action: Action) -> None:
        """Ask for it, unless it was asked for, and wait until the instance has it."""
        seen = self.observe(action)
        if seen.state is State.CHANGED:
            raise ArrakisError(f"{action.resource.id} was left alone: {seen.reason}")
        if seen.state is State.BEFORE:
            with self._gate.lease():
                self._gate.write.aws.write(
                    "rds",
                    "modify_db_instance",
                    DBInstanceIdentifier=action.before["identifier"],
                    AllocatedStorage=action.before["to_gib"],
                    ApplyImmediately=True,
                )

        def look() -> tuple[bool, str]:
            seen = self.observe(action)
            return seen.state is State.AFTER, seen.reason

        late = self._gate.watch(action, look, pause=_POLL, longest=_LONGEST_POLL, patience=_PATIENCE)
        if late is not None:
            raise ArrakisError(
                f"it was asked for, and {action.resource.id} has it not yet: {late}",
                hint="RDS goes on by itself; resume the run to see the end",
            )

    def revert(self, action: Action) -> None:
        """Impossible."""
        raise ArrakisError(f"the storage of {action.resource.id} can never be made less")

    def _look(self, action: Action) -> Instance:
        return read_instance(
            self._gate.read.aws,
            identifier=action.before["identifier"],
            now=datetime.now(UTC),
            window=SETTLING,
        )
