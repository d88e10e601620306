"""Through PgBouncer in transaction pooling, as production has it, with fewer sessions than are wanted at once."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from uuid import uuid4

import psycopg
import pytest

from sandbox import health, lifecycle, metrics, removal
from sandbox.adapters.nats import Nats
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.errors import SandboxError
from sandbox.health import Level
from sandbox.lifecycle import Request
from tests.acceptance.developer import Developer
from tests.acceptance.dump import dump
from tests.acceptance.engineer import Engineer
from tests.conftest import StartLab
from tests.integration.pgbouncer import pooled


@pytest.fixture(scope="module")
def engineer(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engineer]:
    """Return an engineer whose DATABASE_URL leads through PgBouncer."""
    lab = start_lab()
    with pooled(lab.env["DATABASE_URL"], tmp_path_factory.mktemp("pgbouncer")) as address:
        yield Engineer(lab, tmp_path_factory.mktemp("state"), DATABASE_URL=address)


def test_it_pools_transactions(engineer: Engineer) -> None:
    console = engineer.env["DATABASE_URL"].rpartition("/")[0] + "/pgbouncer"
    with psycopg.connect(console, autocommit=True) as connection:
        settings = {row[0]: row[1] for row in connection.execute("SHOW CONFIG").fetchall()}
    assert (settings["pool_mode"], settings["default_pool_size"]) == ("transaction", "3")


def test_a_refusal_costs_the_pool_no_connection(engineer: Engineer) -> None:
    database, keys = Postgres(engineer.env["DATABASE_URL"], tag="tests"), Redis(engineer.env["REDIS_URL"])
    started = "SELECT max(backend_start) FROM pg_stat_activity WHERE application_name = 'arrakis-runbooks'"
    with psycopg.connect(engineer.lab.env["DATABASE_URL"], autocommit=True) as direct:
        before = None
        for _ in range(5):
            with pytest.raises(SandboxError, match="SANDBOX_004"):
                lifecycle.expire(database, keys, "nobody-has-it", actor="c", now=datetime.now(UTC))
            before = before or direct.execute(started).fetchone()
        assert direct.execute(started).fetchone() == before


def test_every_change_of_a_sandbox(engineer: Engineer) -> None:
    database, keys = Postgres(engineer.env["DATABASE_URL"], tag="tests"), Redis(engineer.env["REDIS_URL"])
    now, wrong = datetime.now(UTC), list[object]()

    def live(number: int) -> None:
        name, guild = f"pooled-{number}", str(900 + number)
        try:
            lifecycle.create(database, keys, Request(id=uuid4(), name=name, owner=name, now=now))
            assert lifecycle.register_guild(database, keys, name, guild, actor="chani").changed
            lifecycle.extend(database, keys, name, timedelta(hours=1), actor="chani", now=now)
            seen = health.examine(database, keys, Nats(engineer.env["NATS_URL"]), name, now=now)
            assert seen.level is Level.HEALTHY, seen
            assert lifecycle.unregister_guild(database, keys, name, guild, actor="chani").changed
            lifecycle.expire(database, keys, name, actor="chani", now=now)
            assert removal.destroy(database, keys, name, actor="chani", now=now).schemas
        except Exception as error:
            wrong.append(error)

    threads = [Thread(target=live, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(metrics.orphans(database, keys)) == 10  # the incident's, and none of ours


@pytest.mark.soak
def test_the_runbook_there_and_back(engineer: Engineer) -> None:
    before = dump(engineer.lab)
    document = engineer.apply(engineer.plan()["id"])
    assert len(document["plan"]["actions"]) == 10
    assert engineer.call("rb-sb-003").code == 0
    engineer.give_back(document)
    assert dump(engineer.lab).schemas == before.schemas


@pytest.mark.soak
def test_the_jobs(engineer: Engineer) -> None:
    named = engineer.but(ARRAKIS_ENV="lab")
    with psycopg.connect(engineer.lab.env["DATABASE_URL"], autocommit=True) as direct:
        direct.execute("DELETE FROM runbooks.journal")  # or what was given back before would be left alone
    assert named.call("publish-metrics").code == 0
    assert named.call("orphan-detection").code == 2
    answer = named.call("cleanup")
    assert answer.code == 0, answer.said
    [done] = [
        line for line in map(json.loads, answer.err.splitlines()) if line["msg"] == "Put into quarantine"
    ]
    named.undo(done["run"])
    with psycopg.connect(engineer.lab.env["DATABASE_URL"]) as direct:
        rows = direct.execute("SELECT id FROM sandboxes WHERE status IN ('expired', 'destroying')").fetchall()
    assert rows == []
    assert named.call("cleanup").code == 0


@pytest.mark.soak
def test_gaib(engineer: Engineer, tmp_path: Path) -> None:
    chani = Developer.at(tmp_path, engineer.env)
    for command in (
        "create pooled-box --guild 990 --ttl 2h",
        "status pooled-box",
        "extend pooled-box 1h",
        "unregister-guild pooled-box 990",
        "register-guild pooled-box 990",
        "connect pooled-box",
        "list --all",
        "destroy pooled-box --yes",
    ):
        answer = chani.call("sandbox", *command.split())
        assert answer.code == 0, answer.said
