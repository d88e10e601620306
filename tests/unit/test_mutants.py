"""What mutation testing is told: modules and tests that there are, and of mutants that change nothing those whose lines there still are."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES: dict[str, Any] = tomllib.loads(
    (ROOT / "tests" / "mutants" / "modules.toml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_what_is_told_of_a_module_is_so(name: str) -> None:
    told = MODULES[name]
    source = " ".join((ROOT / told["path"]).read_text(encoding="utf-8").split())
    assert Path(told["path"]).stem == name
    assert all((ROOT / test).is_file() for test in told["tests"])
    for each in told.get("equivalent", ()):
        assert each["why"]
        for mutant in each["mutants"]:
            before, arrow, after = mutant.partition(": ")[2].partition(" → ")
            assert arrow
            assert before != after
            assert before in source, f"{name} has no such line any more: {before}"
