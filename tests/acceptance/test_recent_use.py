"""What somebody uses is left alone, with who and why; the others go."""

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any

import nats
import psycopg
import pytest
import redis
from psycopg import sql

from tests.acceptance.dump import age, dump
from tests.acceptance.engineer import Engineer


@contextlib.contextmanager
def locking(engineer: Engineer, schema: str) -> Iterator[None]:
    """An open transaction of `stilgar` that holds a lock on one of the schema's tables."""
    with psycopg.connect(engineer.lab.env["DATABASE_URL"], application_name="stilgar") as connection:
        lock = sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.Identifier(schema, "profiles"))
        connection.execute(lock)
        yield
        connection.rollback()


@contextlib.contextmanager
def subscribed(engineer: Engineer, token: str) -> Iterator[None]:
    """A client called `liet` that listens to a sandbox's events."""
    ready, ended = threading.Event(), threading.Event()

    async def listen() -> None:
        client = await nats.connect(engineer.lab.env["NATS_URL"], name="liet")
        try:
            await client.subscribe(f"sandbox.{token}.events.>")
            await client.flush()
            ready.set()
            await asyncio.to_thread(ended.wait)
        finally:
            await client.close()

    thread = threading.Thread(target=asyncio.run, args=(listen(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        ended.set()
        thread.join()


def write_row(engineer: Engineer, schema: str) -> None:
    with psycopg.connect(engineer.lab.env["DATABASE_URL"]) as connection:
        table = sql.Identifier(schema, "profiles")
        connection.execute(
            sql.SQL("UPDATE {} SET updated_at = updated_at WHERE ctid = (SELECT min(ctid) FROM {})").format(
                table, table
            )
        )


def touch_key(engineer: Engineer, token: str) -> None:
    with redis.Redis.from_url(engineer.lab.env["REDIS_URL"]) as client:
        name = next(client.scan_iter(match=f"sandbox:{token}:string:*", count=5000))
        client.get(name)


def named(plan: dict[str, Any], kind: str) -> list[str]:
    return [a["resource"]["id"] for a in plan["actions"] if a["resource"]["kind"] == kind]


def left_alone(document: dict[str, Any]) -> dict[str, str]:
    return {
        finding["resource"]["id"]: finding["summary"]
        for finding in document["findings"]
        if finding["check"] == "left alone"
    }


@pytest.fixture(scope="module")
def whole(engineer: Engineer) -> dict[str, Any]:
    """The plan when nobody is in the way."""
    plan = engineer.plan()
    assert len(plan["actions"]) == 10
    return plan


def skipped(document: dict[str, Any]) -> dict[str, str]:
    return {
        each["resource"]["id"]: each["reason"] for each in document["run"]["results"] if not each["settled"]
    }


def test_a_lock_before_the_plan(engineer: Engineer, whole: dict[str, Any]) -> None:
    schema = named(whole, "schema")[0]
    with locking(engineer, schema):
        document = engineer.call("rb-sb-003", "--json").document
    assert "in use" in left_alone(document)[schema]
    assert "stilgar" in left_alone(document)[schema]
    assert set(named(document["plan"], "schema")) == set(named(whole, "schema")) - {schema}


def test_a_subscriber_before_the_plan(engineer: Engineer, whole: dict[str, Any]) -> None:
    token = named(whole, "keys")[1]
    with subscribed(engineer, token):
        document = engineer.call("rb-sb-003", "--json").document
    assert "in use: liet" in left_alone(document)[token]
    assert set(named(document["plan"], "keys")) == set(named(whole, "keys")) - {token}


def test_a_key_used_before_the_plan(engineer: Engineer, whole: dict[str, Any]) -> None:
    token = named(whole, "keys")[1]
    touch_key(engineer, token)
    document = engineer.call("rb-sb-003", "--json").document
    age(engineer.lab, [token])
    assert re.search(r"in use: .*keys? .*was used \d+ s ago", left_alone(document)[token])
    assert set(named(document["plan"], "keys")) == set(named(whole, "keys")) - {token}


@pytest.mark.soak
def test_all_of_it_between_plan_and_apply(newcomer: Engineer, whole: dict[str, Any]) -> None:
    """Locked, written, listened to and touched: four are skipped, six go, exit 5."""
    before = dump(newcomer.lab)
    plan = newcomer.plan()
    schemas, families = named(plan, "schema"), named(plan, "keys")
    locked, written = schemas[1], schemas[3]
    alone = {name.removeprefix("sandbox_") for name in schemas}
    heard, used = next(token for token in families if token not in alone), families[2]
    if heard == used:
        used = families[0]
    write_row(newcomer, written)
    touch_key(newcomer, used)
    with locking(newcomer, locked), subscribed(newcomer, heard):
        answer = newcomer.call("apply", "--plan", plan["id"], "--yes", "--json")
    assert answer.code == 5, answer.said
    why = skipped(answer.document)
    assert "stilgar" in why[locked]
    assert "written since the plan" in why[written]
    assert "liet listens" in why[heard]
    assert re.search(r"keys? .*was used \d+ s ago", why[used])
    after = dump(newcomer.lab)
    for name in (locked, written):
        assert after.schemas[name] == before.schemas[name]
    assert {heard, used} <= after.tokens()
    # A schema may share its id with a family in use, and stays with it.
    gone = {each["resource"]["id"] for each in answer.document["run"]["results"] if each["settled"]}
    assert {f"sandbox_{token}" for token in (heard, used)} & set(schemas) <= set(why)
    assert gone | set(why) == {*schemas, *families}
    assert not gone & (set(after.schemas) | after.tokens())
    newcomer.undo(answer.document["run"]["id"])
    assert dump(newcomer.lab) == before
