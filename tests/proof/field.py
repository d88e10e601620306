"""A field of orphans, and all that may happen to each between plan and apply."""

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import psycopg

from tests.integration.world import World

__all__ = ["EVENTS", "Contents", "Field", "Orphan", "Spared"]

SPELLINGS: tuple[Callable[[UUID], str], ...] = (
    str,
    lambda id: id.hex,
    lambda id: id.hex[:8],
    lambda id: str(id).upper(),
    lambda id: id.hex[:13],
)
LIVE = ("pending", "creating", "running", "expired", "destroying")
_IDLE = 7200  # seconds, so that nobody used it lately
Spared = frozenset[str]
"""Which parts of an orphan, `schema` and `keys`, may no longer be touched."""

BOTH, SCHEMA, KEYS, NOTHING = (
    Spared({"schema", "keys"}),
    Spared({"schema"}),
    Spared({"keys"}),
    Spared(),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A schema and keys of an id that no sandbox has, or a destroyed one."""

    id: UUID
    token: str
    destroyed: bool

    @property
    def schema(self) -> str:
        return f"sandbox_{self.token}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All schemas with their rows, and the names of all keys: to read one would be to use it."""

    schemas: Mapping[str, tuple[str, ...]]
    keys: frozenset[bytes]


@dataclass
class Field:
    """A world with orphans, sandboxes that live, and decoys; `chance` draws all that is drawn."""

    world: World
    chance: random.Random
    sessions: ExitStack = field(default_factory=ExitStack)
    held: dict[bytes, bytes] = field(default_factory=dict)

    @contextmanager
    def laid(self, count: int) -> Iterator[list[Orphan]]:
        """Lay out so many orphans, among others' things; take everything away at the end."""
        try:
            yield [self._orphan(number) for number in range(count)]
        finally:
            self.sessions.close()
            for name in self.contents().schemas:
                self.world.sql.execute(f'DROP SCHEMA "{name}" CASCADE'.encode())
            self.world.wipe()

    def contents(self) -> Contents:
        """Read everything. No key and no schema looks used afterwards."""
        schemas = {}
        found = self.world.sql.execute(
            "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^(sandbox|quarantine|moved)'"
        )
        for (name,) in found.fetchall():
            tables = self.world.sql.execute(
                "SELECT relname::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r' AND nspname = %s",
                (name,),
            )
            rows = [
                str(row)
                for (table,) in tables.fetchall()
                for row in self.world.sql.execute(
                    f'SELECT * FROM "{name}"."{table}" ORDER BY 1'.encode()
                ).fetchall()
            ]
            schemas[str(name)] = tuple(rows)
        self.settle()
        return Contents(schemas=schemas, keys=frozenset(self.world.redis.scan_iter(count=1000)))

    def holds(self, key: bytes, moved: bytes) -> bool:
        """Whether a key that was laid out holds under another name what it held; each looks used afterwards."""
        return key not in self.held or self.world.redis.get(moved) == self.held[key]

    def own(self, name: str, status: str, id: UUID) -> None:
        """Write a sandbox's row."""
        self.world.sql.execute(
            "INSERT INTO sandboxes (id, name, owner, status, schema_name, expires_at)"
            " VALUES (%s, %s, 'chani', %s::sandbox_status, %s, now() + interval '1 day')",
            (id, name, status, f"elsewhere_{id.hex}"),
        )

    def settle(self) -> None:
        """Let nothing of ours look like use: our last statement names no schema."""
        self.world.sql.execute("SELECT 1")

    def _orphan(self, number: int) -> Orphan:
        id = UUID(int=self.chance.getrandbits(128), version=4)
        spelling = SPELLINGS[number % len(SPELLINGS)]
        made = Orphan(id=id, token=spelling(id), destroyed=self.chance.random() < 0.5)
        if made.destroyed:
            self.own(f"was-{number}", "destroyed", id)
        self.make_schema(made.schema, rows=2)
        for key in range(3):
            self.put(f"sandbox:{made.token}:k{key}".encode(), os.urandom(8))
        return made

    def make_schema(self, name: str, *, rows: int) -> None:
        """Make a schema with a table; its counters are handed over at once."""
        with self.world.visitor() as other:
            other.execute(f'CREATE SCHEMA "{name}"; CREATE TABLE "{name}".kept (id int)'.encode())
            other.execute(f'INSERT INTO "{name}".kept SELECT generate_series(1, {rows})'.encode())

    def put(self, key: bytes, value: bytes) -> None:
        """Write a key that looks unused for long."""
        self.held[key] = value
        self.world.redis.set(key, value)
        payload = self.world.redis.dump(key)
        self.world.redis.execute_command("RESTORE", key, 0, payload, "REPLACE", "IDLETIME", _IDLE)  # type: ignore[no-untyped-call]

    # What may happen to an orphan; each returns what of it must be left alone from then on.

    def nothing(self, orphan: Orphan) -> Spared:
        return NOTHING

    def owned(self, orphan: Orphan) -> Spared:
        """A sandbox of this id lives: it was created meanwhile, or restored."""
        status = self.chance.choice(LIVE)
        if orphan.destroyed:
            self.world.sql.execute(
                "UPDATE sandboxes SET status = %s::sandbox_status, destroyed_at = NULL WHERE id = %s",
                (status, orphan.id),
            )
        else:
            self.own(f"late-{orphan.id.hex[:12]}", status, orphan.id)
        return BOTH

    def namesake(self, orphan: Orphan) -> Spared:
        """A sandbox lives whose id begins like the orphan's: its names may be that one's."""
        other = UUID(hex=orphan.id.hex[:13] + f"{self.chance.getrandbits(76):019x}")
        self.own(f"like-{other.hex[:12]}", "running", other)
        short = len(orphan.token.replace("-", "")) <= 13
        return BOTH if short else NOTHING

    def written(self, orphan: Orphan) -> Spared:
        with self.world.visitor() as other:
            other.execute(f'INSERT INTO "{orphan.schema}".kept VALUES (99)'.encode())
        return SCHEMA

    def dropped(self, orphan: Orphan) -> Spared:
        self.world.sql.execute(f'DROP SCHEMA "{orphan.schema}" CASCADE'.encode())
        return SCHEMA

    def replaced(self, orphan: Orphan) -> Spared:
        self.dropped(orphan)
        self.make_schema(orphan.schema, rows=self.chance.choice((1, 2, 3)))
        return SCHEMA

    def renamed(self, orphan: Orphan) -> Spared:
        self.world.sql.execute(f'ALTER SCHEMA "{orphan.schema}" RENAME TO "moved_{orphan.id.hex}"'.encode())
        return SCHEMA

    def swapped(self, orphan: Orphan) -> Spared:
        """Renamed, and another one has its name."""
        self.renamed(orphan)
        self.make_schema(orphan.schema, rows=2)
        return SCHEMA

    def locked(self, orphan: Orphan) -> Spared:
        """Somebody has its table in an open transaction."""
        session = self.sessions.enter_context(psycopg.connect(self.world.env["DATABASE_URL"]))
        session.execute(f'SELECT * FROM "{orphan.schema}".kept'.encode())
        return BOTH

    def read(self, orphan: Orphan) -> Spared:
        """A key of it was used just now."""
        self.world.redis.get(f"sandbox:{orphan.token}:k0")
        return BOTH

    def grown(self, orphan: Orphan) -> Spared:
        self.world.redis.set(f"sandbox:{orphan.token}:new", 1)
        return BOTH

    def emptied(self, orphan: Orphan) -> Spared:
        self.world.redis.delete(*(f"sandbox:{orphan.token}:k{key}" for key in range(3)))
        return KEYS


EVENTS: tuple[Callable[[Field, Orphan], Spared], ...] = (
    Field.nothing,
    Field.owned,
    Field.namesake,
    Field.written,
    Field.dropped,
    Field.replaced,
    Field.renamed,
    Field.swapped,
    Field.locked,
    Field.read,
    Field.grown,
    Field.emptied,
)
