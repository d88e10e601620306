"""What a terminal shows: lists and health in colour, drawn within its width, and redrawn in place."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sandbox.cli.listing import Listed
from sandbox.cli.report import facts, milliseconds
from sandbox.cli.show import iso, left
from sandbox.cli.watch import Blind
from sandbox.health import Health, Level
from sandbox.model import Status
from sandbox.text import clean

__all__ = ["health", "in_place", "show", "table"]

_LEVELS = {
    Level.HEALTHY: "green",
    Level.DEGRADED: "yellow",
    Level.UNHEALTHY: "bold red",
    Level.UNKNOWN: "magenta",
}
_STATUSES = {Status.RUNNING: "green", Status.EXPIRED: "yellow", Status.DESTROYED: "dim"}


def show(drawing: RenderableType) -> None:
    """Draw once."""
    _console().print(drawing)


@contextmanager
def in_place() -> Iterator[Callable[[RenderableType], None]]:
    """Yield how to draw over what was drawn before; the cursor comes back at the end, however that comes."""
    with Live(console=_console(), auto_refresh=False, vertical_overflow="ellipsis") as live:
        yield lambda drawing: live.update(drawing, refresh=True)


def table(listed: Sequence[Listed], *, now: datetime) -> RenderableType:
    """Return a list of sandboxes; the id's first eight digits are what most schemas and keys are named by."""
    drawing = _grid("name", "status", "owner", "left", "guilds", "id", header=True)
    for each in listed:
        row = each.sandbox
        drawing.add_row(
            Text(clean(row.name), overflow="fold"),
            Text(row.status, style=_STATUSES.get(row.status, "")),
            Text(clean(row.owner), overflow="fold"),
            left(row, now).removesuffix(" left"),
            str(len(each.guilds)),
            row.hex[:8],
        )
    return drawing


def health(found: Health | Blind) -> RenderableType:
    """Return how a sandbox is: the answer first, then what it is, then what was looked at."""
    if isinstance(found, Blind):
        answer = Text.assemble((clean(found.name), "bold"), "  ", ("unknown", _LEVELS[Level.UNKNOWN]))
        return Group(answer, _indented(Text(clean(found.error))), _checked(found.at))
    answer = Text.assemble(
        (clean(found.sandbox.name), "bold"), "  ", (found.level, _LEVELS[found.level]), "  ", _life(found)
    )
    known, looks = _grid("word", "what"), _grid("level", "look", "message", "took")
    for word, what in facts(found):
        known.add_row(Text(word, style="dim"), Text(what, overflow="fold"))
    for check in found.checks:
        looks.add_row(
            Text(check.level, style=_LEVELS[check.level]),
            check.name,
            Text(clean(check.message), overflow="fold"),
            Text(milliseconds(check.seconds), style="dim"),
        )
    return Group(answer, _indented(known), Text(), _indented(looks), _checked(found.checked_at))


def _life(found: Health) -> Text:
    row = found.sandbox
    return Text(f"{row.status}, {left(row, found.checked_at)}" if row.live else str(row.status), style="dim")


def _checked(at: datetime) -> RenderableType:
    return _indented(Text(f"checked {iso(at)}", style="dim"))


def _indented(drawing: RenderableType) -> RenderableType:
    return Padding(drawing, (0, 0, 0, 2), expand=False)


def _grid(*columns: str, header: bool = False) -> Table:
    drawing = Table(box=None, show_header=header, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        folds = column in ("name", "owner", "what", "message")
        drawing.add_column(column, overflow="fold", no_wrap=not folds)
    return drawing


def _console() -> Console:
    """A console that takes every text as it is, and colours it only where that is wanted."""
    return Console(
        color_system=None if "NO_COLOR" in os.environ else "auto", highlight=False, markup=False, emoji=False
    )
