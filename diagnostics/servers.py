"""The managed servers: RDS, ElastiCache, and whether their security groups let a task in."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from diagnostics.alarms import pages, read_points
from sandbox.errors import ArrakisError, Missing
from sandbox.ports import AwsReader

__all__ = [
    "ELASTICACHE",
    "FULL_MEMORY",
    "RDS",
    "SEE_ACCESS",
    "SEE_CACHE",
    "SEE_INSTANCE",
    "SHORT_STORAGE",
    "Access",
    "Cache",
    "Condition",
    "Instance",
    "Points",
    "read_access",
    "read_cache",
    "read_instance",
    "read_metric",
    "read_storage",
]

SEE_INSTANCE = (
    "aws rds describe-db-instances --db-instance-identifier {identifier}  # rds:DescribeDBInstances"
)
SEE_CACHE = "aws elasticache describe-replication-groups  # elasticache:DescribeReplicationGroups"
SEE_ACCESS = "aws ec2 describe-security-groups --group-ids {groups}  # ec2:DescribeSecurityGroups"

Events = tuple[tuple[datetime, str], ...]
Points = tuple[tuple[datetime, float], ...]

RDS = ("AWS/RDS", "DBInstanceIdentifier")  # a metric's namespace, and the dimension that names the server
ELASTICACHE = ("AWS/ElastiCache", "CacheClusterId")
_MINUTE = timedelta(minutes=1)
_NOW = 15 * _MINUTE  # how old a metric's last point may be to be called what is: AWS publishes one a minute
_ANYBODY = "0.0.0.0/0"

_GIB = 2**30
SHORT_STORAGE = 0.1
"""The share of its storage, of which a database that has less left is short."""

FULL_MEMORY = 90
"""Percent of its memory, of which a cache that uses more is short."""

# As AWS documents them, of RDS and ElastiCache alike; whatever else there is, such as storage-full, is down.
_USABLE = {
    "available",
    "backing-up",
    "modifying",
    "snapshotting",
    "storage-config-upgrade",
    "storage-initialization",
    "storage-optimization",
}
_CHANGING = {
    "converting-to-vpc",
    "creating",
    "insufficient-capacity",
    "maintenance",
    "moving-to-vpc",
    "rebooting",
    "rebooting cluster nodes",
    "renaming",
    "resetting-master-credentials",
    "starting",
    "upgrading",
}


class Condition(StrEnum):
    """What a server's status means for those who use it."""

    USABLE = "usable"
    """It works, whatever is being done to it."""
    CHANGING = "changing"
    """It may be away for minutes, and comes back by itself."""
    DOWN = "down"
    """It does not work, and stays so until somebody does something."""

    @classmethod
    def of(cls, status: str) -> "Condition":
        """Read a status of RDS or ElastiCache. One that is not documented is down: somebody has to look at it."""
        if status in _USABLE or status.startswith("configuring-"):  # monitoring, log exports, roles
            return cls.USABLE
        return cls.CHANGING if status in _CHANGING else cls.DOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An RDS instance. What is None is not known; `storage_left` is in bytes, `events` are the newest first, UTC.

    `pending_gib` is the storage that a modification under way gives it, `most_gib` up to where RDS enlarges it by itself.
    `free` is the storage that was left, in bytes, over the hours that were asked for, the oldest first.
    """

    identifier: str
    status: str
    engine: str
    version: str
    address: str | None
    port: int | None
    storage_gib: int
    security_groups: tuple[str, ...]
    storage_left: float | None = None
    connections: float | None = None
    events: Events | None = None
    instance_class: str = ""
    pending_gib: int | None = None
    most_gib: int | None = None
    free: Points = ()

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Instance":
        """Read an instance of describe_db_instances. One that is being made has no address yet."""
        endpoint = raw.get("Endpoint") or {}
        return cls(
            identifier=raw["DBInstanceIdentifier"],
            status=raw["DBInstanceStatus"],
            engine=raw["Engine"],
            version=raw["EngineVersion"],
            address=endpoint.get("Address"),
            port=endpoint.get("Port"),
            storage_gib=raw["AllocatedStorage"],
            security_groups=tuple(group["VpcSecurityGroupId"] for group in raw.get("VpcSecurityGroups", ())),
            instance_class=raw.get("DBInstanceClass", ""),
            pending_gib=(raw.get("PendingModifiedValues") or {}).get("AllocatedStorage"),
            most_gib=raw.get("MaxAllocatedStorage"),
        )

    @property
    def condition(self) -> Condition:
        """What its status means."""
        return Condition.of(self.status)

    @property
    def short_of_storage(self) -> bool | None:
        """Whether less than a tenth of its storage, or less than 1 GiB, is left; None where that is not known."""
        if self.storage_left is None:
            return None
        return self.storage_left < _GIB * max(1, self.storage_gib * SHORT_STORAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """An ElastiCache replication group, or a cluster that is in none. What is None is not known.

    `members` are the clusters in it, one a node; `memory_used_percent` is that of the fullest; `events` are the newest
    first, UTC. Every cache has security groups: that there are none means that they are not known.
    """

    identifier: str
    status: str
    members: tuple[str, ...]
    address: str | None
    port: int | None
    events: Events | None = None
    security_groups: tuple[str, ...] = ()
    memory_used_percent: float | None = None

    @classmethod
    def of_group(cls, raw: Mapping[str, Any]) -> "Cache":
        """Read a group of describe_replication_groups, which says nothing of security groups."""
        first = (raw.get("NodeGroups") or [{}])[0]
        endpoint = raw.get("ConfigurationEndpoint") or first.get("PrimaryEndpoint") or {}
        return cls(
            identifier=raw["ReplicationGroupId"],
            status=raw["Status"],
            members=tuple(raw.get("MemberClusters", ())),
            address=endpoint.get("Address"),
            port=endpoint.get("Port"),
        )

    @classmethod
    def of_cluster(cls, raw: Mapping[str, Any]) -> "Cache":
        """Read a cluster of describe_cache_clusters."""
        endpoint = (raw.get("CacheNodes") or [{}])[0].get("Endpoint") or {}
        return cls(
            identifier=raw["CacheClusterId"],
            status=raw["CacheClusterStatus"],
            members=(raw["CacheClusterId"],),
            address=endpoint.get("Address"),
            port=endpoint.get("Port"),
            security_groups=tuple(group["SecurityGroupId"] for group in raw.get("SecurityGroups", ())),
        )

    @property
    def nodes(self) -> int:
        """How many nodes it has."""
        return len(self.members)

    @property
    def condition(self) -> Condition:
        """What its status means."""
        return Condition.of(self.status)

    @property
    def short_of_memory(self) -> bool | None:
        """Whether its fullest node uses more than 90 % of its memory; None where that is not known."""
        used = self.memory_used_percent
        return None if used is None else used > FULL_MEMORY


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Whether a server's security groups let a task in, None where that cannot be told; `how` says by which rule."""

    allowed: bool | None
    how: str

    @classmethod
    def of(cls, groups: Sequence[Mapping[str, Any]], *, port: int, task_groups: Sequence[str]) -> "Access":
        """Judge the inbound rules of groups as describe_security_groups has them: one rule that lets in is enough."""
        names = ", ".join(group["GroupId"] for group in groups)
        rules = [rule for group in groups for rule in group.get("IpPermissions", ()) if _covers(rule, port)]
        sources = {pair.get("GroupId") for rule in rules for pair in rule.get("UserIdGroupPairs", ())}
        ranges = sorted({address for rule in rules for address in _ranges(rule)})
        let_in = [name for name in (*task_groups, _ANYBODY) if name in sources or name in ranges]
        if let_in:
            return cls(allowed=True, how=f"{names} lets {let_in[0]} in at port {port}")
        if ranges:
            return cls(allowed=None, how=f"cannot tell: {names} lets in by address: {', '.join(ranges)}")
        if not task_groups:
            return cls(allowed=None, how="cannot tell: the task's security groups are not known")
        return cls(allowed=False, how=f"no rule of {names} lets {', '.join(task_groups)} in at port {port}")


