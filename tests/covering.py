"""Run the tests and say which lines no process of theirs has come by: `python -m tests.covering`, with what pytest is to be given besides.

The tests start hundreds of programs, most of them with an environment of their own and many forked from a nursery. So what makes each
Python of this .venv count is no variable, but a file that it reads when it starts; it is there for as long as the tests run. What is
killed tells nothing of what it did.
"""

import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".coverage" / "data"
_STARTER = Path(sysconfig.get_path("purelib"), "arrakis-coverage.pth")
_START = (
    "import os, coverage; os.environ |= {names!r}; coverage.process_startup();"
    " [os.environ.pop(name) for name in {names!r}]\n"
)
_SPREAD = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")


def main(words: Sequence[str]) -> int:
    """Return pytest's exit code."""
    DATA.parent.mkdir(exist_ok=True)
    _coverage("erase")
    with _counting():
        tested = _run("pytest", *_SPREAD, "-m", "not soak", *words)
    _coverage("combine", "--quiet")
    _coverage("report")
    return tested


@contextmanager
def _counting() -> Iterator[None]:
    names = {
        "COVERAGE_PROCESS_START": str(ROOT / "pyproject.toml"),
        "COVERAGE_FILE": str(DATA),  # wherever a program is started
    }
    _STARTER.write_text(_START.format(names=names))
    try:
        yield
    finally:
        _STARTER.unlink()


def _coverage(*words: str) -> None:
    _run("coverage", *words)


def _run(module: str, *words: str) -> int:
    return subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
