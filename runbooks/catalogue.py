"""All procedures, by name, and which of them an alarm calls for."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from runbooks.engine.model import Runbook

__all__ = ["RUNBOOKS", "called_for"]

_PAGES = ("rb-sb-001", "rb-sb-002", "rb-sb-003", "rb-sb-004", "rb-sb-005", "rb-sb-006")
_OTHERS = ("purge-quarantine", "database-maintenance", "emergency-stop", "emergency-resume", "mass-cleanup")


class _Runbooks(Mapping[str, Runbook]):
    """Loads a procedure when it is asked for: each brings probes and remedies of its own, which take their time."""

    _names = (*_PAGES, *_OTHERS)

    def __getitem__(self, name: str) -> Runbook:
        if name not in self._names:
            raise KeyError(name)
        runbook = import_module(f"runbooks.{name.replace('-', '_')}").RUNBOOK
        assert isinstance(runbook, Runbook)
        return runbook

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


RUNBOOKS: Mapping[str, Runbook] = _Runbooks()
"""Every procedure by its name, which is its module's."""


def called_for(alarm: str) -> Runbook | None:
    """Return the runbook that an alarm calls for, told by the end of the alarm's name; None where none does."""
    for runbook in RUNBOOKS.values():
        if runbook.alarm and (alarm == runbook.alarm or alarm.endswith(f"-{runbook.alarm}")):
            return runbook
    return None