def read_instance(aws: AwsReader, *, identifier: str | None, now: datetime, window: timedelta) -> Instance:
    """Return an RDS instance, with its events of the last `window` and what was measured within the last 15 minutes.

    Without an identifier it is the only PostgreSQL instance that there is. Raises Missing if there is none, ArrakisError
    if there are several; Unreachable, Throttled or Denied if it cannot be read.
    """
    named = {"DBInstanceIdentifier": identifier} if identifier else {}
    listed = pages(aws, "rds", "describe_db_instances", token="Marker", **named)
    instances = [Instance.of(raw) for page in listed for raw in page["DBInstances"]]
    found = [instance for instance in instances if identifier or "postgres" in instance.engine]
    name = _only([instance.identifier for instance in found], "RDS instance", setting="database_instance")
    return replace(
        found[0],
        storage_left=_last(aws, RDS, name, "FreeStorageSpace", "Minimum", now=now),
        connections=_last(aws, RDS, name, "DatabaseConnections", "Maximum", now=now),
        events=_events(aws, "rds", {name}, window=window),
    )


def read_storage(aws: AwsReader, instance: Instance, *, now: datetime, window: timedelta) -> Instance:
    """Return an instance with the storage that was left over the last `window`, one point every five minutes.

    Raises Unreachable, Throttled or Denied if that cannot be read.
    """
    name = instance.identifier
    free = read_metric(aws, RDS, name, "FreeStorageSpace", "Minimum", period=300, now=now, window=window)
    return replace(instance, free=free)


