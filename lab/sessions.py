"""Clients that do harm to the database and the cache, each with the statements that people really leave behind.

They work on until they are ended; those whose sessions somebody else has ended, end too.
"""

import select
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import redis
from psycopg.conninfo import make_conninfo

from lab.names import APP, MIGRATOR

__all__ = ["SCRIPT", "alter_table", "idle_in_transaction", "run_script"]

SCRIPT = """
-- leaderboard: counts every sandbox's keys again, and again
local counted = 0
for _ = 1, tonumber(ARGV[1]) do
    for _, key in ipairs(redis.call('KEYS', 'sandbox:*')) do counted = counted + 1 end
end
return counted
"""
"""What blocks Redis: its argument says how often it counts. Of clocks, Redis 7.0 gives a script none that goes on."""

_BUSY_SECONDS, _REST_SECONDS = 0.3, 0.05
_PAUSE, _PATIENCE = 0.02, 5.0
_LIMIT = "SELECT count(*) FROM sandboxes WHERE owner = 'chani' AND status <> 'destroyed'"
_COLUMN = "ALTER TABLE public.sandboxes ADD COLUMN region varchar(32)"
_GUILD = "UPDATE sandbox_guild_mapping SET created_at = created_at WHERE guild_id = (SELECT min(guild_id) FROM sandbox_guild_mapping)"
_WAITING = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE wait_event_type = 'Lock'"

Session = psycopg.Connection[Any]


def idle_in_transaction(url: str, ready: Callable[[], None]) -> None:
    """Take every connection that the deployed system's role may have, and leave nearly all idle in a transaction.

    Two are a pool's that wait for work; one is `gaib`'s, which has only just begun.
    """
    connect = partial(psycopg.connect, make_conninfo(url, user=APP), connect_timeout=5)
    held: list[Session] = [connect(application_name="arrakis-api", autocommit=True) for _ in range(2)]
    held.append(connect(application_name="gaib"))
    held[-1].execute(_LIMIT)
    while True:
        try:
            held.append(connect(application_name="arrakis-api"))
        except psycopg.OperationalError:
            break
        held[-1].execute(_LIMIT.encode())
    ready()
    while held:
        ended, _, _ = select.select(held, [], [])
        held = [each for each in held if each not in ended]


def alter_table(url: str, ready: Callable[[], None]) -> None:
    """Leave an ALTER TABLE of the sandboxes' table open. Three wait: two for it, and one for one of those."""
    app = make_conninfo(url, user=APP)
    threads = []
    queue = (
        ("arrakis-api", (_GUILD, "UPDATE sandboxes SET last_activity_at = now() WHERE status = 'running'")),
        ("arrakis-worker", (_GUILD,)),
        ("gaib", ("SELECT name, owner, status FROM sandboxes WHERE status = 'running'",)),
    )
    with (
        psycopg.connect(make_conninfo(url, user=MIGRATOR), application_name="psql") as holder,
        psycopg.connect(url, autocommit=True) as onlooker,
    ):
        holder.execute(_COLUMN.encode())
        for waiting, (application, statements) in enumerate(queue, start=1):
            threads.append(threading.Thread(target=_run, args=(app, application, statements), daemon=True))
            threads[-1].start()
            while _count(onlooker, _WAITING) < waiting:
                time.sleep(_PAUSE)
        onlooker.close()
        ready()
        select.select([holder], [], [])
        holder.close()  # somebody ended it
    for thread in threads:  # they do what they came for
        thread.join(_PATIENCE)


def run_script(url: str, ready: Callable[[], None]) -> None:
    """Keep Redis busy with a script that nothing else gets past, once it is known how much takes how long."""
    times, said = 10, False
    with redis.Redis.from_url(url, client_name="arrakis-leaderboard") as client:
        while True:
            began = time.monotonic()
            client.eval(SCRIPT, 0, str(times))
            spent = time.monotonic() - began
            if not said and spent > _BUSY_SECONDS / 2:
                ready()
                said = True
            times = max(1, round(times * min(10.0, _BUSY_SECONDS / spent)))
            time.sleep(_REST_SECONDS)


def _run(url: str, application: str, statements: tuple[str, ...]) -> None:
    with psycopg.connect(url, application_name=application) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _count(connection: Session, query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0
