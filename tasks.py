"""The tasks that an on-call engineer calls. Parse, call, print, exit: nothing else is done here."""

import json as jsonlib
import os
import signal
import sys
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.parser.context import to_flag
from invoke.tasks import task

from runbooks.console import Session
from runbooks.options import Telling, choice, choices, duration, number, one_way, said
from runbooks.screen import asking, calmly, note

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runbooks.engine.distributed import Coordinator
    from runbooks.engine.environment import Environment
    from runbooks.engine.model import Runbook
    from runbooks.engine.operate import Operator
    from runbooks.overview import Overview
    from runbooks.paging import Desk

ROOT = Path(__file__).resolve().parent
LAB_HOME = Path(os.environ.get("RUNBOOKS_LAB", ROOT / ".lab"))
_INCIDENT = "rb-sb-003"  # what the lab has unless another is asked for
_HELP = {
    "env": "the environment, a file under environments/ (or ARRAKIS_ENV)",
    "apply": "confirm and apply the plan in one go",
    "drop": "delete for good instead of putting into quarantine",
    "json": "print one JSON document",
    "max_targets": "raise the blast radius to this many targets",
    "workers": "how many lots are in hand at once, by default as many as the runbook says",
    "idle": "end when no work has come for so many seconds; 0: never",
    "timeout": "seconds that the diagnosis and each call may take",
    "yes": "do not ask (outside production, and only for what can be undone)",
    "orphaned": "also put into quarantine what no sandbox owns and nobody uses (or CLEANUP_ORPHANED=true)",
    "via": "library (this toolkit, one by one) or ecs (the deployed task, watched to its end)",
    "drop_object": "an object outside of a sandbox's schema that may be dropped, by name; may be repeated",
    "guild": "a guild's id: follow the way that its events take, hop by hop",
    "sandbox": "a sandbox's name: look at this one in particular",
    "canary": "publish a test event to the sandbox for real, and look for it (asks first)",
    "probe": "create and drop a schema for real, and time it (asks first)",
    "keep": "how long audit rows are kept: hours, days or weeks, such as 90d",
    "archive": "a folder, or s3://bucket/prefix: what is trimmed goes there at first, and can be put back",
    "incident": "put what comes of it on this PagerDuty incident's timeline: its id, or its page's address",
    "acknowledge": "acknowledge the incident once all is applied and verified",
    "resolve_when_healthy": "resolve it once all is applied and verified, and one more look finds everything healthy",
    "only": "part of it alone, with commas between (see the task's own text)",
    "owner": "what is of this owner alone",
    "older_than": "what has been over for so long, such as 2d",
    "except_": "all but these, by name, id or schema, with commas between",
    "limit": "so many at most, the oldest first",
    "reason": "why, for those who find it stopped",
    "distributed": "lay the plan's actions on the work queue, for `cleanup-worker` on any hosts",
    "watch": "follow a distributed run, the latest or the one named; changes nothing",
    "alone": "do what is left of a distributed run here, without the queue",
    "report": "also write the result as HTML, Markdown and JSON into this folder",
}
_OUTPUT = ("env", "json", "timeout", "report", "incident")
_CHANGE = (*_OUTPUT, "yes")
_RUNBOOK = (*_CHANGE, "apply", "max_targets", "acknowledge", "resolve_when_healthy")


def _help(*names: str) -> dict[str, str]:
    return {name.replace("_", "-"): _HELP[name] for name in names}


@task(name="rb-sb-001", auto_shortflags=False, help=_help("via", *_RUNBOOK))
def rb_sb_001(
    c: Context,
    env: str = "",
    apply: bool = False,
    via: str = "library",
    json: bool = False,
    max_targets: str = "",
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
    incident: str = "",
    acknowledge: bool = False,
    resolve_when_healthy: bool = False,
) -> None:
    """Too many sandboxes: say why and whose; propose to clean up those that are over."""
    session = Session(
        "rb-sb-001",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(
            incident=incident,
            acknowledge=acknowledge,
            resolve=resolve_when_healthy,
            said=said(via="" if via == "library" else via),
        ),
    )
    session.diagnose(
        lambda: _runbooks()["rb-sb-001"],
        apply=apply,
        yes=yes,
        max_targets=max_targets,
        options=lambda: {"via": choice("--via", via, ("library", "ecs"))},
    )


