"""Every naming trap that production has: both spellings of ids, near misses, the 63-byte limit."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import naming
from sandbox.naming import Quarantined

ID = "83963dd9-82b6-49b7-a7f6-d86f86e45136"
HEX = ID.replace("-", "")
AT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
STAMP = "20260203040506"
ARABIC = {ord("0") + digit: 0x660 + digit for digit in range(10)}

moments = st.datetimes(
    min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)
).map(lambda at: at.replace(microsecond=0))
tokens = st.one_of(
    st.uuids().map(str),
    st.uuids().map(lambda id_: id_.hex),
    st.tuples(st.uuids(), st.integers(8, 31)).map(lambda pair: pair[0].hex[: pair[1]]),
    st.uuids().map(lambda id_: str(id_).upper()),
)


@pytest.mark.parametrize(
    ("token", "digits"),
    [
        (ID, HEX),
        (ID.upper(), HEX),
        (HEX, HEX),
        (HEX.upper(), HEX),
        (HEX[:8], HEX[:8]),
        (HEX[:31], HEX[:31]),
        (HEX[:7], None),
        (HEX + "0", None),
        (ID[:13], None),
        (ID + "-", None),
        (ID + "\n", None),
        (HEX[:8] + "\n", None),
        ("cafe", None),
        ("deadbeef", "deadbeef"),
        ("shared_fixtures", None),
        ("route", None),
        ("٠١٢٣٤٥٦٧", None),
        ("", None),
    ],
)
def test_only_an_id_or_eight_or_more_of_its_digits_is_an_id(token: str, digits: str | None) -> None:
    assert naming.hex_of(token) == digits


@pytest.mark.parametrize(
    ("name", "token"),
    [
        (f"sandbox_{ID}", ID),
        (f"sandbox_{HEX[:8]}", HEX[:8]),
        (f"sandbox_{ID.upper()}", ID.upper()),
        ("sandbox_shared_fixtures", "shared_fixtures"),
        ("sandbox_", None),
        ("sandbox", None),
        ("sandboxes", None),
        ("sandbox-tools", None),
        ("sandboxXdata", None),
        (f"SANDBOX_{ID}", None),
        (f"pending_{ID}", None),
        (f"my_sandbox_{ID}", None),
        ("public", None),
    ],
)
def test_the_underscore_is_no_wildcard(name: str, token: str | None) -> None:
    assert naming.token_of_schema(name) == token


@pytest.mark.parametrize(
    ("key", "token"),
    [
        (f"sandbox:{ID}:session:1".encode(), ID),
        (f"sandbox:{ID}".encode(), ID),
        (f"sandbox:{ID}:".encode(), ID),
        (f"sandbox:{ID.upper()}:x".encode(), ID.upper()),
        (f"sandbox:{HEX[:8]}:x".encode(), HEX[:8]),
        (b"sandbox:cafe:menu", "cafe"),
        (b"sandbox:route:123456789", None),
        (b"sandbox:route", None),
        (b"sandbox::x", None),
        (b"sandbox:", None),
        (b"sandbox", None),
        (b"sandboxes:1:x", None),
        (b"SANDBOX:1:x", None),
        (b"quarantine:20260203040506:sandbox:1:x", None),
        (b"sandbox:\xff\xfe:x", "\\xff\\xfe"),
    ],
)
def test_a_key_belongs_to_the_token_after_the_prefix_and_route_is_none(key: bytes, token: str | None) -> None:
    assert naming.family_of_key(key) == token


@pytest.mark.parametrize(
    ("key", "guild"),
    [
        (b"sandbox:route:123456789", "123456789"),
        (b"sandbox:route:1:2", "1:2"),
        (b"sandbox:route:\xff", "\\xff"),
        (b"sandbox:route:", None),
        (b"sandbox:route", None),
        (b"x:sandbox:route:1", None),
        (b"1:sandbox:route:", None),
        (b"SANDBOX:ROUTE:1", None),
        (f"sandbox:{ID}:route:1".encode(), None),
        (b"", None),
    ],
)
def test_a_cached_route_is_its_guilds(key: bytes, guild: str | None) -> None:
    assert naming.guild_of_route(key) == guild


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (ID, HEX, True),
        (ID.upper(), HEX[:8], True),
        (HEX[:8], HEX[:9], True),
        (HEX, HEX[:31] + "0", False),
        (HEX[:8], "0" + HEX[1:], False),
        (HEX, HEX[:7], False),
        ("cafe", "cafe", False),
        ("", "", False),
    ],
)
def test_one_id_may_be_the_start_of_the_other(one: str, other: str, same: bool) -> None:
    assert naming.same_sandbox(one, other) is same
    assert naming.same_sandbox(other, one) is same


def test_a_new_schema_has_the_whole_id() -> None:
    assert naming.schema_for(UUID(ID)) == f"sandbox_{ID}"


def test_the_longest_quarantine_name_has_62_bytes() -> None:
    name = naming.quarantined_schema(f"sandbox_{ID}", AT)
    assert name == f"quarantine_{STAMP}_{ID}"
    assert len(name.encode()) == 62


@pytest.mark.parametrize(
    "name", ["sandboxes", "sandbox_", "public", f"sandbox_{ID}xx", "sandbox_" + "é" * 19, f"pending_{ID}"]
)
def test_what_has_no_quarantine_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no quarantine name"):
        naming.quarantined_schema(name, AT)


def test_a_quarantine_name_of_exactly_63_bytes_is_allowed() -> None:
    assert len(naming.quarantined_schema(f"sandbox_{ID}x", AT).encode()) == 63


@pytest.mark.parametrize(
    "name",
    [
        f"sandbox_{ID}",
        f"quarantine_{STAMP}_",
        f"quarantine_{STAMP}_cafe",
        f"quarantine_{STAMP[:-1]}_{ID}",
        f"quarantine_20261303040506_{ID}",
        f"quarantine_20260203040566_{ID}",
        f"quarantine_{STAMP}_{ID}\n",
        f"quarantine_{STAMP[:4].translate(ARABIC)}{STAMP[4:]}_{ID}",
        f"old_quarantine_{STAMP}_{ID}",
        "quarantine_of_the_zoo",
    ],
)
def test_what_we_did_not_park_is_not_read_as_parked(name: str) -> None:
    assert naming.read_quarantined_schema(name) is None


@pytest.mark.parametrize(
    "key",
    [
        b"sandbox:x:1",
        b"quarantine:20260203040506",
        b"quarantine:20260203040506:",
        b"quarantine:20261303040506:sandbox:x",
        b"quarantine:now:sandbox:x",
    ],
)
def test_what_we_did_not_park_is_no_parked_key(key: bytes) -> None:
    assert naming.unparked_key(key) is None


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this host be nine hours ahead of UTC."""
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_stamps_are_utc() -> None:
    east = AT.astimezone(timezone(timedelta(hours=9)))
    assert naming.stamp_of(east) == STAMP
    assert naming.quarantined_schema(f"sandbox_{ID}", east) == f"quarantine_{STAMP}_{ID}"


