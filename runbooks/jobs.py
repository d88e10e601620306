"""The scheduled jobs: clean-up, orphan detection, metrics. Each logs JSON lines as the deployed system does.

They ask nobody. The clean-up takes each sandbox in a transaction that only one can win; what it may not delete it puts
into quarantine by RB-SB-003's own plan, guards and journal, so that `undo` gives it back. The two others only read.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from logging import Logger
from typing import Any
from uuid import UUID

from runbooks import rb_sb_003
from runbooks.engine import stops
from runbooks.engine.environment import Environment
from runbooks.engine.errors import Exit
from runbooks.engine.lease import given_back
from runbooks.engine.model import Action, Finding, Severity
from runbooks.engine.operate import Operator
from runbooks.engine.systems import readers, writers
from runbooks.engine.work import Result
from runbooks.orphaned import evidence
from runbooks.orphaned.proposals import propose as propose_quarantine
from sandbox import metrics, registry
from sandbox.cleanup import ACTOR, Job, Report
from sandbox.errors import ArrakisError, Halted, Unreachable
from sandbox.facts import Known, Unknown
from sandbox.joblog import fields, logger
from sandbox.ports import SqlReader

__all__ = ["cleanup", "orphan_detection", "proposal", "publish_metrics"]

_FEW = 5  # targets that may always go, though they be over a fifth of what exists: what the alarm tolerates
_GIVEN_BACK = timedelta(hours=72)  # for as long as things stay in quarantine

Target = Callable[[], Environment]
"""Returns the target, or raises ArrakisError: a job that does not even have one has to say so in its log."""


def cleanup(target: Target, *, named: str, orphaned: bool, timeout: float) -> Exit:
    """Clean up what is due, and print what was done in CloudWatch's embedded metric format, whatever happens.

    Healthy where nothing was left undone, partly where something was; unknown where a source was unreachable. `named` is
    the environment's name, should it not be there; `timeout` bounds each call, in seconds.
    """
    log = _log("CleanupProvider")
    orphaned = orphaned or os.environ.get("CLEANUP_ORPHANED", "").lower() == "true"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the report is printed
    began = time.monotonic()
    reports = [Report(failed=1)]  # if it cannot even begin: silence would look like health
    try:
        return _guarded(log, lambda: _clean(target(), reports, log, orphaned=orphaned, timeout=timeout))
    finally:
        seconds = time.monotonic() - began
        _emit(reports[-1], seconds, named)
        done = asdict(replace(reports[-1], orphans=None))
        del done["orphans"]
        log.info("Sandbox cleanup job finished", extra=fields(**done, seconds=round(seconds, 3)))


def _clean(
    environment: Environment, reports: list[Report], log: Logger, *, orphaned: bool, timeout: float
) -> Exit:
    """Run the job and put away what it may not delete. Its report is added to the others as soon as there is one."""
    write = writers(environment, tag=_tag("cleanup"), actor=ACTOR, timeout=timeout)
    about = fields(
        environment=environment.name, database=write.sql.host, redis=write.keys.host, orphaned=orphaned
    )
    log.info("Starting sandbox cleanup job", extra=about)
    clock = _clock_of(write.sql)
    with stops.watching(write.sql) as watch:
        job = Job(write.sql, write.keys, clock=clock, log=log, insist=watch.insist)
        reports.append(job.report)
        try:
            watch.insist()
            spared = _spared(write.sql, log)
            report = job.run(spared=spared, kept=stops.marked(write.sql))
        except Halted:
            raise
        except Exception:
            job.report.failed += 1
            raise
    put_away = Exit.HEALTHY
    if any(orphaned or each.placement.sandboxes for each in report.orphans or ()):
        put_away = Exit.PARTLY
        if spared is not None:
            kept = stops.marked(write.sql)
            propose = partial(proposal, orphaned=orphaned, spared=spared, kept=kept)
            put_away = _put_away(environment, propose, log, timeout=timeout)
    if report.failed or report.keys_left:
        return Exit.PARTLY
    return put_away if job.redis_answers else Exit.UNKNOWN


def orphan_detection(target: Target, *, timeout: float) -> Exit:
    """Name every schema and key family that no sandbox owns, and publish how many there are. Changes nothing else."""
    log = _log("OrphanDetection")

    def detect() -> Exit:
        environment = _alarmed(target())
        read = readers(environment, tag=_tag("orphan-detection"), timeout=timeout)
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


def publish_metrics(target: Target, *, timeout: float) -> Exit:
    """Publish what the alarms watch. What cannot be told is not published: unknown is never zero."""
    log = _log("Metrics")

    def publish() -> Exit:
        environment = _alarmed(target())
        read = readers(environment, tag=_tag("publish-metrics"), timeout=timeout)
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


def _spared(database: SqlReader, log: Logger) -> frozenset[str] | None:
    """Return what an operator gave back in the last 72 h; None where this role may not see it: all is spared then."""
    try:
        return given_back(database, within=_GIVEN_BACK)
    except Unreachable:
        raise
    except ArrakisError as error:
        log.warning("Nobody can tell what was given back: all of it is spared", extra=fields(error=error))
        return None


def _put_away(environment: Environment, propose: Callable[..., Any], log: Logger, *, timeout: float) -> Exit:
    """Put into quarantine what destroyed sandboxes left and, if asked for, what never had a row.

    What somebody uses is left alone and, for 72 h, what an operator gave back by an undo. Partly where something could
    not be put away, unknown where nobody can tell who uses it.
    """
    gather = partial(evidence.gather, brief=True)  # its role may read no alarms
    runbook = replace(rb_sb_003.RUNBOOK, gather=gather, propose=propose)
    try:
        operator = Operator(environment, timeout=timeout, progress=partial(_tell, log), tell=log.info)
        found = operator.diagnose(runbook)
        for finding in found.findings:
            if finding.check == "left alone":
                log.warning("Orphan left alone", extra=fields(reason=finding.summary))
        if found.plan is None:
            asked = [each for each in found.findings if each.check != "alarm"]
            return Exit.UNKNOWN if any(each.severity is Severity.UNKNOWN for each in asked) else Exit.HEALTHY
        few = _FEW if len(found.plan.actions) <= _FEW else None
        outcome = operator.apply(found.plan, runbook, ask=_nobody, max_targets=few)
    except ArrakisError as error:  # refused by a guard, another operator at work, no right to keep a journal
        log.error("Remains and orphans left alone", extra=fields(error=error))
        return Exit.PARTLY
    log.warning("Put into quarantine", extra=fields(run=outcome.run, undo=f"invoke undo --run {outcome.run}"))
    return Exit.HEALTHY if outcome.exit is Exit.HEALTHY else Exit.PARTLY


def _tell(log: Logger, done: Result, *_: int) -> None:
    log.info("Quarantine", extra=fields(orphan=done.action.resource.id, reason=done.reason, phase=done.phase))


def proposal(
    facts: evidence.Facts, *, orphaned: bool, spared: Collection[str], kept: Collection[UUID]
) -> tuple[list[Action], list[Finding]]:
    """Of what RB-SB-003 proposes, what destroyed sandboxes left, or all of it. Pure.

    Nothing that was given back, and nothing of the sandboxes that are `kept`: an emergency stop marked them, and they may
    come back.
    """
    actions, left = propose_quarantine(facts)
    seen = evidence.Orphans.of(facts)
    placed = [where for _, where in (*seen.schemas, *seen.families)]
    explained = {where.name for where in placed if where.sandboxes}
    held = {where.name for where in placed if any(row.id in kept for row in where.sandboxes)}
    chosen = [action for action in actions if orphaned or action.resource.id in explained]
    told = [finding for finding in left if not (finding.resource and finding.resource.id in held)]
    return [action for action in chosen if action.resource.id not in {*spared, *held}], told


def _nobody(*_: Any) -> None:
    """A job asks nobody: it proposes nothing that cannot be given back."""


def _alarmed(environment: Environment) -> Environment:
    """Return an environment that alarms can know. Raises ArrakisError for one that only addresses describe."""
    if environment.name == "custom":
        raise ArrakisError(
            "which environment? Its name is the metrics' dimension, and no alarm watches one without",
            hint="set ARRAKIS_ENV, or say --env NAME",
        )
    return environment


def _publish(environment: Environment, values: dict[str, int], *, timeout: float) -> None:
    write = writers(environment, tag=_tag("metrics"), actor=ACTOR, timeout=timeout)
    metrics.publish(write.aws, values, environment=environment.name, at=_now())


def _guarded(log: Logger, work: Callable[[], Exit]) -> Exit:
    try:
        return work()
    except Unreachable as error:
        log.critical("Job failed", extra=fields(error=error))
        return Exit.UNKNOWN
    except Halted as error:
        log.warning("Job halted", extra=fields(error=error))
        return Exit.REFUSED
    except ArrakisError as error:
        log.critical("Job failed", extra=fields(error=error))
    except Exception as error:
        # A fault of ours: the container keeps no debug.log, so its log has to tell where. What it says may hold a secret.
        stack = "".join(traceback.format_tb(error.__traceback__))
        log.critical("Job failed unexpectedly", extra=fields(kind=type(error).__name__, stack=stack))
    return Exit.ERROR


def _emit(report: Report, seconds: float, environment: str) -> None:
    values = {
        "SandboxesCleanedUp": report.cleaned,
        "CleanupFailures": report.failed,
        "CleanupDurationMs": round(seconds * 1000),
    }
    units = {"CleanupDurationMs": "Milliseconds"}
    print(metrics.emf(values, units=units, environment=environment, at=_now()), flush=True)


def _log(component: str) -> Logger:
    level = os.environ.get("LOG_LEVEL") or "info"
    try:
        return logger(component, level=level, stream=sys.stderr)
    except ArrakisError as error:  # a typing error must not stop the cleaning unseen
        log = logger(component, level="info", stream=sys.stderr)
        log.warning("LOG_LEVEL is not understood: info it is", extra=fields(error=error))
        return log


def _clock_of(database: SqlReader) -> Callable[[], datetime]:
    """Return the database's clock: by a host's own, one that is fast would end sandboxes before their time."""
    offset = registry.time_of(database) - _now()
    return lambda: _now() + offset


def _tag(job: str) -> str:
    return f"arrakis-runbooks:{job}"


def _now() -> datetime:
    return datetime.now(UTC)
