"""Work: the actions of one run, done a lot at a time. Look, ask the guards, write it down, act, look again."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from runbooks.engine.budget import Budget
from runbooks.engine.errors import PlanError
from runbooks.engine.journal import Journal, JournalEntry, Record
from runbooks.engine.model import Action, Bulk, BulkUndo, Observation, Pace, Phase, Remedy, State
from sandbox.errors import ArrakisError, Halted, Unreachable

__all__ = ["UNDO", "Result", "Work"]

UNDO = "undo "
"""What a verb begins with that is taken back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one action; phase None: it was not reached, STARTED: a halt came in its midst, or before its turn in its lot.

    `settled`: the target is as it should be.

    `evidence` is what was seen of the target after it was done.
    """

    action: Action
    phase: Phase | None
    reason: str
    settled: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Work:
    """One run's actions being done, a lot at a time, until its budget says that no further one may be begun."""

    def __init__(
        self,
        run: str,
        *,
        journal: Journal,
        remedies: Mapping[str, Remedy],
        check: Callable[[], None],
        pace: Pace,
        past: Sequence[JournalEntry] = (),
        budget: Budget | None = None,
    ) -> None:
        """Take the run and what it is done with; `past` holds its records so far, `budget` is the pace's unless it is given."""
        self._run, self._journal, self._remedies, self._check = run, journal, remedies, check
        self._pace, self._begun = pace, {entry.action for entry in past if entry.action}
        self.budget = budget or Budget(pace.failures)

    def lots(self, actions: Sequence[Action]) -> list[Sequence[Action]]:
        """Divide actions into lots: neighbours of one verb, if its remedy takes many together; else each alone."""
        divided: list[Sequence[Action]] = []
        for verb, alike in groupby(actions, key=lambda action: action.verb):
            size = self._pace.lot if _takes_many(verb, self._remedies) else 1
            members = list(alike)
            divided += [members[start : start + size] for start in range(0, len(members), size)]
        return divided

    def do(self, lot: Sequence[Action]) -> list[Result]:
        """Work through a lot, and return what became of each of its actions. Raises no Exception."""
        results: dict[str, Result] = {}
        failures: dict[str, Exception] = {}
        try:
            if why := self._barred():
                return [_not_reached(each, why) for each in lot]
            remedy = _remedy_for(lot[0], self._remedies)
            seen = remedy.observe_all(lot)
            results |= self._refused(lot, remedy, seen)
            going = [action for action in lot if action.id not in results]
            if why := self.budget.halted:  # meanwhile: to look may take long
                results |= {each.id: _not_reached(each, why) for each in going}
            elif going:
                self._write(Phase.STARTED, going, seen)
                failures |= _applied(remedy, going)
                results |= _unfinished(going, failures)
                done = [action for action in going if action.id not in failures]
                results |= self._seen_done(remedy, done, failures)
        except Exception as error:  # whatever it was, it is written down and nothing more is done
            failures |= {each.id: error for each in lot if each.id not in results and each.id not in failures}
        failed = [each for each in lot if each.id in failures and each.id not in results]
        results |= {
            each.id: Result(action=each, phase=Phase.FAILED, reason=_reason(failures[each.id]))
            for each in failed
        }
        self._write_failed(failures)
        self.budget.spend(failures.values())
        if failures:  # perhaps because another took over: then that is why nothing more is begun
            with suppress(ArrakisError):
                self._barred()
        return [results[action.id] for action in lot]

    def _barred(self) -> str:
        """Ask whether we may go on; where not, begin nothing more, and return why."""
        try:
            self._check()
        except Halted as error:
            self.budget.halt(str(error))
        return self.budget.halted

    def _refused(
        self, lot: Sequence[Action], remedy: Bulk, seen: Mapping[str, Observation]
    ) -> dict[str, Result]:
        """Return those of which nothing is to be done, and why; it is written down."""
        refused = {action.id: result for action in lot if (result := self._settled(action, seen[action.id]))}
        asked = [action for action in lot if action.id not in refused]
        users = remedy.in_use_all(asked) if asked else {}
        for action in asked:
            if user := users.get(action.id):
                refused[action.id] = Result(action=action, phase=Phase.SKIPPED, reason=f"in use: {user}")
        records = [
            Record(
                phase=result.phase or Phase.SKIPPED,
                action=name,
                observed={**seen[name].evidence, "settled": result.settled},
                error=result.reason,
            )
            for name, result in refused.items()
        ]
        self._journal.extend(self._run, records)
        return refused

    def _settled(self, action: Action, seen: Observation) -> Result | None:
        if seen.state is State.AFTER:
            phase = Phase.DONE if action.id in self._begun else Phase.SKIPPED
            return Result(action=action, phase=phase, reason=f"already so: {seen.reason}", settled=True)
        if seen.state is State.CHANGED:
            return Result(action=action, phase=Phase.SKIPPED, reason=seen.reason)
        return None

    def _seen_done(
        self, remedy: Bulk, actions: Sequence[Action], failures: dict[str, Exception]
    ) -> dict[str, Result]:
        """Return those that look done now, and add those that do not to the failures."""
        after = remedy.observe_all(actions) if actions else {}
        done = [action for action in actions if after[action.id].state is State.AFTER]
        self._write(Phase.DONE, done, after)
        for action in actions:
            if action not in done:
                failures[action.id] = ArrakisError(
                    f"done, but it does not look so: {after[action.id].reason}",
                    hint="look before you resume",
                )
        return {
            action.id: Result(
                action=action,
                phase=Phase.DONE,
                reason=after[action.id].reason,
                settled=True,
                evidence=after[action.id].evidence,
            )
            for action in done
        }

    def _write(self, phase: Phase, actions: Sequence[Action], seen: Mapping[str, Observation]) -> None:
        records = [Record(phase=phase, action=each.id, observed=seen[each.id].evidence) for each in actions]
        self._journal.extend(self._run, records)

    def _write_failed(self, failures: Mapping[str, Exception]) -> None:
        """Write down what failed. A halt is no failure: the target was not begun, or is looked at again."""
        records = [
            Record(phase=Phase.FAILED, action=name, error=_reason(error), observed=_cause(error))
            for name, error in failures.items()
            if not isinstance(error, Halted)
        ]
        with suppress(ArrakisError):  # a full disk: `started` without an ending already says unknown
            self._journal.extend(self._run, records)


