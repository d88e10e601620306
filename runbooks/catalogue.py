"""All procedures, by name, and which of them an alarm calls for."""

from runbooks import (
    database_maintenance,
    emergency_resume,
    emergency_stop,
    mass_cleanup,
    purge_quarantine,
    rb_sb_001,
    rb_sb_002,
    rb_sb_003,
    rb_sb_004,
    rb_sb_005,
    rb_sb_006,
)
from runbooks.engine.model import Runbook

__all__ = ["RUNBOOKS", "called_for"]

_PAGES = (rb_sb_001, rb_sb_002, rb_sb_003, rb_sb_004, rb_sb_005, rb_sb_006)
_OTHERS = (purge_quarantine, database_maintenance, emergency_stop, emergency_resume, mass_cleanup)

RUNBOOKS: dict[str, Runbook] = {each.RUNBOOK.name: each.RUNBOOK for each in (*_PAGES, *_OTHERS)}
"""Every procedure by its name."""


def called_for(alarm: str) -> Runbook | None:
    """Return the runbook that an alarm calls for, told by the end of the alarm's name; None where none does."""
    for runbook in RUNBOOKS.values():
        if runbook.alarm and (alarm == runbook.alarm or alarm.endswith(f"-{runbook.alarm}")):
            return runbook
    return None