@task(
    name="rb-sb-002",
    auto_shortflags=False,
    iterable=["drop_object"],
    help=_help("via", "drop_object", *_RUNBOOK),
)
def rb_sb_002(
    c: Context,
    drop_object: list[str],
    env: str = "",
    apply: bool = False,
    via: str = "library",
    json: bool = False,
    max_targets: str = "",
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
    incident: str = "",
    acknowledge: bool = False,
    resolve_when_healthy: bool = False,
) -> None:
    """Clean-ups fail: say which, at which step and why; propose to try them again."""
    session = Session(
        "rb-sb-002",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(
            incident=incident,
            acknowledge=acknowledge,
            resolve=resolve_when_healthy,
            said=said(via="" if via == "library" else via, drop_object=drop_object),
        ),
    )
    session.diagnose(
        lambda: _runbooks()["rb-sb-002"],
        apply=apply,
        yes=yes,
        max_targets=max_targets,
        options=lambda: {"via": choice("--via", via, ("library", "ecs")), "objects": tuple(drop_object)},
    )


@task(name="rb-sb-003", auto_shortflags=False, help=_help("drop", *_RUNBOOK))
def rb_sb_003(
    c: Context,
    env: str = "",
    apply: bool = False,
    drop: bool = False,
    json: bool = False,
    max_targets: str = "",
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
    incident: str = "",
    acknowledge: bool = False,
    resolve_when_healthy: bool = False,
) -> None:
    """Find orphaned schemas and keys; propose to put them into quarantine."""
    session = Session(
        "rb-sb-003",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(
            incident=incident, acknowledge=acknowledge, resolve=resolve_when_healthy, said=said(drop=drop)
        ),
    )
    session.diagnose(
        lambda: _runbooks()["rb-sb-003"],
        apply=apply,
        yes=yes,
        max_targets=max_targets,
        options=lambda: {"drop": drop},
    )


@task(name="rb-sb-004", auto_shortflags=False, help=_help("guild", "sandbox", "canary", *_RUNBOOK))
def rb_sb_004(
    c: Context,
    guild: str | None = None,
    sandbox: str | None = None,
    canary: bool = False,
    env: str = "",
    apply: bool = False,
    json: bool = False,
    max_targets: str = "",
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
    incident: str = "",
    acknowledge: bool = False,
    resolve_when_healthy: bool = False,
) -> None:
    """Events do not reach sandboxes: say where they are lost; propose to mend routes, streams or the router."""
    session = Session(
        "rb-sb-004",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(
            incident=incident,
            acknowledge=acknowledge,
            resolve=resolve_when_healthy,
            said=said(guild=guild, sandbox=sandbox),
        ),
    )
    session.diagnose(
        lambda: _runbooks()["rb-sb-004"],
        apply=apply,
        yes=yes,
        max_targets=max_targets,
        options=lambda: one_way(guild=guild, sandbox=sandbox, canary=canary),
        about=lambda: {"guild": guild, "sandbox": sandbox},
        trial=canary,
    )


@task(name="rb-sb-005", auto_shortflags=False, help=_help("probe", *_RUNBOOK))
def rb_sb_005(
    c: Context,
    probe: bool = False,
    env: str = "",
    apply: bool = False,
    json: bool = False,
    max_targets: str = "",
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
    incident: str = "",
    acknowledge: bool = False,
    resolve_when_healthy: bool = False,
) -> None:
    """Schemas cannot be created: say whether connections, disk, rights or the migration; propose what mends it."""
    session = Session(
        "rb-sb-005",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(incident=incident, acknowledge=acknowledge, resolve=resolve_when_healthy),
    )
    session.diagnose(
        lambda: _runbooks()["rb-sb-005"], apply=apply, yes=yes, max_targets=max_targets, trial=probe
    )


@task(name="rb-sb-006", auto_shortflags=False, help=_help("sandbox", *_RUNBOOK))
def rb_sb_006(
    c: Context,
    sandbox: str | None = None,
    env: str = "",
    apply: bool = False,
    json: bool = False,
    max_targets: str = "",
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
    incident: str = "",
    acknowledge: bool = False,
    resolve_when_healthy: bool = False,
) -> None:
    """`gaib sandbox status` is slow: say which step and why; propose indexes, statistics, or ending a blocker."""
    session = Session(
        "rb-sb-006",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(
            incident=incident,
            acknowledge=acknowledge,
            resolve=resolve_when_healthy,
            said=said(sandbox=sandbox),
        ),
    )
    session.diagnose(
        lambda: _runbooks()["rb-sb-006"],
        apply=apply,
        yes=yes,
        max_targets=max_targets,
        about=lambda: {"sandbox": sandbox},
    )


