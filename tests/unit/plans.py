"""Small plans for tests."""

from datetime import UTC, datetime
from typing import Any

from runbooks.engine import plan as plans
from runbooks.engine.model import Action, Finding, Plan, Resource, Reversibility, Severity, Target

__all__ = ["FINDING", "NOW", "TARGET", "action", "plan"]

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TARGET = Target(
    name="staging",
    account="123456789012",
    region="eu-west-1",
    database="db:5432/app",
    fingerprint="f1",
    redis="r:6379/0",
    nats="n:4222",
)
FINDING = Finding(
    check="orphaned schema",
    severity=Severity.WARNING,
    summary="schema x is an orphan",
    resource=Resource(kind="schema", id="x"),
    evidence={"since": NOW, "points": ((NOW, 1.5),), "threshold": 5, "owner": None},
    source="psql",
)


def action(number: int, *, lost: bool = False) -> Action:
    """Return the action `a{number}` on the thing `t{number}`."""
    return Action(
        id=f"a{number}",
        verb="flip",
        resource=Resource(kind="thing", id=f"t{number}"),
        before={"keys": number},
        after={} if lost else {"flipped": True},
        reason="it is not flipped",
        reversibility=Reversibility.IRREVERSIBLE if lost else Reversibility.REVERSIBLE,
    )


def plan(count: int = 3, *, existing: int | None = 100, lost: int = 0, **changes: Any) -> Plan:
    """Return a sealed plan of `count` actions, the first `lost` of them irreversible."""
    fields: dict[str, Any] = {
        "runbook": "rb-test",
        "environment": TARGET,
        "now": NOW,
        "findings": (FINDING,),
        "actions": [action(number, lost=number <= lost) for number in range(1, count + 1)],
        "existing": existing,
    }
    return plans.make(**{**fields, **changes})
