"""A document as Markdown for a post-mortem or a ticket: what the HTML page has, in brief."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from runbooks.reports import evidence, view
from runbooks.reports.templating import templates
from sandbox.text import clean

__all__ = ["render"]

_MOST, _SHOWN = 30, 3
_LONGEST = 1_000  # characters of a text
_INLINE = re.compile(r"[\\`*\[\]<>|~&#$@!]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)
_FIRST = re.compile(r"^(\d+(?=[.)])|(?=[-+=]))")  # what begins a list or underlines a heading


def render(document: Mapping[str, Any]) -> str:
    """Return the Markdown of a diagnosis, a run or an audit.

    Whatever others wrote is text there: it cannot become markup or a link, end a table's cell or close a block of code.
    """
    template = "audit.md.j2" if "audit" in document else "outcome.md.j2"
    page = _templates().get_template(template).render(document=document)
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


@cache
def _templates() -> Environment:
    made = templates(_escaped, most=_MOST)
    made.globals.update(SHOWN=_SHOWN)
    made.filters.update(
        fenced=_fenced,
        name=_name,
        plotted=evidence.plotted,
        proposing=view.proposing,
        sources=view.sources,
    )
    return made


def _escaped(text: str) -> Markup:
    """Return text that is nothing but text, wherever it stands in a line. Names with _ in them are left as they are."""
    told = _INLINE.sub(r"\\\g<0>", _cut(text))
    return Markup(_FIRST.sub(r"\1\\", told))


def _name(text: str) -> Markup:
    """Return a name as code, so that it survives being copied; one that would end the code or the cell is text."""
    told = _cut(text)
    return _escaped(told) if not told or set(told) & set("`|\\") else Markup(f"`{told}`")


def _cut(text: str) -> str:
    """Return a text without what cannot be seen; of one that is too long, the beginning."""
    told = clean(text[: _LONGEST + 1]).strip()
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"


def _fenced(lines: str | Sequence[str]) -> Markup:
    """Return commands as a block of code between fences that none of them has."""
    told = [clean(line) for line in ([lines] if isinstance(lines, str) else lines)]
    longest = max((len(run) for line in told for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup("\n").join(map(Markup, [fence, *told, fence]))
