"""Who uses a name that no sandbox owns: sessions, locks, keys touched a moment ago, subscribers.

All of it has to be known to say "nobody": what could not be read is for the caller to stop at.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sandbox import keyspace, schemas
from sandbox.keyspace import FamilyUse
from sandbox.naming import Namesakes, token_of_schema
from sandbox.ports import KeyReader, SqlReader, StreamReader, Subscription
from sandbox.schemas import SchemaUser
from sandbox.streams import listeners, token_of

__all__ = ["RECENT", "Usage", "look"]

RECENT = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was seen of some tokens' use, indexed by the tokens: there may be thousands of each."""

    sessions: Sequence[SchemaUser]
    families: Mapping[str, FamilyUse]
    subscriptions: Sequence[Subscription]
    _index: "_Index" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index it, once."""
        object.__setattr__(self, "_index", _Index(self.sessions, self.families, self.subscriptions))

    def of(self, token: str, schema: str | None = None) -> str | None:
        """Say who uses a token's schema, keys or subjects, or did in the last 15 minutes; None if nobody. Pure."""
        index = self._index
        for session in index.sessions_of(token, schema):
            who = f"{session.user_name} ({session.application or 'no application name'}, pid {session.pid})"
            return f"{who} {session.how}"
        for family in index.families.of(token):
            idle = self.families[family].idle_seconds
            if idle is not None and idle < RECENT.total_seconds():
                return f"a key of sandbox:{family} was used {idle} s ago"
        heard = index.listeners_of(token)
        return f"{', '.join(heard)} listens to its subjects" if heard else None


class _Index:
    """Sessions by their schema, listeners by the id in their subject, and which of these names are one sandbox's."""

    def __init__(
        self,
        sessions: Sequence[SchemaUser],
        families: Mapping[str, FamilyUse],
        subscriptions: Sequence[Subscription],
    ) -> None:
        self.families = Namesakes(families)
        self._sessions: dict[str, list[SchemaUser]] = defaultdict(list)
        for session in sessions:
            self._sessions[session.schema_name].append(session)
        self._schemas = {token: name for name in self._sessions if (token := token_of_schema(name))}
        self._in_schemas = Namesakes(self._schemas)
        self._subscriptions: dict[str, list[Subscription]] = defaultdict(list)
        for each in subscriptions:
            self._subscriptions[token_of(each.subject)].append(each)
        self._heard = Namesakes(self._subscriptions)

    def sessions_of(self, token: str, schema: str | None) -> list[SchemaUser]:
        names = {self._schemas[each] for each in self._in_schemas.of(token)} | {schema or ""}
        return [session for name in sorted(names) for session in self._sessions.get(name, ())]

    def listeners_of(self, token: str) -> list[str]:
        heard = (each for same in self._heard.of(token) for each in self._subscriptions[same])
        return listeners(heard, token)


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
        wanted = Namesakes(tokens)
        known = [name for name in schemas.names(snapshot) if wanted.of(token_of_schema(name) or "")]
        sessions = schemas.users(snapshot, [*known, *also], tag=tag, recent=RECENT)
    families = keyspace.usage(keys, tokens) if tokens else {}
    return Usage(sessions=sessions, families=families, subscriptions=streams.subscriptions())
