"""One probe of RB-SB-003 alone: `python -m bench.probe NAME` starts as the runbook's task does, and asks one question."""

import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import tasks
from diagnostics.alarms import read_account, read_alarm
from runbooks.engine.environment import FOLDER, resolve, state_folder
from runbooks.engine.systems import Readers, readers
from runbooks.orphaned.evidence import ALARM, METRIC_WINDOW
from sandbox import keyspace, registry, schemas
from sandbox.usage import RECENT

__all__ = ["PROBES"]

_TAG, _TIMEOUT = "arrakis-runbooks:bench", 10.0


def _alarm(read: Readers) -> object:
    return read_alarm(
        read.aws, suffix=ALARM, prefix="arrakis-lab-", now=datetime.now(UTC), window=METRIC_WINDOW
    )


def _database(read: Readers) -> object:
    with read.sql.snapshot() as snapshot:
        return registry.roster(snapshot), schemas.census(snapshot)


def _uses(read: Readers) -> object:
    with read.sql.snapshot() as snapshot:
        names = schemas.names(snapshot)
        users = schemas.users(snapshot, names, tag=_TAG, recent=RECENT)
    return users, schemas.last_activity(read.sql, names)


def _families(read: Readers) -> object:
    return keyspace.usage(read.keys, list(read.survey().families), sizes=True)


def _identity(read: Readers) -> object:
    with read.sql.snapshot() as snapshot:
        return registry.identity(snapshot)


PROBES: Mapping[str, Callable[[Readers], object]] = {
    "alarm": _alarm,
    "database": _database,
    "keys": Readers.survey,
    "listeners": lambda read: read.streams.subscriptions(),
    "uses": _uses,
    "families": _families,
    "account": lambda read: read_account(read.aws),
    "identity": _identity,
}
"""What RB-SB-003 asks, and whom it asks about before it proposes anything."""


def main(name: str) -> None:
    """Ask."""
    assert tasks.namespace.tasks  # a task is known before it begins
    environment = resolve(None, os.environ, FOLDER, state_folder(os.environ))
    PROBES[name](readers(environment, tag=_TAG, timeout=_TIMEOUT))


if __name__ == "__main__":
    main(sys.argv[1])
