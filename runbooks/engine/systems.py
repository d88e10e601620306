"""The systems of one environment, for reading and for writing. The drivers are loaded when first needed."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

from diagnostics.alarms import read_account
from runbooks.engine.environment import Environment
from runbooks.engine.model import Target
from sandbox import keyspace, registry
from sandbox.facts import Known, gather
from sandbox.keyspace import Survey
from sandbox.ports import (
    AwsReader,
    AwsWriter,
    KeyReader,
    KeyServer,
    KeyWriter,
    PoolReader,
    SqlReader,
    SqlWriter,
    StreamReader,
    StreamWriter,
)

__all__ = ["Asking", "Readers", "Writers", "readers", "target", "writers"]

T = TypeVar("T")


class Asking:
    """How a question is asked that several procedures have: here each time anew."""

    def __call__(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return what `read()` returns to this question; `key` says which one it is."""
        return read()


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """All that planning is given."""

    sql: SqlReader
    pools: PoolReader
    keys: KeyReader
    cache: KeyServer
    streams: StreamReader
    aws: AwsReader
    tag: str
    ask: Asking = field(default_factory=Asking)

    def survey(self) -> Survey:
        """Count every family of keys, in one pass over the keyspace."""
        return self.ask("survey", lambda: keyspace.survey(self.keys))


@dataclass(frozen=True, slots=True, kw_only=True)
class Writers:
    """What an apply is given besides, and who does it; the engine hands it over behind the gate only."""

    sql: SqlWriter
    keys: KeyWriter
    streams: StreamWriter
    aws: AwsWriter
    actor: str


def readers(environment: Environment, *, tag: str, timeout: float) -> Readers:
    """Return the readers of an environment. Nothing is connected yet. Raises ArrakisError on a malformed address."""
    from sandbox.adapters.aws import Aws
    from sandbox.adapters.nats import Nats
    from sandbox.adapters.pgbouncer import PgBouncer
    from sandbox.adapters.postgres import Postgres
    from sandbox.adapters.redis import Redis

    redis = Redis(environment.redis_url, timeout=timeout)
    return Readers(
        sql=Postgres(environment.database_url, tag=tag, timeout=timeout),
        pools=PgBouncer(environment.database_url, timeout=timeout),
        keys=redis,
        cache=redis,
        streams=Nats(environment.nats_url, timeout=timeout, tls_ca=environment.nats_tls_ca),
        aws=Aws(region=environment.region, timeout=timeout),
        tag=tag,
    )


def writers(environment: Environment, *, tag: str, actor: str, timeout: float) -> Writers:
    """Return the writers of an environment. Nothing is connected yet."""
    from sandbox.adapters.aws import Aws
    from sandbox.adapters.nats import Nats
    from sandbox.adapters.postgres import Postgres
    from sandbox.adapters.redis import Redis

    return Writers(
        sql=Postgres(environment.database_url, tag=tag, timeout=timeout),
        keys=Redis(environment.redis_url, timeout=timeout),
        streams=Nats(environment.nats_url, timeout=timeout, tls_ca=environment.nats_tls_ca),
        aws=Aws(region=environment.region, timeout=timeout),
        actor=actor,
    )


def target(environment: Environment, systems: Readers, *, deadline: float) -> Target:
    """Return what identifies this production: what cannot be told is None, and refuses any change."""

    def identify() -> registry.Identity:
        with systems.sql.snapshot() as snapshot:
            return registry.identity(snapshot)

    facts = gather({"account": lambda: read_account(systems.aws), "database": identify}, deadline=deadline)
    account, database = facts["account"], facts["database"]
    return Target(
        name=environment.name,
        account=account.value if isinstance(account, Known) else None,
        region=environment.region,
        database=systems.sql.host,
        redis=systems.keys.host,
        nats=systems.streams.host,
        fingerprint=database.value.fingerprint if isinstance(database, Known) else None,
    )
