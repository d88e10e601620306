"""The page of a runbook, made from what stands in its own module: as Markdown for docs/, and for the terminal.

What is put in is the project's own text, written as Markdown: nothing here comes from a database, a log or the network.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, TableDataElement
from rich.text import Text
from rich.theme import Theme

from runbooks.engine.environment import command
from runbooks.engine.model import Runbook
from runbooks.engine.page import Page
from runbooks.engine.permission import SYSTEMS

__all__ = ["MARK", "Usage", "explained", "render", "template"]

Usage = Sequence[tuple[str, str]]
"""A task's options: how each is typed, and what it is for."""

MARK = "<!-- generated: do not edit; `./inv docs` -->"
"""The first line of what is generated."""

_MOST_COLUMNS = 120  # longer lines of prose are hard to read
# To be read on dark and on light; a heading has its line already.
_THEME = Theme({"markdown.h1": "bold", "markdown.h2": "bold", "markdown.code": "cyan"})
_FOOT = "[All runbooks](README.md) · [metrics](README.md#metrics-and-alarms) · [contacts](README.md#contacts)"


def render(runbook: Runbook, usage: Usage) -> str:
    """Return a runbook's page as Markdown: always the same for the same runbook and options."""
    return f"{MARK}\n{_body(runbook, usage, base='invoke')}\n{_FOOT}\n"


def explained(runbook: Runbook, usage: Usage, *, width: int, colour: bool) -> str:
    """Return a runbook's page for a terminal of so many columns. Commands stay whole, however long, so that they can be pasted.

    Without `colour` it is plain text, without any escape sequence.
    """
    console = Console(
        file=io.StringIO(),
        width=min(width, _MOST_COLUMNS),
        force_terminal=colour,
        no_color=not colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        theme=_THEME,
    )
    base = command()
    body = _body(runbook, usage, base=base).replace("`invoke ", f"`{base} ")
    page = _Page(body, quoting=not colour)
    with console.capture() as captured:
        console.print(page, crop=False)
    lines = "\n".join(line.rstrip() for line in captured.get().splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines)


def template(name: str) -> Template:
    """Return a template for Markdown, with the filters for a table's cells and for sentences."""
    templates = Environment(
        loader=PackageLoader("runbooks.reports", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"cell": _cell, "line": _line, "seen": _seen, "sentence": _sentence}
    return templates.get_template(name)


def _body(runbook: Runbook, usage: Usage, *, base: str) -> str:
    return template("page.md.j2").render(
        runbook=runbook,
        told=runbook.page.sections,
        usage=usage,
        rights=list(_rights(runbook.page)),
        base=base,
    )


def _rights(page: Page) -> Iterator[tuple[str, str, str]]:
    """Yield each right: the system's name, the right in its words, and what it is needed for."""
    for each in fields(page.reads):
        reads, writes = getattr(page.reads, each.name), getattr(page.writes, each.name)
        for right in sorted(reads):
            yield SYSTEMS[each.name], right, "look"
        for right in sorted(writes - reads):
            yield SYSTEMS[each.name], right, "apply"


def _cell(text: str) -> str:
    """Text within a table's cell, which a bar would end, in code too."""
    return text.replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(text.split())


def _seen(runbook: Runbook) -> str:
    """What an operator sees that calls for a runbook: its alarm, or when it is wanted, and what goes wrong."""
    told = runbook.page.sections
    when = f"alarm `…{runbook.alarm}`" if runbook.alarm else told["Trigger"].removeprefix("no alarm: ")
    return _sentence(_line(f"{when.rstrip('.')}. {_sentence(told['Symptoms'])}"))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


class _Heading(Heading):
    """A heading that is told from the text without colour, too: by a line below it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = "━" if self.tag == "h1" else "─"
        yield Text.assemble(self.text, "\n", line * min(self.text.cell_len, options.max_width))


class _Commands(CodeBlock):
    """Commands, each on a line of its own however long it is: what is broken cannot be pasted."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in str(self.text).rstrip().split("\n"):
            style = "green" if line.startswith("#") else "bold"
            yield Text(f"  {line}", style=style, no_wrap=True, overflow="ignore")


class _Cell(TableDataElement):
    """A cell whose longest word goes on in the next line, instead of being cut."""

    def __init__(self, justify: JustifyMethod) -> None:
        super().__init__(justify)
        self.content.overflow = "fold"


class _Page(Markdown):
    """A page for the terminal. With `quoting` code within prose keeps its quotes, as no colour tells it from the words."""

    elements: ClassVar = Markdown.elements | {
        "heading_open": _Heading,
        "fence": _Commands,
        "th_open": _Cell,
        "td_open": _Cell,
    }

    def __init__(self, markup: str, *, quoting: bool) -> None:
        super().__init__(markup, hyperlinks=False)
        for before, token in pairwise(self.parsed if quoting else ()):
            if before.type == "paragraph_open":
                for each in token.children or ():
                    each.content = f"`{each.content}`" if each.type == "code_inline" else each.content