def read_metric(
    aws: AwsReader,
    source: tuple[str, str],
    name: str,
    metric: str,
    statistic: str,
    *,
    period: int,
    now: datetime,
    window: timedelta,
) -> Points:
    """Return what a server's metric was over the last `window`, a point every `period` seconds, the oldest first.

    `source` is RDS or ELASTICACHE. Raises Unreachable, Throttled or Denied.
    """
    namespace, dimension = source
    return read_points(
        aws,
        namespace=namespace,
        metric=metric,
        dimensions=[{"Name": dimension, "Value": name}],
        statistic=statistic,
        period=period,
        now=now,
        window=window,
    )


def read_cache(aws: AwsReader, *, identifier: str | None, now: datetime, window: timedelta) -> Cache:
    """Return an ElastiCache replication group or cluster, with its events of the last `window` and its memory now.

    Without an identifier it is the only one that there is, Memcached aside. Raises Missing if there is none, ArrakisError
    if there are several; Unreachable, Throttled or Denied if it cannot be read.
    """
    found = _caches(aws, identifier)
    _only([cache.identifier for cache in found], "ElastiCache group or cluster", setting="cache")
    cache = found[0]
    used = [
        _last(aws, ELASTICACHE, member, "DatabaseMemoryUsagePercentage", "Maximum", now=now)
        for member in cache.members
    ]
    return replace(
        cache,
        events=_events(aws, "elasticache", {cache.identifier, *cache.members}, window=window),
        security_groups=cache.security_groups or _groups_of_members(aws, cache.members),
        memory_used_percent=_fullest(used),
    )


def read_access(
    aws: AwsReader, *, server_groups: Sequence[str], port: int | None, task_groups: Sequence[str]
) -> Access:
    """Return whether the server's security groups let a task that is in `task_groups` reach the TCP port.

    Only what comes in is judged: the task's own outbound rules and the network's routes and lists are not. Raises Missing
    if there is no such group, Unreachable, Throttled or Denied.
    """
    if (
        not server_groups or port is None
    ):  # asked for no group by name, AWS would answer with every group there is
        return Access(allowed=None, how="cannot tell: the server's security groups or its port are not known")
    found = pages(aws, "ec2", "describe_security_groups", token="NextToken", GroupIds=list(server_groups))
    groups = [group for page in found for group in page["SecurityGroups"]]
    return Access.of(groups, port=port, task_groups=task_groups)


