"""A world that a module's tests share."""

from collections.abc import Iterator

import pytest

from tests.integration.world import World, open_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return a lab with the control tables and nothing else in it."""
    with open_world(tmp_path_factory.mktemp("lab") / "home") as opened:
        yield opened
