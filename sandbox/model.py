"""The words of the sandbox feature, as frozen values. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

__all__ = ["TRANSITIONS", "KeyFamily", "Sandbox", "Schema", "Status", "may_become"]


class Status(StrEnum):
    """`public.sandbox_status`."""

    PENDING = "pending"
    CREATING = "creating"
    RUNNING = "running"
    EXPIRED = "expired"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.CREATING}),
    Status.CREATING: frozenset({Status.RUNNING, Status.DESTROYING}),
    Status.RUNNING: frozenset({Status.EXPIRED, Status.DESTROYING}),
    Status.EXPIRED: frozenset({Status.RUNNING, Status.DESTROYING}),  # running again: a TTL was extended
    Status.DESTROYING: frozenset({Status.DESTROYED}),
    Status.DESTROYED: frozenset(),
}


def may_become(old: Status, new: Status) -> bool:
    """Whether the deployed system allows this change of status."""
    return new in TRANSITIONS[old]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """One row of `public.sandboxes`. Times are UTC-aware."""

    id: UUID
    name: str
    owner: str
    status: Status
    schema_name: str | None
    created_at: datetime
    expires_at: datetime | None = None
    discord_token_id: UUID | None = None
    destroyed_at: datetime | None = None
    last_activity_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what the drivers hand over: the status as text, the metadata in either form."""
        object.__setattr__(self, "status", Status(self.status))
        object.__setattr__(self, "metadata", _as_object(self.metadata))

    @property
    def live(self) -> bool:
        """Whether its resources are its own: every status but destroyed."""
        return self.status is not Status.DESTROYED

    @property
    def hex(self) -> str:
        """The id as 32 hex digits."""
        return self.id.hex


def _as_object(metadata: Any) -> Mapping[str, Any]:
    """The deployed code stores JSON inside a JSON string; read that and the plain object alike."""
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata)
        except ValueError:
            return {}
    return metadata if isinstance(metadata, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """A PostgreSQL schema as the census sees it. Sizes in bytes; rows are the planner's estimate."""

    name: str
    owner: str
    tables: int
    bytes: int
    rows_estimate: int
    writes: int
    last_maintenance: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFamily:
    """All keys `sandbox:{token}` and `sandbox:{token}:…` of one token; `token` is spelt as in the keys."""

    token: str
    keys: int