@task(
    name="database-maintenance",
    auto_shortflags=False,
    help=_help("keep", "archive", "apply", "max_targets", *_CHANGE),
)
def database_maintenance(
    c: Context,
    keep: str = "90d",
    archive: str = "",
    env: str = "",
    apply: bool = False,
    json: bool = False,
    max_targets: str = "",
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
    incident: str = "",
) -> None:
    """Monthly: trim the audit log of what is old, and vacuum the control tables."""
    session = Session(
        "database-maintenance",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(incident=incident, said=said(keep=keep, archive=archive)),
    )
    session.diagnose(
        lambda: _runbooks()["database-maintenance"],
        apply=apply,
        yes=yes,
        max_targets=max_targets,
        about=lambda: {
            "keep": duration("--keep", keep),
            "archive": archive,
            "environment": session.named,
        },
    )


@task(name="emergency-stop", auto_shortflags=False, help=_help("only", "reason", *_CHANGE))
def emergency_stop(
    c: Context,
    only: str = "",
    reason: str = "",
    env: str = "",
    json: bool = False,
    timeout: str = "3",
    yes: bool = False,
    report: str = "",
    incident: str = "",
) -> None:
    """STOP clean-ups, the EventRouter and all sandboxes, once confirmed; emergency-resume takes it back."""
    session = Session(
        "emergency-stop",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(incident=incident, said=said(only=only, reason=reason)),
    )
    session.diagnose(
        lambda: _runbooks()["emergency-stop"],
        apply=True,
        yes=yes,
        max_targets="",
        options=lambda: {"parts": choices("--only", only, _parts()), "reason": reason},
    )


@task(name="emergency-resume", auto_shortflags=False, help=_help("only", *_CHANGE))
def emergency_resume(
    c: Context,
    only: str = "",
    env: str = "",
    json: bool = False,
    timeout: str = "3",
    yes: bool = False,
    report: str = "",
    incident: str = "",
) -> None:
    """Take an emergency stop back, once confirmed: all as it was, but for what somebody changed since."""
    session = Session(
        "emergency-resume",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(incident=incident, said=said(only=only)),
    )
    session.diagnose(
        lambda: _runbooks()["emergency-resume"],
        apply=True,
        yes=yes,
        max_targets="",
        options=lambda: {"parts": choices("--only", only, _parts())},
    )


@task(name="emergency-status", auto_shortflags=False, help=_help(*_OUTPUT))
def emergency_status(
    c: Context, env: str = "", json: bool = False, timeout: str = "3", report: str = "", incident: str = ""
) -> None:
    """Say what is stopped, by whom and since when, and what resuming would do. Changes nothing."""
    session = Session(
        "emergency-status",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(incident=incident),
    )
    session.diagnose(lambda: _runbooks()["emergency-resume"], apply=False, yes=False, max_targets="")


@task(
    name="mass-cleanup",
    auto_shortflags=False,
    optional=["watch"],
    help={
        **_help("only", "owner", "older_than", "limit", "distributed", "watch"),
        **_help("env", "apply", "json", "max_targets"),
        "except": _HELP["except_"],
        **_help("timeout", "yes", "report", "incident"),
    },
)
def mass_cleanup(
    c: Context,
    only: str = "",
    owner: str = "",
    older_than: str = "",
    except_: str = "",
    limit: str = "",
    distributed: bool = False,
    watch: str | None = None,
    env: str = "",
    apply: bool = False,
    json: bool = False,
    max_targets: str = "",
    timeout: str = "30",
    yes: bool = False,
    report: str = "",
    incident: str = "",
) -> None:
    """Plan to take away, by the thousand, what is over: expired, stuck; and to put remains and orphans into quarantine."""

    def choice_made() -> dict[str, Any]:
        from runbooks.mass.candidates import GROUPS, Choice

        made = Choice(
            groups=choices("--only", only, GROUPS),
            owner=owner,
            older_than=duration("--older-than", older_than) if older_than else None,
            spared=tuple(filter(None, map(str.strip, except_.split(",")))),
            limit=number("--limit", limit),
        )
        return {"choice": made}

    if watch is not None:
        Session("watch", env=env, json=json, timeout=timeout).follow(
            lambda operator: _latest(operator) if watch in (True, "") else watch
        )
        return
    session = Session(
        "mass-cleanup",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(
            incident=incident,
            said=said(
                only=only,
                owner=owner,
                older_than=older_than,
                except_=except_,
                limit=limit,
                distributed=distributed,
            ),
        ),
    )
    session.diagnose(
        lambda: _runbooks()["mass-cleanup"],
        apply=apply,
        yes=yes,
        max_targets=max_targets,
        options=choice_made,
        distributed=distributed,
    )


