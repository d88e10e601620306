"""Incidents to practise on: each lays out a world in which a runbook has something to find."""

from collections.abc import Mapping

from lab.incidents import database, orphaned_resources, overdue, routing, slow
from lab.incidents.stage import Incident, Stage

__all__ = ["INCIDENTS", "Incident", "Stage"]

INCIDENTS: Mapping[str, Incident] = {
    each.name: each
    for each in (
        orphaned_resources.INCIDENT,
        *overdue.INCIDENTS,
        *routing.INCIDENTS,
        *database.INCIDENTS,
        *slow.INCIDENTS,
    )
}
