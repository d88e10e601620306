"""`python -m bench [LINE …] [--rounds N] [--small]`: measure all lines, or some, and write bench/RESULTS.md.

Every line's module has a LINE. With --small a tenth of everything is measured, to see that it works, and nothing is kept.
"""

import argparse
import sys
import traceback
from importlib import import_module

from bench import results
from bench.measuring import Line, Result, Size

_MODULES = (
    "keyspace_scan",
    "keyspace_removal",
    "expired_cleanup",
    "mass_cleanup",
    "orphan_schemas",
    "diagnosis",
    "start_up",
    "log_grouping",
    "html_report",
    "lab_start",
    "growth",
)


def _line(name: str) -> Line:
    line = import_module(f"bench.{name}").LINE
    assert isinstance(line, Line)
    return line


def main() -> int:
    """Measure what was asked for; return 0 when every claim holds, 2 when one does not, 3 when a line could not be measured."""
    parser = argparse.ArgumentParser(prog="invoke bench", description=__doc__)
    parser.add_argument("lines", nargs="*", metavar="LINE", choices=[[], *_MODULES], help=", ".join(_MODULES))
    parser.add_argument("--rounds", type=int, default=Size().rounds)
    parser.add_argument("--small", action="store_true", help="a tenth of everything, and keep nothing")
    given = parser.parse_args()
    codes = [
        _measure(_line(name), Size(rounds=given.rounds, small=given.small))
        for name in given.lines or _MODULES
    ]
    if not given.small:
        print(f"written: {results.write(_MODULES)}")
    return max(codes)


def _measure(line: Line, size: Size) -> int:
    print(f"{line.title}: {line.on}", flush=True)
    try:
        result = line.run(size)
    except (Exception, SystemExit) as why:  # the other lines can be measured all the same
        traceback.print_exception(why, limit=-3)
        if not size.small:
            results.keep_failure(line, why)
        return 3
    _tell(result)
    if not size.small:
        results.keep(line, result)
    return 0 if all(claim.holds for claim in result.claims) else 2


def _tell(result: Result) -> None:
    for figure in result.figures:
        print(
            f"  {figure.name}: {figure.median:.3g} {figure.unit} ({min(figure.values):.3g} to {max(figure.values):.3g})"
        )
    for claim in result.claims:
        print(
            f"  {'' if claim.holds else 'MISSED: '}{claim.said}: {claim.median:.3g}{claim.unit}", flush=True
        )


if __name__ == "__main__":
    sys.exit(main())
