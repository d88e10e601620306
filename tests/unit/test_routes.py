"""Which cached routes the table contradicts."""

from uuid import UUID

import pytest

from sandbox.naming import guild_of_route
from sandbox.routes import NOWHERE, key_of, stale

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