def _caches(aws: AwsReader, identifier: str | None) -> list[Cache]:
    named = {"ReplicationGroupId": identifier} if identifier else {}
    found = [
        Cache.of_group(raw)
        for raw in _listed(aws, "describe_replication_groups", "ReplicationGroups", **named)
    ]
    if identifier and found:
        return found
    named = {"CacheClusterId": identifier} if identifier else {}
    clusters = _listed(aws, "describe_cache_clusters", "CacheClusters", ShowCacheNodeInfo=True, **named)
    alone = [raw for raw in clusters if not raw.get("ReplicationGroupId") and raw["Engine"] != "memcached"]
    return found + [Cache.of_cluster(raw) for raw in (clusters if identifier else alone)]


def _fullest(used: Sequence[float | None]) -> float | None:
    """Return the most that a node uses; None where one is not measured, as that may be the full one."""
    known = [percent for percent in used if percent is not None]
    return max(known) if known and len(known) == len(used) else None


def _listed(aws: AwsReader, operation: str, member: str, **params: object) -> list[Mapping[str, Any]]:
    """Return what there is; of a name that there is not, nothing."""
    try:
        listed = pages(aws, "elasticache", operation, token="Marker", **params)
        return [raw for page in listed for raw in page[member]]
    except Missing:
        return []


def _groups_of_members(aws: AwsReader, members: Sequence[str]) -> tuple[str, ...]:
    """Return the security groups of a group's first member, as all have the same; none where they are not known."""
    with suppress(ArrakisError):
        for raw in _listed(aws, "describe_cache_clusters", "CacheClusters", CacheClusterId=members[0]):
            return Cache.of_cluster(raw).security_groups
    return ()


def _only(names: Sequence[str], what: str, *, setting: str) -> str:
    hint = f"name `{setting}` under [stack] in the environment's file"
    if not names:
        raise Missing(f"there is no such {what} in this account and region", hint=hint)
    if len(names) > 1:
        raise ArrakisError(f"cannot tell which {what} is meant: {', '.join(names)}", hint=hint)
    return names[0]


def _last(
    aws: AwsReader, source: tuple[str, str], name: str, metric: str, statistic: str, *, now: datetime
) -> float | None:
    """Return a metric's last value; None where it is too old or cannot be read: the server itself is known, still."""
    period = int(_MINUTE.total_seconds())
    with suppress(ArrakisError):
        points = read_metric(aws, source, name, metric, statistic, period=period, now=now, window=_NOW)
        return points[-1][1] if points else None
    return None


def _events(aws: AwsReader, service: str, names: Collection[str], *, window: timedelta) -> Events | None:
    """Return what happened to the named servers, the newest first; None where that cannot be read."""
    try:
        found = pages(aws, service, "describe_events", token="Marker", Duration=window // _MINUTE)
        events = [event for page in found for event in page["Events"]]
    except ArrakisError:
        return None
    ours = (event for event in events if event.get("SourceIdentifier") in names)
    return tuple(sorted(((event["Date"], event["Message"]) for event in ours), reverse=True))


def _covers(rule: Mapping[str, Any], port: int) -> bool:
    """Whether a rule is about a TCP port. Protocol -1 is any, on any port."""
    protocol = rule["IpProtocol"]
    return protocol == "-1" or (protocol in ("tcp", "6") and rule["FromPort"] <= port <= rule["ToPort"])


def _ranges(rule: Mapping[str, Any]) -> list[str]:
    kinds = {"IpRanges": "CidrIp", "Ipv6Ranges": "CidrIpv6", "PrefixListIds": "PrefixListId"}
    return [item[key] for kind, key in kinds.items() for item in rule.get(kind, ())]
