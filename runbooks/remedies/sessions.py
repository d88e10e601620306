"""Sessions that keep others from their work: a statement cancelled, or a session ended, each known by pid and start."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from diagnostics.sessions import Session, read_sessions
from diagnostics.waiting import trees
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation, Resource, Reversibility, State
from runbooks.rights import SIGNALLING
from sandbox import registry
from sandbox.errors import ArrakisError, Missing
from sandbox.ports import APPLICATION, SqlReader
from sandbox.text import counted

__all__ = [
    "IDLE_LIMIT",
    "CancelQuery",
    "EndSession",
    "Unheeded",
    "Why",
    "cancel_query",
    "end_session",
    "read_unheeded",
]

IDLE_LIMIT = timedelta(minutes=10)
"""A transaction that does nothing for longer is nobody's work any more."""

_POLL, _PATIENCE = 0.1, 10.0  # seconds between two looks at a session that was signalled, and in all
_MOMENTS = ("backend_start", "transaction_since", "statement_since")
_TOLD = "it was told to stop, and runs on or still holds what others wait for"


class Why(StrEnum):
    """What is wrong with a session. It has to be so still when it is signalled."""

    IDLE = "idle in transaction for more than 10 minutes"
    BLOCKING = "others wait for it"
    UNHEEDED = "others wait for it, and it runs on though it was cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unheeded:
    """A statement that a run on any host has cancelled in vain."""

    pid: int
    backend_start: datetime
    statement_since: datetime
    told_at: datetime
    run: str

    def is_of(self, session: Session) -> bool:
        """Whether it is what a session runs at this moment."""
        same = (self.pid, self.backend_start, self.statement_since)
        return same == (session.pid, session.backend_start, session.statement_since)


def read_unheeded(database: SqlReader) -> tuple[Unheeded, ...]:
    """Return the statements that were cancelled in vain, the latest first, as the journal's mirror knows of them."""
    try:
        with database.snapshot() as snapshot:
            return tuple(snapshot.rows("read/runs/unheeded", Unheeded, told=_TOLD))
    except Missing:  # nothing was ever applied here
        return ()


def end_session(session: Session, *, reason: str, why: Why) -> Action:
    """Return the action that ends a session, and with it what its transaction has not committed."""
    return _action(EndSession.verb, session, reason=reason, why=why)


def cancel_query(session: Session, *, reason: str, why: Why) -> Action:
    """Return the action that cancels the statement which a session runs; the session stays."""
    return _action(CancelQuery.verb, session, reason=reason, why=why)


class EndSession:
    """Ends a session that others wait for, or that is idle in its transaction for too long. What it has not committed is lost.

    One at work is ended only if the statement that it runs was cancelled before, in vain.
    """

    verb = "end session"
    rights = SIGNALLING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether it is the same session in the same transaction, and as much in the way as it was."""
        sessions, now = _look(self._gate)
        found = _same(action, sessions)
        if isinstance(found, Observation):
            return found
        if found.transaction_since != _moment(action, "transaction_since"):
            return Observation(state=State.CHANGED, reason="it is in another transaction now, or in none")
        if action.before["why"] == Why.IDLE:
            return _idle(action, found, now)
        seen = _blocking(found, sessions)
        if seen.state is not State.BEFORE:
            return seen
        if action.before["why"] == Why.UNHEEDED:
            if (found.state, found.statement_since) != ("active", _moment(action, "statement_since")):
                return Observation(state=State.CHANGED, reason="it does not run that statement any more")
        elif not found.idle_in_transaction:
            return Observation(state=State.CHANGED, reason=f"it is {found.state} now: it works again")
        return seen

    def in_use(self, action: Action) -> str | None:
        """Say why it is not for us to end: a superuser's, our own, or out of this role's reach."""
        return _spared(self._gate, action)

    def apply(self, action: Action) -> None:
        """End it, if it is as planned at that very moment, and wait until it is gone."""
        if _signal(self._gate, "write/sessions/end", action):
            _await(self, action, "it was told to end, and is still there", hint="see pg_stat_activity")
        elif self.observe(action).state is not State.AFTER:
            raise ArrakisError(f"session {action.resource.id} is not as planned any more: it was left alone")

    def revert(self, action: Action) -> None:
        """Impossible."""
        raise ArrakisError(f"session {action.resource.id} was ended; its client connects again by itself")


class CancelQuery:
    """Cancels the statement that a session runs, as Ctrl-C does; its transaction is aborted, the session stays."""

    verb = "cancel query"
    rights = SIGNALLING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether it runs the same statement still, and whether others wait for it."""
        sessions, _ = _look(self._gate)
        found = _same(action, sessions)
        if isinstance(found, Observation):
            return found
        if found.statement_since != _moment(action, "statement_since"):
            return Observation(state=State.AFTER, reason="it does not run that statement any more")
        if found.state != "active":
            return _stopped(found, sessions)
        return _blocking(found, sessions)

    def in_use(self, action: Action) -> str | None:
        """Say why it is not for us to cancel: a superuser's, our own, or out of this role's reach."""
        return _spared(self._gate, action)

    def apply(self, action: Action) -> None:
        """Cancel it, if it is as planned at that very moment, and wait until it has stopped."""
        if _signal(self._gate, "write/sessions/cancel", action):
            _await(self, action, _TOLD, hint="run the runbook again: it proposes to end the session")
        elif self.observe(action).state is not State.AFTER:
            raise ArrakisError(f"session {action.resource.id} is not as planned any more: it was left alone")

    def revert(self, action: Action) -> None:
        """Impossible."""
        raise ArrakisError(f"the statement of session {action.resource.id} was cancelled; its client knows")


