"""What production runs, PostgreSQL 15 and Redis 7, from the alarm to quarantine and back. `.ci/run` installs them."""

import shutil
from pathlib import Path

import pytest

from tests.acceptance.dump import dump
from tests.acceptance.engineer import Engineer
from tests.conftest import StartLab

POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")


def program(name: str) -> str:
    found = shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
    assert found, f"{name} is not installed: run .ci/run, or install it"
    return found


@pytest.fixture(scope="module")
def older(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Engineer:
    """Return an engineer at a lab of older servers."""
    assert (POSTGRES_15 / "postgres").exists(), "postgresql-15 is not installed: run .ci/run, or install it"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_POSTGRES_BIN", str(POSTGRES_15))
        patch.setenv("LAB_REDIS_BIN", program("redis-server"))
        patch.setenv("LAB_NATS_BIN", program("nats-server"))
        lab = start_lab()
    return Engineer(lab, tmp_path_factory.mktemp("state"))


def test_these_are_the_older_servers(older: Engineer) -> None:
    versions = older.lab.versions
    assert "15." in versions["postgres"]
    assert "7." in versions["redis"]


@pytest.mark.soak
def test_quarantined_and_given_back(older: Engineer) -> None:
    before = dump(older.lab)
    plan = older.plan()
    assert len(plan["actions"]) == 10
    document = older.apply(plan["id"])
    after = dump(older.lab)
    kinds = [each["resource"]["kind"] for each in plan["actions"]]
    assert (kinds.count("schema"), kinds.count("keys")) == (7, 3)
    named = {each["resource"]["id"] for each in plan["actions"]}
    assert set(before.schemas) - set(after.schemas) | before.tokens() - after.tokens() == named

    again = older.call("rb-sb-003")
    older.undo(document["run"]["id"])
    assert dump(older.lab) == before
    assert again.code == 0, again.said
