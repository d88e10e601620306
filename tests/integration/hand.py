"""Who stops and resumes beside others: a hand with connections of its own, and what holds it up."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbooks.emergency.evidence import Raised, read_running, read_stop
from runbooks.engine.environment import resolve
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation
from runbooks.engine.systems import readers, writers
from runbooks.remedies.marking import MarkSandboxes, RaiseStop, given_back, marking, raising
from sandbox.errors import ArrakisError
from tests.integration.world import World

__all__ = ["Hand", "Waiting", "at_once", "everything", "holding", "many"]

ROWS = "SELECT * FROM sandboxes ORDER BY id"
MAPPINGS = "SELECT * FROM sandbox_guild_mapping ORDER BY guild_id"


class Hand:
    """Somebody who stops and resumes, with connections of their own."""

    def __init__(self, world: World, state: Path, *, actor: str = "chani", **other: str) -> None:
        environment = resolve(None, {**world.env, **other}, state, state)
        self.told: list[str] = []
        self.gate = Gate(
            read=readers(environment, tag="tests:stops", timeout=5),
            write=writers(environment, tag="tests:stops", actor=actor, timeout=5),
            fence=lambda _: pytest.fail("asks for the lease"),
            tell=self.told.append,
        )
        self.marks, self.flag = MarkSandboxes(self.gate), RaiseStop(self.gate)

    @property
    def raised(self) -> Raised | None:
        """The stop that is raised, and what it marked."""
        return read_stop(self.gate.read.sql)

    def stop(self, name: str = "stop-1", *, halting: bool = True, parts: tuple[Action, ...] = ()) -> None:
        """Raise the flag and mark all that run."""
        self.flag.apply(raising(name, halting=halting, reason="", parts=parts))
        self.marks.apply(marking(name, read_running(self.gate.read.sql)))

    def resume(self) -> None:
        """Give back what can be given back, and lift the stop."""
        for step in self.way_back():
            remedy = self.marks if step.verb == self.marks.verb else self.flag
            remedy.revert(step)

    def way_back(self) -> list[Action]:
        """Return what a resume would revert."""
        told = self.raised
        if told is None:
            return []
        flag = raising(told.stop.id, halting=True, reason="", parts=())
        return [given_back(told.stop.id, told.waiting), flag] if told.waiting else [flag]

    def seen(self, step: Action, *, back: bool = False) -> Observation:
        """Look at what one of these did."""
        remedy = self.marks if step.verb == self.marks.verb else self.flag
        return remedy.observe(replace(step, verb=f"undo {step.verb}") if back else step)


def everything(world: World) -> tuple[Any, Any]:
    """Return every field of every sandbox and mapping."""
    return world.sql.execute(ROWS.encode()).fetchall(), world.sql.execute(MAPPINGS.encode()).fetchall()


def at_once(*calls: Callable[[], object]) -> list[BaseException | None]:
    """Make calls side by side, all of them begun together; return what each raised."""
    start, raised = threading.Barrier(len(calls)), list[BaseException | None]([None] * len(calls))

    def run(number: int, call: Callable[[], object]) -> None:
        start.wait()
        try:
            call()
        except ArrakisError as error:
            raised[number] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@contextmanager
def holding(world: World, statement: str, *params: object) -> Iterator[psycopg.Connection[Any]]:
    """Be in the middle of a transaction that did this."""
    with psycopg.connect(world.env["DATABASE_URL"]) as other:
        other.execute(statement.encode(), params or None)
        yield other


class Waiting(AbstractContextManager["Waiting"]):
    """A call beside what is done here, that has to wait for it: `raised` is what it raised in the end."""

    def __init__(self, world: World, call: Callable[[Any], object], given: object) -> None:
        self._world, self._call, self._given = world, call, given
        self.raised: ArrakisError | None = None
        self._thread = threading.Thread(target=self._run)

    def begin(self, *, waits_for: str = "%") -> None:
        """Begin it, and go on once it waits for such a lock."""
        self._thread.start()
        deadline = time.monotonic() + 10
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event LIKE %s"
        while not self._world.count(query, waits_for):
            assert time.monotonic() < deadline, "it waits for no such lock"

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            self._call(self._given)
        except ArrakisError as error:
            self.raised = error


def many(world: World, count: int) -> None:
    """Let so many sandboxes run, each with a guild."""
    query = """
        WITH made AS (
            INSERT INTO sandboxes (name, owner, status, schema_name, expires_at)
            SELECT 'box-' || n, 'owner-' || n %% 50, 'running', 'sandbox_of_' || n, now() + interval '1 day'
            FROM generate_series(1, %s) AS n RETURNING id, name
        )
        INSERT INTO sandbox_guild_mapping (guild_id, sandbox_id) SELECT substr(name, 5), id FROM made
    """
    world.sql.execute(query.encode(), (count,))
