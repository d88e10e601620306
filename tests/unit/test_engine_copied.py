"""A record in jsonb reads back as it was, whatever it holds; one that was changed there is none."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from runbooks.engine.copied import entry_as_json, entry_from_json
from runbooks.engine.journal import JournalEntry, parsed
from runbooks.engine.model import Phase
from runbooks.engine.plan import dumps

PLAIN: dict[str, Any] = {"n": 1, "text": "žluť", "list": [1.5, "x", None], "whole": 9_007_199_254_740_993}


def entry(observed: dict[str, Any]) -> JournalEntry:
    """Return a record with its hash."""
    from runbooks.engine.journal import _sealed

    return _sealed(
        JournalEntry(
            chain="c",
            seq=1,
            run="r",
            action="a",
            phase=Phase.DONE,
            at=datetime(2026, 3, 1, 12, tzinfo=UTC),
            actor="ada",
            observed=observed,
            error=None,
            previous="0" * 64,
        )
    )


def test_what_jsonb_holds_is_kept_as_it_is() -> None:
    kept = entry_as_json(entry(PLAIN))
    assert "line" not in kept
    assert kept["observed"] == PLAIN
    assert entry_from_json(json.loads(dumps(kept))) == entry(PLAIN)


@pytest.mark.parametrize(
    ("value", "held"),
    [
        ("a\0b", "a\ufffdb"),
        ("a\ud800b", "a?b"),
        (["a\0"], ["a\ufffd"]),
        ({"k\0": 1}, {"k\ufffd": 1}),
        ({"k": {"k": "\0"}}, {"k": {"k": "\ufffd"}}),
        (1e16, "1e+16"),
        (-1e16, "-1e+16"),
        (-0.0, "-0.0"),
        (float("inf"), "inf"),
    ],
)
def test_what_jsonb_cannot_hold_is_kept_as_near_as_can_be_and_whole_in_its_line(
    value: Any, held: Any
) -> None:
    made = entry({"value": value, "other": 1})
    kept = entry_as_json(made)
    assert kept["observed"] == {"value": held, "other": 1}
    assert kept["run"] == "r"
    assert parsed(kept["line"].encode()) == made
    assert entry_from_json(kept) == made


@pytest.mark.parametrize("value", [9.9e15, -9.9e15, 0.0, 10**16, -(10**30), True, None, "", "-0.0"])
def test_what_comes_back_as_it_was_needs_no_line(value: Any) -> None:
    assert "line" not in entry_as_json(entry({"value": value}))


def test_no_number_is_held_as_text() -> None:
    kept = entry_as_json(entry({"value": float("nan")}))
    assert kept["observed"] == {"value": "nan"}


@pytest.mark.parametrize("observed", [PLAIN, {"text": "a\0b"}])
@pytest.mark.parametrize("field", ["run", "seq", "hash", "observed"])
def test_what_was_changed_is_none(observed: dict[str, Any], field: str) -> None:
    changed = {"run": "other", "seq": 2, "hash": "d" * 64, "observed": {"n": 2}}
    kept = entry_as_json(entry(observed))
    with pytest.raises(ValueError, match=r"hash does not match|not what its line says"):
        entry_from_json({**kept, field: changed[field]})


@pytest.mark.parametrize("line", ["", "{}", "no record", None])
def test_a_line_that_is_no_record_is_none(line: str | None) -> None:
    with pytest.raises(ValueError, match="not what its line says"):
        entry_from_json({**entry_as_json(entry({"text": "\0"})), "line": line})
