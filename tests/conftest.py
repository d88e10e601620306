"""What all tests share: labs that start once for those that want them, and end with their worker."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from lab import control
from tests.acceptance.nursery import share_models

share_models()
os.environ.pop("RUNBOOKS_COMMAND", None)  # whatever called the tests: what they read names `invoke`
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # moto makes more than a thousand, anew for each test


class StartLab(Protocol):
    """Starts a lab with an incident in it, that of RB-SB-003 unless another is named; each in a home of its own."""

    def __call__(self, incident: str = "rb-sb-003") -> control.Lab: ...


@contextmanager
def suffering(lab: control.Lab, incident: str) -> Iterator[control.Lab]:
    """Lay out an incident, and relieve the lab of its cause at the end."""
    laid_out = control.lay_out(lab, incident)
    try:
        yield laid_out
    finally:
        control.relieve(lab, incident)


def follow(lab: control.Lab, incident: str) -> control.Lab:
    """Lay out an incident in a lab that others were in; of what a failed test has left of those it is relieved first."""
    for left in lab.incidents:
        if left != incident and left not in lab.relieved:
            lab = control.relieve(lab, left)
    return control.lay_out(lab, incident)


@pytest.fixture(scope="module")
def start_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartLab]:
    """Return how to start labs; they end with the module."""
    homes: list[Path] = []

    def start(incident: str = "rb-sb-003") -> control.Lab:
        homes.append(tmp_path_factory.mktemp("lab") / "home")
        return control.lay_out(control.start(homes[-1], watch_parent=True), incident)

    yield start
    for home in homes:
        control.reset(home)
