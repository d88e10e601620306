"""What a cluster announces of its nodes, how each is reached, and when what they say of themselves is not enough."""

from typing import Any

import pytest

from sandbox.adapters.redis_layout import Place, Primary, insist_on_all_slots, owners
from sandbox.adapters.redis_node import elsewhere
from sandbox.errors import Unreachable


@pytest.mark.parametrize(
    ("url", "place", "reached"),
    [
        ("redis://cfg:6379/0", ("10.0.0.1", 7001), "redis://10.0.0.1:7001/0"),
        ("redis://cfg", ("10.0.0.1", 7001), "redis://10.0.0.1:7001"),
        ("rediss://:p%40ss@cfg:6379/0", ("n1.example", 6380), "rediss://:p%40ss@n1.example:6380/0"),
        ("rediss://u:a@b@cfg/?ssl_ca_certs=/ca.pem", ("n1", 1), "rediss://u:a@b@n1:1/?ssl_ca_certs=/ca.pem"),
        ("redis://[::1]:7000/0", ("fd00::2", 7001), "redis://[fd00::2]:7001/0"),
    ],
)
def test_a_node_is_reached_as_the_first_one_is(url: str, place: Place, reached: str) -> None:
    assert elsewhere(url, *place) == reached


@pytest.mark.parametrize(
    ("announced", "place"),
    [
        ([b"10.0.0.1", 7001, b"id", []], ("10.0.0.1", 7001)),
        ([b"n1.example", 6379, b"id", [b"ip", b"10.0.0.1"]], ("n1.example", 6379)),
        ([None, 7001, b"id"], ("asked", 7001)),
        ([b"", 7001, b"id"], ("asked", 7001)),
        ([b"10.0.0.1", 7001], ("10.0.0.1", 7001)),
    ],
)
def test_where_a_primary_is(announced: list[Any], place: Place) -> None:
    replica = [b"10.0.0.9", 7009, b"replica", []]
    assert owners([[5, 6, announced, replica], [9, 9, announced]], "asked") == {5: place, 6: place, 9: place}


def primary(first: int, last: int) -> Primary:
    return Primary(
        place=("n", first), id=str(first), run="r", epoch=1, slots=frozenset(range(first, last + 1))
    )


def test_every_slot_is_with_somebody() -> None:
    insist_on_all_slots([primary(0, 8191), primary(8192, 16383)], "cfg:6379/0")


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ([(0, 8191), (8193, 16383)], "16,383 of 16,384"),
        ([(0, 8192), (8192, 16383)], "16,385 of 16,384"),
        ([(0, 8192), (8192, 16382)], "16,384 of 16,384"),
        ([], "0 of 16,384"),
    ],
)
def test_slots_that_nobody_or_two_have_make_all_keys_unknown(
    ranges: list[tuple[int, int]], said: str
) -> None:
    with pytest.raises(Unreachable, match=f"cfg:6379/0 do not agree on who has which slots: {said}"):
        insist_on_all_slots([primary(*each) for each in ranges], "cfg:6379/0")
