"""Run the tests and say which lines no process of theirs has come by: `python -m tests.covering`, with what pytest is to be given besides.

The tests start thousands of programs, most of them with an environment of their own, many forked from a nursery, some killed. So each
Python of this .venv counts for itself (tests/counting.py), for as long as the tests run; coverage knows what a statement is.
"""

import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from coverage import Coverage

ROOT = Path(__file__).resolve().parent.parent
_ROOMS = ("diagnostics", "lab", "runbooks", "sandbox", "sql")
_SITE = Path(sysconfig.get_path("purelib"))
_COUNTER, _STARTER = _SITE / "arrakis_counting.py", _SITE / "arrakis_counting.pth"
_SPREAD = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")


def main(words: Sequence[str]) -> int:
    """Return pytest's exit code; 2 where this Python cannot count."""
    if not hasattr(sys, "monitoring"):
        print(
            "covering: it takes Python 3.12 or later; make .venv anew: python3.12 inv --version",
            file=sys.stderr,
        )
        return 2
    sources = {path: path.read_bytes().count(b"\n") + 2 for path in _sources()}
    with NamedTemporaryFile(prefix="arrakis-lines-") as marks:
        marks.truncate(sum(sources.values()))
        with _counting(marks.name, sources):
            tested = subprocess.run(
                [sys.executable, "-m", "pytest", *_SPREAD, "-m", "not soak", *words], cwd=ROOT, check=False
            ).returncode
        _report(marks.read(), sources)
    return tested


def _sources() -> list[Path]:
    return [ROOT / "tasks.py", *(path for room in _ROOMS for path in sorted((ROOT / room).rglob("*.py")))]


def _places(sources: Mapping[Path, int]) -> Iterator[tuple[Path, int]]:
    """Yield where each source's marks begin; a line's is as far behind as its number says."""
    place = 0
    for path, room in sources.items():
        yield path, place
        place += room


@contextmanager
def _counting(marks: str, sources: Mapping[Path, int]) -> Iterator[None]:
    places = {str(path): place for path, place in _places(sources)}
    counter = Path(__file__).with_name("counting.py").read_text()
    try:
        _COUNTER.write_text(f"{counter}\ncount({marks!r}, {places!r})\n")
        _STARTER.write_text(f"import {_COUNTER.stem}\n")
        yield
    finally:
        _STARTER.unlink(missing_ok=True)
        _COUNTER.unlink()


def _report(marks: bytes, sources: Mapping[Path, int]) -> None:
    coverage = Coverage(data_file=None, config_file=str(ROOT / "pyproject.toml"))
    data = coverage.get_data()
    data.add_lines(
        {
            str(path): [line for line in range(1, sources[path]) if marks[place + line]]
            for path, place in _places(sources)
        }
    )
    data.touch_files([str(path) for path in sources])
    coverage.report()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
