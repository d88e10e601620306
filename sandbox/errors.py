"""What can go wrong, as an operator should read it: what, why, the next step. Never a secret's value."""

from enum import StrEnum

from sandbox.secrets import concealed

__all__ = [
    "ArrakisError",
    "Blocked",
    "Busy",
    "Conflict",
    "Crowded",
    "Denied",
    "Halted",
    "Missing",
    "SandboxCode",
    "SandboxError",
    "Throttled",
    "Unreachable",
]


class ArrakisError(Exception):
    """Any error meant to be read by a person. `str()` is one line; `hint` is the next step."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(" ".join(concealed(message).split()))
        self.hint = concealed(hint)


class Unreachable(ArrakisError):
    """A server did not answer, or not in time. Whatever was asked of it is unknown."""


class Throttled(Unreachable):
    """The service asks us to come more slowly; what was asked is unknown."""


class Denied(ArrakisError):
    """The server answered, and this user has no right to what was asked."""


class Missing(ArrakisError):
    """A table, function, key or stream that should exist does not."""


class Busy(ArrakisError):
    """Somebody else holds a lock; nothing was changed."""


class Crowded(Busy):
    """No second session could be had in time; nothing was changed, and trying again soon may do."""


class Conflict(ArrakisError):
    """Somebody else was faster: a constraint, named here, holds. Nothing was changed."""

    def __init__(self, message: str, *, constraint: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.constraint = constraint


class Halted(ArrakisError):
    """We may not go on: somebody else has taken over, or said to stop, or nothing can be written down. What is in hand is left as it is."""


class SandboxCode(StrEnum):
    """The deployed system's error codes."""

    NAME_EXISTS = "SANDBOX_001"
    LIMIT_EXCEEDED = "SANDBOX_002"
    GUILD_MAPPED = "SANDBOX_003"
    NOT_FOUND = "SANDBOX_004"
    SCHEMA_FAILED = "SANDBOX_005"
    CLEANUP_FAILED = "SANDBOX_006"
    INVALID_TRANSITION = "SANDBOX_007"


class SandboxError(ArrakisError):
    """A refused lifecycle step, with the deployed system's code."""

    def __init__(self, code: SandboxCode, message: str, *, hint: str = "") -> None:
        super().__init__(f"{code}: {message}", hint=hint)
        self.code, self.reason = code, message


class Blocked(SandboxError):
    """Something elsewhere would be taken along; what was asked for was not done."""
