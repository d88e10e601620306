"""A document as one HTML page for a post-mortem: it needs no network and no script, and prints."""

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache, partial
from importlib import resources
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from runbooks.reports import evidence, view
from runbooks.reports.chart import HEIGHT, WIDTH
from runbooks.reports.clock import both
from runbooks.reports.plot import sparkline
from runbooks.reports.templating import templates
from sandbox.text import clean

__all__ = ["render"]

_MOST, _FEW, _MOST_PLOTS = 200, 20, 24
_LARGEST = 5_000_000  # bytes of a page; one that would be larger tells few things in full, not many
_DETAILS, _DRAWN = 50, 200  # of a finding, and lines of its drawing
_LONGEST = 4_000  # bytes of a text, as it stands on the page
_SLACK = 100  # characters that moments may be shorter by as they are told
_WIDEST = 4  # bytes of a character
_HALF = re.compile("&[^;]*$")  # of what a character is escaped with
_HEADS = {
    "changes": "What has changed",
    "findings": "Findings",
    "metrics": "Metrics",
    "plan": "Plan",
    "procedures": "Procedures",
    "run": "Run",
    "timeline": "Time line",
}


def render(document: Mapping[str, Any]) -> str:
    """Return the page of a diagnosis, a run or an audit.

    Whatever others wrote is text there: markup in it is escaped, what cannot be seen is spelt out, and what is too long is cut.
    """
    page = _page(document, _MOST)
    return page if len(page.encode()) <= _LARGEST else _page(document, _FEW)


def _page(document: Mapping[str, Any], most: int) -> str:
    template = "audit.html.j2" if "audit" in document else "outcome.html.j2"
    return _templates(most).get_template(template).render(document=document, name=view.name(document))


@cache
def _templates(most: int) -> Environment:
    made = templates(_fit, most=most)
    made.globals.update(
        DETAILS=_DETAILS,
        DRAWN=_DRAWN,
        HEADS=_HEADS,
        HEIGHT=HEIGHT,
        WIDTH=WIDTH,
        style=_source("page.css"),
        script=_source("page.js"),
    )
    made.filters.update(
        code=_code,
        cut=_fit,
        digest=_digest,
        ending=view.ending,
        folds=evidence.folds,
        figures=partial(view.figures, most=_MOST_PLOTS),
        is_listing=evidence.is_listing,
        lines=_lines,
        name=_name,
        rest=evidence.rest,
        sparkline=sparkline,
    )
    return made


def _source(name: str) -> Markup:
    """Return a style or script of ours, which is no value to be escaped."""
    folder = resources.files("runbooks.reports") / "templates"
    return Markup((folder / name).read_text(encoding="utf-8").strip())


def _digest(text: str) -> Markup:
    """Return what a policy names an inline style or script by."""
    return Markup(base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())


def _fit(text: str, most: int = _LONGEST) -> Markup:
    """Return a text as the page has it, in at most so many bytes."""
    return _cut(clean(both(text[: most + _SLACK])), most)


def _name(text: str, most: int = _LONGEST) -> Markup:
    """Return a name, in at most so many bytes; what looks like a moment in it is part of it."""
    return _cut(clean(text[: most + 1]), most)


def _code(text: str) -> Markup:
    """Return a command whole, as it is: half of one is none."""
    return escape(clean(text))


def _lines(text: str) -> Markup:
    """Keep the ends of lines, and nothing else that cannot be seen."""
    lines = text[: _LONGEST + _SLACK].splitlines()
    return _cut("\n".join(clean(both(line)) for line in lines), _LONGEST)


def _cut(told: str, most: int) -> Markup:
    """Escape a text; of one that takes more than so many bytes then, return the beginning."""
    whole = escape(told)
    if len(whole) <= most / _WIDEST or len(written := whole.encode()) <= most:
        return whole
    kept = written[: most - len("…".encode())].decode(errors="ignore")
    return Markup(_HALF.sub("", kept) + "…")