@task(
    auto_shortflags=False,
    help={
        "incident": "a PagerDuty incident: its id, or its page's address",
        "alarm": "a CloudWatch alarm's name, where there is no incident",
        **_help("env", "json", "timeout"),
    },
)
def triage(
    c: Context,
    incident: str = "",
    alarm: str = "",
    env: str = "",
    json: bool = False,
    timeout: str = "10",
) -> None:
    """From a PagerDuty incident, or an alarm, to its diagnosis; changes nothing but the incident's timeline."""
    _desk("triage", env, json, timeout).triage(incident, alarm)


@task(name="pagerduty-flush", auto_shortflags=False, help=_help("env", "json", "timeout"))
def pagerduty_flush(c: Context, env: str = "", json: bool = False, timeout: str = "10") -> None:
    """Send what waits on this host for PagerDuty's timelines."""
    _desk("pagerduty-flush", env, json, timeout).flush()


@task(
    auto_shortflags=False,
    help={
        "host": "the address to serve on",
        "port": "the port to serve on",
        "limit": "how many deliveries may wait before more are refused",
        "workers": "how many diagnoses are made at once",
        **_help("env", "timeout"),
    },
)
def webhook(
    c: Context,
    host: str = "127.0.0.1",
    port: str = "8080",
    limit: str = "1000",
    workers: str = "2",
    env: str = "",
    timeout: str = "10",
) -> None:
    """Serve PagerDuty's webhooks and buttons, and alarms from SNS and EventBridge. It diagnoses, and applies nothing."""
    _desk("webhook", env, False, timeout).serve(host, port, limit, workers)


@task(
    auto_shortflags=False,
    help={
        "only": "sections alone, with commas between: rb-sb-001 … rb-sb-006, quarantine, emergency, maintenance",
        "since": "compare with the last audit, with one by its id or file, or with none",
        "fail_on": "end with 2 from what severity on: warning or critical",
        **_help("env", "json", "timeout", "report"),
    },
)
def audit(
    c: Context,
    only: str = "",
    since: str = "last",
    fail_on: str = "warning",
    env: str = "",
    json: bool = False,
    timeout: str = "10",
    report: str = "",
) -> None:
    """Look at everything at once: what is wrong, what is proposed, what has changed since the last audit."""
    _overview("audit", env, json, timeout, report).audit(only=only, since=since, fail_on=fail_on)


@task(auto_shortflags=False, help=_help("env", "json", "timeout"))
def doctor(c: Context, env: str = "", json: bool = False, timeout: str = "10") -> None:
    """Is this machine ready: credentials, reach and rights for every system, versions, clock. Before the pager goes off."""
    _overview("doctor", env, json, timeout).doctor()


@task(name="journal-verify", auto_shortflags=False, help=_help("env", "json", "timeout"))
def journal_verify(c: Context, env: str = "", json: bool = False, timeout: str = "10") -> None:
    """Was the journal changed: its chain, against its copies in PostgreSQL and, where set up, CloudWatch Logs."""
    _overview("journal-verify", env, json, timeout).verify()


@task(auto_shortflags=False, help={"runbook": "which one, such as rb-sb-003"})
def explain(c: Context, runbook: str) -> None:
    """Show a runbook's page: when it is for, what it looks at, what it may change, how to undo it."""
    _overview("explain").explain(runbook, usage_of)


@task(auto_shortflags=False, help={"check": "only say which pages are not as they should be"})
def docs(c: Context, check: bool = False) -> None:
    """Write the runbooks' pages into docs/runbooks/."""
    _overview("docs").docs(usage_of, check=check)


