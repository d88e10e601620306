"""What may be asked for is checked before anything is touched."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import ArrakisError, SandboxError
from sandbox.limits import (
    Limits,
    check_guild,
    check_name,
    check_new_name,
    check_ttl,
    default_name,
    parse_duration,
)

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "hours"),
    [("24h", 24), ("48h", 48), ("7d", 168), ("12", 12), (" 1H ", 1), ("2D", 48), ("007", 7)],
)
def test_durations(text: str, hours: int) -> None:
    assert parse_duration(text) == hours * HOUR


@pytest.mark.parametrize(
    "text", ["", "h", "0", "0h", "-1h", "1.5h", "24m", "1h30", "1 h", "٣h", "9999999h", "24hh"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ArrakisError, match="is no duration"):
        parse_duration(text)


@pytest.mark.parametrize("name", ["a", "my-sandbox", "sandbox-chani-x3k9aa", "0", "a" * 64])
def test_names_that_may_be_given(name: str) -> None:
    check_new_name(name)
    check_name(name)


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a b", "a_b", "a/b", "a\n", "a'; --", "ä", "a" * 65, "--help", "route:x"]
)
def test_names_that_may_not_be_given(name: str) -> None:
    with pytest.raises(ArrakisError, match="no name for a sandbox"):
        check_new_name(name)


@pytest.mark.parametrize("name", ["My Sandbox", "a_b", "a'b", "ä", "a" * 64])
def test_names_that_the_deployed_system_may_have_given(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "a\nb", "a\tb", "a\x00", "a" * 65, "\x1b[31m"])
def test_names_that_nobody_has(name: str) -> None:
    with pytest.raises(ArrakisError, match="can be no sandbox's name"):
        check_name(name)


@pytest.mark.parametrize("guild", ["", "12a", "-1", "1" * 21, "1 ", "１２", "0x1"])
def test_what_is_no_guild(guild: str) -> None:
    check_guild("123456789012345678")
    with pytest.raises(ArrakisError, match="is no guild id"):
        check_guild(guild)


@pytest.mark.parametrize(
    ("hours", "fits"), [(0.99, False), (1, True), (24, True), (168, True), (168.01, False)]
)
def test_a_ttl_has_bounds(hours: float, fits: bool) -> None:
    if fits:
        check_ttl(hours * HOUR, Limits())
        return
    with pytest.raises(SandboxError, match="SANDBOX_002: a TTL is at least 1 h and at most 168 h"):
        check_ttl(hours * HOUR, Limits())


def test_limits_come_from_the_deployed_systems_variables() -> None:
    assert Limits.of({}) == Limits(per_owner=5, default_ttl=24 * HOUR, most_ttl=168 * HOUR)
    variables = {"MAX_SANDBOXES_PER_OWNER": "9", "DEFAULT_TTL_HOURS": "8", "MAX_TTL_HOURS": "72"}
    assert Limits.of(variables) == Limits(per_owner=9, default_ttl=8 * HOUR, most_ttl=72 * HOUR)


@pytest.mark.parametrize("text", ["many", "0", "-3", "1e3", "٣"])
def test_a_malformed_limit_is_one_line(text: str) -> None:
    with pytest.raises(ArrakisError, match="MAX_TTL_HOURS takes a whole number above 0"):
        Limits.of({"MAX_TTL_HOURS": text})


@given(st.text(max_size=80))
def test_a_default_name_may_always_be_given(owner: str) -> None:
    name = default_name(owner)
    check_new_name(name)
    assert re.fullmatch(r"sandbox-[a-z0-9-]+-[a-z0-9]{6}", name)


def test_default_names_differ() -> None:
    assert len({default_name("chani") for _ in range(200)}) == 200
    assert default_name("Paul Atreides").startswith("sandbox-paul-atreides-")
