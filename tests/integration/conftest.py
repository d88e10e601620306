"""A world that a module's tests share, in a lab that all modules of a worker use one after the other."""

from collections.abc import Iterator

import pytest

from lab import control
from tests.integration.world import World, clear, world_of


@pytest.fixture(scope="session")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control.Lab]:
    """Return a lab with nothing in it."""
    lab = control.start(tmp_path_factory.mktemp("grounds") / "home", watch_parent=True)
    yield lab
    control.reset(lab.home)


@pytest.fixture(scope="module")
def world(grounds: control.Lab) -> Iterator[World]:
    """Return a lab with the control tables and nothing else in it."""
    with world_of(grounds) as opened:
        yield opened
    clear(grounds)