@task(name="purge-quarantine", auto_shortflags=False, help=_help("apply", "max_targets", *_OUTPUT))
def purge_quarantine(
    c: Context,
    env: str = "",
    apply: bool = False,
    json: bool = False,
    max_targets: str = "",
    timeout: str = "10",
    report: str = "",
    incident: str = "",
) -> None:
    """Plan to delete for good what has been in quarantine over 72 hours."""
    session = Session(
        "purge-quarantine",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(incident=incident),
    )
    session.diagnose(lambda: _runbooks()["purge-quarantine"], apply=apply, yes=False, max_targets=max_targets)


@task(
    name="apply",
    auto_shortflags=False,
    help={
        "plan": "the plan's id",
        **_help("distributed", "max_targets", "acknowledge", "resolve_when_healthy", *_CHANGE),
    },
)
def apply_plan(
    c: Context,
    plan: str,
    distributed: bool = False,
    env: str = "",
    json: bool = False,
    max_targets: str = "",
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
    incident: str = "",
    acknowledge: bool = False,
    resolve_when_healthy: bool = False,
) -> None:
    """Apply a saved plan exactly, once."""

    def work(operator: "Operator") -> Any:
        saved = operator.saved(plan)
        limit = number("--max-targets", max_targets)
        return operator.apply(saved, _runbooks()[saved.runbook], ask=asking(yes), max_targets=limit)

    def hand_over(operator: "Operator", coordinator: "Coordinator") -> "tuple[str, Runbook]":
        saved = operator.saved(plan)
        limit, runbook = number("--max-targets", max_targets), _runbooks()[saved.runbook]
        return coordinator.start(saved, runbook, ask=asking(yes), max_targets=limit), runbook

    session = Session(
        "apply",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(incident=incident, acknowledge=acknowledge, resolve=resolve_when_healthy),
    )
    if distributed:
        session.hand_over(hand_over)
    else:
        session.change(work)


@task(
    auto_shortflags=False,
    help={
        "run": "the run's id",
        **_help("alone", "acknowledge", "resolve_when_healthy", *_CHANGE),
    },
)
def resume(
    c: Context,
    run: str,
    alone: bool = False,
    env: str = "",
    json: bool = False,
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
    incident: str = "",
    acknowledge: bool = False,
    resolve_when_healthy: bool = False,
) -> None:
    """Take up an interrupted run where it stopped; what was on the work queue goes there again."""
    session = Session(
        "resume",
        env=env,
        json=json,
        timeout=timeout,
        report=report,
        telling=Telling(incident=incident, acknowledge=acknowledge, resolve=resolve_when_healthy),
    )
    session.resume(run, _runbooks, yes=yes, alone=alone)


@task(auto_shortflags=False, help={"run": "the run's id", **_help(*_CHANGE)})
def undo(
    c: Context,
    run: str,
    env: str = "",
    json: bool = False,
    timeout: str = "10",
    yes: bool = False,
    report: str = "",
    incident: str = "",
) -> None:
    """Give back what a run took away."""
    session = Session(
        "undo", env=env, json=json, timeout=timeout, report=report, telling=Telling(incident=incident)
    )
    session.change(lambda operator: operator.undo(run, _runbooks(), ask=asking(yes)))


@task(auto_shortflags=False, help=_help("env", "json"))
def history(c: Context, env: str = "", json: bool = False) -> None:
    """List the runs made from this host, the latest last."""
    from runbooks.reports import runs

    Session("history", env=env, json=json).look(lambda operator: runs.history(operator.journal.entries()))


@task(auto_shortflags=False, help={"run": "the run's id", **_help("env", "json")})
def show(c: Context, run: str, env: str = "", json: bool = False) -> None:
    """Show what one run did, record by record."""
    from runbooks.reports import runs

    Session("show", env=env, json=json).look(lambda operator: runs.show(operator.records(run)))


@task(auto_shortflags=False, help=_help("env", "orphaned", "timeout"))
def cleanup(c: Context, env: str = "", orphaned: bool = False, timeout: str = "10") -> None:
    """Scheduled job: take away sandboxes that are over, stuck, or left remains."""

    def job(target: "Callable[[], Environment]", named: str, seconds: float) -> int:
        from runbooks import jobs

        return jobs.cleanup(target, named=named, orphaned=orphaned, timeout=seconds)

    Session("cleanup", env=env, json=False, timeout=timeout).job(job)


