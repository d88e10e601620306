"""The engine's words, and what is said of names, are values: nobody changes one, adds to it, or takes one field for another."""

import importlib
import pkgutil
from dataclasses import fields, is_dataclass
from enum import StrEnum
from types import ModuleType
from typing import Any

import pytest

import runbooks.engine
from sandbox import naming, orphans

MODULES = [
    naming,
    orphans,
    *(
        importlib.import_module(f"runbooks.engine.{each.name}")
        for each in pkgutil.iter_modules(runbooks.engine.__path__)
    ),
]


def values(module: ModuleType) -> list[Any]:
    """Return the dataclasses that a module makes."""
    return [each for each in made_in(module) if is_dataclass(each)]


def words(module: ModuleType) -> list[type[StrEnum]]:
    """Return the closed sets of words that a module makes."""
    return [each for each in made_in(module) if issubclass(each, StrEnum)]


def made_in(module: ModuleType) -> list[Any]:
    return [
        each
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
    ]


@pytest.mark.parametrize(
    "value", [each for module in MODULES for each in values(module)], ids=lambda each: each.__name__
)
def test_a_value_is_frozen_slotted_and_made_by_names(value: Any) -> None:
    assert value.__dataclass_params__.frozen
    assert "__slots__" in vars(value)
    assert all(field.kw_only for field in fields(value))


@pytest.mark.parametrize(
    "word", [each for module in MODULES for kind in words(module) for each in kind], ids=repr
)
def test_a_word_is_kept_as_it_is_called(word: StrEnum) -> None:
    """It is in journals, plans and documents that were written before."""
    assert word.value == word.name.lower().replace("_", "-")
