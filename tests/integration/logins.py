"""Logins that may do no more than some rights say, on the lab's own servers: each of them refuses the rest.

They are made of what deploy/rights/ is made of.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

import psycopg
import redis
from psycopg import sql

from diagnostics.policies import PASSING
from diagnostics.privileges import ON_CLUSTERS, OWNER
from lab import binaries
from lab.control import Lab
from lab.incidents import streams
from lab.incidents.cloud import Account
from lab.processes import HOST, free_ports, spawn, talk
from runbooks.engine.page import Rights
from runbooks.reports.granting import granting
from sandbox.adapters.postgres import Postgres
from tests.waiting import eventually

__all__ = ["PASSWORD", "USER", "aged", "each_of", "given", "given_away", "limited", "prepared", "without"]

USER, PASSWORD = "limited", "hunter2"
_FEW = 20  # keys of a family

_PERMISSIONS, _PID, _RELOADED = "permissions.conf", "nats.pid", "Reloaded server configuration"
_USERS = f"""authorization: {{ users: [
  {{ user: all, password: {PASSWORD} }}
  {{ user: {USER}, password: {PASSWORD}, permissions: {{ include "{_PERMISSIONS}" }} }}
] }}"""

_OWNERS = """
    SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = current_database() AND %(what)s = 'the database'
    UNION SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE relkind = 'r' AND oid = to_regclass(%(what)s)
    UNION SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace
          WHERE right(%(what)s, 1) = '*' AND starts_with(nspname::text, rtrim(%(what)s, '*'))"""
_LEFT = """
    INSERT INTO runbooks.stops (id, raised_by, reason, halting, parts) VALUES ('stop-1', 'liet', '', false, '{}');
    INSERT INTO runbooks.stopped_sandboxes
    SELECT 'stop-1', id, name, 'running', NULL, expires_at, '{}', '{}', now() FROM public.sandboxes WHERE status = 'destroyed' LIMIT 1;
    CREATE ROLE owner_of_parked;
    CREATE SCHEMA quarantine_20200101000000_00000000 AUTHORIZATION owner_of_parked"""
_SCHEMAS, _TABLES, _DATABASE = "owner_of_schemas", "owner_of_tables", "owner_of_database"
_WIDER = {
    "pg_read_all_stats": "pg_monitor",
    "%R~sandbox:*": "~sandbox:*",
    "CREATE ON DATABASE": "owner of the database",
    "CREATE ON SCHEMA public": "owner of the database",
    "USAGE ON SCHEMA public": "owner of the database",
}
"""What a right is part of, so that taking it away takes nothing."""

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
    with given(env, granting(rights), folder, nats=nats) as found, _owning(env["DATABASE_URL"], rights):
        yield found


@contextmanager
def given(
    env: Mapping[str, str], texts: Mapping[str, str], folder: Path, *, nats: bool = True
) -> Iterator[Mapping[str, str]]:
    """Yield the variables of logins that have what these texts give, by the system's name."""
    with ExitStack() as stack:
        found = {
            **env,
            **stack.enter_context(_postgres(env["DATABASE_URL"], texts["postgres"])),
            **stack.enter_context(_redis(env["REDIS_URL"], texts["redis"])),
            **stack.enter_context(_aws(env, texts["iam"])),
        }
        if nats:
            found |= stack.enter_context(_nats(texts["nats"], folder))
        yield found


@contextmanager
def _owning(url: str, rights: Rights) -> Iterator[None]:
    """Make the role a member of the owners whose right is among them: no text gives that."""
    role = sql.Identifier(USER)
    with psycopg.connect(url, autocommit=True) as connection:
        for word in rights.postgres:
            for owner in _owners(connection, word):
                connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(owner), role))
        yield


def each_of(rights: Rights) -> list[str]:
    """Return the rights that can be taken away alone: not what another of them has in it, nor what only a cluster is asked for."""
    words = [word for each in fields(rights) for word in sorted(getattr(rights, each.name))]
    owned = {word.removeprefix(OWNER) for word in words if word.startswith(OWNER)}
    whole = {word for word in words if _WIDER.get(word) in words or word.rpartition(" ON ")[2] in owned}
    return [word for word in words if word not in whole | ON_CLUSTERS]