@task(name="cleanup-worker", auto_shortflags=False, help=_help("workers", "idle", "env", "json", "timeout"))
def cleanup_worker(
    c: Context,
    workers: str = "",
    idle: str = "60",
    env: str = "",
    json: bool = False,
    timeout: str = "10",
) -> None:
    """Take a distributed clean-up's work off the queue, until none comes; on as many hosts as you like."""

    def work(target: "Callable[[], Environment]", _: str, seconds: float) -> int:
        from runbooks.engine.crew import Crew
        from runbooks.engine.distributed import work_queue
        from runbooks.engine.operate import Operator

        lots, patience = number("--workers", workers), 0 if idle == "0" else number("--idle", idle) or 60
        operator = Operator(target(), timeout=seconds, progress=lambda *_: None, tell=note)
        queue = work_queue(operator.environment, timeout=seconds)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is in hand is finished
        tally = Crew(operator, queue, _runbooks(), tell=note, idle=patience, workers=lots).work()
        print(jsonlib.dumps(tally.document(), indent=1) if json else tally)
        return int(tally.exit)

    Session("cleanup-worker", env=env, json=json, timeout=timeout).job(work)


@task(name="orphan-detection", auto_shortflags=False, help=_help("env", "timeout"))
def orphan_detection(c: Context, env: str = "", timeout: str = "30") -> None:
    """Scheduled job: name what no sandbox owns, and publish how much it is. Read only."""

    def job(target: "Callable[[], Environment]", _: str, seconds: float) -> int:
        from runbooks import jobs

        return jobs.orphan_detection(target, timeout=seconds)

    Session("orphan-detection", env=env, json=False, timeout=timeout).job(job)


@task(name="publish-metrics", auto_shortflags=False, help=_help("env", "timeout"))
def publish_metrics(c: Context, env: str = "", timeout: str = "30") -> None:
    """Scheduled job: publish the metrics that the alarms watch."""

    def job(target: "Callable[[], Environment]", _: str, seconds: float) -> int:
        from runbooks import jobs

        return jobs.publish_metrics(target, timeout=seconds)

    Session("publish-metrics", env=env, json=False, timeout=timeout).job(job)


@task(auto_shortflags=False, help={"incident": "the incident to lay out; another one starts the lab afresh"})
def lab(c: Context, incident: str = "") -> None:
    """Start the lab, real servers with an incident, and point the tasks that follow at it."""

    def start() -> None:
        from lab import control

        wanted = incident or _INCIDENT
        running = control.start(LAB_HOME, progress=note)
        if incident and running.incidents not in ((), (incident,)):
            control.summary(incident)  # one that there is not leaves the lab as it is
            note(f"LAB: it has {', '.join(running.incidents)}: starting afresh")
            control.reset(LAB_HOME)
            running = control.start(LAB_HOME, progress=note)
        if not running.incidents:
            note(f"LAB: laying out {wanted}: {control.summary(wanted)}")
            running = control.lay_out(running, wanted)
        for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
            os.environ.pop(variable, None)
        os.environ.update(running.env)
        os.environ.update(ARRAKIS_ENV="lab", RUNBOOKS_STATE_DIR=str(LAB_HOME / "state"))
        note("LAB: everything below concerns the lab")

    calmly(start)


@task(name="lab-relieve", auto_shortflags=False)
def lab_relieve(c: Context) -> None:
    """Remove the cause of the lab's incident, and let the schedule's next run happen."""

    def relieve() -> None:
        from lab import control

        running = control.status(LAB_HOME)
        if running is None:
            raise control.LabError("the lab is not running: `lab` starts it")
        for name in running.incidents:
            control.relieve(running, name)
            print(f"LAB: {name} is relieved of its cause")

    calmly(relieve)


@task(name="lab-status", auto_shortflags=False, help=_help("json"))
def lab_status(c: Context, json: bool = False) -> None:
    """Say whether the lab is up, and the variables that point any tool at it."""

    def status() -> None:
        from lab import control

        running = control.status(LAB_HOME)
        if json:
            state = {"running": running is not None, "env": dict(running.env) if running else {}}
            print(jsonlib.dumps(state | ({"versions": dict(running.versions)} if running else {}), indent=1))
        elif running is None:
            print("LAB: not running. `lab` starts it.")
        else:
            note(f"LAB: running since {running.started_at}, pid {running.pid}")  # `eval` takes the rest
            print("\n".join(f"export {name}={value}" for name, value in sorted(running.env.items())))

    calmly(status)


