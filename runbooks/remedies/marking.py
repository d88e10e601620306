"""What an emergency stop changes in PostgreSQL: its record with the flag, and the rows of the sandboxes that run.

Both work without the lease: an emergency does not wait for whoever holds it.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

from runbooks.engine import lease, stops
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation, Remedy, Resource, Reversibility, State
from runbooks.engine.plan import action_from_json, as_json
from runbooks.engine.stops import Marked, Stop
from runbooks.engine.work import UNDO
from runbooks.remedies.stopping import DisableRule, StopService
from runbooks.rights import HALTING
from sandbox import registry, routes
from sandbox.errors import ArrakisError
from sandbox.model import Sandbox, Status
from sandbox.ports import SqlSnapshot, SqlTransaction
from sandbox.text import counted

__all__ = ["MarkSandboxes", "RaiseStop", "lost_lines", "marking", "raising", "unmapped_lines"]

_PATIENCE, _PAUSE = 2.0, 0.1  # seconds that held rows are asked for again and again, and between two times


def raising(
    stop: str,
    *,
    halting: bool,
    reason: str,
    parts: Sequence[Action],
    over: Mapping[str, object] | None = None,
    whole: bool = True,
) -> Action:
    """Return the action that records a stop of these parts; with `halting` every clean-up and apply halts.

    `over` is what the record says of such parts, by their verbs, that is not true any more. Undoing it ends the stop; if it is
    not the `whole` that is undone, only the flag goes: the record is needed for the rest.
    """
    what = "every clean-up and apply of this toolkit halts" if halting else "`emergency-resume` finds it"
    return Action(
        id="",
        verb=RaiseStop.verb,
        resource=Resource(kind="stop", id=stop),
        before={"whole": whole, "over": over or {}},
        after={"halting": halting, "reason": reason, "parts": {each.verb: as_json(each) for each in parts}},
        reason=f"how things are is kept, and {what}",
        reversibility=Reversibility.REVERSIBLE,
    )


def marking(stop: str, running: Sequence[tuple[Sandbox, Sequence[str]]]) -> Action:
    """Return the action that marks sandboxes destroyed. Each comes with its schemas: without them it cannot come back."""
    return _marking(
        stop,
        {
            str(row.id): {
                "name": row.name,
                "status": row.status.value,
                "expires_at": row.expires_at,
                "schemas": list(names),
            }
            for row, names in running
        },
    )


def given_back(stop: str, waiting: Sequence[Marked]) -> Action:
    """Return the action that marked these sandboxes, to be undone."""
    return _marking(
        stop,
        {
            str(each.id): {
                "name": each.name,
                "status": each.was,
                "expires_at": each.was_expires_at,
                "schemas": list(each.schemas),
            }
            for each in waiting
        },
    )


def _marking(stop: str, sandboxes: Mapping[str, object]) -> Action:
    return Action(
        id="",
        verb=MarkSandboxes.verb,
        resource=Resource(kind="sandboxes", id="all that run"),
        before={"stop": stop, "sandboxes": sandboxes},
        after={"status": Status.DESTROYED.value},
        reason="they get no more events; their schemas and keys stay",
        reversibility=Reversibility.REVERSIBLE,
    )


class RaiseStop:
    """Records an emergency stop and raises its flag; undone by lifting it, once what it stopped has come back."""

    verb = "raise stop"
    rights = HALTING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate, without its fence."""
        self._gate = gate
        self._parts: Mapping[str, Remedy] = {
            each.verb: each for each in (DisableRule(gate), StopService(gate))
        }

    def observe(self, action: Action) -> Observation:
        """Look whether a stop is raised, and whether it says all that this one says."""
        stop = stops.raised(self._gate.read.sql)
        if stop is None:
            return Observation(state=State.BEFORE, reason="no stop is raised")
        if not action.before["whole"]:
            state = State.AFTER if stop.halting else State.BEFORE
            return Observation(state=state, reason=f"{stop.id} is raised by {stop.by}")
        lacking = set(action.after["parts"]) - set(stop.parts)
        over = any(stop.parts.get(verb) == said for verb, said in action.before["over"].items())
        if lacking or over or (action.after["halting"] and not stop.halting):
            return Observation(state=State.PARTLY, reason=f"{stop.id}, raised by {stop.by}, stops less")
        return Observation(state=State.AFTER, reason=f"{stop.id} is raised by {stop.by}")

    def in_use(self, action: Action) -> str | None:
        """Nobody is asked in an emergency."""
        return None

    def apply(self, action: Action) -> None:
        """Record it."""
        lease.prepare(self._gate.write.sql)
        with self._gate.write.sql.transaction() as transaction:
            stops.raise_stop(
                transaction,
                id=action.resource.id,
                by=self._gate.write.actor,
                reason=action.after["reason"],
                halting=action.after["halting"],
                parts=action.after["parts"],
                over=action.before["over"],
            )

    def revert(self, action: Action) -> None:
        """Lift it. Raises ArrakisError where something that it stopped is stopped still, or where nobody can tell."""
        stop = _of_this(action.resource.id, stops.raised(self._gate.read.sql))
        if stop is None:
            return
        if not action.before["whole"]:
            with self._gate.write.sql.transaction() as transaction:
                stops.lower(transaction, id=stop.id)
            return
        left = self._stopped(stop)
        with self._gate.write.sql.transaction() as transaction:
            held = stops.held(transaction, id=stop.id)
            if held and held.parts != stop.parts:
                left.append("somebody stops it again just now")
            waiting, _ = stops.standing(transaction, stop.id)
            left += [f"{len(waiting)} sandboxes are marked destroyed"] if waiting else []
            if left:
                raise ArrakisError(
                    f"the stop stays raised: {'; '.join(left)}",
                    hint="`emergency-resume` again lifts it, once that has come back",
                )
            stops.lift(transaction, id=stop.id, by=self._gate.write.actor)

    def _stopped(self, stop: Stop) -> list[str]:
        """Say what it stopped in AWS that has not come back yet, and could."""
        left: list[str] = []
        for verb, raw in stop.parts.items():
            part = action_from_json(raw)
            seen = self._parts[verb].observe(replace(part, verb=UNDO + verb))
            if seen.state in (State.AFTER, State.PARTLY):
                left.append(f"{part.resource.kind} {part.resource.id}: {seen.reason}")
        return left


