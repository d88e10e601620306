"""Taking orphans' keys away: deleted as the clean-up does, and parked as the quarantine does, with its guards."""

import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from uuid import UUID

from bench.keyspaces import CLI, Keyspace, ids, redis_server, version
from bench.measuring import Claim, Figure, Line, Result, Size, in_turns, ratios, timed
from bench.pinging import ping_beside
from bench.production import servers
from runbooks.engine.lease import Lease
from sandbox import keyspace, schemas
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.keyspace import Parked

__all__ = ["LINE"]

_KEYS, _FAMILIES = 100_000, 100
_KEPT = 2  # connections, as while a plan is applied
_PING = 5.0
_STAMP = "20260301120000"
_DELETED, _PARKED, _CLI = "deleted", "parked", "redis-cli --scan | xargs redis-cli unlink"

_MISSED = {
    _DELETED: "",
    _PARKED: "RENAMENX takes one key a command, and most of the time goes into writing each command and reading its reply in the client."
    " UNLINK takes many keys at once.",
}

Way = Callable[[], object]


def _delete(at: Keyspace, families: int) -> Counter[UUID]:
    """Delete them as the clean-up does."""
    owners = {str(id): id for id in ids(families)}
    return keyspace.delete_families(Redis(at.url), owners.get)


def _park(at: Keyspace, families: int, database: Postgres, lease: Lease) -> int:
    """Park them as the quarantine does: each batch while the lease and the control table are held."""

    def holding(token: str) -> AbstractContextManager[object]:
        return schemas.holding_orphan(database, token, fence=lease.fence)

    parked = [Parked(stamp=_STAMP, token=str(id)) for id in ids(families)]
    moved, failures = keyspace.park_families(Redis(at.url), parked, hold=holding)
    for error in failures.values():
        raise error
    return moved.total()


def _unlink(at: Keyspace) -> None:
    """Delete them as a person would."""
    cli = f"{CLI} -p {at.port}"
    command = f"{cli} --scan --pattern 'sandbox:*' | xargs {cli} unlink"
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)


def _afresh(at: Keyspace, keys: int, families: int, measure: Callable[[Way], float], way: Way) -> float:
    """Lay the keys out, and measure how they go; whatever is left of them ends the measuring."""
    at.empty()
    at.fill(others=keys, owned=keys, families=families)
    measured = measure(way)
    if left := at.count("sandbox:*"):
        raise SystemExit(f"{left} keys are left")
    return measured


def _ways(
    at: Keyspace, keys: int, families: int, database: Postgres, lease: Lease
) -> Mapping[str, Callable[[], float]]:
    ways: Mapping[str, Way] = {
        _DELETED: partial(_delete, at, families),
        _PARKED: partial(_park, at, families, database, lease),
        _CLI: partial(_unlink, at),
    }
    fresh = partial(_afresh, at, keys, families)
    return {name: partial(fresh, timed, way) for name, way in ways.items()} | {
        f"PING p99 while {name}": partial(fresh, partial(ping_beside, at.port), way)
        for name, way in ways.items()
        if name != _CLI
    }


def _run(size: Size) -> Result:
    keys, families = size.of(_KEYS), size.of(_FAMILIES)
    with servers() as production, redis_server() as at:
        database = Postgres(production.url, tag="arrakis-runbooks:bench")
        database.script("migrations/0001_control_tables")
        with Lease.held(database, holder="bench", run="bench") as lease, database.keeping(_KEPT):
            took = in_turns(_ways(at, keys, families, database, lease), size.rounds)
        versions = {"Redis": version(at)}
    pings = {name: values for name, values in took.items() if name.startswith("PING")}
    return Result(
        figures=[
            Figure(name=name, unit="ms" if name in pings else "s", values=values)
            for name, values in took.items()
        ],
        claims=[
            *(
                Claim(
                    said=f"keys {name}, to {_CLI}",
                    values=ratios(took[name], took[_CLI]),
                    bound=1.0,
                    missed=_MISSED[name],
                )
                for name in (_DELETED, _PARKED)
            ),
            *(
                Claim(said=f"another client's {name}", values=values, bound=_PING, unit="ms")
                for name, values in pings.items()
            ),
        ],
        notes=[
            f"{families} families of {keys // families:,} keys beside as many keys of others. Parking renames each batch of 1,000 in a transaction of"
            " PostgreSQL that holds the lease and the control table; the peer looks at nothing, and its keys do not come back."
        ],
        versions=versions,
    )


LINE = Line(
    name="keyspace_removal",
    title="Deleting and parking keys",
    on="100,000 keys of 100 sandboxes",
    run=_run,
)
