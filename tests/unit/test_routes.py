"""Which cached routes the table contradicts."""

import math
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.routes import Cached, Fault, Routes, compare
from sandbox.model import Status
from sandbox.naming import guild_of_route
from sandbox.routes import NOWHERE, key_of, stale
from tests.unit.routing import mapped

A, B = UUID("83963dd9-82b6-49b7-a7f6-d86f86e45136"), UUID(int=2)


@pytest.mark.parametrize(
    ("cached", "mapped", "wrong"),
    [
        ({}, {}, []),
        ({}, {"1": A}, []),  # nothing cached is never wrong
        ({"1": str(A)}, {"1": A}, []),
        ({"1": NOWHERE}, {}, []),
        ({"1": str(B)}, {"1": A}, ["1"]),
        ({"1": str(A)}, {}, ["1"]),
        ({"1": NOWHERE}, {"1": A}, ["1"]),
        ({"1": "nonsense", "2": str(A).upper()}, {"2": A}, ["1", "2"]),
        ({"2": str(B), "1": str(B), "3": str(A)}, {"3": A}, ["1", "2"]),
    ],
)
def test_stale(cached: dict[str, str], mapped: dict[str, UUID], wrong: list[str]) -> None:
    assert stale(cached, mapped) == wrong


@pytest.mark.parametrize(
    ("key", "guild"),
    [
        (b"sandbox:route:123", "123"),
        (b"sandbox:route:", None),
        (b"sandbox:route", None),
        (b"sandbox:routes:1", None),
        (b"sandbox:83963dd9:route:1", None),
        (b"xsandbox:route:1", None),
    ],
)
def test_the_guild_of_a_route(key: bytes, guild: str | None) -> None:
    assert guild_of_route(key) == guild
    if guild:
        assert key_of(guild) == key


LIVE = {UUID(int=1), UUID(int=2), UUID(int=3)}
NUMBERS = st.integers(1, 4)


@pytest.mark.parametrize(
    ("value", "left", "status", "fault"),
    [
        (str(UUID(int=1)), 40.0, Status.RUNNING, None),
        (str(UUID(int=2)), 40.0, Status.RUNNING, Fault.OTHER),
        (str(UUID(int=9)), 40.0, Status.RUNNING, Fault.GONE),
        (NOWHERE, 40.0, Status.RUNNING, Fault.NEGATIVE),
        ("nonsense", 40.0, Status.RUNNING, Fault.NONSENSE),
        (str(A).upper(), 40.0, Status.RUNNING, Fault.NONSENSE),
        ("", 40.0, Status.RUNNING, Fault.NONSENSE),
        (str(UUID(int=1)), math.inf, Status.RUNNING, Fault.LASTING),
        (str(UUID(int=1)), 61.5, Status.RUNNING, Fault.LASTING),
        (str(UUID(int=1)), 60.0, Status.RUNNING, None),
        (str(UUID(int=2)), math.inf, Status.RUNNING, Fault.OTHER),
        (str(UUID(int=1)), 40.0, Status.EXPIRED, Fault.UNMAPPED),
        (str(UUID(int=9)), 40.0, Status.EXPIRED, Fault.GONE),
        (NOWHERE, 40.0, Status.EXPIRED, None),
        (NOWHERE, math.inf, Status.EXPIRED, Fault.LASTING),
    ],
)
def test_what_is_wrong_with_a_cached_route(
    value: str, left: float, status: Status, fault: Fault | None
) -> None:
    found = compare([Cached(guild="101", value=value, left=left)], [mapped(1, status)], LIVE)
    assert [each.fault for each in found] == ([fault] if fault else [])
    assert [each.loses for each in found] == ([fault is not Fault.LASTING] if fault else [])


def test_a_guild_without_a_mapping_belongs_to_production() -> None:
    there = Cached(guild="7", value=str(UUID(int=1)), left=40.0)
    [found] = compare([there, Cached(guild="8", value=NOWHERE, left=40.0)], [mapped(1)], LIVE)
    assert (found.cached, found.fault, found.wanted) == (there, Fault.UNMAPPED, None)


@given(st.dictionaries(NUMBERS, NUMBERS), st.lists(NUMBERS, unique=True))
def test_what_loses_events_is_what_the_table_contradicts(cache: dict[int, int], guilds: list[int]) -> None:
    held = [
        Cached(guild=f"10{guild}", value=str(UUID(int=number)), left=40.0) for guild, number in cache.items()
    ]
    found = {each.cached.guild for each in compare(held, map(mapped, guilds), LIVE) if each.loses}
    table = {f"10{guild}": UUID(int=guild) for guild in guilds}
    assert sorted(found) == stale({each.guild: each.value for each in held}, table)


def test_a_route_says_when_it_ends() -> None:
    assert Cached(guild="1", value="x", left=40.4).ending == "ends by itself in 40 s"
    assert Cached(guild="1", value="x", left=math.inf).ending == "never ends"


def test_guilds_of_running_sandboxes_without_a_cached_route_are_counted() -> None:
    every = (mapped(1), mapped(2), mapped(3, Status.EXPIRED))
    assert Routes(mapped=every, cached=frozenset({"101"}), wrong=()).uncached == 1