@task(name="lab-down", auto_shortflags=False)
def lab_down(c: Context) -> None:
    """Stop the lab's servers. The next `lab` starts afresh."""

    def stop() -> None:
        from lab import control

        print("LAB: stopped" if control.stop(LAB_HOME) else "LAB: was not running")

    calmly(stop)


@task(name="lab-reset", auto_shortflags=False, help={"yes": "do not ask"})
def lab_reset(c: Context, yes: bool = False) -> None:
    """Stop the lab and delete its data; the next `lab` lays everything out anew."""

    def reset() -> None:
        from lab import control
        from runbooks.engine.errors import Refused

        if not yes:
            raise Refused("lab-reset deletes the lab's data", hint="say --yes")
        control.reset(LAB_HOME)
        print("LAB: reset")

    calmly(reset)


@task(name="test", auto_shortflags=False, help={"soak": "also the long ones", "args": "more for pytest"})
def run_tests(c: Context, soak: bool = False, args: str = "") -> None:
    """Run the tests on the lab's servers."""
    os.chdir(ROOT)
    chosen = ["-m", "soak or not soak"] if soak else ["-m", "not soak"]
    # A file's tests share a lab, so they stay together; three workers, as tests also wait for deadlines. In the order of the
    # folders, so that the long ones come first and nobody waits for one of them at the end.
    spread = ["-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"]
    # The tests start hundreds of Pythons; each would compile all that it imports, moto too, where nothing compiled is kept.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *spread, *chosen, *args.split()])


@task(
    auto_shortflags=False,
    help={
        "only": "these lines alone, with commas between, such as start_up,log_grouping",
        "rounds": "how often each way is taken",
        "small": "a tenth of everything, to see that it works; nothing is kept",
    },
)
def bench(c: Context, only: str = "", rounds: int = 5, small: bool = False) -> None:
    """Measure beside what a person would use instead, and write bench/RESULTS.md; takes half an hour."""
    os.chdir(ROOT)
    given = [*filter(None, only.split(",")), f"--rounds={rounds}", *(["--small"] if small else [])]
    os.execv(sys.executable, [sys.executable, "-m", "bench", *given])


def _desk(name: str, env: str, json: bool, timeout: str) -> "Desk":
    from runbooks.paging import Desk

    return Desk(name, env=env, json=json, timeout=timeout)


def _overview(
    name: str, env: str = "", json: bool = False, timeout: str = "10", report: str = ""
) -> "Overview":
    from runbooks.overview import Overview

    return Overview(name, env=env, json=json, timeout=timeout, report=report)


def usage_of(name: str) -> list[tuple[str, str]]:
    """Return a task's options, each with what it is for; none where there is no such task."""
    if name not in namespace.tasks:
        return []
    arguments = deepcopy(
        namespace.tasks[name]
    ).get_arguments()  # it forgets what each is for once it was asked
    return [(to_flag(each.name), each.help or "") for each in arguments]


def _latest(operator: "Operator") -> str:
    from runbooks.engine.standing import latest_run

    return latest_run(operator.sql, "mass-cleanup")


def _parts() -> tuple[str, ...]:
    from runbooks.emergency.evidence import PARTS

    return PARTS


def _runbooks() -> "Mapping[str, Runbook]":
    from runbooks.catalogue import RUNBOOKS

    return RUNBOOKS


_GROUPS = (
    (
        "Woken by an alarm",
        (triage, rb_sb_001, rb_sb_002, rb_sb_003, rb_sb_004, rb_sb_005, rb_sb_006),
    ),
    ("Stop everything", (emergency_stop, emergency_status, emergency_resume)),
    ("Carry out a plan, or take it back", (apply_plan, resume, undo, history, show)),
    ("Look, and change nothing", (audit, doctor, explain, journal_verify)),
    ("Clean up and maintain", (mass_cleanup, purge_quarantine, database_maintenance, cleanup_worker)),
    ("PagerDuty", (webhook, pagerduty_flush)),
    ("Scheduled jobs", (cleanup, orphan_detection, publish_metrics)),
    ("Practise, at no risk", (lab, lab_status, lab_relieve, lab_down, lab_reset)),
    ("Develop", (run_tests, bench, docs)),
)
namespace = Collection(*(each for _, group in _GROUPS for each in group))
namespace.configure({"groups": [(title, [each.name for each in group]) for title, group in _GROUPS]})
