"""`python -m tests.mutants [MODULE …]`: make the mutants of all modules in modules.toml, or of some, and say which survive.

Needs mutmut, of which the changes alone are used: `.venv/bin/pip install --no-deps mutmut==3.8.1 libcst==1.9.0 pyyaml`. Ends with 1
where one survives that modules.toml does not list as equivalent, or one that it lists is killed or not made any more.
"""

import argparse
import os
import sys
import tomllib
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.mutants.making import Mutant, mutants_of
from tests.mutants.trying import ROOT, Module, Outcome, tried

_MODULES = Path(__file__).with_name("modules.toml")


def main() -> int:
    """Try what was asked for."""
    known = tomllib.loads(_MODULES.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", choices=[[], *known], help=", ".join(known))
    parser.add_argument("--like", default="", help="only those mutants in whose name this stands")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    os.chdir(ROOT)
    return max([_alone(name, known[name], given.like, given.jobs) for name in given.modules or known])


def _alone(name: str, told: Mapping[str, Any], like: str, jobs: int) -> int:
    """Try a module's mutants in a process of its own: what one module's tests import must not be there for the next."""
    module = Module(
        name=name,
        path=Path(told["path"]),
        tests=tuple(told["tests"]),
        servers=told.get("servers", False),
    )
    equivalent = {each for some in told.get("equivalent", ()) for each in some["mutants"]}
    process = get_context("fork").Process(
        target=lambda: sys.exit(_try(module, equivalent, like=like, jobs=jobs))
    )
    process.start()
    process.join()
    return 1 if process.exitcode else 0


def _try(module: Module, equivalent: set[str], *, like: str, jobs: int) -> int:
    """Try a module's mutants, and print what became of them; return 1 if that is not as it should be."""
    mutants = [
        each for each in mutants_of((ROOT / module.path).read_text(encoding="utf-8")) if like in each.name
    ]
    outcomes = tried(module, mutants, at_once=jobs)
    survivors = [each.mutant for each in outcomes if each.survived]
    wrong = [each for each in survivors if each.name not in equivalent]
    gone = set() if like else equivalent - {each.name for each in survivors}
    print(_summary(module, outcomes, len(survivors) - len(wrong)), flush=True)
    _tell(module, wrong, gone)
    return 1 if wrong or gone else 0


def _summary(module: Module, outcomes: list[Outcome], equivalent: int) -> str:
    killed = sum(not each.survived for each in outcomes)
    hung = sum(each.hung for each in outcomes)
    left = len(outcomes) - killed - equivalent
    return f"{module.path}: {len(outcomes)} mutants: {killed} killed ({hung} hung), {equivalent} equivalent, {left} survive"


def _tell(module: Module, wrong: list[Mutant], gone: set[str]) -> None:
    for each in sorted(wrong, key=lambda mutant: mutant.line):
        print(f"  {module.path}:{each.line}  {each.name}", flush=True)
    for name in sorted(gone):
        print(f"  listed as equivalent, and is killed or not made any more: {name}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
