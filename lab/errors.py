"""The one error of the lab."""

from sandbox.errors import ArrakisError

__all__ = ["LabError"]


class LabError(ArrakisError):
    """What went wrong, why, and the next step, in words for the operator."""
