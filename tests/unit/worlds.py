"""Random control tables, and every name that a sandbox may go by."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from sandbox.model import Sandbox, Status

__all__ = ["NOW", "lives", "namings", "row", "rows", "worlds"]

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
lives = [status for status in Status if status is not Status.DESTROYED]


def row(id_: UUID, status: Status, **changes: Any) -> Sandbox:
    """Return a row with the column as the deployed system fills it: eight digits."""
    fields: dict[str, Any] = {
        "id": id_,
        "name": f"box-{id_.hex[:12]}",
        "owner": "ada",
        "status": status,
        "schema_name": f"sandbox_{id_.hex[:8]}",
        "created_at": NOW,
    }
    return Sandbox(**{**fields, **changes})


def namings(id_: UUID) -> list[str]:
    """Return every token that means this sandbox."""
    lower = [str(id_), *(id_.hex[:length] for length in range(8, 33))]
    return lower + [token.upper() for token in lower if token.upper() != token]


def _columns(id_: UUID) -> list[str | None]:
    return [
        None,
        f"sandbox_{id_.hex[:8]}",
        f"sandbox_{id_}",
        f"sandbox_{id_.hex}".upper(),
        f"pending_{id_}",
        "legacy",
        "sandbox_shared",
    ]


# Few different heads, so that ids of one prefix and of several statuses meet often.
_ids = st.one_of(
    st.uuids(),
    st.tuples(st.sampled_from(["83963dd9", "0000cafe"]), st.uuids()).map(
        lambda pair: UUID(hex=pair[0] + pair[1].hex[8:])
    ),
)


@st.composite
def rows(draw: st.DrawFn) -> Sandbox:
    """Draw one row of any status, its column filled in any way that was seen."""
    id_ = draw(_ids)
    return row(id_, draw(st.sampled_from(Status)), schema_name=draw(st.sampled_from(_columns(id_))))


def worlds() -> st.SearchStrategy[list[Sandbox]]:
    """Draw control tables."""
    return st.lists(rows(), max_size=8, unique_by=lambda found: found.id)
