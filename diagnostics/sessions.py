"""Who is connected to PostgreSQL, what they do and since when, and who waits for whom."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from diagnostics.postgres import shown
from sandbox.ports import APPLICATION, SqlSnapshot
from sandbox.text import clean, moment

__all__ = ["SEE_SESSION", "SEE_WAITING", "Session", "read_sessions"]

SEE_SESSION = (
    'psql -c "SELECT * FROM pg_stat_activity WHERE pid = {pid}"  # pg_read_all_stats, to see those of others'
)
SEE_WAITING = "psql -c \"SELECT pid, pg_blocking_pids(pid), state, xact_start, query FROM pg_stat_activity WHERE wait_event_type = 'Lock'\""

_IDLE = ("idle in transaction", "idle in transaction (aborted)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A client's session. Moments are UTC; `since` is its state's, `statement_since` its last statement's begin.

    `query` is that statement, cut, without the values. Where this role may not see them, `state` is `?` and `query` says so.
    `superuser` also where the role is not known. `blocked_by` are the pids that it waits for; 0 is a prepared transaction.
    `ours`: a session of this toolkit. `may_signal`: this role may cancel or end what a role like its own runs.
    """

    pid: int
    user: str
    database: str
    application: str
    client: str
    state: str
    waits_for: str
    backend_start: datetime | None
    transaction_since: datetime | None
    statement_since: datetime | None
    since: datetime | None
    query: str
    superuser: bool
    ours: bool
    blocked_by: tuple[int, ...] = ()
    may_signal: bool = False

    def __post_init__(self) -> None:
        """Clean what a stranger wrote: it is shown on terminals, and a value may be a secret."""
        object.__setattr__(self, "application", clean(self.application))
        object.__setattr__(self, "query", shown(self.query))
        object.__setattr__(self, "blocked_by", tuple(self.blocked_by))
        object.__setattr__(self, "ours", self.ours or self.application == APPLICATION)

    @property
    def idle_in_transaction(self) -> bool:
        """Whether it has begun a transaction and does nothing."""
        return self.state in _IDLE

    @property
    def who(self) -> str:
        """Whose session it is, and since when it is connected."""
        since = f", connected since {moment(self.backend_start)}" if self.backend_start else ""
        return f"{clean(self.user)} ({self.application or 'no name'}){since}"

    def idle_for(self, now: datetime) -> timedelta:
        """Return how long it has been idle in its transaction, by the server's clock; zero if it is not."""
        if not self.idle_in_transaction or self.since is None:
            return timedelta(0)
        return max(timedelta(0), now - self.since)

    @property
    def spared(self) -> str | None:
        """Why it is never ended from here, or None."""
        if self.ours:
            return "it is this toolkit's own"
        if self.superuser:
            return f"{self.user} is a superuser"
        if not self.may_signal:
            return f"this role may signal no session of {self.user}: GRANT pg_signal_backend or {self.user}"
        if self.backend_start is None:
            return "since when it is connected is hidden from this role: GRANT pg_read_all_stats"
        return None


def read_sessions(snapshot: SqlSnapshot, *, tag: str) -> tuple[Session, ...]:
    """Return every client's session, the oldest transaction first. Statements tagged `tag` are ours."""
    return tuple(snapshot.rows("read/sessions/sessions", Session, tag=tag))
