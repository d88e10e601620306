"""Logins that may do no more than some rights say, on the lab's own servers: each of them refuses the rest."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

import psycopg
import redis
from psycopg import sql

from lab import binaries
from lab.incidents import streams
from lab.incidents.cloud import Account
from lab.processes import HOST, free_ports, spawn, talk
from runbooks.engine.page import Rights
from tests.acceptance.engineer import eventually

__all__ = ["PASSWORD", "USER", "given_away", "limited"]

USER, PASSWORD = "limited", "hunter2"

_OWNERS = """
    SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = current_database() AND %(what)s = 'the database'
    UNION SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE relkind = 'r' AND oid = to_regclass(%(what)s)
    UNION SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace
          WHERE right(%(what)s, 1) = '*' AND starts_with(nspname::text, rtrim(%(what)s, '*'))"""
_SCHEMAS, _TABLES, _DATABASE = "owner_of_schemas", "owner_of_tables", "owner_of_database"
_OWNED = f"""
    SELECT format('ALTER TABLE public.%I OWNER TO {_TABLES}', relname) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    UNION ALL SELECT format('ALTER SCHEMA %I OWNER TO {_SCHEMAS}', nspname) FROM pg_namespace
              WHERE nspname ~ '^(sandbox|quarantine)_'
    UNION ALL SELECT format('ALTER TABLE %I.%I OWNER TO {_SCHEMAS}', schemaname, tablename) FROM pg_tables
              WHERE schemaname ~ '^(sandbox|quarantine)_'
    UNION ALL SELECT 'ALTER DATABASE arrakis OWNER TO {_DATABASE}'
    UNION ALL SELECT 'GRANT USAGE ON SCHEMA public TO {_TABLES}, {_SCHEMAS}, {_DATABASE}'"""


@contextmanager
def limited(
    env: Mapping[str, str], rights: Rights, folder: Path, *, nats: bool = True
) -> Iterator[Mapping[str, str]]:
    """Yield the variables of logins that may do what `rights` say.

    NATS has no users in the lab: another server, which has the same streams, does; without `nats` it stays the lab's own.
    """
    with ExitStack() as stack:
        found = {
            **env,
            **stack.enter_context(_postgres(env["DATABASE_URL"], rights.postgres)),
            **stack.enter_context(_redis(env["REDIS_URL"], rights.redis)),
            **stack.enter_context(_aws(env, rights.aws)),
        }
        if nats:
            found |= stack.enter_context(_nats(rights.nats, folder))
        yield found


def given_away(env: Mapping[str, str]) -> None:
    """Let roles of their own have what the lab's superuser owns: whoever is a member of that could do anything."""
    with psycopg.connect(env["DATABASE_URL"], autocommit=True) as connection:
        for role in (_SCHEMAS, _TABLES, _DATABASE):
            connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        for (statement,) in connection.execute(_OWNED.encode()).fetchall():
            connection.execute(statement.encode())


@contextmanager
def _postgres(url: str, words: frozenset[str]) -> Iterator[Mapping[str, str]]:
    role = sql.Identifier(USER)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        for word in words:
            for granted in _granted(connection, word):
                connection.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(granted), role))
        try:
            yield {"DATABASE_URL": _address(url)}
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {0}").format(role))
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


def _address(url: str) -> str:
    """Return the address of a database as the limited user has it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{USER}@{parts.netloc.rpartition('@')[2]}"))


def _granted(connection: psycopg.Connection[Any], word: str) -> list[str]:
    """Return what has to be granted for a right: to be a member of whoever owns it, where it is about that."""
    if word.startswith("owner of "):
        owners = connection.execute(_OWNERS.encode(), {"what": word.removeprefix("owner of ")}).fetchall()
        return [str(name) for (name,) in owners]
    return [f"{word} arrakis" if word.endswith("ON DATABASE") else word]


@contextmanager
def _redis(url: str, words: frozenset[str]) -> Iterator[Mapping[str, str]]:
    with redis.Redis.from_url(url) as client:
        client.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *sorted(words))
        try:
            yield {"REDIS_URL": url.replace("redis://", f"redis://{USER}:{PASSWORD}@")}
        finally:
            client.execute_command("ACL", "DELUSER", USER)


@contextmanager
def _nats(subjects: frozenset[str], folder: Path) -> Iterator[Mapping[str, str]]:
    """A server with two users, of whom one may ask for these subjects only, and hear the answers."""
    folder.mkdir(parents=True)
    allowed = {"publish": {"allow": sorted(subjects)}, "subscribe": {"allow": ["_INBOX.>"]}}
    users = [
        {"user": "all", "password": PASSWORD},
        {"user": USER, "password": PASSWORD, "permissions": allowed},
    ]
    config = folder / "nats.conf"
    config.write_text(json.dumps({"authorization": {"users": users}}))
    [port] = free_ports(1)
    argv = [binaries.nats(), "-c", config, "-a", HOST, "-p", port, "-js", "-sd", folder / "data"]
    process = spawn(argv, log=folder / "nats.log")
    try:
        eventually(lambda: talk(port).startswith(b"INFO "))
        streams.lay_out(f"nats://all:{PASSWORD}@{HOST}:{port}")
        yield {"NATS_URL": f"nats://{USER}:{PASSWORD}@{HOST}:{port}"}
    finally:
        process.kill()
        process.wait()


@contextmanager
def _aws(env: Mapping[str, str], actions: frozenset[str]) -> Iterator[Mapping[str, str]]:
    """An IAM user with a policy, and an AWS that asks for it. The stand-in names CloudWatch as its requests are signed."""
    iam = Account(env).client("iam")
    iam.create_user(UserName=USER)
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    if actions:  # whoever has no policy may do nothing, and an empty one is malformed
        allowed = {"Effect": "Allow", "Action": sorted(map(_as_signed, actions)), "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName=USER, PolicyName=USER, PolicyDocument=document)
    try:
        _enforce(env, "0")
        yield {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    finally:
        _enforce(env, "inf")
        iam.delete_access_key(UserName=USER, AccessKeyId=key["AccessKeyId"])
        if actions:
            iam.delete_user_policy(UserName=USER, PolicyName=USER)
        iam.delete_user(UserName=USER)


def _as_signed(action: str) -> str:
    return action.replace("cloudwatch:", "monitoring:")


def _enforce(env: Mapping[str, str], after: str) -> None:
    """Have the stand-in check keys and policies after so many requests."""
    url = f"{env['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    asked = Request(url, data=after.encode(), headers={"Content-Type": "text/plain"}, method="POST")
    with urlopen(asked, timeout=5) as answer:
        assert answer.status == 200
