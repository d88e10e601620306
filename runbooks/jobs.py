"""The scheduled jobs: clean-up, orphan detection, metrics. Each logs JSON lines as the deployed system does.

They ask nobody and hold no lease: the clean-up takes each sandbox in a transaction that only one can win, the two
others only read.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from logging import Logger

from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit
from runbooks.engine.systems import readers, writers
from sandbox import metrics
from sandbox.cleanup import Job, Report
from sandbox.errors import ArrakisError
from sandbox.facts import Known, Unknown
from sandbox.joblog import fields, logger

__all__ = ["cleanup", "orphan_detection", "publish_metrics"]


def cleanup(environment: Environment, *, orphaned: bool, timeout: float) -> Exit:
    """Clean up what is due, and print what was done in CloudWatch's embedded metric format.

    Healthy where nothing was left undone, partly where something was, an error where nothing could be done at all.
    `timeout` bounds each call, in seconds.
    """
    log = _log("CleanupProvider")
    orphaned = orphaned or os.environ.get("CLEANUP_ORPHANED", "").lower() == "true"
    tag = "arrakis-runbooks:cleanup"
    read = readers(environment, tag=tag, timeout=timeout)
    write = writers(environment, tag=tag, timeout=timeout)
    job = Job(write.sql, write.keys, read.streams, clock=_now, log=log, tag=tag)
    log.info(
        "Starting sandbox cleanup job",
        extra=fields(
            environment=environment.name, database=write.sql.host, redis=write.keys.host, orphaned=orphaned
        ),
    )
    began = time.monotonic()
    code = _guarded(log, lambda: _exit_of(job.run(orphaned=orphaned)))
    if code is Exit.ERROR:
        job.report.failed += 1  # a job that could do nothing has failed; silence would look like health
    took = time.monotonic() - began
    _emit(job.report, took, environment.name)
    done = asdict(job.report)
    log.info("Sandbox cleanup job finished", extra=fields(**done, seconds=round(took, 3)))
    return code


def orphan_detection(environment: Environment, *, timeout: float) -> Exit:
    """Name every schema and key family that no sandbox owns, and publish how many there are. Changes nothing else."""
    log = _log("OrphanDetection")
    read = readers(environment, tag="arrakis-runbooks:orphan-detection", timeout=timeout)

    def detect() -> Exit:
        found = metrics.orphans(read.sql, read.keys)
        for orphan in found:
            log.warning(
                "Orphaned resource",
                extra=fields(kind=orphan.kind, orphan=orphan.placement.name, reason=orphan.placement.reason),
            )
        _publish(environment, {"OrphanedResourceCount": len(found)}, timeout=timeout)
        log.info("Orphan detection finished", extra=fields(orphans=len(found), next="invoke rb-sb-003"))
        return Exit.PROPOSED if found else Exit.HEALTHY

    return _guarded(log, detect)


def publish_metrics(environment: Environment, *, timeout: float) -> Exit:
    """Publish what the alarms watch. What cannot be told is not published: unknown is never zero."""
    log = _log("Metrics")
    read = readers(environment, tag="arrakis-runbooks:publish-metrics", timeout=timeout)

    def publish() -> Exit:
        measured = metrics.measure(read.sql, read.keys, deadline=timeout)
        known = {name: fact.value for name, fact in measured.items() if isinstance(fact, Known)}
        for name, fact in measured.items():
            if isinstance(fact, Unknown):
                log.error("Metric is unknown", extra=fields(metric=name, reason=fact.reason, hint=fact.hint))
        if known:
            _publish(environment, known, timeout=timeout)
            log.info("Metrics published", extra=fields(values=known))
        return Exit.HEALTHY if len(known) == len(measured) else Exit.UNKNOWN

    return _guarded(log, publish)


def _publish(environment: Environment, values: dict[str, int], *, timeout: float) -> None:
    write = writers(environment, tag="arrakis-runbooks:metrics", timeout=timeout)
    metrics.publish(write.aws, values, environment=environment.name, at=_now())


def _guarded(log: Logger, work: Callable[[], Exit]) -> Exit:
    try:
        return work()
    except ArrakisError as error:
        log.critical("Job failed", extra=fields(error=error))
    except Exception as error:  # a fault of ours: the container keeps no debug.log, its log has to tell
        log.critical("Job failed unexpectedly", extra=fields(error=error, stack=traceback.format_exc()))
    return Exit.ERROR


def _exit_of(report: Report) -> Exit:
    undone = report.failed or report.keys_left or report.orphans_left
    return Exit.PARTLY if undone else Exit.HEALTHY


def _emit(report: Report, seconds: float, environment: str) -> None:
    values = {
        "SandboxesCleanedUp": report.cleaned,
        "CleanupFailures": report.failed,
        "CleanupDurationMs": round(seconds * 1000),
    }
    units = {"CleanupDurationMs": "Milliseconds"}
    print(metrics.emf(values, units=units, environment=environment, at=_now()), flush=True)


def _log(component: str) -> Logger:
    return logger(component, level=os.environ.get("LOG_LEVEL") or "info", stream=sys.stderr)


def _now() -> datetime:
    return datetime.now(UTC)
