"""Plans: made, saved, read back, proven unedited."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from runbooks.engine.errors import PlanError, Refused
from runbooks.engine.model import Action, Finding, Plan, Resource, Reversibility, Severity, Target
from sandbox.private import make_folder, opened

__all__ = ["as_json", "dumps", "from_json", "load", "make", "save", "seal"]

LIFETIME = timedelta(minutes=30)
_UNSEALED = ("id", "digest")


def make(
    *,
    runbook: str,
    environment: Target,
    now: datetime,
    findings: Sequence[Finding],
    actions: Sequence[Action],
    existing: int | None,
    undoes: str | None = None,
) -> Plan:
    """Return a sealed plan: its digest covers all of it, and its id names the digest."""
    return seal(
        Plan(
            id="",
            runbook=runbook,
            environment=environment,
            created_at=now,
            expires_at=now + LIFETIME,
            findings=tuple(findings),
            actions=tuple(actions),
            existing=existing,
            undoes=undoes,
        )
    )


def seal(plan: Plan) -> Plan:
    """Return the plan with the digest and the id that its content has."""
    content = {key: value for key, value in as_json(plan).items() if key not in _UNSEALED}
    digest = hashlib.sha256(dumps(content).encode()).hexdigest()
    kind = "undo-" if plan.undoes else ""
    return replace(
        plan, digest=digest, id=f"{kind}{plan.runbook}-{plan.created_at:%Y%m%d-%H%M%S}-{digest[:10]}"
    )


def as_json(value: Any) -> Any:
    """Return a plan, finding or action as JSON's own types."""
    return json.loads(dumps(asdict(value)))


def dumps(value: Any) -> str:
    """Write canonical JSON: sorted keys, no spaces, times in ISO 8601."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain, ensure_ascii=True)


def from_json(data: Mapping[str, Any]) -> Plan:
    """Read a plan back. Raises PlanError if it is no plan."""
    try:
        return Plan(
            id=data["id"],
            runbook=data["runbook"],
            environment=Target(**data["environment"]),
            created_at=datetime.fromisoformat(data["created_at"]),
            expires_at=datetime.fromisoformat(data["expires_at"]),
            findings=tuple(_finding(item) for item in data["findings"]),
            actions=tuple(action_from_json(item) for item in data["actions"]),
            existing=data["existing"],
            undoes=data["undoes"],
            digest=data["digest"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(
            f"this is no plan: {error!r}", hint="make a new one by running the runbook again"
        ) from error


def action_from_json(data: Mapping[str, Any]) -> Action:
    """Read an action back."""
    fields = {**data, "resource": Resource(**data["resource"])}
    return Action(**{**fields, "reversibility": Reversibility(data["reversibility"])})


def save(plan: Plan, folder: Path) -> Path:
    """Write a plan where only its owner may read it; return the file."""
    make_folder(folder)
    path = folder / f"{plan.id}.json"
    with os.fdopen(opened(path, os.O_WRONLY | os.O_TRUNC), "w", encoding="utf-8") as file:
        file.write(json.dumps(as_json(plan), indent=1))
    return path


def load(plan_id: str, folder: Path) -> Plan:
    """Read a saved plan. Raises PlanError if there is none of this id, Refused if it was edited."""
    path = folder / f"{Path(plan_id).name}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = sorted((file.stem for file in folder.glob("*.json")), key=lambda name: name[-26:])
        hint = f"the latest is {known[-1]}" if known else "run the runbook first: it makes one"
        raise PlanError(f"there is no plan {plan_id} for this environment", hint=hint) from None
    except ValueError:
        raise Refused(
            f"plan {plan_id} was edited: it is not JSON any more", hint="run the runbook again"
        ) from None
    plan = from_json(data)
    if seal(plan) != plan or plan.id != path.stem:
        raise Refused(f"plan {plan_id} was edited since it was made", hint="run the runbook again")
    return plan


def _finding(data: Mapping[str, Any]) -> Finding:
    resource = Resource(**data["resource"]) if data["resource"] else None
    return Finding(**{**data, "resource": resource, "severity": Severity(data["severity"])})


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
