"""What all tests share: labs that start once for those that want them, and end with their worker."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import control

StartLab = Callable[[], control.Lab]


@pytest.fixture(scope="module")
def start_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartLab]:
    """Return how to start a lab with the incident of RB-SB-003 in it; each call starts one, in a home of its own."""
    homes: list[Path] = []

    def start() -> control.Lab:
        homes.append(tmp_path_factory.mktemp("lab") / "home")
        return control.lay_out(control.start(homes[-1], watch_parent=True), "rb-sb-003")

    yield start
    for home in homes:
        control.reset(home)
