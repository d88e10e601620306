"""People and programs that do harm: `python -m lab.actors connections [ROLE]`, `… lock SCHEMA …` and others.

DATABASE_URL, REDIS_URL and NATS_URL name the servers. Each says READY on a line of its own once the harm is done, and works
on until it is ended; it ends with its parent. `… traffic GUILD …` does none: it is what goes on in a lab of the routing.
"""

import os
import select
import sys
import time
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from lab import sessions
from lab.processes import die_with_parent

__all__ = ["READY", "connections", "lock", "main"]

READY = "ready"
_PAUSE = 0.1


def main(action: str, *words: str) -> None:
    """Act as told."""
    die_with_parent()
    url = os.environ["DATABASE_URL"]
    if action == "connections":
        connections(make_conninfo(url, user=words[0]) if words else url)
    elif action == "lock":
        lock(url, words)
    elif action == "idle-in-transaction":
        sessions.idle_in_transaction(url, _say_ready)
    elif action == "alter-table":
        sessions.alter_table(url, _say_ready)
    elif action == "script":
        sessions.run_script(os.environ["REDIS_URL"], _say_ready)
    elif action == "traffic":
        from lab import gateway  # with it comes NATS, which no other needs

        gateway.traffic(os.environ["NATS_URL"], words, _say_ready)
    else:
        raise SystemExit(f"no actor is called {action!r}")


def connections(url: str) -> None:
    """A pool that leaks: take every connection that its role can get, and each one that somebody gives back."""
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


def _say_ready() -> None:
    print(READY, flush=True)


def _ended(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server has ended an idle session: it says so, and nothing else, unasked."""
    return bool(select.select([connection.fileno()], [], [], 0)[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
