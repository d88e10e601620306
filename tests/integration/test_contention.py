"""Two processes at the same owners and guilds, up to 200 sandboxes: limits and uniqueness hold, nothing half made remains."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sandbox import metrics, removal, routes
from tests.integration.contender import GUILDS, OWNERS
from tests.integration.world import NOW, World

ROOT = Path(__file__).resolve().parents[2]
_MOST = "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM sandboxes WHERE status <> 'destroyed' GROUP BY owner) x"


def contend(world: World, sandboxes: int) -> Counter[str]:
    """Let two processes make so many each; meanwhile no owner ever has more than five. Returns how their steps ended."""
    argv = [sys.executable, "-m", "tests.integration.contender"]
    env = {**os.environ, **world.env}
    processes = [
        subprocess.Popen(
            [*argv, str(seed), str(sandboxes)], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
        )
        for seed in range(2)
    ]
    most = 0
    while any(process.poll() is None for process in processes):
        most = max(most, world.count(_MOST))
    assert most == 5  # the limit was reached, and not passed
    said: Counter[str] = Counter()
    for process in processes:
        out, _ = process.communicate()
        assert process.returncode == 0
        said.update(json.loads(out))
    return said


@pytest.mark.parametrize("sandboxes", [30, pytest.param(100, marks=pytest.mark.soak)])
@pytest.mark.soak
def test_two_processes_at_the_same_owners_and_guilds(world: World, sandboxes: int) -> None:
    world.wipe()
    said = contend(world, sandboxes)
    created = said["create done"]
    assert created >= 2 * sandboxes
    assert said["create SANDBOX_002"]
    assert said["create SANDBOX_003"]
    assert said["register SANDBOX_003"] or sandboxes < 100  # only few come up in a short run, and seldom none
    unexpected = {step for step in said if not re.search(r" (done|SANDBOX_00[2347])$", step)}
    assert not unexpected, said

    rows = world.sql.execute("SELECT id, name, owner, status::text FROM sandboxes").fetchall()
    assert len(rows) == created
    assert {status for *_, status in rows} == {"running", "destroyed"}
    live = {row[0]: row for row in rows if row[3] == "running"}
    assert world.schemas() == {f"sandbox_{sandbox}" for sandbox in live}
    assert set(world.mapped().values()) <= set(live)
    assert metrics.orphans(world.database, world.keys) == []

    known = routes.cached(world.keys, GUILDS)
    assert known or sandboxes < 100  # what was looked up while it changed may be cached as it was before
    assert set(known.values()) <= {str(row[0]) for row in rows} | {routes.NOWHERE}
    routes.forget_stale(world.database, world.keys, GUILDS)
    left = routes.cached(world.keys, GUILDS)
    assert left == {g: str(world.mapped().get(g, routes.NOWHERE)) for g in left}

    for _, name, owner, _ in live.values():
        assert owner in OWNERS
        removal.destroy(world.database, world.keys, str(name), actor="tests", now=NOW)
    assert world.schemas() == set()
    assert world.mapped() == {}
