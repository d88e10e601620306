"""Killed with -9 before each call to a server, in create and destroy: what is repeated or cleaned up leaves nothing."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import count
from pathlib import Path

import pytest

from sandbox import lifecycle, removal, routes
from sandbox.cleanup import Job
from sandbox.joblog import logger
from tests.integration.world import World, request_for

ROOT = Path(__file__).resolve().parents[2]
Kill = Callable[[str, str, int], bool]


@pytest.fixture(scope="module")
def kill(world: World) -> Iterator[Kill]:
    """Return how to do something and be killed at a step; False when it was done before that step came."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.dying"],
        cwd=ROOT,
        env={**os.environ, **world.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        stdin, stdout = process.stdin, process.stdout

        def killed(operation: str, name: str, step: int) -> bool:
            stdin.write(f"{operation} {name} {step}\n")
            stdin.flush()
            answer = stdout.readline().strip()
            assert answer in ("killed", "done 0")
            return answer == "killed"

        yield killed
        stdin.close()


def clean_up(world: World) -> None:
    """Run the job two hours from now."""
    Job(
        database=world.database,
        keys=world.keys,
        clock=lambda: datetime.now(UTC) + timedelta(hours=2),
        log=logger("CleanupProvider", level="silent", stream=StringIO()),
    ).run()


def steps(kill: Kill, operation: str, name: str, arrange: Callable[[], object]) -> Iterator[int]:
    """Yield after each kill; end when the operation is done before its step."""
    for step in count(1):
        arrange()
        if not kill(operation, name, step):
            assert step > 8  # or nothing was counted
            return
        yield step


@pytest.mark.soak
def test_a_create_is_whole_or_nothing(world: World, kill: Kill) -> None:
    def arrange() -> None:
        world.wipe()
        for guild in ("1", "2"):  # as the EventRouter has them for guilds that are not mapped
            routes.look_up(world.database, world.keys, guild)

    whole = 0
    for _ in steps(kill, "create", "born", arrange):
        rows = world.count("SELECT count(*) FROM sandboxes WHERE status = 'running'")
        assert world.count("SELECT count(*) FROM sandboxes") == rows == len(world.schemas())
        assert len(world.mapped()) == 2 * rows
        whole += rows
        if not rows:
            lifecycle.create(world.database, world.keys, request_for("born", guilds=("1", "2")))
        clean_up(world)
        [made] = set(world.mapped().values())
        assert world.schemas() == {f"sandbox_{made}"}
        assert [routes.look_up(world.database, world.keys, guild).sandbox for guild in "12"] == [made, made]
        removal.destroy(world.database, world.keys, "born", actor="chani", now=datetime.now(UTC))
        assert not world.schemas() | world.key_names() | set(world.mapped())
    assert whole == 1  # only the last kill, after the commit, finds it there
    world.wipe()


@pytest.mark.parametrize("mended", [pytest.param("repeated", marks=pytest.mark.soak), "cleaned up"])
@pytest.mark.soak
def test_a_destroy_leaves_nothing_in_the_end(world: World, kill: Kill, mended: str) -> None:
    stays = world.make("stays", guilds=("9",))
    kept = {key for key in world.key_names() if str(stays.id) in key} | {"sandbox:route:9"}
    names: list[str] = []

    def arrange() -> None:
        names.append(f"gone-{len(names)}")
        world.sql.execute(
            "UPDATE sandboxes SET name = %s WHERE name = 'gone'", (names[-1],)
        )  # the last step's
        world.make("gone", owner=names[-1], guilds=("1", "2"))

    for _ in steps(kill, "destroy", "gone", arrange):
        if mended == "repeated":
            removal.destroy(world.database, world.keys, "gone", actor="chani", now=datetime.now(UTC))
        else:
            if world.one("SELECT status::text FROM sandboxes WHERE name = 'gone'") == "running":
                lifecycle.expire(world.database, world.keys, "gone", actor="chani", now=datetime.now(UTC))
            clean_up(world)
        assert world.one("SELECT status::text FROM sandboxes WHERE name = 'gone'") == "destroyed"
        assert world.schemas() == {f"sandbox_{stays.id}"}
        assert world.key_names() == kept
        assert world.mapped() == {"9": stays.id}
    world.wipe()
