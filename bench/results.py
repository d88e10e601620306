"""bench/results.json keeps what each line came to, on which machine; bench/RESULTS.md is written from it, for people."""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.measuring import Claim, Figure, Line, Result

__all__ = ["keep", "keep_failure", "write"]

_FOLDER = Path(__file__).resolve().parent
_KEPT, _PAGE = _FOLDER / "results.json", _FOLDER / "RESULTS.md"
_INTRODUCTION = """# How fast it is

`invoke bench` measures every line below beside what a person would use instead, in one run on the same servers, several rounds in
turns, and writes this page. Medians, with the lowest and the highest in brackets. Seconds differ from machine to machine: the
ratios are what counts. Each line says when, at which commit and on what it was measured.
"""


def keep(line: Line, result: Result) -> None:
    """Put a line's result in the place of its last one."""
    _put(line, asdict(result))


def keep_failure(line: Line, why: BaseException) -> None:
    """Put in the place of a line's last result that it could not be measured."""
    _put(line, {"failed": f"{type(why).__name__}: {why}".splitlines()[0]})


def _put(line: Line, outcome: Mapping[str, Any]) -> None:
    about = {
        "title": line.title,
        "on": line.on,
        "at": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "machine": _machine(),
    }
    _KEPT.write_text(json.dumps({**_read(), line.name: {**about, **outcome}}, indent=1) + "\n")


def write(order: Sequence[str]) -> Path:
    """Write the page from all that is kept, in this order; return where it is."""
    kept = _read()
    lines = [_INTRODUCTION, *_summary([kept[name] for name in order if name in kept])]
    for name in order:
        lines += ["", *(_section(kept[name]) if name in kept else [f"## {name}", "", "Not measured yet."])]
    _PAGE.write_text("\n".join(lines) + "\n")
    return _PAGE


def _summary(kept: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| what | asked | measured | |"
    yield "|---|---|---|---|"
    for each in kept:
        for claim in _claims(each):
            if claim.bound is not None:
                yield f"| {_cell(claim.said)} | {_asked(claim)} | {_spread(claim.values, claim.unit)} | {_verdict(claim)} |"


def _section(kept: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {kept['title']}"
    yield ""
    if "failed" in kept:
        yield f"On {kept['on']}. It could not be measured on {kept['at']} at {kept['commit']}: {kept['failed']}"
        return
    versions = ", ".join(f"{name} {version}" for name, version in kept["versions"].items())
    yield f"On {kept['on']}. Measured on {kept['at']} at {kept['commit']}: {kept['machine']}{'; ' + versions if versions else ''}."
    yield ""
    yield "| | rounds | measured |"
    yield "|---|---|---|"
    for figure in (Figure(**each) for each in kept["figures"]):
        yield f"| {_cell(figure.name)} | {len(figure.values)} | {_spread(figure.values, figure.unit)} |"
    yield ""
    for claim in _claims(kept):
        asked = f"; asked: {_asked(claim)}, {_verdict(claim)}" if claim.bound is not None else ""
        yield f"- {claim.said}: **{_spread(claim.values, claim.unit)}**{asked}"
        if claim.missed and not claim.holds:
            yield f"  - {claim.missed}"
    yield from ("", *kept["notes"]) if kept["notes"] else ()


def _claims(kept: Mapping[str, Any]) -> list[Claim]:
    return [Claim(**each) for each in kept.get("claims", ())]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _asked(claim: Claim) -> str:
    assert claim.bound is not None
    return f"{'at least' if claim.at_least else 'at most'} {_number(claim.bound, claim.unit)}"


def _verdict(claim: Claim) -> str:
    if claim.holds:
        return "reached"
    if not claim.bound:
        return "**missed**"
    times = claim.bound / claim.median if claim.at_least else claim.median / claim.bound
    return f"**missed**, {times:.1f} times off" if times >= 2 else f"**missed**, by {times - 1:.0%}"


def _spread(values: Sequence[float], unit: str) -> str:
    middle = _number(Figure(name="", unit=unit, values=values).median, unit)
    if len(values) == 1:
        return middle
    return f"{middle} ({_number(min(values), '')} – {_number(max(values), '')})"


def _number(value: float, unit: str) -> str:
    figure = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{figure}{'' if unit in ('', 'x') else ' '}{unit}"


def _read() -> dict[str, Any]:
    return json.loads(_KEPT.read_text()) if _KEPT.exists() else {}


def _commit() -> str:
    """Return the commit, and whether what is measured was changed since; what is written here does not count."""
    ours = [f":!{path.relative_to(_FOLDER.parent)}" for path in (_KEPT, _PAGE, _FOLDER / "growth.svg")]
    changed = _git("status", "--porcelain", "--", ".", *ours)
    return (_git("rev-parse", "--short", "HEAD") or "an unknown commit") + (", changed" if changed else "")


def _git(*words: str) -> str:
    command = ["git", *words]
    found = subprocess.run(command, cwd=_FOLDER.parent, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _machine() -> str:
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{os.cpu_count()} cores, {pages / 2**30:.0f} GiB, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
