"""A document as one HTML page for a post-mortem: it needs no network and no script, and prints."""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache, partial
from importlib import resources
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from runbooks.reports import evidence, view
from runbooks.reports.chart import HEIGHT, WIDTH
from runbooks.reports.plot import sparkline
from runbooks.reports.templating import templates
from sandbox.text import clean

__all__ = ["render"]

_MOST, _MOST_PLOTS = 200, 24
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

    Whatever others wrote is text there: markup in it is escaped, and what cannot be seen is spelt out.
    """
    template = "audit.html.j2" if "audit" in document else "outcome.html.j2"
    return _templates().get_template(template).render(document=document, name=view.name(document))


@cache
def _templates() -> Environment:
    made = templates(clean, most=_MOST)  # what autoescape does not do: it escapes what is clean
    made.globals.update(
        HEADS=_HEADS, HEIGHT=HEIGHT, WIDTH=WIDTH, style=_source("page.css"), script=_source("page.js")
    )
    made.filters.update(
        digest=_digest,
        ending=view.ending,
        folds=evidence.folds,
        figures=partial(view.figures, most=_MOST_PLOTS),
        is_listing=evidence.is_listing,
        lines=_lines,
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


def _lines(text: str) -> Markup:
    """Keep the ends of lines, and nothing else that cannot be seen."""
    return Markup("\n").join(escape(clean(line)) for line in text.splitlines())
