"""People and programs that do harm to PostgreSQL: `python -m lab.actors connections` and `… lock SCHEMA …`.

DATABASE_URL names the database. Each says READY on a line of its own once the harm is done, and works on until
it is ended; it ends with its parent.
"""

import os
import select
import sys
import time
from typing import Any

import psycopg
from psycopg import sql

from lab.processes import die_with_parent

__all__ = ["READY", "connections", "lock", "main"]

READY = "ready"
_PAUSE = 0.1


def main(action: str, *words: str) -> None:
    """Act as told."""
    die_with_parent()
    url = os.environ["DATABASE_URL"]
    if action == "connections":
        connections(url)
    elif action == "lock":
        lock(url, words)
    else:
        raise SystemExit(f"no actor is called {action!r}: connections or lock")


def connections(url: str) -> None:
    """A pool that leaks: take every connection there is, the superusers' too, and each one that somebody gives back."""
    held: list[psycopg.Connection[Any]] = []
    said = False
    while True:
        held = [each for each in held if not _ended(each)]
        try:
            held.append(psycopg.connect(url, application_name="arrakis-worker", connect_timeout=2))
        except psycopg.OperationalError:
            if not said:
                print(READY, flush=True)
            said = True
            time.sleep(_PAUSE)


def lock(url: str, schemas: tuple[str, ...]) -> None:
    """A transaction that somebody left open after a write to these schemas' profiles. It ends with its session."""
    with psycopg.connect(url, application_name="psql", connect_timeout=5) as connection:
        for schema in schemas:
            profiles = sql.Identifier(schema, "profiles")
            connection.execute(sql.SQL("UPDATE {} SET last_seen_at = now()").format(profiles))
        print(READY, flush=True)
        # Nothing is due from the server before it ends the session.
        select.select([connection.fileno()], [], [])


def _ended(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server has ended an idle session: it says so, and nothing else, unasked."""
    return bool(select.select([connection.fileno()], [], [], 0)[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
