"""Past runs, read from the journal, and whether that is as it was written: text for people and the same as JSON."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from shlex import quote
from typing import Any

from tabulate import tabulate

from runbooks.engine.errors import Exit
from runbooks.engine.integrity import Flaw, Source
from runbooks.engine.journal import JournalEntry
from runbooks.engine.model import Finding, Phase, Severity
from runbooks.engine.plan import as_json, dumps
from runbooks.engine.verification import Verification, Witness
from runbooks.reports.clock import here, local
from runbooks.reports.terminal import findings_lines, wrapped
from sandbox.text import clean, counted, moment

__all__ = ["history", "show", "verified"]

_OUTCOMES = {Exit.HEALTHY: "whole", Exit.PROPOSED: "changed", Exit.UNKNOWN: "unknown"}
_READ = "`show`, `resume` and `undo` read the mirror"
_GO_ON = f"with RUNBOOKS_STATE_DIR elsewhere work goes on, and {_READ}"
_SEE = {
    "file": "sed -n {seq}p {path}",
    "mirror": """psql "$DATABASE_URL" -c "SELECT record FROM runbooks.journal WHERE chain = '{chain}' AND seq = {seq}\"""",
    "log group": "aws logs get-log-events --log-group-name {group} --log-stream-name {chain}",
}


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
    begun = {entry.run: here(entry.at) for entry in entries if entry.phase is Phase.RUN_STARTED}
    rows = [
        [
            run["run"],
            begun[name],
            run["by"],
            run["done"],
            "unfinished" if run["ended"] is None else f"exit {run['ended']}",
        ]
        for name, run in runs.items()
    ]
    return tabulate(rows, headers=["run", "started", "by", "done", "ended"]), list(runs.values())


def show(entries: Sequence[JournalEntry]) -> tuple[str, Any]:
    """Return a run's records."""
    import json

    rows = [[_when(e.at), e.phase.value, e.action or "", local(clean(e.error or ""))] for e in entries]
    data = [json.loads(dumps(asdict(entry))) for entry in entries]
    return tabulate(rows, headers=["when", "phase", "action", "note"]), data


def _when(at: datetime) -> str:
    return local(moment(at, exact=True))


def verified(verification: Verification, *, colour: bool, width: int) -> tuple[str, Any]:
    """Return what came of verifying the journal: the answer first, then what each source shows, and what to do next."""
    marked = "LAB  " if verification.environment.lab else ""
    answer, findings = _answer(verification), _found(verification)
    head = f"{marked}JOURNAL  {verification.environment.name}: {answer}"
    lines = [*wrapped(head, width), ""]
    lines += findings_lines(findings, colour=colour, width=width)
    if sources := dict.fromkeys(each.source for each in findings if each.source):
        lines += ["", "To see it by hand:", *(f"  {clean(source)}" for source in sources)]
    file = verification.file
    return "\n".join(lines), {
        "environment": verification.environment.name,
        "lab": verification.environment.lab,
        "outcome": _OUTCOMES[verification.exit],
        "exit": int(verification.exit),
        "verdict": answer,
        "file": str(file.path),
        "chain": file.chain,
        "records": len(file.entries),
        "findings": [as_json(each) for each in findings],
    }


def _answer(verification: Verification) -> str:
    file, records = verification.file, len(verification.file.entries)
    if verification.flaws:
        first = min(verification.flaws, key=lambda flaw: (flaw.chain != file.chain, flaw.record))
        return f"NOT as it was written: {clean(first.text)}"
    silent = [clean(witness.name) for witness in verification.witnesses if witness.vouches is None]
    if silent:
        return f"whole as far as this host shows; no answer from {' and '.join(silent)}"
    vouched = max(witness.vouches or 0 for witness in verification.witnesses)
    alone = records - min(vouched, records)
    return "whole" if not alone else f"whole; for the last {counted(alone, 'record')} the file alone vouches"


def _found(verification: Verification) -> list[Finding]:
    file, records = verification.file, len(verification.file.entries)
    found = [_flawed(flaw, verification) for flaw in verification.flaws]
    told = f"{counted(records, 'record')}, each follows from the one before" if records else "no record yet"
    if not file.flaw:
        found.append(_fine(f"{file.path}: {told}"))
    if file.torn:
        found.append(
            _fine(f"at its end {file.torn} bytes of a write that was cut short: it was never acted on")
        )
    found += [_asked(witness) for witness in verification.witnesses]
    wrong = {flaw.chain for flaw in verification.flaws}
    whole = [chain for chain in verification.others if chain.name not in wrong]
    if whole:
        total = sum(chain.records for chain in whole)
        told = f"{counted(len(whole), 'journal')} of other hosts in the mirror, {counted(total, 'record')}"
        found.append(_fine(f"{told}: each follows from the one before, as far as they are there"))
    return found


def _fine(summary: str) -> Finding:
    return Finding(check="journal", severity=Severity.OK, summary=summary)


def _asked(witness: Witness) -> Finding:
    severity = Severity.UNKNOWN if witness.vouches is None else Severity.OK
    evidence = {"hint": witness.hint} if witness.hint else {}
    summary = f"the {witness.name} {witness.text}"
    return Finding(check="journal", severity=severity, summary=summary, evidence=evidence)


def _flawed(flaw: Flaw, verification: Verification) -> Finding:
    file, ours = verification.file, flaw.source is Source.FILE
    shown = "" if flaw.found_by == flaw.source else f", as the {flaw.found_by} shows"
    whose = "" if flaw.chain in ("", file.chain) else f" of {flaw.chain}"
    keep = f"keep {file.path} as it is, for whoever looks into it; {_GO_ON}"
    if ours and flaw.chain != file.chain:
        keep = f"who may write to {file.path.parent}? Or was this disk made anew? {_READ}"
    ask = "compare it to the journal on its own host; who may write to runbooks.journal?"
    group = verification.environment.stack.journal_log_group
    named = re.sub(r"[^\w.-]", "?", flaw.chain)  # it may be of whoever changed the file, and is to be pasted
    return Finding(
        check="journal",
        severity=Severity.CRITICAL,
        summary=f"{flaw.source}{whose}, {flaw.kind}: {flaw.text}{shown}",
        evidence={
            "chain": flaw.chain,
            "record": flaw.record,
            "kind": flaw.kind.value,
            "found_by": flaw.found_by,
            "hint": keep if ours else ask,
        },
        source=_SEE[flaw.found_by].format(
            chain=named, seq=flaw.record, path=quote(str(file.path)), group=group
        ),
    )
