"""Incidents to practise on: each lays out a world in which a runbook has something to find."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from lab.incidents import orphaned_resources

__all__ = ["INCIDENTS", "LayOut"]


class LayOut(Protocol):
    """Put an incident into a lab whose servers `env` names, as it looks at `now`."""

    def __call__(self, env: Mapping[str, str], *, now: datetime) -> None:
        """Lay it out, once: it expects a fresh lab."""


INCIDENTS: Mapping[str, LayOut] = {"rb-sb-003": orphaned_resources.lay_out}
