"""What was found of one line holds for every line of its shape, and equal errors have few shapes."""

import json
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.loglines import fingerprint, parse
from diagnostics.shapes import Shapes

AT = datetime(2026, 3, 1, 9, 12, tzinfo=UTC)
ID = "3f2b8c1e-82b6-49b7-a7f6-d86f86e45136"
OTHER = "83963dd9-0c1d-4a55-9b1e-0a1b2c3d4e5f"


def found(text: str) -> tuple[object, ...]:
    line = parse(AT, text)
    return line.level, line.component, line.step, fingerprint(line)


def learned(text: str) -> Shapes[tuple[object, ...]]:
    shapes: Shapes[tuple[object, ...]] = Shapes()
    line = parse(AT, text)
    shapes.learn(text, found(text), line.sandboxes, kept=fingerprint(line))
    return shapes


@pytest.mark.parametrize(
    ("one", "another"),
    [
        (f"ERROR sandbox {ID} after 17 ms", f"ERROR sandbox {OTHER} after 99 ms"),
        (f"ERROR sandbox_{ID}.profiles is locked", f"ERROR sandbox_{OTHER}.profiles is locked"),
        (f'{{"level":50,"time":1,"sandboxId":"{ID}"}}', f'{{"level":50,"time":2,"sandboxId":"{OTHER}"}}'),
        ('{"level":50,"msg":"event 17 lost"}', '{"level":50,"msg":"event 23 lost"}'),
        ("ERROR sandbox 12345678", "ERROR sandbox 87654321"),
    ],
)
def test_ids_and_numbers_may_differ(one: str, another: str) -> None:
    assert learned(one).find(another) == (found(another), list(parse(AT, another).sandboxes))


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ('{"level":50,"msg":"x"}', '{"level":30,"msg":"x"}'),
        ('{"level": 50, "msg": "x"}', '{"level": 30, "msg": "x"}'),
        ('{"level":50,"error":{"code":53100}}', '{"level":50,"error":{"code":53300}}'),
        ('{"level":50,"error":{"port":5432}}', '{"level":50,"error":{"port":6379}}'),
        ("ERROR at port 5433 now", "ERROR at port 5432 now"),
        ("ERROR at port 5432 now", "ERROR at port 6379 now"),
        ("ERROR 10.0.1.5:5432", "ERROR 10.0.1.5:6379"),
        ("ERROR PostgresError SQLSTATE=53100", "ERROR PostgresError SQLSTATE=53200"),
        ("ERROR permission denied", "ERROR permission decided"),
        ('{"level":50,"count":10}', '{"level":50,"count":01}'),
        (f"ERROR {ID} is not {ID}", f"ERROR {ID} is not {OTHER}"),
    ],
)
def test_what_tells_errors_apart_may_not(one: str, another: str) -> None:
    assert learned(one).find(one) is not None
    assert learned(one).find(another) is None


def test_an_id_that_is_spelt_otherwise_is_read_each_time() -> None:
    for text in ("ERROR sandbox_deadbeef is gone", f"ERROR sandbox_{ID.upper()} is gone"):
        assert learned(text).find(text) is None


def test_few_shapes_are_known() -> None:
    shapes: Shapes[int] = Shapes()
    texts = [f"ERROR {'ab'[number % 2] * (number // 2 + 1)}" for number in range(2000)]
    texts += [f"ERROR {letter * 3}" for letter in "cdefghijklmnop"]
    for text in texts:
        shapes.learn(text, 1, ())
    known = [text for text in texts if shapes.find(text)]
    assert len(known) == 500
    assert sum(len(text) == len("ERROR ccc") for text in known) <= 8


NUMBERS = st.integers(0, 10**9) | st.sampled_from([5432, 6379, 53300, 50, 30, 10])
IDS = st.uuids().map(str)
WORDS = st.sampled_from(
    ["event", "sandbox", "sandbox_", "port", "SQLSTATE=", "level", " ", '"', ": ", "=", ".", "-", "'"]
)
MESSAGES = st.lists(WORDS | NUMBERS.map(str) | IDS | st.just(" "), max_size=8).map("".join)
VALUES = NUMBERS | IDS | MESSAGES
KEYS = ["level", "port", "code", "count", "sandboxId", "schema", "msg", "error", "step", "component", "time"]
JSON = st.dictionaries(
    st.sampled_from(KEYS), VALUES | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3)
).map(lambda fields: json.dumps(fields, separators=(",", ":")))
LINES = JSON | MESSAGES.map(lambda said: f"ERROR {said}")


def other_digits(text: str, chance: random.Random) -> str:
    """Put other digits, in ids too, where some were."""
    return "".join(
        chance.choice("0123456789") if each.isdecimal() and chance.random() < 0.5 else each for each in text
    )


@settings(deadline=None, max_examples=50)
@given(LINES, st.integers(0))
def test_what_was_found_of_one_holds_for_all(text: str, seed: int) -> None:
    another = other_digits(text, random.Random(seed))
    if known := learned(text).find(another):
        assert known == (found(another), list(parse(AT, another).sandboxes))
