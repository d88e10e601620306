"""Past runs, read from the journal: text for people and the same as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from runbooks.engine.journal import JournalEntry
from runbooks.engine.model import Phase
from runbooks.engine.plan import dumps
from sandbox.text import clean

__all__ = ["history", "show"]


def history(entries: Sequence[JournalEntry]) -> tuple[str, Any]:
    """Return every run with when, who and how it ended; one without an ending says so."""
    runs: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry.phase is Phase.RUN_STARTED:
            undoes = entry.observed["plan"]["undoes"]
            runs[entry.run] = {
                "run": entry.run,
                "at": f"{entry.at:%Y-%m-%d %H:%M:%S} UTC",
                "by": entry.actor,
                "undoes": undoes,
                "done": 0,
                "ended": None,
            }
        elif entry.run in runs and entry.phase is Phase.DONE:
            runs[entry.run]["done"] += 1
        elif entry.run in runs and entry.phase is Phase.RUN_ENDED:
            runs[entry.run]["ended"] = entry.observed["exit"]
    if not runs:
        return "No runs yet.", []
    rows = [
        [
            run["run"],
            run["at"],
            run["by"],
            run["done"],
            "unfinished" if run["ended"] is None else f"exit {run['ended']}",
        ]
        for run in runs.values()
    ]
    return tabulate(rows, headers=["run", "started", "by", "done", "ended"]), list(runs.values())


def show(entries: Sequence[JournalEntry]) -> tuple[str, Any]:
    """Return a run's records."""
    import json

    rows = [[f"{e.at:%H:%M:%S}", e.phase.value, e.action or "", clean(e.error or "")] for e in entries]
    data = [json.loads(dumps(asdict(entry))) for entry in entries]
    return tabulate(rows, headers=["UTC", "phase", "action", "note"]), data
