"""The time line of an incident, as JSON's own types: alarm states, log errors, actions, notes, the oldest first. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from runbooks.engine.journal import JournalEntry
from runbooks.engine.model import Action, Phase, Plan, Severity

__all__ = ["ENDS", "Note", "timeline"]

Note = tuple[datetime, str, str]
"""When somebody said something, who, and what."""

ENDS = {Phase.DONE: Severity.OK, Phase.SKIPPED: Severity.WARNING, Phase.FAILED: Severity.CRITICAL}
"""How bad it is that an action ended so."""


def timeline(
    findings: Iterable[Mapping[str, Any]],
    *,
    records: Sequence[JournalEntry] = (),
    plan: Plan | None = None,
    notes: Sequence[Note] = (),
) -> list[dict[str, Any]]:
    """Return what happened when: `at` in ISO 8601 UTC, `kind`, `text` and `severity`, None where it is neither good nor bad.

    `findings` are JSON's own types: each may have `moments`, as `[at, kind, text, severity]`, among its evidence. `records`
    are a run's, and `plan` says what its actions are. What several findings tell alike is told once.
    """
    actions = {action.id: action for action in plan.actions} if plan else {}
    moments = [tuple(each) for finding in findings for each in finding["evidence"].get("moments", ())]
    told = [
        *((datetime.fromisoformat(at), *rest) for at, *rest in dict.fromkeys(moments)),
        *(moment for record in records for moment in _of_record(record, actions)),
        *((at, "note", f"{by}: {text}", None) for at, by, text in notes),
    ]
    return [
        {"at": at.astimezone(UTC).isoformat(), "kind": kind, "text": text, "severity": severity}
        for at, kind, text, severity in sorted(told, key=lambda moment: moment[0])
    ]


def _of_record(record: JournalEntry, actions: Mapping[str, Action]) -> list[tuple[datetime, str, str, Any]]:
    """Return what a record tells; that something was begun is told by how it ended."""
    match record.phase:
        case Phase.RUN_STARTED:
            return [(record.at, "event", f"run {record.run} begun by {record.actor}", None)]
        case Phase.RUN_ENDED:
            told = f"run {record.run} ended with exit code {record.observed['exit']}"
            return [(record.at, "event", told, None)]
        case Phase.DONE | Phase.SKIPPED | Phase.FAILED:
            action = actions.get(record.action or "")
            what = f"{action.verb} {action.resource.id}" if action else record.action
            why = f": {record.error}" if record.error else ""
            return [(record.at, "action", f"{what}: {record.phase}{why}", ENDS[record.phase].value)]
        case _:
            return []
