"""RB-SB-005: Schemas cannot be created."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from diagnostics.alarms import Alarm, read_alarm
from diagnostics.stack import Stack
from runbooks.engine.model import Action, Finding, Runbook
from runbooks.engine.systems import Readers
from runbooks.findings import alarm_finding
from runbooks.remedies import remedies
from sandbox.facts import Fact
from sandbox.facts import gather as gather_facts

__all__ = ["RUNBOOK", "Facts", "diagnose", "gather", "propose"]

ALARM = "sandbox-schema-failures"
WINDOW = timedelta(hours=6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was seen."""

    now: datetime
    stack: Stack
    alarm: Fact[Alarm | None]


def gather(readers: Readers, *, now: datetime, deadline: float, stack: Stack) -> Facts:
    """Read everything side by side, within `deadline` seconds."""
    probes = {
        "alarm": lambda: read_alarm(
            readers.aws, suffix=ALARM, prefix=stack.alarm_prefix, now=now, window=WINDOW
        )
    }
    return Facts(now=now, stack=stack, **gather_facts(probes, deadline=deadline))


def diagnose(facts: Facts) -> list[Finding]:
    """Say what is wrong. Pure."""
    return [alarm_finding(facts.alarm, suffix=ALARM, confirmed=False, cleared="")]


def propose(facts: Facts) -> tuple[list[Action], list[Finding]]:
    """Return what would mend it. Pure."""
    return [], []


def existing(facts: Facts) -> int | None:
    """How many resources exist; None when unknown."""
    return None


RUNBOOK = Runbook(
    name="rb-sb-005",
    title="Schemas cannot be created",
    gather=gather,
    diagnose=diagnose,
    propose=propose,
    existing=existing,
    remedies=remedies,
)
