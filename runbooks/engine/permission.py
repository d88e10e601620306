"""Whether a login may do all that a plan takes, asked of every system before anything is changed; and what the engine itself takes."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Any

from diagnostics.policies import PASSING, passing, place_of, simulate, simulations
from diagnostics.privileges import OWNER, Held, in_nats, in_postgres, in_redis
from runbooks.engine.environment import Environment
from runbooks.engine.model import Action, Finding, Remedy, Resource, Runbook, Severity
from runbooks.engine.page import Rights
from runbooks.engine.systems import Readers
from runbooks.engine.work import UNDO
from sandbox.facts import Fact, Known, Unknown, gather

__all__ = [
    "ANCHORING",
    "APPLYING",
    "ASKING",
    "HANDING_OVER",
    "SYSTEMS",
    "Permission",
    "ask",
    "needed",
    "unseen",
]

APPLYING = Rights(
    postgres=frozenset(
        {
            "USAGE ON SCHEMA runbooks",
            "SELECT ON runbooks.lease",
            "UPDATE ON runbooks.lease",
            "SELECT ON runbooks.journal",
            "INSERT ON runbooks.journal",
            "SELECT ON runbooks.used_plans",
            "INSERT ON runbooks.used_plans",
            "SELECT ON runbooks.stops",
            "SELECT ON runbooks.stopped_sandboxes",
        }
    )
)
"""The lease, the plan's single use and the journal's mirror. Where the schema is missing, CREATE ON DATABASE makes it once."""

HANDING_OVER = Rights(
    nats=frozenset(
        {
            "$JS.API.STREAM.INFO.RUNBOOKS",
            "$JS.API.STREAM.CREATE.RUNBOOKS",
            "$JS.API.STREAM.PURGE.RUNBOOKS",
            "$JS.API.CONSUMER.LIST.RUNBOOKS",
            "$JS.API.CONSUMER.INFO.RUNBOOKS.*",
            "$JS.API.CONSUMER.CREATE.RUNBOOKS.*",
            "$JS.API.CONSUMER.DELETE.RUNBOOKS.*",
            "$JS.API.CONSUMER.MSG.NEXT.RUNBOOKS.*",
            "$JS.ACK.RUNBOOKS.>",
            "runbooks.work.>",
        }
    )
)
"""The work queue, for `--distributed` alone."""

ANCHORING = Rights(
    aws=frozenset(
        {"logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams", "logs:GetLogEvents"}
    )
)
"""The journal's anchors, where an environment's file names a log group for them. Nothing fails without: it is told."""

ASKING = Rights(
    redis=frozenset({"+acl|whoami", "+acl|dryrun", "+time"}),
    nats=frozenset({"$SYS.REQ.USER.INFO"}),
    aws=frozenset({"iam:SimulatePrincipalPolicy"}),
)
"""What lets a login ask what it may do, and what time it is there. Without it nothing fails: less can be told beforehand."""

SYSTEMS: Mapping[str, str] = {"postgres": "PostgreSQL", "redis": "Redis", "nats": "NATS", "aws": "AWS"}
"""The systems' names, as people write them, in the order of the fields of Rights."""

_NAME = re.compile(r"\w+")
_SHARE = 0.9  # of the time, so that what was told is told though one endpoint hangs


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """Which rights are lacking, by the system's name, and which cannot be told, with why."""

    lacking: Mapping[str, tuple[str, ...]]
    untold: Mapping[str, str]


def needed(actions: Iterable[Action], remedies: Mapping[str, Remedy]) -> Rights:
    """Return what applying these actions takes: the engine's own part, and of each verb's what has to do with its action. Pure."""
    taken = [_of(action, remedies[action.verb.removeprefix(UNDO)].rights) for action in actions]
    return reduce(or_, taken, APPLYING)


def _of(action: Action, rights: Rights) -> Rights:
    """Leave out the owner of what the action does not name: of another table, of the database. Roles are handed on by their names."""
    said = {name for value in action.before.values() for name in _NAME.findall(str(value))}

    def has_to_do(word: str) -> bool:
        owned = word.removeprefix(OWNER)
        return owned == word or owned.endswith("*") or _NAME.findall(owned)[-1] in said

    handed_on = map(passing, action.before.get("roles", ())) if PASSING in rights.aws else ()
    return replace(
        rights,
        postgres=frozenset(filter(has_to_do, rights.postgres)),
        aws=rights.aws - {PASSING} | frozenset(handed_on),
    )


