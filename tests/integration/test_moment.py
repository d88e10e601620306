"""A database that is seen as of one moment, by several who ask at once."""

import threading

import pytest

from runbooks.engine.environment import Environment
from runbooks.engine.sharing import sharing
from runbooks.engine.systems import Readers, readers
from sandbox import keyspace, registry
from sandbox.errors import ArrakisError, Unreachable
from sandbox.model import Status
from sandbox.ports import APPLICATION, SqlReader
from tests.integration.world import World
from tests.waiting import eventually


def names(database: SqlReader) -> set[str]:
    with database.snapshot() as snapshot:
        return {row.name for row in registry.roster(snapshot).rows}


def systems(world: World) -> Readers:
    where = Environment(
        name="custom",
        database_url=world.env["DATABASE_URL"],
        redis_url=world.env["REDIS_URL"],
        nats_url=world.env["NATS_URL"],
        region="eu-west-1",
    )
    return readers(where, tag="arrakis-runbooks:test", timeout=5)


def test_a_moment_does_not_see_what_comes_after_it(world: World) -> None:
    before = names(world.database)
    with world.database.moment() as moment:
        world.make("after-the-moment")
        assert names(moment) == before
        assert names(world.database) == before | {"after-the-moment"}
        with moment.moment() as same:
            assert names(same) == before
    assert names(world.database) == before | {"after-the-moment"}


def test_a_moment_that_is_over_cannot_be_looked_at(world: World) -> None:
    with world.database.moment() as moment:
        pass
    with pytest.raises(Exception, match="snapshot"):
        names(moment)


def test_what_is_shared_is_of_one_moment_though_it_is_asked_later_and_in_other_words(world: World) -> None:
    before = names(world.database)
    with sharing(systems(world)) as shared:
        assert names(shared.sql) == before
        world.make("while-it-is-shared")
        assert names(shared.sql) == before
        with shared.sql.snapshot() as snapshot:  # another statement, asked for the first time
            assert registry.counts(snapshot).sandboxes == len(before)


def test_what_was_read_stays_though_the_session_that_holds_the_moment_is_ended(world: World) -> None:
    before = names(world.database)
    with sharing(systems(world)) as shared:
        assert names(shared.sql) == before
        ended = world.sql.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE '%pg_export_snapshot%' AND pid <> pg_backend_pid()"
        ).fetchall()
        assert ended == [(True,)]
        assert names(shared.sql) == before
        with (
            pytest.raises(ArrakisError),
            shared.sql.snapshot() as snapshot,
        ):  # what was not read yet cannot be had
            registry.counts(snapshot)


def test_few_connections_are_used_however_many_ask(world: World) -> None:
    well: list[int] = []

    def few() -> bool:
        return (
            world.count("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", APPLICATION) <= 3
        )

    with sharing(systems(world)) as shared:

        def ask(number: int) -> None:
            with shared.sql.snapshot() as snapshot:
                registry.listing(snapshot, owner=f"nobody-{number}", statuses=[Status.RUNNING])
                eventually(few, seconds=10)  # the server still ends those that were closed
                well.append(number)

        asking = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for each in asking:
            each.start()
        for each in asking:
            each.join(30)
    assert sorted(well) == list(range(8))


def test_the_keyspace_is_gone_through_once(world: World) -> None:
    def scans() -> int:
        stats = world.redis.info("commandstats")
        return int(stats.get("cmdstat_scan", {"calls": 0})["calls"])

    with sharing(systems(world)) as shared:
        begun = scans()
        first = shared.survey()
        once = scans()
        assert [shared.survey() for _ in range(5)] == [first] * 5
        assert begun < once == scans()
    assert keyspace.survey(world.keys) == first


def test_a_server_that_is_gone_is_asked_once_for_all(world: World) -> None:
    gone = Environment(
        name="custom",
        database_url="postgresql://u@127.0.0.1:1/none",
        redis_url="redis://127.0.0.1:1",
        nats_url="nats://127.0.0.1:1",
    )
    failures: list[Unreachable] = []

    def ask(shared: Readers) -> None:
        try:
            names(shared.sql)
        except Unreachable as error:
            failures.append(error)

    with sharing(readers(gone, tag="arrakis-runbooks:test", timeout=2)) as shared:
        asking = [threading.Thread(target=ask, args=(shared,)) for _ in range(6)]
        for each in asking:
            each.start()
        for each in asking:
            each.join(20)
    assert len(failures) == 6
    assert len(set(map(id, failures))) == 1
