"""An engineer with a terminal beside a lab that has the incident."""

from pathlib import Path

import pytest

from tests.acceptance.engineer import Engineer
from tests.conftest import StartLab


@pytest.fixture(scope="module")
def engineer(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Engineer:
    """Return an engineer at a lab that the module shares: whoever applies a plan undoes it."""
    return Engineer(start_lab(), tmp_path_factory.mktemp("state"))


@pytest.fixture
def newcomer(engineer: Engineer, tmp_path: Path) -> Engineer:
    """Return an engineer at the same lab whose host remembers nothing."""
    return Engineer(engineer.lab, tmp_path / "state")
