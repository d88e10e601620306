"""PgBouncer's console through psycopg 3: it speaks the simple protocol only, and knows no transactions."""

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from sandbox.deadline import within
from sandbox.errors import Denied, Unreachable
from sandbox.ports import APPLICATION

__all__ = ["PgBouncer"]

_CONSOLE = "pgbouncer"
# What PostgreSQL says where there is no such database, and where pg_hba.conf has no line for it.
_NONE_THERE = (f'database "{_CONSOLE}" does not exist', f'database "{_CONSOLE}", ')
_REFUSED = ("not allowed", "no such user", "password", "authentication", "auth failed")


class PgBouncer:
    """The console at a database's own address. Satisfies PoolReader."""

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        """Take the database's address; `timeout` bounds each question, in seconds."""
        self._url, self._timeout = make_conninfo(url, dbname=_CONSOLE), timeout
        parts = conninfo_to_dict(url)
        self.host = f"{parts.get('host') or 'localhost'}:{parts.get('port') or 5432}"

    def show(self, *names: str) -> list[list[Mapping[str, Any]]] | None:
        """Return the rows of each SHOW command; None where no PgBouncer is there."""
        try:
            return within(self._timeout, lambda: self._asked(names), f"PgBouncer at {self.host}")
        except psycopg.Error as error:
            said = str(error)  # libpq's; it may quote parts of the address, and is not repeated
            if any(words in said for words in _NONE_THERE):
                return None
            if any(words in said for words in _REFUSED):
                raise Denied(
                    f"PgBouncer at {self.host}: its console is not for this user",
                    hint="name the user under stats_users in pgbouncer.ini",
                ) from error
            raise Unreachable(f"PgBouncer at {self.host}: its console does not answer") from error

    def _asked(self, names: tuple[str, ...]) -> list[list[Mapping[str, Any]]]:
        with psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=max(2, int(self._timeout)),
            application_name=APPLICATION,
            row_factory=dict_row,
        ) as connection:
            return [list(connection.execute(f"SHOW {name}".encode())) for name in names]
