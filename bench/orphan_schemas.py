"""Finding orphaned schemas among very many, beside the query of the catalog that it needs at least."""

import threading
from collections.abc import Sequence
from functools import partial
from uuid import UUID

import psycopg

from bench.keyspaces import ids
from bench.measuring import Claim, Figure, Line, Result, Size, in_turns, ratios, timed
from bench.production import servers
from sandbox import registry, schemas
from sandbox.adapters.postgres import Postgres
from sandbox.orphans import find_orphans
from sql import load

__all__ = ["LINE"]

_SCHEMAS = 10_000
_TIMES = 2.0
_AT_ONCE = 25  # schemas a transaction, of whose locks there are only so many
_WORKERS = 2
_OURS, _SIZED = "ours", "ours, with the sizes of the orphans"
_CENSUS, _JOIN = "catalog query alone", "one join in SQL, names alone"
_NAMES = """
SELECT n.nspname FROM pg_namespace AS n LEFT JOIN public.sandboxes AS s ON n.nspname = 'sandbox_' || s.id
WHERE starts_with(n.nspname, 'sandbox_') AND s.id IS NULL
"""  # the least that tells orphans of one naming
_INSERT = (
    "INSERT INTO public.sandboxes (id, name, owner, status, schema_name, created_at, expires_at)"
    " SELECT id, id::text, 'bench', 'running', 'sandbox_' || id, now(), now() + interval '1 day'"
    " FROM unnest(%s::uuid[]) AS id"
)


def _lay_out(url: str, count: int) -> None:
    """Make so many schemas, and as many rows: one schema in ten has none, one row in ten has no schema."""
    made = ids(count + count // 10)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_INSERT, [made[count // 10 :]])
    threads = [
        threading.Thread(target=_create, args=(url, made[:count][number::_WORKERS]))
        for number in range(_WORKERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _create(url: str, mine: Sequence[UUID]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for start in range(0, len(mine), _AT_ONCE):
            some = [str(id) for id in mine[start : start + _AT_ONCE]]
            connection.execute(
                "SELECT public.create_sandbox_schema(id) FROM unnest(%s::text[]) AS id", [some]
            )


def _find(url: str, orphans: int) -> None:
    """Find them as RB-SB-003 does."""
    with Postgres(url, tag="arrakis-runbooks:bench").snapshot() as snapshot:
        roster, census = registry.roster(snapshot), schemas.census(snapshot)
    found = find_orphans(roster, [schema.name for schema in census], [])
    if len(found) != orphans:
        raise SystemExit(f"{len(found)} orphans were found, not {orphans}")


def _describe(url: str, orphans: int) -> None:
    """Find them, and ask for the sizes of what was found, as RB-SB-003 does to tell of them."""
    with Postgres(url, tag="arrakis-runbooks:bench").snapshot() as snapshot:
        roster, census = registry.roster(snapshot), schemas.census(snapshot)
        found = find_orphans(roster, [schema.name for schema in census], [])
        sizes = schemas.sizes(snapshot, [orphan.placement.name for orphan in found])
    if len(sizes) != orphans:
        raise SystemExit(f"{len(sizes)} orphans were found, not {orphans}")


def _ask(url: str, query: str, rows: int) -> None:
    """Ask as any client does."""
    with psycopg.connect(url) as connection:
        found = connection.execute(query.encode()).fetchall()
    if len(found) != rows:
        raise SystemExit(f"{len(found)} rows were found, not {rows}")


def _run(size: Size) -> Result:
    count = size.of(_SCHEMAS)
    with servers() as at:
        Postgres(at.url, tag="bench").script("migrations/0001_control_tables")
        _lay_out(at.url, count)
        calls = {
            _OURS: partial(_find, at.url, count // 10),
            _SIZED: partial(_describe, at.url, count // 10),
            _CENSUS: partial(_ask, at.url, load("read/schemas/census"), count),
            _JOIN: partial(_ask, at.url, _NAMES, count // 10),
        }
        took = in_turns({name: partial(timed, call) for name, call in calls.items()}, size.rounds)
        with psycopg.connect(at.url) as connection:
            version = str(connection.info.parameter_status("server_version")).split()[0]
    return Result(
        figures=[Figure(name=name, unit="s", values=values) for name, values in took.items()],
        claims=[
            Claim(
                said="orphan schemas, to the catalog query alone",
                values=ratios(took[_OURS], took[_CENSUS]),
                bound=_TIMES,
                missed="The catalog query knows no rows: to read ten thousand of them into this process, and to place as many names in all their"
                " spellings, takes longer than PostgreSQL's own part. Tried and kept: moments are read by the standard library, and rows without"
                " metadata.",
            ),
            Claim(
                said="orphan schemas, to one join in SQL that knows one spelling",
                values=ratios(took[_OURS], took[_JOIN]),
                bound=None,
            ),
        ],
        notes=[
            "Each schema has a sandbox's three tables; one in ten is nobody's, and each has to be found. The catalog query is the one that says which"
            " schemas there are, whose they are, with how many tables and rows: ours asks it, reads all rows of the control table in the same snapshot, and places every name in"
            " all its spellings. The join knows one spelling, and no sizes."
        ],
        versions={"PostgreSQL": version},
    )


LINE = Line(
    name="orphan_schemas",
    title="Orphan schemas",
    on="10,000 schemas of three tables each, against 10,000 rows",
    run=_run,
)
