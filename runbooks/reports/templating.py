"""What the templates of HTML and Markdown share: strict, every value made fit by one function, the same filters."""

from collections.abc import Callable
from datetime import datetime
from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from runbooks.reports import evidence, view
from runbooks.reports.clock import beside, both, utc

__all__ = ["templates"]

_UNDO = {"reversible": "can be undone", "nothing": "nothing to undo", "irreversible": "CANNOT BE UNDONE"}


def templates(fit: Callable[[str], str], *, most: int) -> Environment:
    """Return the templates: `fit` is applied to every text that they print, and to none twice; moments are told before.

    Of what is many, such as findings with their evidence, actions and lines of a time line, `most` are told one by one.
    """
    made = Environment(
        loader=PackageLoader("runbooks.reports", "templates"),
        autoescape=True,
        finalize=lambda value: fit(both(value)) if isinstance(value, str) and not _is_made(value) else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(MOST=most, UNDO=_UNDO, CHANGES=view.CHANGES)
    made.filters.update(
        amounts=view.amounts,
        condensed=partial(view.condensed, most=most),
        counts=view.counts,
        groups=partial(view.groups, most=most),
        here=_here,
        shown=evidence.shown,
        tally=view.tally,
        told=partial(view.told, most=most),
        tone=view.tone,
        utc=_utc,
    )
    return made


def _is_made(text: str) -> bool:
    """Whether it is markup already, which was made of texts that are fit."""
    return isinstance(text, Markup)


def _utc(moment: str | datetime) -> str:
    return utc(_read(moment))


def _here(moment: str | datetime) -> str:
    return beside(_read(moment))


def _read(moment: str | datetime) -> datetime:
    return moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)