@contextmanager
def without(env: Mapping[str, str], rights: Rights, word: str, folder: Path) -> Iterator[None]:
    """Take one right away from the limited logins, which have these, until the block ends. `env` is the lab's own."""
    less = {each.name: getattr(rights, each.name) - {word} for each in fields(rights)}
    given, left = granting(rights), granting(Rights(**less))
    with ExitStack() as stack:
        if word in rights.postgres:
            stack.enter_context(_revoked(env["DATABASE_URL"], word))
        elif word in rights.redis:
            stack.callback(_let, env["REDIS_URL"], given["redis"])
            _let(env["REDIS_URL"], left["redis"])
        elif word in rights.nats:
            stack.callback(_permit, given["nats"], folder)
            _permit(left["nats"], folder)
        else:
            stack.callback(_allow_instead, env, given["iam"])
            _allow_instead(env, left["iam"])
        yield


def prepared(lab: Lab) -> Lab:
    """Make what runs leave behind, so that it is looked at: their tables, a stop, something in quarantine. Nothing is a superuser's.

    Of each family of keys a few are left: more would be read and read again, to no other end.
    """
    _thin(lab.env["REDIS_URL"])
    for name in ("0002_runbooks", "0003_emergencies"):
        Postgres(lab.env["DATABASE_URL"], tag="tests").script(f"migrations/{name}")
    given_away(lab.env)
    with psycopg.connect(lab.env["DATABASE_URL"]) as connection:
        connection.execute(_LEFT.encode())
    return lab


def aged(lab: Lab) -> Lab:
    """Give each sandbox an audit row that is old enough to be trimmed."""
    with psycopg.connect(lab.env["DATABASE_URL"]) as connection:
        connection.execute(
            "INSERT INTO public.sandbox_audit_log (sandbox_id, event_type, actor, created_at)"
            " SELECT id, 'status_changed', 'thufir', now() - interval '100 days' FROM public.sandboxes"
        )
    return lab


def _thin(url: str) -> None:
    families: dict[bytes, int] = {}
    with redis.Redis.from_url(url) as client:
        pipeline = client.pipeline(transaction=False)
        for key in client.scan_iter(match="sandbox:*", count=5000):
            family = key.split(b":")[1]
            families[family] = families.get(family, 0) + 1
            if family != b"route" and families[family] > _FEW:
                pipeline.unlink(key)
        pipeline.execute()


