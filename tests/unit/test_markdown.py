"""The Markdown of a report: always the same for the same incident, and nothing that others wrote is markup in it."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from markdown_it import MarkdownIt
from markdown_it.token import Token

from runbooks.reports import document, markdown
from sandbox.errors import Unreachable
from sandbox.text import clean
from tests.unit import postmortem
from tests.unit.goldens import golden, here
from tests.unit.hostile import MARK, NASTY, TEXTS, bare, infested

__all__ = ["here"]

PAGES = [postmortem.diagnosed, postmortem.ran, postmortem.audit]
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _flat(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _flat(token.children or ())


def _shape(page: str) -> list[str]:
    """Return what a reader of Markdown takes a page for; whether a name is code or text does not matter."""
    kinds = ["text" if token.type == "code_inline" else token.type for token in _flat(READER.parse(page))]
    return [kind for number, kind in enumerate(kinds) if kind != "text" or kinds[number - 1] != "text"]


def _said(page: str) -> str:
    return "\n".join(token.content for token in _flat(READER.parse(page)) if not token.children)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("made", PAGES, ids=lambda made: made.__name__)
def test_the_text_of_the_incident_is_as_it_was_looked_at(made: Any) -> None:
    golden(f"{made.__name__}.md", markdown.render(made()))


def _harmless(made: Any, text: str) -> bool:
    """Whether a text that others wrote is text on the page, as any other would be, and nothing else."""
    page = markdown.render(infested(made(), text))
    assert _shape(page) == _shape(_usual(made))
    assert bare(_said(page)) == bare(_said(_usual(made)).replace(MARK, clean(text)))
    return all(char.isprintable() or char == "\n" for char in page)


@cache
def _usual(made: Any) -> str:
    return markdown.render(infested(made(), MARK))


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("made", [postmortem.ran, postmortem.audit])
def test_markup_that_others_wrote_is_text(made: Any, text: str) -> None:
    assert _harmless(made, text)


@settings(max_examples=25, deadline=None)
@given(TEXTS)
def test_whatever_others_wrote_is_text(text: str) -> None:
    assert _harmless(postmortem.ran, text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sandbox_83963dd9 of a_b", "sandbox_83963dd9 of a_b"),
        ("_it_", "\\_it\\_"),
        ("https://example.org www.example.org", "https\\://example.org www\\.example.org"),
        ("1. one", "1\\. one"),
        ("- item", "\\- item"),
        ("2026-03-01 12:00", "2026-03-01 12:00"),
    ],
)
def test_what_is_no_markup_stays_as_it_can_be_copied(text: str, told: str) -> None:
    made = {**postmortem.diagnosed(), "verdict": text}
    page = markdown.render(
        {**made, "timeline": [{"at": made["at"], "kind": "note", "text": text, "severity": None}]}
    )
    assert page.splitlines()[-1].endswith(f"| note | {told} |")


@pytest.mark.parametrize("marks", ["```", "a ```` b", "`````"])
def test_no_command_can_close_its_block(marks: str) -> None:
    made = postmortem.ran()
    page = markdown.render({**made, "next": {**made["next"], "undo": marks}})
    fences = [token for token in READER.parse(page) if token.type == "fence"]
    assert fences[-1].content == f"{marks}\n"


def test_of_very_many_findings_the_first_are_told_and_the_others_counted() -> None:
    page = markdown.render(postmortem.many(10_000))
    assert len(page.encode()) < 50_000
    assert "- and 2470 more" in page


@pytest.mark.parametrize("text", ["<" * 380, "sandbox_" * 48, "\x1b" * 30_000])
def test_nor_do_long_texts_swell_it(text: str) -> None:
    made = postmortem.many(10_000)
    for each in made["findings"]:
        each["summary"] = each["resource"]["id"] = text
        each["evidence"]["details"] = [text] * 2_000
    moment = {"at": postmortem.AT.isoformat(), "kind": "note", "text": text, "severity": None}
    page = markdown.render({**made, "timeline": [moment] * 500})
    assert len(page.encode()) < 1_000_000


@pytest.mark.parametrize(
    ("made", "head"),
    [
        (postmortem.audit, "# Audit of production (the lab, no production)"),
        (postmortem.diagnosed, "# RB-SB-001 Too many sandboxes in production (the lab, no production)"),
    ],
)
def test_the_title_names_the_lab(made: Any, head: str) -> None:
    lines = markdown.render({**made(), "lab": True}).splitlines()
    assert lines[:2] == [head, ""]
    assert markdown.render(made()).splitlines()[:2] == [head.partition(" (")[0], ""]


def test_a_note_of_several_lines_is_one_cell() -> None:
    note = {"at": postmortem.AT.isoformat(), "kind": "note", "text": "one\ntwo", "severity": None}
    page = markdown.render({**postmortem.ran(), "timeline": [note]})
    assert page.splitlines()[-1].endswith("| note | one two |")


def test_an_error_has_a_text_too() -> None:
    error = Unreachable("PostgreSQL does not answer", hint="look at RDS")
    page = markdown.render(document.failed(error, runbook="rb-sb-001", environment="production"))
    assert "**UNKNOWN: PostgreSQL does not answer**" in page
    assert "Next: look at RDS" in page
