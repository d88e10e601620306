"""What must hold before anything is changed. Pure: facts in, a verdict out."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import dropwhile

from runbooks.engine.model import Action, Plan, Reversibility, Target, Verdict
from runbooks.engine.stops import Stop
from sandbox.text import counted

__all__ = [
    "MAX_SHARE",
    "MAX_TARGETS",
    "blast_radius",
    "first_refusal",
    "named",
    "not_overtaken",
    "not_stopped",
    "permitted",
    "phrases",
    "same_target",
    "still_fresh",
    "targets",
    "urgent",
]

MAX_TARGETS = 25
MAX_SHARE = 0.20  # of the sandbox resources that exist
_WORDS = {
    "end session": "end",
    "cancel query": "cancel",
    "enlarge storage": "enlarge",
    "restart service": "restart",
    "trim audit log": "trim",
}
"""What is typed for a verb that drops nothing."""
_OF_ROWS = frozenset({"trim audit log"})
"""The verbs whose one target is of many rows: how many of them go is typed."""


def same_target(plan: Plan, now: Target) -> Verdict:
    """The environment, account and database are those that the plan was made for."""
    was = plan.environment
    for what in ("name", "account", "region", "database", "fingerprint", "redis", "nats"):
        before, after = getattr(was, what), getattr(now, what)
        if after is None:
            return Verdict(guard="target", allowed=False, reason=f"cannot tell this environment's {what} now")
        if before != after:
            reason = f"the plan was made for {what} {before}, this is {after}"
            return Verdict(guard="target", allowed=False, reason=reason)
    return Verdict(guard="target", allowed=True, reason=f"{now.name}, account {now.account}, {now.database}")


def not_stopped(stop: Stop | None) -> Verdict:
    """No emergency stop is raised that halts what this toolkit does."""
    if stop is None or not stop.halting:
        return Verdict(guard="stop", allowed=True, reason="no emergency stop is raised")
    return Verdict(
        guard="stop",
        allowed=False,
        reason=f"an emergency stop is raised by {stop.by}; `emergency-status` says what resuming would do",
    )


def permitted(plan: Plan, lacking: Mapping[str, Sequence[str]]) -> Verdict:
    """The login has every right that the plan's actions take. `lacking` are those that it has not, by the system's name."""
    told = "; ".join(f"at {system}: {', '.join(words)}" for system, words in lacking.items())
    reason = f"this login lacks rights {told} (deploy/rights/{plan.runbook} has what gives them)"
    return Verdict(guard="rights", allowed=not told, reason=reason if told else "none is lacking")


def urgent(plan: Plan) -> Verdict:
    """An emergency stops all there is, and is held up by no limit."""
    return Verdict(guard="emergency", allowed=True, reason=named(plan.actions))


def named(actions: Iterable[Action]) -> str:
    """Name what is to be done, one after the other."""
    return ", ".join(f"{action.verb} {action.resource.id}" for action in actions)


def not_overtaken(run: str, begun: Sequence[tuple[str, str]], urgent: Collection[str]) -> Verdict:
    """No other emergency procedure was run after this run, as it may have taken back what this would do again.

    `begun` are all runs in their order, each with its runbook.
    """
    runbook = dict(begun).get(run)
    later = dropwhile(lambda each: each[0] != run, begun)
    for name, other in later:
        if other != runbook and other in urgent:
            reason = f"{name} was run since; `emergency-status` says how all stands"
            return Verdict(guard="overtaken", allowed=False, reason=reason)
    return Verdict(guard="overtaken", allowed=True, reason="no other emergency procedure was run since")


def still_fresh(plan: Plan, now: datetime) -> Verdict:
    """The plan has not expired, and was not made in the future."""
    fresh = plan.created_at <= now < plan.expires_at
    reason = f"the plan is valid from {plan.created_at:%H:%M:%S} to {plan.expires_at:%H:%M:%S} UTC"
    return Verdict(guard="fresh", allowed=fresh, reason=reason)


def blast_radius(plan: Plan, max_targets: int | None) -> Verdict:
    """At most 25 targets and 20 % of what exists, or `max_targets` where the operator names a number."""
    count, total = targets(plan.actions), plan.existing
    if plan.undoes:
        return Verdict(guard="blast radius", allowed=True, reason="an undo touches only what its run did")
    if total is None:
        return Verdict(guard="blast radius", allowed=False, reason="cannot tell how many resources exist")
    reason = (
        f"{counted(count, 'target')}, {_share(count, total):.0%} of the {total} sandbox resources that exist"
    )
    if max_targets is not None:
        return Verdict(
            guard="blast radius", allowed=count <= max_targets, reason=f"{reason}; at most {max_targets}"
        )
    allowed = count <= MAX_TARGETS and _share(count, total) <= MAX_SHARE
    limit = (
        ""
        if allowed
        else f"; the limit is {MAX_TARGETS} and {MAX_SHARE:.0%}. --max-targets {count} raises it"
    )
    return Verdict(guard="blast radius", allowed=allowed, reason=reason + limit)


def _share(count: int, total: int) -> float:
    return count / total if total else 1.0


def targets(actions: Iterable[Action]) -> int:
    """Return how many targets actions have: one each, but for one that says itself which sandboxes it takes."""
    return sum(len(action.before.get("sandboxes", ())) or 1 for action in actions)


def phrases(plan: Plan) -> tuple[str, ...]:
    """What may be typed to confirm what cannot be undone: `drop N`, `end N and drop M`, or the only target's own name."""
    lost = [action for action in plan.actions if action.reversibility is Reversibility.IRREVERSIBLE]
    if not lost:
        return ()
    words = [_WORDS.get(action.verb, "drop") for action in lost]
    told = (
        f"{word} {sum(_lost(action) for action, its in zip(lost, words, strict=True) if its == word)}"
        for word in dict.fromkeys(words)
    )
    return (
        " and ".join(told),
        *(action.resource.id for action in lost if len(lost) == 1 and "sandboxes" not in action.before),
    )


def _lost(action: Action) -> int:
    return int(action.before["rows"]) if action.verb in _OF_ROWS else targets([action])


def first_refusal(verdicts: Iterable[Verdict]) -> Verdict | None:
    """Return the first verdict that says no."""
    return next((verdict for verdict in verdicts if not verdict.allowed), None)
