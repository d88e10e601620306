"""The audits of an environment on this host: which one is compared with, and how many are kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from runbooks.audit.shelf import KEPT, LAST, Shelf
from sandbox.errors import ArrakisError
from tests.unit import postmortem

NOW = "audit-20260302-120000-ab12"


@pytest.fixture
def told() -> list[str]:
    """What is told of what cannot be read."""
    return []


@pytest.fixture
def shelf(tmp_path: Path, told: list[str]) -> Shelf:
    """A shelf whose folder is not there yet."""
    return Shelf(tmp_path / "audits", told.append)


def named(day: int, *sections: str) -> dict[str, Any]:
    """Return an audit of a day in March that looked at these sections, at all of them if none is named."""
    made = postmortem.audit()
    looked = [each for each in made["procedures"] if not sections or each["name"] in sections]
    return {**made, "audit": f"audit-202603{day:02}-120000-ab12", "procedures": looked}


def ids(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_empty_shelf_has_no_earlier_audit(shelf: Shelf, told: list[str]) -> None:
    assert shelf.earlier(LAST, ["rb-sb-001"], now=NOW) is None
    assert told == []


def test_the_last_one_that_looked_at_as_much_is_compared_with(shelf: Shelf) -> None:
    for made in (named(1), named(2, "rb-sb-001"), named(3)):
        shelf.keep(made)
    for sections, now, found in [
        (["rb-sb-001"], "audit-20260303-110000-0000", named(2, "rb-sb-001")),
        (["rb-sb-001", "rb-sb-006"], "audit-20260303-110000-0000", named(1)),
        (["rb-sb-001", "rb-sb-006"], "audit-20260304-110000-0000", named(3)),
        (["maintenance"], "audit-20260304-110000-0000", None),
        (["rb-sb-001"], named(1)["audit"], None),  # neither itself nor what came after
    ]:
        assert shelf.earlier(LAST, sections, now=now) == found


@pytest.mark.parametrize("end", ["0000", "ffff"])
def test_one_of_the_same_second_came_before_whatever_tells_the_two_apart(shelf: Shelf, end: str) -> None:
    before = {**named(1), "audit": f"audit-20260301-120000-{end}"}
    shelf.keep(before)
    assert shelf.earlier(LAST, ["rb-sb-001"], now=named(1)["audit"]) == before
    shelf.keep(named(1))
    assert shelf.earlier(LAST, ["rb-sb-001"], now=named(1)["audit"]) == before


def test_one_is_found_by_its_id_and_by_its_file(shelf: Shelf, tmp_path: Path) -> None:
    page = shelf.keep(named(1))
    moved = tmp_path / "kept.json"
    moved.write_bytes(page.with_suffix(".json").read_bytes())
    assert shelf.earlier(named(1)["audit"], [], now=NOW) == named(1)
    assert shelf.earlier(str(moved), [], now=NOW) == named(1)


def test_one_that_there_is_not_is_an_error_that_says_where_they_are(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(ArrakisError, match="there is no audit audit-x") as refused:
        shelf.earlier("audit-x", [], now=NOW)
    assert str(tmp_path / "audits") in refused.value.hint


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"audit": "x"}', json.dumps({**postmortem.audit(), "at": "yesterday"})]
    + [json.dumps({**postmortem.audit(), key: None}) for key in ("findings", "procedures")],
)
def test_what_is_no_audit_is_an_error_if_named_and_passed_over_if_not(
    shelf: Shelf, tmp_path: Path, told: list[str], text: str
) -> None:
    shelf.keep(named(1))
    broken = tmp_path / "audits" / "audit-20260301-130000-ab12.json"
    broken.write_text(text)
    with pytest.raises(ArrakisError, match="cannot be read as an audit") as refused:
        shelf.earlier(str(broken), [], now=NOW)
    assert "--since none" in refused.value.hint
    assert shelf.earlier(LAST, ["rb-sb-001"], now=NOW) == named(1)
    assert told == [f"{broken} cannot be read as an audit: passed over"]


def test_the_newest_are_kept_with_their_pages(shelf: Shelf, tmp_path: Path) -> None:
    for day in range(1, KEPT + 3):
        page = shelf.keep(named(day))
        assert page.read_text().startswith("<!doctype html>")
    names = [named(day)["audit"] for day in range(3, KEPT + 3)]
    assert ids(tmp_path / "audits") == [
        f"{name}{suffix}" for name in names for suffix in (".html", ".json", ".md")
    ]


def test_after_the_clock_was_set_back_the_one_just_made_is_kept(shelf: Shelf, tmp_path: Path) -> None:
    for day in range(2, KEPT + 2):
        shelf.keep(named(day))
    page = shelf.keep(named(1))
    assert page.exists()
    assert len(list((tmp_path / "audits").glob("*.json"))) == KEPT
    assert not (tmp_path / "audits" / f"{named(2)['audit']}.json").exists()
