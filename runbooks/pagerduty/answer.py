"""What became of a triage, for the terminal and as one JSON document."""

from typing import Any

from runbooks.catalogue import RUNBOOKS
from runbooks.pagerduty.incident import Alarm, Incident
from runbooks.pagerduty.triage import Triaged
from runbooks.reports import document as documents
from runbooks.reports import terminal
from sandbox.text import clean

__all__ = ["document", "text"]


def text(incident: Incident | None, triaged: Triaged, *, colour: bool, width: int = 1_000) -> str:
    """Return every diagnosis, and the alarms for which nothing was run, with the runbooks that there are."""
    named = incident.id if incident else ""
    parts = [
        terminal.diagnosis(found, colour=colour, width=width, incident=named) for found in triaged.diagnoses
    ]
    if incident:
        number = f" #{incident.number}" if incident.number is not None else ""
        parts.insert(
            0, f"incident {clean(incident.id)}{number}, {clean(incident.status)}: {clean(incident.title)}"
        )
    parts += [
        f"Nothing was run for {clean(each.alarm.name)}: {clean(each.reason)}" for each in triaged.unmatched
    ]
    if incident and not incident.alarms:
        parts.append("It names no alarm, so nothing was run.")
    if triaged.unmatched or not triaged.diagnoses:
        pages = [each for each in RUNBOOKS.values() if each.name.startswith("rb-")]
        parts.append("\n".join(["The runbooks:", *(f"  {each.name}  {each.title}" for each in pages)]))
    return "\n\n".join(parts)


def document(incident: Incident | None, triaged: Triaged) -> dict[str, Any]:
    """Return the document: the incident, each diagnosis as its own task prints it, and the alarms without one."""
    return {
        "incident": incident
        and {
            "id": incident.id,
            "number": incident.number,
            "title": incident.title,
            "status": incident.status,
            "alarms": [_alarm(each) for each in incident.alarms],
        },
        "exit": triaged.exit,
        "diagnoses": [documents.diagnosed(found) for found in triaged.diagnoses],
        "unmatched": [{"alarm": _alarm(each.alarm), "reason": each.reason} for each in triaged.unmatched],
    }


def _alarm(alarm: Alarm) -> dict[str, Any]:
    return {"name": alarm.name, "account": alarm.account, "region": alarm.region}
