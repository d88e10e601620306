"""What an emergency stops, looked at from outside: every field of it, and what of it stands still."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import psycopg
from psycopg.rows import dict_row

from lab.control import Lab
from lab.incidents.cloud import Account
from lab.names import CLEANUP, CLUSTER, WORKER
from runbooks.remedies.tags import KEYS

__all__ = ["FLAG", "ROWS", "RULE", "SCALING", "SERVICE", "Production"]

RULE, SERVICE, SCALING, ROWS, FLAG = "rule", "service", "scaling", "rows", "flag"
_ALL = frozenset({RULE, SERVICE, SCALING, ROWS, FLAG})
_RAISED = "SELECT halting FROM runbooks.stops WHERE lifted_at IS NULL"


class Production:
    """A lab's rule, service, autoscaling, their tags, and rows."""

    def __init__(self, lab: Lab) -> None:
        """Take the lab."""
        self.lab, self._aws, self._endpoint = lab, Account(lab.env), lab.env["AWS_ENDPOINT_URL"]

    def truth(self) -> dict[str, Any]:
        """Return every field of all of it, but for what ECS tells of its own doings."""
        service = self._aws.worker()
        for told in ("events", "deployments"):
            service.pop(told)
        rule = self._aws.client("events").describe_rule(Name=CLEANUP)
        rule.pop("ResponseMetadata")
        return {
            "rule": rule,
            "targets": self._aws.client("events").list_targets_by_rule(Rule=CLEANUP)["Targets"],
            "service": service,
            "scaling": self._scaling(),
            "tags": self.tags(),
            "sandboxes": self.rows("SELECT * FROM public.sandboxes ORDER BY id"),
            "mappings": self.rows("SELECT * FROM public.sandbox_guild_mapping ORDER BY guild_id"),
        }

    def tags(self) -> list[Mapping[str, str]]:
        """Return a stop's tags on the rule and on the service."""
        rule = self._aws.client("events").describe_rule(Name=CLEANUP)["Arn"]
        found = [
            {t["Key"]: t["Value"] for t in self._aws.client("events").list_tags_for_resource(ResourceARN=rule)["Tags"]},
            {t["key"]: t["value"] for t in self._aws.client("ecs").list_tags_for_resource(resourceArn=self._aws.worker()["serviceArn"])["tags"]},
        ]  # fmt: skip
        return [{key: value for key, value in tags.items() if key in KEYS} for tags in found]

    def still(self) -> set[str]:
        """Return what of it stands still; the flag: whether it is raised."""
        scaling, service = self._scaling()[0], self._aws.worker()
        running = self.rows("SELECT count(*) AS n FROM public.sandboxes WHERE status = 'running'")[0]["n"]
        seen = {
            RULE: self._aws.client("events").describe_rule(Name=CLEANUP)["State"] == "DISABLED",
            SERVICE: service["desiredCount"] == service["runningCount"] == 0,
            SCALING: scaling["MinCapacity"] == 0 and all(scaling["SuspendedState"].values()),
            ROWS: running == 0,
            FLAG: any(row["halting"] for row in self._raised()),
        }
        return {name for name, stopped in seen.items() if stopped}

    def runs(self) -> set[str]:
        """Return what of it does not stand still."""
        return set(_ALL) - self.still()

    def rows(self, query: str, *params: object) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        with psycopg.connect(self.lab.env["DATABASE_URL"], autocommit=True, row_factory=dict_row) as sql:
            cursor = sql.execute(query.encode(), params or None)
            return cursor.fetchall() if cursor.description else []

    def desire(self, count: int) -> None:
        """Do as somebody else would: let so many tasks run."""
        self._aws.update_worker(desiredCount=count)

    def switch(self, rule: bool) -> None:
        """Do as somebody else would: enable or disable the rule."""
        events = self._aws.client("events")
        (events.enable_rule if rule else events.disable_rule)(Name=CLEANUP)

    def limit(self, **changes: Any) -> None:
        """Do as somebody else would: register autoscaling's limits."""
        self._aws.client("application-autoscaling").register_scalable_target(
            ServiceNamespace="ecs",
            ResourceId=f"service/{CLUSTER}/{WORKER}",
            ScalableDimension="ecs:service:DesiredCount",
            **changes,
        )

    def restore(self) -> None:
        """Let all of it run, whatever became of a test."""
        self.switch(True)
        self.desire(1)
        suspended = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")
        self.limit(MinCapacity=1, MaxCapacity=4, SuspendedState=dict.fromkeys(suspended, False))
        self.rows(
            "UPDATE sandboxes AS s SET status = 'running', destroyed_at = NULL FROM runbooks.stopped_sandboxes AS m"
            " WHERE s.id = m.sandbox AND s.status = 'destroyed' AND s.destroyed_at = m.marked_at"
        )
        self.rows("UPDATE runbooks.stops SET lifted_at = now() WHERE lifted_at IS NULL")

    @contextmanager
    def refusing(self, *operations: str) -> Iterator[None]:
        """Have AWS refuse these operations, to everybody."""
        try:
            for each in operations:
                self._refuse(each, times=1000)
            yield
        finally:
            for each in operations:
                self._refuse(each, times=0)

    def _refuse(self, operation: str, *, times: int) -> None:
        query = f"operation={operation}&code=AccessDeniedException&times={times}"
        with urlopen(
            Request(f"{self._endpoint}/moto-api/faults?{query}", method="POST"), timeout=5
        ) as answer:
            assert answer.status == 200

    def _scaling(self) -> list[Any]:
        found = self._aws.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="ecs")
        targets: list[Any] = found["ScalableTargets"]
        return targets

    def _raised(self) -> list[dict[str, Any]]:
        try:
            return self.rows(_RAISED)
        except psycopg.errors.UndefinedTable:  # nothing was ever stopped here
            return []
