"""The deployed clean-up job's stand-in: `python -m lab.job`, which lab.ecs runs as a task.

Its log is on stdout as the container's is, in both formats; the exit code is 1 if anything failed or was left.
"""

import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from logging import Logger

from lab.processes import die_with_parent
from sandbox import keyspace, metrics
from sandbox.adapters.postgres import Postgres
from sandbox.adapters.redis import Redis
from sandbox.cleanup import Job, Report
from sandbox.errors import ArrakisError
from sandbox.facts import Known
from sandbox.joblog import fields, logger

__all__ = ["main"]

_TAG = "arrakis-sandbox-cleanup"
_SECONDS = 10.0


def main(variables: Mapping[str, str]) -> int:
    """Clean up once; the exit code."""
    die_with_parent()
    began = time.monotonic()
    log = logger("CleanupProvider", level=variables.get("LOG_LEVEL", "info"), stream=sys.stdout)
    orphaned = variables.get("CLEANUP_ORPHANED") == "true"
    log.info("Starting sandbox cleanup job", extra=fields(orphaned=orphaned))
    report = Report(failed=1)  # if it cannot even begin
    try:
        database, keys = _systems(variables)
        report = _clean(database, keys, log)
        _count(database, keys, variables["ARRAKIS_ENV"])
    except ArrakisError as error:
        log.error("Sandbox cleanup job failed", extra=fields(error=error))
        print(f"Fatal error in sandbox cleanup job: {error}", flush=True)
    _report(report, time.monotonic() - began, variables["ARRAKIS_ENV"])
    return 1 if report.failed or report.keys_left else 0


def _systems(variables: Mapping[str, str]) -> tuple[Postgres, Redis]:
    database = Postgres(variables["DATABASE_URL"], tag=_TAG, timeout=_SECONDS)
    return database, Redis(variables["REDIS_URL"], timeout=_SECONDS)


def _clean(database: Postgres, keys: Redis, log: Logger) -> Report:
    """Run the library's job, unless Redis is away: the library would go on without it, the deployed job fails."""
    keyspace.survey(keys)
    return Job(database, keys, clock=lambda: datetime.now(UTC), log=log).run()


def _report(report: Report, seconds: float, environment: str) -> None:
    values = {
        "SandboxesCleanedUp": report.cleaned,
        "CleanupFailures": report.failed,
        "CleanupDurationMs": round(seconds * 1000),
    }
    _emit(values, environment, units={"CleanupDurationMs": "Milliseconds"})


def _count(database: Postgres, keys: Redis, environment: str) -> None:
    """Publish what the count's alarm watches, as far as it can be told."""
    measured = metrics.measure(database, keys, deadline=_SECONDS)
    if values := {name: fact.value for name, fact in measured.items() if isinstance(fact, Known)}:
        _emit(values, environment)


def _emit(values: Mapping[str, float], environment: str, units: Mapping[str, str] | None = None) -> None:
    print(metrics.emf(values, units=units or {}, environment=environment, at=datetime.now(UTC)), flush=True)


if __name__ == "__main__":
    sys.exit(main(os.environ))
