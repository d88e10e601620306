"""The HTML page: always the same for the same incident, complete in itself, and nothing that others wrote is markup in it."""

import base64
import hashlib
import re
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings

from runbooks.reports import document, html
from sandbox.errors import Unreachable
from sandbox.text import clean
from tests.unit import postmortem
from tests.unit.goldens import golden, here
from tests.unit.hostile import MARK, NASTY, TEXTS, bare, infested

__all__ = ["here"]

PAGES = [postmortem.diagnosed, postmortem.ran, postmortem.audit]


class Page(HTMLParser):
    """A page's elements with the names of their attributes, and its text without style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, ...]] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said: list[str] = []
        self._within = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))
        self.attributes += attrs
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}",))
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within not in ("style", "script"):
            self.said.append(data)

    def handle_comment(self, data: str) -> None:
        self.elements.append(("comment",))


def _body(page: str) -> str:
    return page[page.index("<body>") : page.index("<script>")]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("made", PAGES, ids=lambda made: made.__name__)
def test_the_page_of_the_incident_is_as_it_was_looked_at(made: Any) -> None:
    golden(f"{made.__name__}.html", _body(html.render(made())))


def _harmless(made: Any, text: str) -> bool:
    """Whether a text that others wrote is text on the page, as any other would be, and nothing else."""
    page = html.render(infested(made(), text))
    found, usual = Page(page), _usual(made)
    assert found.elements == usual.elements
    assert bare("".join(found.said)) == bare("".join(usual.said).replace(MARK, clean(text)))
    return all(char.isprintable() or char == "\n" for char in page)


@cache
def _usual(made: Any) -> Page:
    return Page(html.render(infested(made(), MARK)))


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("made", PAGES)
def test_markup_that_others_wrote_is_text(made: Any, text: str) -> None:
    assert _harmless(made, text)


@settings(max_examples=25, deadline=None)
@given(TEXTS)
def test_whatever_others_wrote_is_text(text: str) -> None:
    assert _harmless(postmortem.ran, text)


def test_the_policy_allows_the_page_its_own_style_and_script_and_nothing_else() -> None:
    page = html.render(postmortem.ran())
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    allowed = dict(part.strip().split(" ", 1) for part in policy[1].split(";"))
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed.pop(name) == f"'sha256-{digest}'"
    assert allowed.pop("img-src") == "data:"
    assert allowed == dict.fromkeys(["default-src", "base-uri", "form-action"], "'none'")


@pytest.mark.parametrize("made", PAGES)
def test_nothing_on_the_page_is_fetched_from_anywhere(made: Any) -> None:
    found = Page(html.render(made()))
    links = {value for name, value in found.attributes if name in ("href", "src", "action", "srcset")}
    assert links
    assert all(link == "data:," or (link or "").startswith("#") for link in links)
    assert "style" not in {name for name, _ in found.attributes}


@pytest.mark.parametrize("made", PAGES)
def test_every_link_and_label_names_something_that_is_there_once(made: Any) -> None:
    found = Page(html.render(made()))
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = [(value or "")[1:] for name, value in found.attributes if name == "href" and value != "data:,"]
    labels = [
        each
        for name, value in found.attributes
        if name == "aria-labelledby"
        for each in (value or "").split()
    ]
    assert set(links) | set(labels) <= set(ids)


def test_the_command_that_undoes_a_run_and_the_one_that_shows_a_finding_are_on_the_page() -> None:
    made = postmortem.ran()
    said = Page(html.render(made)).said
    assert made["next"]["undo"] in said
    assert made["next"]["resume"] in said
    assert made["findings"][0]["source"] in said


def test_the_worst_comes_first_and_what_is_well_is_folded() -> None:
    page = html.render(postmortem.diagnosed())
    heads = re.findall(r"<h3>(\w+): (\d+)</h3>", page)
    assert heads == [("Critical", "2"), ("Warning", "4"), ("Unknown", "1"), ("Ok", "3")]
    assert "<details><summary>What is well</summary>" in page


def test_ten_thousand_findings_make_less_than_five_megabytes_and_none_is_left_out() -> None:
    made = postmortem.many(10_000)
    page = html.render(made)
    assert len(page.encode()) < 5_000_000
    named = set(re.findall(r"schema (sandbox_[0-9a-f]{8}) has no sandbox", page))
    assert named == {finding["resource"]["id"] for finding in made["findings"]}


@pytest.mark.parametrize("text", ["<" * 380, "\u202e" * 380, "日" * 380, "sandbox_" * 48])
def test_nor_do_ten_thousand_with_long_names_that_were_made_to_swell(text: str) -> None:
    made = postmortem.many(10_000)
    for number, each in enumerate(made["findings"]):
        each["resource"]["id"] = f"{number} {text}"
        each["summary"] = f"schema {text} has no sandbox"
        each["evidence"]["was"] = text
    assert len(html.render(made).encode()) < 5_000_000


@pytest.mark.parametrize("text", ["a word or two", "<" * 300, "\x1b" * 30_000])
def test_of_very_many_details_the_first_are_told_and_the_others_counted(text: str) -> None:
    made = postmortem.many(200)
    details = [f"{number} {text}" for number in range(2_000)]
    for each in made["findings"]:
        each["evidence"]["details"] = details
    page = html.render(made)
    assert len(page.encode()) < 5_000_000
    assert "<li>49 " in page
    assert "<li>50 " not in page
    assert "<li>and 1950 more: the JSON file has them</li>" in page


def test_a_very_long_text_of_the_time_line_is_cut() -> None:
    moments = [
        {"at": postmortem.AT.isoformat(), "kind": "note", "text": "<&\x1b\n" * 7_500, "severity": None}
        for _ in range(500)
    ]
    page = html.render({**postmortem.ran(), "timeline": moments})
    assert len(page.encode()) < 1_000_000
    assert page.count("…</td>") == 200


def test_a_command_is_never_cut_and_a_moment_in_it_stays() -> None:
    command = f"psql -c \"SELECT '2026-03-01T12:00Z', '{'x' * 5_000}'\""
    made = postmortem.ran()
    said = Page(html.render({**made, "next": {**made["next"], "undo": command}})).said
    assert command in said


def test_a_plan_of_many_actions_is_told_in_groups_and_names_every_target() -> None:
    made = postmortem.diagnosed()
    action = made["plan"]["actions"][0]
    names = [f"sandbox_{number:08x}" for number in range(1_000)]
    many = [{**action, "resource": {"kind": "schema", "id": name}} for name in names]
    page = html.render({**made, "plan": {**made["plan"], "actions": many}})
    assert "<td>quarantine schema</td><td>1000</td>" in page
    assert all(f"{name}<br>" in page for name in names)


@pytest.mark.parametrize("made", PAGES)
def test_the_lab_is_named(made: Any) -> None:
    assert "<b>the lab, no production</b>" in html.render({**made(), "lab": True})


@pytest.mark.parametrize("said", ["one\n<two>\x1b[2J", "one\r\n<two>\x1b[2J"])
def test_a_note_keeps_its_lines(said: str) -> None:
    note = {"at": postmortem.AT.isoformat(), "kind": "note", "text": said, "severity": None}
    page = html.render({**postmortem.ran(), "timeline": [note]})
    assert '<td class="free lines">one\n&lt;two&gt;\\x1b[2J</td>' in page


def test_an_error_has_a_page_too() -> None:
    error = Unreachable("PostgreSQL does not answer", hint="look at RDS")
    page = html.render(document.failed(error, runbook="rb-sb-001", environment="production"))
    assert "PostgreSQL does not answer" in page
    assert "Next: look at RDS" in page
