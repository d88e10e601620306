"""What is proposed for orphans: to put them into quarantine, or to delete them for good; never what somebody uses. Pure."""

from collections.abc import Callable
from dataclasses import replace

from runbooks.engine.model import Action, Finding, Resource, Reversibility
from runbooks.findings import left_alone
from runbooks.orphaned.evidence import Facts, Orphans, orphaned, sources
from sandbox.facts import Known, Unknown
from sandbox.model import Schema
from sandbox.naming import quarantined_schema, stamp_of, token_of_schema
from sandbox.orphans import Placement
from sandbox.usage import Usage

__all__ = ["judge", "propose"]

Judged = tuple[Placement, Action, str | None]
"""An orphan, the action for it, whose id is the caller's to give, and why it must be left alone, if it must."""


def propose(facts: Facts, *, drop: bool = False) -> tuple[list[Action], list[Finding]]:
    """Return an action for each orphan that nobody uses, and a finding for each that is left alone. Pure."""
    judged = judge(facts, drop=drop)
    going = [action for _, action, reason in judged if reason is None]
    left = [_left_alone(action.resource, reason) for _, action, reason in judged if reason is not None]
    return [replace(action, id=f"a{number}") for number, action in enumerate(going, 1)], left


def judge(facts: Facts, *, drop: bool = False) -> list[Judged]:
    """Return every orphan with the action for it, and whether it must be left alone. Pure."""
    orphans, why_not = Orphans.of(facts), _judge(facts)
    judged: list[Judged] = []
    for schema, where in orphaned(orphans.schemas):
        reason = why_not(token_of_schema(schema.name) or "", schema.name)
        judged.append((where, _schema_action(schema, where, facts, drop), reason))
    for keys, where in orphaned(orphans.families):
        reason = why_not(where.name, f"sandbox_{where.name}")
        judged.append((where, _keys_action(keys, where, facts, drop), reason))
    return judged


def _judge(facts: Facts) -> Callable[[str, str], str | None]:
    """Return who says why an orphan must be left alone. What an answer rests on and is unknown is a reason."""
    for name, fact in sources(facts):
        if isinstance(fact, Unknown):
            reason = f"cannot tell whether it is in use: {name} unknown ({fact.reason})"
            return lambda *_: reason
    assert isinstance(facts.uses, Known)  # each is known, or the loop above would have returned
    assert isinstance(facts.families, Known)
    assert isinstance(facts.listeners, Known)
    usage = Usage(
        sessions=facts.uses.value.sessions,
        families=facts.families.value,
        subscriptions=facts.listeners.value,
    )

    def why_not(token: str, schema: str) -> str | None:
        user = usage.of(token, schema)
        return f"in use: {user}" if user else None

    return why_not


def _left_alone(resource: Resource, reason: str) -> Finding:
    return left_alone(f"{resource.kind} {resource.id} is left alone", reason, resource=resource)


def _schema_action(schema: Schema, where: Placement, facts: Facts, drop: bool) -> Action:
    return Action(
        id="",
        verb="drop schema" if drop else "quarantine schema",
        resource=Resource(kind="schema", id=schema.name),
        before={
            "name": schema.name,
            "oid": schema.oid,
            "bytes": schema.bytes,
            "rows": schema.rows_estimate,
            "writes": schema.writes,
        },
        after={} if drop else {"name": quarantined_schema(schema.name, facts.now)},
        reason=where.reason,
        reversibility=Reversibility.IRREVERSIBLE if drop else Reversibility.REVERSIBLE,
    )


def _keys_action(keys: int, where: Placement, facts: Facts, drop: bool) -> Action:
    return Action(
        id="",
        verb="delete keys" if drop else "quarantine keys",
        resource=Resource(kind="keys", id=where.name),
        before={"token": where.name, "keys": keys},
        after={} if drop else {"stamp": stamp_of(facts.now)},
        reason=where.reason,
        reversibility=Reversibility.IRREVERSIBLE if drop else Reversibility.REVERSIBLE,
    )
