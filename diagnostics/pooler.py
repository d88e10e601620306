"""PgBouncer's pools, where it stands before PostgreSQL: who has a connection, and who waits for one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sandbox.ports import PoolReader
from sandbox.text import clean

__all__ = ["SEE_POOLS", "Pool", "Pooler", "read_pooler"]

SEE_POOLS = (
    "psql -d pgbouncer -c 'SHOW POOLS' -c 'SHOW LISTS' -c 'SHOW CONFIG'  # stats_users in pgbouncer.ini"
)

_OWN = "pgbouncer"  # the console's own pool
_MAKING = timedelta(seconds=1)  # more than it takes to connect to the server, which is a wait, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The connections of one user to one database: clients that have or await one, and those to the server.

    `size` is how many to the server there may be, None where that is not told; `longest_wait` is that of the first in line.
    """

    database: str
    user: str
    mode: str
    clients: int
    waiting: int
    busy: int
    idle: int
    longest_wait: timedelta
    size: int | None

    @property
    def exhausted(self) -> bool:
        """Whether somebody waits, no connection is free, and none is only being made just now."""
        full = self.size is not None and self.busy >= self.size
        return self.waiting > 0 and not self.idle and (full or self.longest_wait >= _MAKING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooler:
    """A PgBouncer: its pools, and how many clients it has, of how many."""

    pools: tuple[Pool, ...]
    clients: int | None
    most_clients: int | None

    @property
    def full(self) -> bool:
        """Whether it takes no more clients."""
        return bool(self.clients and self.most_clients and self.clients >= self.most_clients)


def read_pooler(pools: PoolReader) -> Pooler | None:
    """Return what PgBouncer says of itself; None where PostgreSQL itself is at the address.

    Raises Denied where its console is not for this user, Unreachable where nothing answers.
    """
    shown = pools.show("POOLS", "CONFIG", "DATABASES", "LISTS")
    if shown is None:
        return None
    listed, config, databases, lists = shown
    settings = {str(row["key"]): row["value"] for row in config}
    sizes = {str(row["name"]): row.get("pool_size") for row in databases}
    counts = {str(row["list"]): row["items"] for row in lists}
    return Pooler(
        pools=tuple(_pool(row, sizes) for row in listed if row["database"] != _OWN),
        clients=_number(counts.get("used_clients")),
        most_clients=_number(settings.get("max_client_conn")),
    )


def _pool(row: Mapping[str, Any], sizes: Mapping[str, object]) -> Pool:
    """Read a row of SHOW POOLS; what an older version does not have is nothing."""
    wait = timedelta(seconds=int(row.get("maxwait") or 0), microseconds=int(row.get("maxwait_us") or 0))
    return Pool(
        database=clean(row["database"]),
        user=clean(row["user"]),
        mode=str(row.get("pool_mode") or "?"),
        clients=int(row["cl_active"]),
        waiting=int(row["cl_waiting"]),
        busy=int(row["sv_active"]),
        idle=int(row["sv_idle"]) + int(row.get("sv_used") or 0),
        longest_wait=wait,
        size=_number(sizes.get(str(row["database"]))),
    )


def _number(told: object) -> int | None:
    return int(str(told)) if str(told).isdecimal() else None
