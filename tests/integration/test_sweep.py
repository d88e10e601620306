"""Several threads that delete keys at about the same time share a pass over the keyspace, and wait for none that does not come."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext

import pytest

from sandbox import registry, teardown
from sandbox.adapters.redis import Redis
from sandbox.errors import Halted, Unreachable
from sandbox.keyspace import Hold
from sandbox.sweep import Sweep
from sandbox.teardown import Condemned
from tests.integration.world import NOW, World


@pytest.fixture(autouse=True)
def _empty(world: World) -> Iterator[None]:
    yield
    world.wipe()


def condemned(world: World, name: str) -> list[Condemned]:
    """Return a sandbox on its way out, with keys."""
    made = world.make(name)
    with world.database.transaction() as transaction:
        row = registry.locked(transaction, id=made.id)
        return [teardown.condemn(transaction, row, actor="chani", at=NOW)]


def passes(world: World) -> int:
    """Return how many steps of passes this Redis has seen: with so few keys, one is a pass."""
    return int(world.redis.info("commandstats").get("cmdstat_scan", {}).get("calls", 0))


def both(world: World, hold: Hold = nullcontext, *, keys: Redis | None = None) -> list[Future[object]]:
    """Let two delete what each condemned: one is ready when the other is on its way already. Return what became of each."""
    first, second = condemned(world, "first"), condemned(world, "second")
    sweep, at = Sweep(), (world.database, keys or world.keys)

    def ready() -> object:
        with sweep.joined(*at) as clear:
            return clear(first, hold)

    with ThreadPoolExecutor() as crew, sweep.joined(*at) as late:
        ended: list[Future[object]] = [crew.submit(ready), crew.submit(late, second, hold)]
        wait(ended)
    return ended


def test_who_is_ready_waits_for_who_is_on_the_way_and_one_pass_does_for_both(world: World) -> None:
    stays, before = world.make("stays"), passes(world)
    first, second = both(world)
    gone = first.result()
    assert gone is second.result()
    assert isinstance(gone, Mapping)
    assert sorted(gone.values()) == [5, 5]
    assert stays.id not in gone
    assert passes(world) - before == 1
    assert {name.split(":")[1] for name in world.key_names()} == {str(stays.id)}


def test_who_does_not_come_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    [ready], sweep, at = condemned(world, "ready"), Sweep(), (world.database, world.keys)
    with pytest.raises(Halted), sweep.joined(*at):
        raise Halted("nothing of ours could be condemned")
    with sweep.joined(*at) as clear:
        assert clear([ready], nullcontext) == {ready.sandbox.id: 5}
    [again] = condemned(world, "again")
    monkeypatch.setattr("sandbox.sweep._PATIENCE", 0.01)
    with sweep.joined(*at), sweep.joined(*at) as clear:  # the first is still at its rows
        assert clear([again], nullcontext) == {again.sandbox.id: 5}


def test_each_is_told_why_its_keys_are_left(world: World) -> None:
    first, second = both(world, keys=Redis("redis://127.0.0.1:1/0", timeout=1))
    assert isinstance(first.result(), Unreachable)
    assert second.result() is first.result()


def test_a_halt_in_the_midst_ends_it_for_both(world: World) -> None:
    def halted() -> AbstractContextManager[object]:
        raise Halted("interrupted")

    first, second = both(world, halted)
    assert isinstance(first.result(), Halted)
    assert second.result() is first.result()
    assert len(world.key_names()) == 10


def test_what_nobody_foresaw_is_raised_to_both(world: World) -> None:
    def broken() -> AbstractContextManager[object]:
        raise ZeroDivisionError

    first, second = both(world, broken)
    assert isinstance(first.exception(), ZeroDivisionError)
    assert second.exception() is first.exception()