class MarkSandboxes:
    """Marks running sandboxes destroyed; undone for those that still exist and nobody touched. One that is held holds up no other."""

    verb = "mark sandboxes"
    rights = HALTING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate, without its fence."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look how many of them run, how many are marked, and what became of the others."""
        stop = stops.raised(self._gate.read.sql)
        if action.verb.startswith(UNDO) and stop and stop.id != action.before["stop"]:
            return Observation(state=State.CHANGED, reason=_another(stop))
        planned = action.before["sandboxes"]
        with self._gate.read.sql.snapshot() as snapshot:
            listed = registry.listing(snapshot, owner=None, statuses=[Status.RUNNING])
            marked, lost = stops.standing(snapshot, stop.id) if stop else ([], [])
        waiting = [each for each in marked if str(each.id) in planned]
        run = sum(str(row.id) in planned for row in listed)
        counts = f"{run} of {len(planned)} run; {len(waiting)} are marked destroyed"
        told = "; ".join([counts, *lost_lines([each for each in lost if str(each[0].id) in planned])])
        if waiting:
            state = State.PARTLY if run else State.AFTER
        else:
            state = State.BEFORE if run else State.CHANGED
        changed = State.BEFORE if action.verb.startswith(UNDO) else State.AFTER
        if state is changed and (stale := self._stale(planned)):
            state, told = (
                State.PARTLY,
                f"{told}; {counted(len(stale), 'cached route is', 'cached routes are')} old",
            )
        return Observation(state=state, reason=told, evidence={"running": run, "marked": len(waiting)})

    def in_use(self, action: Action) -> str | None:
        """Nobody is asked in an emergency."""
        return None

    def apply(self, action: Action) -> None:
        """Mark those that still run, and delete their cached routes."""
        gate = self._gate
        lease.prepare(gate.write.sql)
        # The record may not be there yet: whoever makes it works beside us, adds to ours, and is not to wait for the rows.
        with gate.write.sql.transaction() as transaction:
            stops.raise_stop(
                transaction,
                id=action.before["stop"],
                by=gate.write.actor,
                reason="",
                halting=False,
                parts={},
                over={},
            )
        self._again_and_again(lambda: self._mark(action.before["sandboxes"]))

    def revert(self, action: Action) -> None:
        """Give back those that can be given back, and delete what is cached of their guilds; who cannot is told."""
        stop = _of_this(action.before["stop"], stops.raised(self._gate.read.sql))
        planned = action.before["sandboxes"]
        if stop is None:  # it is lifted; of what was given back before, routes may be left
            with self._gate.read.sql.snapshot() as snapshot:
                guilds = _guilds(snapshot, planned)
            self._again_and_again(lambda: ([], guilds))
            return
        with self._gate.read.sql.snapshot() as snapshot:
            waiting, lost = stops.standing(snapshot, stop.id)
        for line in (*lost_lines(lost), *unmapped_lines(waiting)):
            self._gate.tell(f"  {line}")
        self._again_and_again(lambda: self._give_back(stop.id, planned))

    def _again_and_again(self, change: Callable[[], tuple[list[str], list[str]]]) -> None:
        """Change rows until none is left that somebody holds, for a while; `change` returns the names of those, and guilds.

        What is cached of the guilds is deleted. Raises ArrakisError in the end where rows stayed held, or routes cached.
        """
        end, concerned = time.monotonic() + _PATIENCE, set[str]()
        while True:
            held, guilds = change()
            concerned.update(guilds)
            cached = routes.forget(self._gate.write.keys, sorted(concerned)) if concerned else None
            if not held or time.monotonic() > end:
                break
            time.sleep(_PAUSE)
        with suppress(ArrakisError):  # what the EventRouter read just before, and cached just after
            routes.forget_stale(self._gate.read.sql, self._gate.write.keys, sorted(concerned))
        trouble = [f"somebody holds the rows of {', '.join(sorted(held))}"] if held else []
        if cached:
            trouble.append(f"cached routes stay until they end, within a minute: {cached}")
        if trouble:
            raise ArrakisError(f"all is done but this: {'; '.join(trouble)}", hint="do the same again")

    def _mark(self, planned: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        def running(transaction: SqlTransaction) -> list[Sandbox]:
            listed = registry.listing(transaction, owner=None, statuses=[Status.RUNNING])
            return [row for row in listed if str(row.id) in planned]

        with self._gate.write.sql.transaction() as transaction:
            doomed = running(transaction)
            having = {row.id: planned[str(row.id)]["schemas"] for row in doomed}
            stops.mark(transaction, having, actor=self._gate.write.actor)
            held = [row.name for row in running(transaction)]
            return held, _guilds(transaction, planned)

    def _give_back(self, stop: str, planned: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        def waiting(transaction: SqlTransaction) -> list[Marked]:
            found, _ = stops.standing(transaction, stop)
            return [each for each in found if str(each.id) in planned]

        with self._gate.write.sql.transaction() as transaction:
            marked = waiting(transaction)
            stops.give_back(
                transaction, stop=stop, ids=[each.id for each in marked], actor=self._gate.write.actor
            )
            held = [each.name for each in waiting(transaction)] if marked else []
            return held, _guilds(transaction, planned)

    def _stale(self, planned: Mapping[str, Any]) -> list[str]:
        """The guilds of which another route is cached than the table has: whoever changed that was killed before the cache.

        None where Redis does not tell: they end by themselves, within a minute.
        """
        with self._gate.read.sql.snapshot() as snapshot:
            guilds = _guilds(snapshot, planned)
        try:
            cached = routes.cached(self._gate.read.keys, guilds)
        except ArrakisError:
            return []
        with self._gate.read.sql.snapshot() as snapshot:  # what is cached is never newer than this
            return routes.stale(cached, routes.mapped(snapshot, guilds))


def _guilds(snapshot: SqlSnapshot, planned: Mapping[str, Any]) -> list[str]:
    """The guilds of all these sandboxes, whoever changed their rows, and when."""
    rows = registry.by_ids(snapshot, [UUID(id) for id in planned])
    return [guild for each in registry.guilds_of(snapshot, rows).values() for guild in each]


def lost_lines(lost: Sequence[tuple[Marked, str]]) -> list[str]:
    """Say which marked sandboxes cannot come back, and why: a line a reason."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for each, reason in lost:
        by_reason[reason].append(each.name)
    return [f"{', '.join(sorted(names))} cannot come back: {reason}" for reason, names in by_reason.items()]


def unmapped_lines(waiting: Sequence[Marked]) -> list[str]:
    """Say which marked sandboxes come back without a guild that they had: a line each."""
    return [
        f"{each.name} comes back without guild {', '.join(each.unmapped)}: somebody took it away since"
        for each in waiting
        if each.unmapped
    ]


def _of_this(id: str, stop: Stop | None) -> Stop | None:
    """Return the stop that is raised, if it is the one of this id. Raises ArrakisError where it is another."""
    if stop and stop.id != id:
        raise ArrakisError(_another(stop), hint="`emergency-resume` takes it back")
    return stop


def _another(stop: Stop) -> str:
    return f"another stop is raised, {stop.id} by {stop.by}; only `emergency-resume` takes it back"
