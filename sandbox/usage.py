"""Who uses a name that no sandbox owns: sessions, locks, keys touched a moment ago, subscribers.

All of it has to be known to say "nobody": what could not be read is for the caller to stop at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sandbox import keyspace, schemas
from sandbox.keyspace import FamilyUse
from sandbox.naming import same_sandbox, token_of_schema
from sandbox.ports import KeyReader, SqlReader, StreamReader, Subscription
from sandbox.schemas import SchemaUser
from sandbox.streams import listeners

__all__ = ["RECENT", "Usage", "look"]

RECENT = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was seen of some tokens' use."""

    sessions: Sequence[SchemaUser]
    families: Mapping[str, FamilyUse]
    subscriptions: Sequence[Subscription]

    def of(self, token: str, schema: str | None = None) -> str | None:
        """Say who uses a token's schema, keys or subjects, or did in the last 15 minutes; None if nobody. Pure."""
        for session in self.sessions:
            if session.schema_name == schema or same_sandbox(
                token_of_schema(session.schema_name) or "", token
            ):
                who = (
                    f"{session.user_name} ({session.application or 'no application name'}, pid {session.pid})"
                )
                return f"{who} {session.how}"
        for family in keyspace.spellings(self.families, token):
            idle = self.families[family].idle_seconds
            if idle is not None and idle < RECENT.total_seconds():
                return f"a key of sandbox:{family} was used {idle} s ago"
        heard = listeners(self.subscriptions, token)
        return f"{', '.join(heard)} listens to its subjects" if heard else None


def look(
    database: SqlReader,
    keys: KeyReader,
    streams: StreamReader,
    tokens: Sequence[str],
    *,
    tag: str,
    also: Sequence[str] = (),
) -> Usage:
    """Look at the use of these tokens' schemas, of `also` schemas, of their keys and subjects; what is tagged is ours.

    Raises Unreachable or Denied where any of it cannot be told.
    """
    with database.snapshot() as snapshot:
        known = [name for name in schemas.names(snapshot) if _concerns(name, tokens)]
        sessions = schemas.users(snapshot, [*known, *also], tag=tag, recent=RECENT)
    families = keyspace.usage(keys, tokens) if tokens else {}
    return Usage(sessions=sessions, families=families, subscriptions=streams.subscriptions())


def _concerns(name: str, tokens: Sequence[str]) -> bool:
    suffix = token_of_schema(name) or ""
    return any(suffix == token or same_sandbox(suffix, token) for token in tokens)
