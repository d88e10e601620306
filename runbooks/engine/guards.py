"""What must hold before anything is changed. Pure: facts in, a verdict out."""

from collections.abc import Iterable
from datetime import datetime

from runbooks.engine.model import Action, Plan, Reversibility, Target, Verdict

__all__ = [
    "MAX_SHARE",
    "MAX_TARGETS",
    "blast_radius",
    "phrases",
    "same_target",
    "still_fresh",
    "targets",
]

MAX_TARGETS = 25
MAX_SHARE = 0.20  # of the sandbox resources that exist
_WORDS = {
    "end session": "end",
    "cancel query": "cancel",
    "enlarge storage": "enlarge",
    "restart service": "restart",
}
"""What is typed for a verb that drops nothing."""


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
    reason = f"{count} targets, {_share(count, total):.0%} of the {total} sandbox resources that exist"
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
        f"{word} {targets(action for action, its in zip(lost, words, strict=True) if its == word)}"
        for word in dict.fromkeys(words)
    )
    return (
        " and ".join(told),
        *(action.resource.id for action in lost if len(lost) == 1 and "sandboxes" not in action.before),
    )


def first_refusal(verdicts: Iterable[Verdict]) -> Verdict | None:
    """Return the first verdict that says no."""
    return next((verdict for verdict in verdicts if not verdict.allowed), None)
