"""What stops an apply, each with the exit code of design."""

from enum import IntEnum

from sandbox.errors import ArrakisError, Halted

__all__ = ["Exit", "LeaseHeld", "PlanError", "Refused", "Stopped"]


class Exit(IntEnum):
    """What the process says by its exit code."""

    HEALTHY = 0
    ERROR = 1
    PROPOSED = 2
    UNKNOWN = 3
    REFUSED = 4
    PARTLY = 5
    HELD = 6


class Refused(ArrakisError):
    """A guard or the operator said no; nothing was changed."""


class Stopped(Refused, Halted):
    """An emergency stop is raised: nothing more is changed until somebody resumes."""


class LeaseHeld(Halted):
    """Another operator is at work: who, on what, since when."""


class PlanError(ArrakisError):
    """There is no such plan or run."""