def _not_reached(action: Action, why: str) -> Result:
    return Result(action=action, phase=None, reason=f"not reached: {why}")


def _applied(remedy: Bulk, actions: Sequence[Action]) -> Mapping[str, Exception]:
    """Return what could not be done, and why: a halt that is raised is all of theirs."""
    try:
        return remedy.apply_all(actions)
    except Halted as error:
        return {each.id: error for each in actions}


def _unfinished(actions: Sequence[Action], failures: Mapping[str, Exception]) -> dict[str, Result]:
    """Return those that a halt kept from their end: nothing is wrong with them, and `resume` looks at them again."""
    return {
        each.id: Result(action=each, phase=Phase.STARTED, reason=f"not finished: {failures[each.id]}")
        for each in actions
        if isinstance(failures.get(each.id), Halted)
    }


def _cause(error: Exception) -> Mapping[str, Any]:
    """What a worker elsewhere has to know of a failure: whether it says nothing of the target, as a server did not answer."""
    return {"unreachable": True} if isinstance(error, Unreachable) else {}


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ArrakisError) else f"{type(error).__name__}: {error}"


def _remedy_for(action: Action, remedies: Mapping[str, Remedy]) -> Bulk:
    verb = action.verb.removeprefix(UNDO)
    if verb not in remedies:
        raise PlanError(
            f"nobody here knows how to {action.verb!r}", hint="use the version that made the plan"
        )
    remedy = remedies[verb]
    if verb == action.verb:
        return remedy if isinstance(remedy, Bulk) else _OneByOne(remedy)
    if isinstance(remedy, BulkUndo):
        return _InverseOfMany(remedy)
    return _OneByOne(_Inverse(remedy))


def _takes_many(verb: str, remedies: Mapping[str, Remedy]) -> bool:
    remedy = remedies.get(verb.removeprefix(UNDO))
    return isinstance(remedy, BulkUndo if verb.startswith(UNDO) else Bulk)


class _OneByOne:
    """A remedy that takes one target at a time, given a lot. Satisfies Bulk."""

    def __init__(self, remedy: Remedy) -> None:
        self._remedy = remedy

    def observe_all(self, actions: Sequence[Action]) -> Mapping[str, Observation]:
        return {action.id: self._remedy.observe(action) for action in actions}

    def in_use_all(self, actions: Sequence[Action]) -> Mapping[str, str]:
        users = ((action.id, self._remedy.in_use(action)) for action in actions)
        return {name: user for name, user in users if user}

    def apply_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        for action in actions:
            self._remedy.apply(action)
        return {}


class _Inverse:
    """A remedy run backwards."""

    def __init__(self, remedy: Remedy) -> None:
        self._remedy, self.verb, self.rights = remedy, UNDO + remedy.verb, remedy.rights

    def observe(self, action: Action) -> Observation:
        return _turned(self._remedy.observe(action))

    def in_use(self, action: Action) -> str | None:
        return None  # giving back what was taken harms nobody; a name taken meanwhile is seen by observe

    def apply(self, action: Action) -> None:
        self._remedy.revert(action)

    def revert(self, action: Action) -> None:
        self._remedy.apply(action)


class _InverseOfMany:
    """A remedy that takes many targets together, run backwards. Satisfies Bulk."""

    def __init__(self, remedy: BulkUndo) -> None:
        self._remedy = remedy

    def observe_all(self, actions: Sequence[Action]) -> Mapping[str, Observation]:
        return {name: _turned(seen) for name, seen in self._remedy.observe_all(actions).items()}

    def in_use_all(self, actions: Sequence[Action]) -> Mapping[str, str]:
        return {}  # as _Inverse has it

    def apply_all(self, actions: Sequence[Action]) -> Mapping[str, Exception]:
        return self._remedy.revert_all(actions)


def _turned(seen: Observation) -> Observation:
    turned = {State.BEFORE: State.AFTER, State.AFTER: State.BEFORE}
    return replace(seen, state=turned.get(seen.state, seen.state))
