"""What an emergency stop and its resume look at: the flag and its record, the rows, the rule, the service, their tags.

Each is asked for alone and within seconds: whatever is broken must not keep the rest from being stopped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from diagnostics.compute import Rule, Service, read_service
from diagnostics.scaling import Scaling, read_scaling, read_tags
from diagnostics.stack import Stack
from runbooks.engine import lease, stops
from runbooks.engine.model import Action
from runbooks.engine.plan import action_from_json
from runbooks.engine.stops import Marked, Stop
from runbooks.engine.systems import Readers
from runbooks.remedies import stopping
from runbooks.remedies.tags import Kept, RuleBefore, ServiceBefore, decode
from sandbox import registry, schemas
from sandbox.deadline import beside, within
from sandbox.errors import Missing
from sandbox.facts import Fact, Known
from sandbox.facts import gather as gather_facts
from sandbox.model import Sandbox, Status
from sandbox.ports import AwsReader, SqlReader

__all__ = [
    "CLEANUP",
    "PARTS",
    "ROUTER",
    "SANDBOXES",
    "SEE_ROWS",
    "SEE_STOP",
    "Evidence",
    "Raised",
    "gather",
    "read_running",
    "read_stop",
]

CLEANUP, ROUTER, SANDBOXES = "cleanup", "router", "sandboxes"
PARTS = (CLEANUP, ROUTER, SANDBOXES)
"""What a stop takes: the schedule with the flag, the EventRouter's service, the rows of running sandboxes."""

SEE_STOP = 'psql "$DATABASE_URL" -c "SELECT * FROM runbooks.stops ORDER BY raised_at DESC LIMIT 3"'
SEE_ROWS = 'psql "$DATABASE_URL" -c "SELECT id, name, owner FROM public.sandboxes WHERE status = \'running\'"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """A stop that is not lifted, and the sandboxes that it marked: those that can come back, and those that cannot and why."""

    stop: Stop
    waiting: tuple[Marked, ...]
    lost: tuple[tuple[Marked, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen, by `actor`. `running` are the sandboxes that run, each with its schemas.

    `rule` holds no targets: they are not asked for. `scaling` is None where autoscaling does not watch the service. `rule_kept` and
    `service_kept` are what a stop wrote on them.
    """

    now: datetime
    actor: str
    stack: Stack
    raised: Fact[Raised | None]
    running: Fact[tuple[tuple[Sandbox, tuple[str, ...]], ...]]
    rule: Fact[Rule | None]
    service: Fact[Service | None]
    scaling: Fact[Scaling | None]
    rule_kept: Fact[Kept | None]
    service_kept: Fact[Kept | None]

    @property
    def stop(self) -> Stop | None:
        """The stop that is raised, as far as the database tells."""
        return self.raised.value.stop if isinstance(self.raised, Known) and self.raised.value else None

    def disabled_by(self) -> Action | None:
        """The action of a stop that disabled the rule, by the record or the tags on it; None where nothing tells of one."""
        rule = self.rule.value if isinstance(self.rule, Known) else None
        kept = self.rule_kept.value if isinstance(self.rule_kept, Known) else None
        tagged = None
        if rule and kept and isinstance(kept.before, RuleBefore):
            tagged = stopping.disabling(replace(rule, state=kept.before.state), kept.stop)
        return _later(self.recorded(stopping.DisableRule.verb), tagged)

    def stopped_by(self) -> Action | None:
        """The action of a stop that stopped the service, likewise."""
        service = self.service.value if isinstance(self.service, Known) else None
        kept = self.service_kept.value if isinstance(self.service_kept, Known) else None
        tagged = None
        if service and kept and isinstance(kept.before, ServiceBefore):
            before = replace(service, desired=kept.before.desired)
            tagged = stopping.stopping(before, kept.before.scaling, kept.stop, cluster=self.stack.cluster)
        return _later(self.recorded(stopping.StopService.verb), tagged)

    def recorded(self, verb: str) -> Action | None:
        """The action of this verb that the raised stop recorded, if it did."""
        raw: Mapping[str, Any] | None = self.stop.parts.get(verb) if self.stop else None
        return action_from_json(raw) if raw else None


def gather(readers: Readers, *, now: datetime, deadline: float, stack: Stack) -> Evidence:
    """Read everything side by side, bounded by `deadline` seconds.

    PostgreSQL has half of that: while it hangs, what can be stopped in AWS must not wait for it.
    """
    aws, sql, cluster, name = readers.aws, readers.sql, stack.cluster, stack.worker_service
    rule = beside(lambda: _rule(aws, stack.cleanup_rule))
    service = beside(lambda: read_service(aws, cluster=cluster, name=name))
    seen = gather_facts(
        {
            "raised": lambda: within(deadline / 2, lambda: read_stop(sql), "PostgreSQL"),
            "running": lambda: within(deadline / 2, lambda: read_running(sql), "PostgreSQL"),
            "rule": rule,
            "rule_kept": lambda: _kept(aws, rule()),
            "service": service,
            "service_kept": lambda: _kept(aws, service()),
            "scaling": lambda: read_scaling(aws, cluster=cluster, service=name),
        },
        deadline=deadline,
    )
    return Evidence(now=now, actor=lease.actor(), stack=stack, **seen)


def _later(recorded: Action | None, tagged: Action | None) -> Action | None:
    """Of two that may be of different stops, because one of them was made while PostgreSQL was down, the later one.

    If both say the same it is the tags', which are taken away by it.
    """
    if recorded is None or tagged is None:
        return recorded or tagged
    if _said(recorded) == _said(tagged):
        return tagged
    at = datetime.fromisoformat
    return tagged if at(tagged.before["at"]) > at(recorded.before["at"]) else recorded


def _said(action: Action) -> Mapping[str, Any]:
    """How it was before, whoever stopped it."""
    return {name: value for name, value in action.before.items() if name not in ("stop", "by", "at")}


def _kept(aws: AwsReader, bearer: Rule | Service | None) -> Kept | None:
    return decode(read_tags(aws, bearer.arn)) if bearer else None


def read_stop(database: SqlReader) -> Raised | None:
    """Return the stop that is raised, and what it marked. Raises Unreachable or Denied."""
    stop = stops.raised(database)
    if stop is None:
        return None
    with database.snapshot() as snapshot:
        waiting, lost = stops.standing(snapshot, stop.id)
    return Raised(stop=stop, waiting=tuple(waiting), lost=tuple(lost))


def read_running(database: SqlReader) -> tuple[tuple[Sandbox, tuple[str, ...]], ...]:
    """Return the sandboxes that run, each with the schemas that are its alone. Raises Unreachable or Denied."""
    with database.snapshot() as snapshot:
        rows = registry.listing(snapshot, owner=None, statuses=[Status.RUNNING])
        owned = registry.owned_schemas(snapshot, schemas.names(snapshot)) if rows else {}
    return tuple((row, tuple(owned.get(row.id, ()))) for row in rows)


def _rule(aws: AwsReader, name: str) -> Rule | None:
    """Return the rule without its targets: one right less that could be missing in an emergency."""
    try:
        raw = aws.read("events", "describe_rule", Name=name)
    except Missing:
        return None
    return Rule(
        name=name,
        enabled=raw["State"] != "DISABLED",
        schedule=raw.get("ScheduleExpression", ""),
        targets=(),
        arn=raw["Arn"],
        state=raw["State"],
    )
