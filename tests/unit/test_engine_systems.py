"""The systems of an environment: reached at its addresses, in the time that is given; and what identifies a production."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from runbooks.engine.environment import Environment
from runbooks.engine.model import Target
from runbooks.engine.systems import Asking, Readers, readers, target, writers
from sandbox.adapters.aws import Aws
from sandbox.adapters.nats import Nats
from sandbox.adapters.pgbouncer import PgBouncer
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.errors import ArrakisError, Unreachable
from sandbox.registry import Identity

SIETCH = Environment(
    name="sietch",
    database_url="postgresql://db.example/app",
    redis_url="redis://redis.example:6379/2",
    nats_url="nats://nats.example",
    nats_tls_ca="/etc/authority.pem",
    region="eu-north-1",
)
POSTGRES = Postgres(SIETCH.database_url, tag="r1", timeout=3.5)
REDIS = Redis(SIETCH.redis_url, timeout=3.5)
NATS = Nats(SIETCH.nats_url, timeout=3.5, tls_ca="/etc/authority.pem")
AWS = Aws(region="eu-north-1", timeout=3.5)


def parts(of: Any) -> Any:
    """Return what something is made of: of our own objects and botocore's settings all, of others the type."""
    if type(of).__module__.startswith(("sandbox.", "botocore.config")):
        return type(of), {name: parts(part) for name, part in vars(of).items()}
    return of if isinstance(of, str | int | float | dict | list | None) else type(of)


# How they are reached


def test_all_is_read_at_the_addresses_of_the_environment_and_in_time() -> None:
    made = readers(SIETCH, tag="r1", timeout=3.5)
    assert parts(made.sql) == parts(POSTGRES)
    assert parts(made.pools) == parts(PgBouncer(SIETCH.database_url, timeout=3.5))
    keys: Any = made.keys
    assert parts(keys) == parts(REDIS)
    assert made.cache is keys
    assert parts(made.streams) == parts(NATS)
    assert parts(made.aws) == parts(AWS)
    assert made.tag == "r1"
    assert type(made.ask) is Asking


def test_all_is_written_there_too_by_somebody() -> None:
    made = writers(SIETCH, tag="r1", actor="ada", timeout=3.5)
    assert parts(made.sql) == parts(POSTGRES)
    assert parts(made.keys) == parts(REDIS)
    assert parts(made.streams) == parts(NATS)
    assert parts(made.aws) == parts(AWS)
    assert made.actor == "ada"


def test_a_malformed_address_is_refused_before_anything_is_reached() -> None:
    crooked = Environment(name="x", database_url=SIETCH.database_url, redis_url=SIETCH.redis_url, nats_url="")
    with pytest.raises(ArrakisError, match="NATS_URL is malformed"):
        readers(crooked, tag="r1", timeout=3.5)


# What is asked of them


class Production:
    """A database, keys, streams and an account, each somewhere. Satisfies what identifying and counting ask."""

    def __init__(self, host: str, trouble: Exception | None = None) -> None:
        self.host, self.trouble, self.passes = host, trouble, 0

    @contextmanager
    def snapshot(self) -> Iterator["Production"]:
        yield self

    def rows(self, statement: str, kind: Any) -> list[Identity]:
        if self.trouble:
            raise self.trouble
        assert statement == "read/registry/identity"
        return [Identity(database="app", version="17", fingerprint="f1")]

    def read(self, *operation: str) -> Mapping[str, Any]:
        if self.trouble:
            raise self.trouble
        assert operation == ("sts", "get_caller_identity")
        return {"Account": "123456789012"}

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        self.passes += 1
        yield [b"sandbox:x:1", b"sandbox:x:2"]


def production(database: Exception | None = None, account: Exception | None = None, **ask: Any) -> Readers:
    sql: Any = Production("db:5432/app", database)
    keys: Any = Production("r:6379/0")
    streams: Any = Production("n:4222")
    aws: Any = Production("", account)
    return Readers(sql=sql, pools=sql, keys=keys, cache=keys, streams=streams, aws=aws, tag="r1", **ask)


KNOWN = Target(
    name="sietch",
    account="123456789012",
    region="eu-north-1",
    database="db:5432/app",
    redis="r:6379/0",
    nats="n:4222",
    fingerprint="f1",
)


def test_a_production_is_identified_by_where_it_is_and_by_what_its_servers_say() -> None:
    assert target(SIETCH, production(), deadline=5) == KNOWN


@pytest.mark.parametrize("trouble", [Unreachable("no answer"), RuntimeError("bang")])
def test_what_cannot_be_told_is_none_and_the_other_is_told(trouble: Exception) -> None:
    without = target(SIETCH, production(account=trouble), deadline=5)
    assert (without.account, without.fingerprint) == (None, "f1")
    without = target(SIETCH, production(database=trouble), deadline=5)
    assert (without.account, without.fingerprint) == ("123456789012", None)


def test_keys_are_counted_each_time_anew() -> None:
    systems = production()
    assert [systems.survey().families for _ in range(2)] == [{"x": 2}] * 2
    keys: Any = systems.keys
    assert keys.passes == 2


def test_a_question_that_is_shared_is_answered_by_whoever_shares_it() -> None:
    class Remembering(Asking):
        def __init__(self) -> None:
            self.answers = dict[Hashable, Any]()

        def __call__(self, key: Hashable, read: Callable[[], Any]) -> Any:
            if key not in self.answers:
                self.answers[key] = super().__call__(key, read)
            return self.answers[key]

    systems = production(ask=Remembering())
    assert systems.survey() is systems.survey()
    keys: Any = systems.keys
    assert keys.passes == 1