@given(moments)
def test_stamps_round_trip(at: datetime) -> None:
    assert naming.read_stamp(naming.stamp_of(at)) == at


@given(tokens, moments)
def test_schemas_round_trip_through_quarantine(token: str, at: datetime) -> None:
    parked = naming.quarantined_schema(f"sandbox_{token}", at)
    assert len(parked.encode()) <= 63
    assert not parked.startswith("sandbox")
    assert naming.read_quarantined_schema(parked) == Quarantined(original=f"sandbox_{token}", since=at)


@given(st.binary(min_size=1), moments)
def test_any_key_round_trips_through_quarantine(rest: bytes, at: datetime) -> None:
    stamp = naming.stamp_of(at)
    parked = naming.parked_key(b"sandbox:" + rest, stamp)
    assert naming.family_of_key(parked) is None
    assert naming.unparked_key(parked) == (stamp, b"sandbox:" + rest)


@given(st.uuids())
def test_every_spelling_of_an_id_has_the_same_digits(id_: UUID) -> None:
    spellings = {str(id_), str(id_).upper(), id_.hex, id_.hex.upper()}
    assert {naming.hex_of(spelling) for spelling in spellings} == {id_.hex}
    assert naming.token_of_schema(naming.schema_for(id_)) == str(id_)


_spellings = st.one_of(
    tokens,
    st.sampled_from(
        ["route", "shared_fixtures", "cafe", "", HEX[:7], HEX[:8], HEX[:12], HEX, ID, ID.upper()]
    ),
)


@given(st.lists(_spellings, max_size=12), _spellings)
def test_namesakes_are_those_that_one_by_one_may_name_the_same_sandbox(some: list[str], token: str) -> None:
    found = naming.Namesakes(some).of(token)
    assert sorted(found) == sorted(
        {each for each in some if each == token or naming.same_sandbox(each, token)}
    )