def given_away(env: Mapping[str, str]) -> None:
    """Let roles of their own have what the lab's superuser owns: whoever is a member of that could do anything.

    What somebody holds, as in some incidents, stays whose it is.
    """
    with psycopg.connect(env["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("SET lock_timeout = '100ms'")
        for role in (_SCHEMAS, _TABLES, _DATABASE):
            connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        for (statement,) in connection.execute(_OWNED.encode()).fetchall():
            with suppress(psycopg.errors.LockNotAvailable):
                connection.execute(statement.encode())


@contextmanager
def _postgres(url: str, grants: str) -> Iterator[Mapping[str, str]]:
    role = sql.Identifier(USER)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        _psql(url, grants)
        try:
            yield {"DATABASE_URL": _address(url)}
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {0}").format(role))
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


def _address(url: str) -> str:
    """Return the address of a database as the limited user has it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{USER}@{parts.netloc.rpartition('@')[2]}"))


@contextmanager
def _revoked(url: str, word: str) -> Iterator[None]:
    """Take a grant, or the membership in owners, from the role."""
    with psycopg.connect(url, autocommit=True) as connection:
        owners = _owners(connection, word) if word.startswith(OWNER) else [word]
        named = [f"{each} arrakis" if each.endswith("ON DATABASE") else each for each in owners]
        assert named, f"nothing is there for {word}"
        for each in named:
            connection.execute(f"REVOKE {each} FROM {USER}".encode())
        try:
            yield
        finally:
            for each in named:
                connection.execute(f"GRANT {each} TO {USER}".encode())


def _owners(connection: psycopg.Connection[Any], word: str) -> list[str]:
    found = connection.execute(_OWNERS.encode(), {"what": word.removeprefix(OWNER)}).fetchall()
    return [str(owner) for (owner,) in found]


def _psql(url: str, grants: str) -> None:
    """Have psql run the grants, as the file's first lines say it."""
    there = binaries.postgres() / "psql"
    program = there if there.exists() else shutil.which("psql")
    assert program, "no psql"
    argv = [program, "-X", "-q", "-v", f"role={USER}", "-f", "-", url]
    done = subprocess.run(argv, input=grants, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def _redis(url: str, rules: str) -> Iterator[Mapping[str, str]]:
    _let(url, rules)
    try:
        yield {"REDIS_URL": url.replace("redis://", f"redis://{USER}:{PASSWORD}@")}
    finally:
        with redis.Redis.from_url(url) as client:
            client.execute_command("ACL", "DELUSER", USER)


def _let(url: str, rules: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rules.split())


@contextmanager
def _nats(permissions: str, folder: Path) -> Iterator[Mapping[str, str]]:
    """A server with two users, of whom one has these permissions only."""
    folder.mkdir(parents=True)
    (folder / _PERMISSIONS).write_text(permissions)
    config = folder / "nats.conf"
    config.write_text(_USERS)
    [port] = free_ports(1)
    argv = [binaries.nats(), "-c", config, "-a", HOST, "-p", port, "-js", "-sd", folder / "data"]
    argv += ["-P", folder / _PID]
    process = spawn(argv, log=folder / "nats.log")
    try:
        eventually(lambda: talk(port).startswith(b"INFO "))
        streams.lay_out(f"nats://all:{PASSWORD}@{HOST}:{port}")
        yield {"NATS_URL": f"nats://{USER}:{PASSWORD}@{HOST}:{port}"}
    finally:
        process.kill()
        process.wait()


def _permit(permissions: str, folder: Path) -> None:
    """Have the server with these users let one of them do something else, and wait until it does."""
    log = folder / "nats.log"
    before = log.read_text().count(_RELOADED)
    (folder / _PERMISSIONS).write_text(permissions)
    os.kill(int((folder / _PID).read_text()), signal.SIGHUP)
    eventually(lambda: log.read_text().count(_RELOADED) > before)


@contextmanager
def _aws(env: Mapping[str, str], policy: str) -> Iterator[Mapping[str, str]]:
    """An IAM user with a policy, and an AWS that asks for it."""
    iam = Account(env).client("iam")
    iam.create_user(UserName=USER)
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    _allow(env, policy)
    try:
        _enforce(env, "0")
        yield {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    finally:
        _enforce(env, "inf")
        iam.delete_access_key(UserName=USER, AccessKeyId=key["AccessKeyId"])
        for name in iam.list_user_policies(UserName=USER)["PolicyNames"]:
            iam.delete_user_policy(UserName=USER, PolicyName=name)
        iam.delete_user(UserName=USER)


def _allow(env: Mapping[str, str], policy: str) -> None:
    document = _stood_in(policy)
    if document["Statement"]:  # whoever has no policy may do nothing, and an empty one is malformed
        Account(env).client("iam").put_user_policy(
            UserName=USER, PolicyName=USER, PolicyDocument=json.dumps(document)
        )


def _allow_instead(env: Mapping[str, str], policy: str) -> None:
    """Exchange the policy; meanwhile nothing is checked, as the lab's own keys are nobody's."""
    _enforce(env, "inf")
    _allow(env, policy)
    _enforce(env, "0")


def _stood_in(policy: str) -> Any:
    """Return a policy as the stand-in understands it: CloudWatch as requests are signed, and no resources, which no call tells it."""
    document = json.loads(policy.replace('"cloudwatch:', '"monitoring:'))
    for each in document["Statement"]:
        if PASSING not in each["Action"]:  # no call: the stand-in is only asked about it, with the role
            each["Resource"] = "*"
    return document


def _enforce(env: Mapping[str, str], after: str) -> None:
    """Have the stand-in check keys and policies after so many requests."""
    url = f"{env['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    asked = Request(url, data=after.encode(), headers={"Content-Type": "text/plain"}, method="POST")
    with urlopen(asked, timeout=5) as answer:
        assert answer.status == 200
