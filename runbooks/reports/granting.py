"""deploy/rights/: what gives a login what the runbooks' pages name, in the words of each server, made from the code.

For all procedures together at the top, and for each alone in a folder of its own. A login that applies needs to look as well: what is
called `apply` is whole by itself.
"""

import json
from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from diagnostics.policies import PASSING, TO_TASKS, Place, resource
from diagnostics.privileges import OWNER
from diagnostics.stack import Stack
from runbooks.engine.model import Runbook
from runbooks.engine.page import Rights
from runbooks.engine.permission import ANCHORING, ASKING
from runbooks.reports.pages import MARK, template

__all__ = ["FOLDER", "granting", "made"]

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "rights"
"""Where they are, in the repository."""

_BY = MARK.removeprefix("<!-- ").removesuffix(" -->")
_SUFFIXES = {"postgres": "sql", "redis": "acl", "nats": "conf", "iam": "json"}
_ANYWHERE = Place(partition="aws", region="*", account="*")
_BUCKET = "arn:aws:s3:::BUCKET"  # no bucket may be called so: none is open until one is named
_LOOKING = ("Describe", "Filter", "Get", "List", "Simulate")


def made(runbooks: Iterable[Runbook]) -> dict[str, str]:
    """Return each file's text by its path below deploy/rights."""
    known = list(runbooks)
    told = template("rights.md.j2").render(runbooks=known, stack=Stack())
    found = {"README.md": f"{MARK}\n{told}", **_files("", known)}
    for each in known:
        found |= _files(f"{each.name}/", [each])
    return found


def granting(rights: Rights) -> dict[str, str]:
    """Return what gives a login these rights, for each system: grants, a line for ACL SETUSER, a user's permissions, a policy."""
    return {
        "postgres": _sql(rights.postgres),
        "redis": _acl(rights.redis),
        "nats": _nats(rights.nats),
        "iam": _iam(rights.aws),
    }


def _files(folder: str, runbooks: Iterable[Runbook]) -> dict[str, str]:
    reads = reduce(or_, (each.page.reads for each in runbooks), ASKING)
    writes = reduce(or_, (each.page.writes for each in runbooks), reads | ANCHORING)
    return {
        f"{folder}{system}-{kind}.{_SUFFIXES[system]}": text
        for kind, rights in (("read", reads), ("apply", writes))
        for system, text in granting(rights).items()
    }


def _sql(words: Iterable[str]) -> str:
    """Return the grants to the role that the psql variable `role` names; what no grant gives is said in comments."""
    wanted = sorted(words)
    owned = [word.removeprefix(OWNER) for word in wanted if word.startswith(OWNER)]
    lines = [f"-- {_BY}", "-- psql -v ON_ERROR_STOP=1 -v role=NAME -f FILE", r"\set ON_ERROR_STOP on"]
    lines += [_grant(word) for word in wanted if not word.startswith(OWNER)]
    if owned:
        lines += [
            "-- No grant on a thing gives ownership: this role has to be a member of the one that owns it, and which should be no",
            '-- superuser, as the member could do anything then. Whose it is, say the commands; then: GRANT OWNER TO :"role";',
        ]
        lines += [f"--   {OWNER}{each}    {_showing(each)}" for each in owned]
    return "\n".join(lines) + "\n"


def _grant(word: str) -> str:
    whole = f'{word} :"DBNAME"' if word.endswith(" ON DATABASE") else word
    return f'GRANT {whole} TO :"role";'


def _showing(owned: str) -> str:
    """Return by what psql says whose something is: the database, schemas with a star, or a table."""
    if owned == "the database":
        return r"\l"
    return rf"\dn {owned}" if owned.endswith("*") else rf"\dt {owned}"


def _acl(words: Iterable[str]) -> str:
    """Return one line of rules, as ACL SETUSER takes them: all else is forbidden."""
    return " ".join(["resetkeys", "resetchannels", "-@all", *sorted(words)]) + "\n"


def _nats(subjects: Iterable[str]) -> str:
    """Return the permissions of a user, which hears the answers to what it asks and nothing else."""
    lines = [
        f"# {_BY}",
        '# authorization: { users: [ { user: NAME, password: $PASSWORD, permissions: { include "THIS FILE" } } ] }',
        "publish: { allow: [",
        *(f"  {json.dumps(each)}" for each in sorted(subjects)),
        "] }",
        'subscribe: { allow: ["_INBOX.>"] }',
    ]
    return "\n".join(lines) + "\n"


def _iam(actions: Iterable[str]) -> str:
    """Return a policy: what AWS lets one narrow is allowed upon the stack's own things alone."""
    scoped: dict[tuple[str, ...], list[str]] = {}
    for action in sorted(actions):
        scoped.setdefault(_scope(action), []).append(action)
    statements = [
        {"Effect": "Allow", "Action": each, "Resource": list(arns), **_condition(each)}
        for arns, each in scoped.items()
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2) + "\n"


def _condition(actions: list[str]) -> Mapping[str, Any]:
    return {"Condition": {"StringEquals": TO_TASKS}} if PASSING in actions else {}


def _scope(action: str) -> tuple[str, ...]:
    """Return the ARNs upon which an action is allowed."""
    stack, at = Stack(), _ANYWHERE
    known = {
        "ecs:DescribeServices": (at.arn("ecs", f"service/{stack.cluster}/{stack.worker_service}"),),
        "ecs:DescribeTasks": (at.arn("ecs", f"task/{stack.cluster}/*"),),
        "ecs:ListTagsForResource": (at.arn("ecs", f"service/{stack.cluster}/{stack.worker_service}"),),
        PASSING: ("arn:aws:iam::*:role/*",),
        "logs:FilterLogEvents": tuple(
            at.arn("logs", f"log-group:{name}:*")
            for name in (stack.api_logs, stack.cleanup_logs, stack.worker_logs)
        ),
        **dict.fromkeys(ANCHORING.aws, (at.arn("logs", "log-group:JOURNAL_LOG_GROUP:*"),)),
        "s3:ListBucket": (_BUCKET,),
        "s3:GetObject": (f"{_BUCKET}/*",),
        "s3:PutObject": (f"{_BUCKET}/*",),
    }
    service, _, verb = action.partition(":")
    if action in known:
        return known[action]
    narrow = service == "events" or not verb.startswith(_LOOKING)
    return (resource(action, stack, at, revision="*"),) if narrow else ("*",)
