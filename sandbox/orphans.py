"""Who owns what: set arithmetic over what was observed. Pure.

An orphan matches no row that is not destroyed, by any of the namings. What cannot be read as an id, or could be
either of two sandboxes', is unclassifiable: reported, never touched.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sandbox.model import Sandbox
from sandbox.naming import SCHEMA_PREFIX, hex_of, token_of_schema

__all__ = ["Orphan", "Placement", "Roster", "Standing", "find_orphans"]

_HEAD = 8  # the shortest prefix that names a sandbox


class Standing(StrEnum):
    """Whose a resource is."""

    LIVE = "live"
    ORPHAN = "orphan"
    UNCLASSIFIABLE = "unclassifiable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a name belongs: its standing, the rows that match it, and why.

    `sandboxes` are the owners of what is live, and the destroyed rows that explain an orphan.
    """

    name: str
    standing: Standing
    sandboxes: tuple[Sandbox, ...]
    reason: str

    @property
    def owner(self) -> Sandbox | None:
        """The one row whose this is: the live one, or else the destroyed one that left it behind. None otherwise."""
        if len(self.sandboxes) > 1 and self.standing is not Standing.ORPHAN:
            return None
        return self.sandboxes[0] if self.sandboxes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A schema or a key family (`kind` says which) that no sandbox owns, and the id in its name."""

    kind: str
    token: str
    placement: Placement


class Roster:
    """Every sandbox row, destroyed ones too, indexed so that a name is placed in constant time."""

    def __init__(self, rows: Iterable[Sandbox]) -> None:
        """Index the rows by the first eight hex digits of the id and by their schema's name."""
        self.rows = tuple(rows)
        self._by_head: dict[str, list[tuple[str, Sandbox]]] = defaultdict(list)
        self._by_schema: dict[str, list[Sandbox]] = defaultdict(list)
        for row in self.rows:
            digits = row.hex
            self._by_head[digits[:_HEAD]].append((digits, row))
            if row.schema_name:
                self._by_schema[row.schema_name.lower()].append(row)

    def place_schema(self, name: str) -> Placement:
        """Place a schema by its name."""
        token = token_of_schema(name)
        if token is None:
            named = self._by_schema.get(name.lower(), ())
            owners = tuple(row for row in named if row.live)
            if owners:
                return Placement(name=name, standing=Standing.LIVE, sandboxes=owners, reason=_owned(owners))
            return _unclassifiable(name, "it does not start with sandbox_", tuple(named))
        return self._place(name, token)

    def place_family(self, token: str) -> Placement:
        """Place the keys `sandbox:{token}:…`."""
        return self._place(token, token)

    def _place(self, name: str, token: str) -> Placement:
        matches = self._matching(token)
        live = tuple(row for row in matches if row.live)
        if len(live) > 1:
            names = " and ".join(sorted(row.name for row in live))
            return _unclassifiable(name, f"it could be of {names}", live)
        if live:
            return Placement(name=name, standing=Standing.LIVE, sandboxes=live, reason=_owned(live))
        if hex_of(token) is None:
            return _unclassifiable(name, "its suffix is no id: not hex, or shorter than 8 digits", matches)
        reason = f"its sandbox {matches[0].name} is destroyed" if matches else "no sandbox row has this id"
        return Placement(name=name, standing=Standing.ORPHAN, sandboxes=matches, reason=reason)

    def _matching(self, token: str) -> tuple[Sandbox, ...]:
        # Wider than an id needs to be (hyphens anywhere, any case): a match only ever protects.
        digits = token.lower().replace("-", "")
        by_id = [row for id, row in self._by_head.get(digits[:_HEAD], ()) if id.startswith(digits)]
        by_name = self._by_schema.get(f"{SCHEMA_PREFIX}{token}".lower(), ())
        return (*by_id, *(row for row in by_name if row not in by_id))


def find_orphans(roster: Roster, schemas: Iterable[str], families: Iterable[str]) -> list[Orphan]:
    """Return the orphans among these schemas and key families."""
    placed = [("schema", token_of_schema(name) or "", roster.place_schema(name)) for name in schemas]
    placed += [("keys", token, roster.place_family(token)) for token in sorted(families)]
    return [
        Orphan(kind=kind, token=token, placement=where)
        for kind, token, where in placed
        if where.standing is Standing.ORPHAN
    ]


def _owned(rows: tuple[Sandbox, ...]) -> str:
    return f"it belongs to {rows[0].name} ({rows[0].status})"


def _unclassifiable(name: str, reason: str, rows: tuple[Sandbox, ...] = ()) -> Placement:
    return Placement(name=name, standing=Standing.UNCLASSIFIABLE, sandboxes=rows, reason=reason)