def _action(verb: str, session: Session, *, reason: str, why: Why) -> Action:
    moments: Mapping[str, datetime | None] = {name: getattr(session, name) for name in _MOMENTS}
    return Action(
        id="",
        verb=verb,
        resource=Resource(kind="session", id=str(session.pid)),
        before={
            "pid": session.pid,
            **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
            "user": session.user,
            "application": session.application,
            "database": session.database,
            "query": session.query,
            "why": why.value,
        },
        after={},
        reason=reason,
        reversibility=Reversibility.IRREVERSIBLE,
    )


def _look(gate: Gate) -> tuple[tuple[Session, ...], datetime]:
    with gate.read.sql.snapshot() as snapshot:
        return read_sessions(snapshot, tag=gate.read.tag), registry.now(snapshot)


def _same(action: Action, sessions: tuple[Session, ...]) -> Session | Observation:
    """The planned session, or what is to be said where it is gone; another that was given its pid since is none."""
    found = next((each for each in sessions if each.pid == action.before["pid"]), None)
    if found and found.backend_start is None:
        return Observation(state=State.CHANGED, reason=f"cannot tell whether it is the same: {found.spared}")
    if found is None or found.backend_start != _moment(action, "backend_start"):
        return Observation(state=State.AFTER, reason=f"session {action.resource.id} is gone")
    return found


def _moment(action: Action, name: str) -> datetime | None:
    told = action.before[name]
    return datetime.fromisoformat(told) if told else None


def _idle(action: Action, found: Session, now: datetime) -> Observation:
    """It has done nothing since, in the transaction that it was seen in."""
    if found.statement_since != _moment(action, "statement_since"):
        return Observation(state=State.CHANGED, reason="it has worked since the plan")
    idle = found.idle_for(now)
    if idle <= IDLE_LIMIT:
        return Observation(state=State.CHANGED, reason=f"it is {found.state} now")
    return Observation(
        state=State.BEFORE,
        reason=f"it is {found.state} for {idle.total_seconds() / 60:.0f} min",
        evidence={"idle_seconds": idle.total_seconds()},
    )


def _blocking(found: Session, sessions: tuple[Session, ...]) -> Observation:
    """It is what others wait for, and waits for nobody itself."""
    waiting = _behind(found, sessions)
    if not waiting:
        return Observation(state=State.CHANGED, reason="nobody waits for it alone any more")
    return Observation(
        state=State.BEFORE,
        reason=f"{counted(waiting, 'session waits', 'sessions wait')} for it",
        evidence={"waiting": waiting},
    )


def _stopped(found: Session, sessions: tuple[Session, ...]) -> Observation:
    """Its statement is over; what it had locked before may not be."""
    if found.state == "?":
        return Observation(
            state=State.CHANGED, reason="cannot tell what it does: that is hidden from this role"
        )
    if _behind(found, sessions):
        return Observation(state=State.CHANGED, reason=f"it is {found.state}, and others still wait for it")
    return Observation(state=State.AFTER, reason=f"it is {found.state}, and nobody waits for it")


def _behind(found: Session, sessions: tuple[Session, ...]) -> int:
    """How many wait for it, directly or through others; none if it waits itself."""
    return next((tree.behind for tree in trees(sessions) if tree.pid == found.pid and not tree.cycle), 0)


def _spared(gate: Gate, action: Action) -> str | None:
    sessions, _ = _look(gate)
    found = _same(action, sessions)
    return found.spared if isinstance(found, Session) else None


def _signal(gate: Gate, statement: str, action: Action) -> bool:
    """Signal it, under the lease, by one statement that looks once more; whether it was."""
    with gate.write.sql.transaction() as transaction:
        gate.fence(transaction)
        signalled = transaction.execute(
            statement,
            pid=action.before["pid"],
            **{name: _moment(action, name) for name in _MOMENTS},
            idle=action.before["why"] == Why.IDLE,
            unheeded=action.before["why"] == Why.UNHEEDED,
            limit=IDLE_LIMIT,
            ours=APPLICATION,
        )
    return bool(signalled)


def _await(remedy: EndSession | CancelQuery, action: Action, otherwise: str, *, hint: str) -> None:
    """Wait until it is as it should be. Raises ArrakisError if it does not become so."""
    end = time.monotonic() + _PATIENCE
    while remedy.observe(action).state is not State.AFTER:
        if time.monotonic() > end:
            raise ArrakisError(f"session {action.resource.id}: {otherwise}", hint=hint)
        time.sleep(_POLL)