def ask(environment: Environment, read: Readers, rights: Rights, *, timeout: float) -> Permission:
    """Ask every system that some of the rights are of, side by side, within `timeout` seconds. Nothing is changed anywhere.

    A right to something that is not there is not lacking; nor is that to schemas of which this login owns some: each is looked at
    by itself before it is touched.
    """
    probes: Mapping[str, Callable[[], Held]] = {
        "postgres": lambda: _of_postgres(read, rights.postgres),
        "redis": lambda: _of_redis(environment, rights.redis, timeout),
        "nats": lambda: _of_nats(environment, rights.nats, timeout),
        "aws": lambda: _of_aws(environment, read, rights.aws, timeout),
    }
    wanted = {name: words for name in SYSTEMS if (words := getattr(rights, name))}
    facts: dict[str, Fact[Held]] = gather({name: probes[name] for name in wanted}, deadline=timeout)
    lacking, untold = dict[str, tuple[str, ...]](), dict[str, str]()
    for name, fact in facts.items():
        if isinstance(fact, Unknown):
            untold[SYSTEMS[name]] = f"{_listed(wanted[name])} ({fact.reason})"
            continue
        if missing := sorted(word for word, held in fact.value.items() if held is False):
            lacking[SYSTEMS[name]] = tuple(missing)
        if unsure := [word for word, held in fact.value.items() if held is None]:
            untold[SYSTEMS[name]] = _listed(unsure)
    return Permission(lacking=lacking, untold=untold)


def unseen(
    environment: Environment, read: Readers, runbook: Runbook, *, timeout: float, among: Rights | None = None
) -> list[Finding]:
    """Return what a procedure cannot tell for want of rights: some servers hide what one may not see, and do not say so.

    Where several procedures look together, `among` are the rights of all, which are asked about once. AWS is not asked: it refuses
    each call by its action's name. Where a server does not tell what one may, nothing is said; an emergency does not wait for it.
    """
    if runbook.urgent:
        return []
    mine = runbook.page.reads
    asked = replace(among or mine, aws=frozenset())
    found = read.ask("rights", lambda: ask(environment, read, asked, timeout=timeout))
    wanted = mine.postgres | mine.redis | mine.nats
    lacking = {system: sorted(wanted & set(words)) for system, words in found.lacking.items()}
    return [
        Finding(
            check="rights to look",
            severity=Severity.UNKNOWN,
            summary=f"cannot tell all: this login lacks rights at {system}: {', '.join(words)}",
            resource=Resource(kind="system", id=system),
            evidence={"hint": "deploy/rights has what gives them; `invoke doctor` says what else is lacking"},
        )
        for system, words in lacking.items()
        if words
    ]


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def _of_postgres(read: Readers, words: frozenset[str]) -> Held:
    with read.sql.snapshot() as snapshot:
        return {each.word: each.partly for each in in_postgres(snapshot, words) if each.partly is not None}


def _of_redis(environment: Environment, words: frozenset[str], timeout: float) -> Held:
    from sandbox.adapters.redis_access import RedisAccess

    server = RedisAccess(environment.redis_url, timeout=timeout)
    return in_redis(server, words, cluster=server.server().cluster)


def _of_nats(environment: Environment, words: frozenset[str], timeout: float) -> Held:
    from sandbox.adapters.nats_access import NatsAccess

    return in_nats(NatsAccess(environment.nats_url, timeout=timeout, tls_ca=environment.nats_tls_ca), words)


def _of_aws(environment: Environment, read: Readers, words: frozenset[str], timeout: float) -> Held:
    arn = str(read.aws.read("sts", "get_caller_identity")["Arn"])
    asked = simulations(environment.stack, place_of(arn, environment.region), words)
    facts: dict[str, Any] = gather(
        {target: _simulating(read, arn, target, upon) for target, upon in asked.items()},
        deadline=timeout * _SHARE / 2,
    )
    held: dict[str, bool | None] = dict.fromkeys(words)
    for fact in facts.values():
        if isinstance(fact, Known):
            held |= fact.value
    return held


def _simulating(read: Readers, arn: str, target: str, words: list[str]) -> Callable[[], Held]:
    return lambda: simulate(read.aws, arn, target, words)
