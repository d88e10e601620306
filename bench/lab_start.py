"""How long the lab's four servers take: from nothing, after a stop, and when they are up already."""

import tempfile
from functools import partial
from pathlib import Path

from bench.measuring import Claim, Figure, Line, Result, Size, in_turns, timed
from lab import control

__all__ = ["LINE"]

_FIRST, _AGAIN, _REPEAT = "first start", "start after a stop", "repeat, while it runs"
_FIRST_SECONDS, _REPEAT_SECONDS = 3.0, 1.0


def _start(home: Path) -> float:
    return timed(partial(control.start, home, watch_parent=True))


def _first(home: Path) -> float:
    control.reset(home)
    return _start(home)


def _again(home: Path) -> float:
    control.stop(home)
    return _start(home)


def _run(size: Size) -> Result:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        home = Path(folder) / "lab"
        try:
            took = in_turns(
                {
                    _FIRST: partial(_first, home),
                    _AGAIN: partial(_again, home),
                    _REPEAT: partial(_start, home),
                },
                size.rounds,
            )
            lab = control.start(home)
        finally:
            control.reset(home)
    return Result(
        figures=[Figure(name=name, unit="s", values=values) for name, values in took.items()],
        claims=[
            Claim(
                said="lab: its servers are up at the first start",
                values=took[_FIRST],
                bound=_FIRST_SECONDS,
                unit="s",
            ),
            Claim(
                said="lab: asked to start while it runs",
                values=took[_REPEAT],
                bound=_REPEAT_SECONDS,
                unit="s",
            ),
        ],
        notes=[
            "The programs are installed already. A lab that was stopped begins anew, so its next start does all that the first one did,"
            " and takes as long. The time that `invoke` itself takes to start is not counted."
        ],
        versions=lab.versions,
    )


LINE = Line(
    name="lab_start",
    title="Lab",
    on="PostgreSQL, Redis, NATS and the AWS stand-in",
    run=_run,
)
