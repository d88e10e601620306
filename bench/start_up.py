"""How long the programs take before they do anything, beside invoke itself with a task that does nothing."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.measuring import Claim, Figure, Line, Result, Size, in_turns, ratios, timed

__all__ = ["LINE"]

_ROOT = Path(__file__).resolve().parents[1]
_BARE_TASKS = "from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n"
_TIMES = 1.5
_STARTS = 5  # of each, a round
_HEAVY = frozenset(
    {
        "boto3",
        "botocore",
        "hiredis",
        "jinja2",
        "moto",
        "nats",
        "prometheus_client",
        "psycopg",
        "redis",
        "rich",
        "waitress",
    }
)
_GAIB = "import sys; from sandbox.cli import main; sys.exit(main())"
_BARE, _LIST, _HELP = "bare invoke --list", "invoke --list", "gaib sandbox list --help"
_OURS: Mapping[str, Sequence[str]] = {
    _LIST: ("-m", "runbooks", "--list"),
    _HELP: ("-c", _GAIB, "sandbox", "list", "--help"),
}


@contextmanager
def _bare() -> Iterator[Path]:
    """Make a folder with one task that does nothing."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        (Path(folder) / "tasks.py").write_text(_BARE_TASKS)
        yield Path(folder)


def _start(words: Sequence[str], folder: Path) -> str:
    """Run Python with these words, and return what it says on stderr."""
    done = subprocess.run([sys.executable, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stderr


def _milliseconds(words: Sequence[str], folder: Path) -> float:
    """Return what one start takes: the least of a few, as others use this machine as well."""
    return min(timed(partial(_start, words, folder)) * 1000 for _ in range(_STARTS))


def _heavy(words: Sequence[str]) -> list[str]:
    """Return which heavy packages a start imports."""
    told = _start(["-X", "importtime", *words], _ROOT).splitlines()
    imported = {line.rpartition("|")[2].strip() for line in told if line.startswith("import time:")}
    return sorted(_HEAVY & imported)


def _run(size: Size) -> Result:
    with _bare() as folder:
        ways = {_BARE: partial(_milliseconds, ("-m", "invoke", "--list"), folder)}
        took = in_turns(
            ways | {name: partial(_milliseconds, words, _ROOT) for name, words in _OURS.items()}, size.rounds
        )
    heavy = {name: _heavy(words) for name, words in _OURS.items()}
    return Result(
        figures=[Figure(name=name, unit="ms", values=values) for name, values in took.items()],
        claims=[
            *(
                Claim(said=f"`{name}`, to bare invoke", values=ratios(took[name], took[_BARE]), bound=_TIMES)
                for name in _OURS
            ),
            *(
                Claim(
                    said=f"heavy packages that `{name}` imports",
                    values=[len(found)],
                    bound=0,
                    unit="",
                    missed=", ".join(found),
                )
                for name, found in heavy.items()
            ),
        ],
        notes=[f"Bare invoke has one task that does nothing. Heavy are {', '.join(sorted(_HEAVY))}."],
    )


LINE = Line(
    name="start_up",
    title="Start-up",
    on="`invoke --list` and `gaib sandbox list --help`, everything in the file cache",
    run=_run,
)
