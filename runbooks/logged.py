"""What the procedures say about a log: how much of it was read, its errors by cause, what a job said of its runs. Pure.

A log names a cause; whoever calls this judges by the evidence whether it still holds.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from diagnostics.grouping import ErrorGroup
from diagnostics.logs import JobRuns, LogReport
from diagnostics.stack import Stack
from runbooks.engine.model import Finding, Severity
from runbooks.findings import span, unknown
from sandbox.facts import Fact, Unknown
from sandbox.text import counted, moment, period

__all__ = ["MISSED", "SEE_LOG", "SEE_RUNS", "log_findings", "runs_finding"]

SEE_LOG = "aws logs filter-log-events --log-group-name {name} --start-time $(date -d '6 hours ago' +%s000)  # logs:FilterLogEvents"
SEE_RUNS = "aws logs filter-log-events --log-group-name {name} --filter-pattern '{{ $.CleanupDurationMs >= 0 }}'  # logs:FilterLogEvents"
MISSED = timedelta(minutes=45)
"""Three runs of the schedule: a job that was not started for longer is missed."""

_SHOWN = 3  # kinds of errors that are told

Judge = Callable[[ErrorGroup], tuple[Severity, str]]
"""Says of the latest error of a cause how bad it is by now, and why."""


def log_findings(fact: Fact[LogReport], log_group: str, judge: Judge) -> list[Finding]:
    """Return how much of a log was read, and a finding for each cause that it names and each error without one."""
    found = [_coverage_finding(fact, log_group)]
    if isinstance(fact, Unknown):
        return found
    by_cause: dict[str, list[ErrorGroup]] = defaultdict(list)
    for group in fact.value.groups:
        by_cause[group.cause.key if group.cause else group.fingerprint].append(group)
    for groups in by_cause.values():
        severity, verdict = judge(max(groups, key=lambda group: group.last))
        found.append(_error_finding(groups, severity, verdict, fact.value))
    return found


def runs_finding(fact: Fact[JobRuns], stack: Stack, *, now: datetime) -> Finding:
    """Say when the clean-up job ran last and what it did, by its own log; whether it did run at all."""
    source = SEE_RUNS.format(name=stack.cleanup_logs)
    if isinstance(fact, Unknown):
        return unknown("runs", fact, source=source)
    runs = fact.value
    severity = Severity.OK if runs.complete else Severity.UNKNOWN
    cut = "" if runs.complete else f" ({runs.coverage})"
    if not runs.starts:
        summary = f"the log has no start of the clean-up job{cut}"
        severity = Severity.WARNING if runs.complete else severity
        return Finding(check="runs", severity=severity, summary=summary, source=source)
    if now - runs.starts[-1] > MISSED:
        severity = Severity.WARNING
    done = sum(run.cleaned for run in runs.runs)
    failed = sum(run.failed for run in runs.runs)
    told = f"{len(runs.runs)} of them said what they did: {done} cleaned up, {failed} failed"
    last = f"the last {span(now - runs.starts[-1])} ago, at {moment(runs.starts[-1])}"
    summary = f"clean-up job: {len(runs.starts)} starts, {last}; {told}{cut}"
    return Finding(check="runs", severity=severity, summary=summary, source=source)


def _coverage_finding(fact: Fact[LogReport], log_group: str) -> Finding:
    """Say which part of the log was read, and how many errors are in it."""
    source = SEE_LOG.format(name=log_group)
    if isinstance(fact, Unknown):
        return unknown("log", fact, source=source)
    report = fact.value
    kinds = (
        f"{counted(report.errors, 'error')} of {counted(len(report.groups), 'kind')}"
        if report.errors
        else "no errors"
    )
    return Finding(
        check="log",
        severity=Severity.OK if report.complete else Severity.UNKNOWN,
        summary=f"log {report.log_group}: {report.coverage}; {kinds}",
        source=source,
    )


def _error_finding(
    groups: Sequence[ErrorGroup], severity: Severity, verdict: str, report: LogReport
) -> Finding:
    """Say what errors of one cause there were, how often and when, and what the probe that asks for the cause says."""
    cause = groups[0].cause
    count, first = sum(group.count for group in groups), min(group.first for group in groups)
    last = max(group.last for group in groups)
    what = cause.title if cause else "an error that is not known here"
    details = [f"{group.count} × {group.sample}" for group in groups[:_SHOWN]]
    details += [f"and {len(groups) - _SHOWN} more kinds"] if len(groups) > _SHOWN else []
    if cause and severity is not Severity.OK:
        details += [f"means: {cause.meaning}", f"check: {cause.check}"]
    return Finding(
        check="log error",
        severity=severity,
        summary=f"log: {what} ({count} ×, {period(first, last)}): {verdict}",
        evidence={
            "cause": cause.key if cause else None,
            "groups": [_group(group) for group in groups],
            "histogram": [sum(counts) for counts in zip(*(group.histogram for group in groups), strict=True)],
            "window": period(report.begin, report.end),
            "details": details,
            "moments": _moments(what if cause else groups[0].sample, count, (first, last), severity),
        },
        source=SEE_LOG.format(name=report.log_group),
    )


def _moments(what: str, count: int, seen: tuple[datetime, datetime], severity: Severity) -> list[list[Any]]:
    """Return when an error was seen first and last, for a time line; one that is settled was an error all the same."""
    told = ["once"] if count == 1 else [f"the first of {count}", f"the last of {count}"]
    return [
        [at, "log", f"log: {what}: {each}", None if severity is Severity.OK else severity]
        for at, each in zip(seen, told, strict=False)
    ]


def _group(group: ErrorGroup) -> dict[str, Any]:
    return {
        "fingerprint": group.fingerprint,
        "count": group.count,
        "first": group.first,
        "last": group.last,
        "sample": group.sample,
        "sandboxes": list(group.sandboxes),
        "steps": list(group.steps),
    }
