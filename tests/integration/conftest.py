"""A world that a module's tests share, in a lab that all modules of a worker use one after the other; and one that none changes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import control
from tests.integration.logins import prepared
from tests.integration.world import World, clear, world_of


@pytest.fixture(scope="session")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control.Lab]:
    """Return a lab with nothing in it; TESTS_LAB names one that was started for many runs of tests, and stays."""
    if shared := os.environ.get("TESTS_LAB"):
        lab = control.start(Path(shared))
        clear(lab)
        yield lab
        return
    lab = control.start(tmp_path_factory.mktemp("grounds") / "home", watch_parent=True)
    yield lab
    control.reset(lab.home)


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control.Lab]:
    """Return a lab with orphans, in which nothing belongs to a superuser: runs were made before. Its tests leave it as it was."""
    lab = control.start(tmp_path_factory.mktemp("guarded") / "home", watch_parent=True)
    yield prepared(control.lay_out(lab, "rb-sb-003"))
    control.reset(lab.home)


@pytest.fixture(scope="module")
def world(grounds: control.Lab) -> Iterator[World]:
    """Return a lab with the control tables and nothing else in it."""
    with world_of(grounds) as opened:
        yield opened
    clear(grounds)
