"""What RDS, ElastiCache and EC2 answer, read; above all, whether security groups let a task in."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.servers import Access, Cache, Condition, Instance

PORT = 6379


def rule(protocol: str = "tcp", ports: tuple[int, int] = (PORT, PORT), **sources: Any) -> dict[str, Any]:
    """An inbound rule as describe_security_groups has it; -1 has no ports."""
    spelled = {} if protocol == "-1" else {"FromPort": ports[0], "ToPort": ports[1]}
    nobody: dict[str, Any] = {"UserIdGroupPairs": [], "IpRanges": [], "Ipv6Ranges": [], "PrefixListIds": []}
    return {"IpProtocol": protocol, **spelled, **nobody, **sources}


def from_group(name: str) -> dict[str, Any]:
    return {"UserIdGroupPairs": [{"UserId": "123456789012", "GroupId": name}]}


def from_range(cidr: str) -> dict[str, Any]:
    return {"IpRanges": [{"CidrIp": cidr, "Description": "private subnets"}]}


NOT_TOLD = "cannot tell: sg-redis lets in by address: "


@pytest.mark.parametrize(
    ("rules", "allowed", "how"),
    [
        ([rule(**from_group("sg-jobs"))], True, "sg-redis lets sg-jobs in at port 6379"),
        ([rule("6", **from_group("sg-jobs"))], True, "sg-redis lets sg-jobs in at port 6379"),
        ([rule("-1", **from_group("sg-jobs"))], True, "sg-redis lets sg-jobs in at port 6379"),
        ([rule(ports=(0, 65535), **from_group("sg-jobs"))], True, "sg-redis lets sg-jobs in at port 6379"),
        (
            [rule(ports=(6000, 6379), **from_group("sg-second"))],
            True,
            "sg-redis lets sg-second in at port 6379",
        ),
        ([rule(**from_range("0.0.0.0/0"))], True, "sg-redis lets 0.0.0.0/0 in at port 6379"),
        (
            [rule(**from_range("10.0.0.0/16")), rule(**from_group("sg-jobs"))],
            True,
            "sg-redis lets sg-jobs in at port 6379",
        ),
        ([], False, "no rule of sg-redis lets sg-jobs, sg-second in at port 6379"),
        (
            [rule(**from_group("sg-api"))],
            False,
            "no rule of sg-redis lets sg-jobs, sg-second in at port 6379",
        ),
        (
            [rule("udp", **from_group("sg-jobs"))],
            False,
            "no rule of sg-redis lets sg-jobs, sg-second in at port 6379",
        ),
        (
            [rule("icmp", (-1, -1), **from_group("sg-jobs"))],
            False,
            "no rule of sg-redis lets sg-jobs, sg-second in at port 6379",
        ),
        (
            [
                rule(ports=(6380, 6400), **from_group("sg-jobs")),
                rule(ports=(22, 22), **from_range("0.0.0.0/0")),
            ],
            False,
            "no rule of sg-redis lets sg-jobs, sg-second in at port 6379",
        ),
        ([rule(**from_range("10.0.0.0/16"))], None, f"{NOT_TOLD}10.0.0.0/16"),
        ([rule(Ipv6Ranges=[{"CidrIpv6": "::/0"}])], None, f"{NOT_TOLD}::/0"),
        (
            [rule(PrefixListIds=[{"PrefixListId": "pl-1"}], **from_group("sg-api"))],
            None,
            f"{NOT_TOLD}pl-1",
        ),
    ],
)
def test_whether_a_task_is_let_in(rules: list[dict[str, Any]], allowed: bool | None, how: str) -> None:
    group = {"GroupId": "sg-redis", "IpPermissions": rules, "IpPermissionsEgress": []}
    assert Access.of([group], port=PORT, task_groups=["sg-jobs", "sg-second"]) == Access(
        allowed=allowed, how=how
    )


def test_one_of_several_groups_is_enough() -> None:
    shut = {"GroupId": "sg-shut", "IpPermissions": []}
    opened = {"GroupId": "sg-open", "IpPermissions": [rule(**from_group("sg-jobs"))]}
    seen = Access.of([shut, opened], port=PORT, task_groups=["sg-jobs"])
    assert seen == Access(allowed=True, how="sg-shut, sg-open lets sg-jobs in at port 6379")


def test_groups_that_are_not_known_are_not_called_shut() -> None:
    group = {"GroupId": "sg-redis", "IpPermissions": [rule(**from_group("sg-jobs"))]}
    seen = Access.of([group], port=PORT, task_groups=[])
    assert seen == Access(allowed=None, how="cannot tell: the task's security groups are not known")


@given(st.integers(1, 65535), st.integers(0, 65535), st.integers(0, 65535))
def test_a_rule_covers_its_ports_both_ends_included(port: int, first: int, last: int) -> None:
    group = {"GroupId": "sg-redis", "IpPermissions": [rule(ports=(first, last), **from_group("sg-jobs"))]}
    seen = Access.of([group], port=port, task_groups=["sg-jobs"])
    assert seen.allowed is (port in range(first, last + 1))


INSTANCE: dict[str, Any] = {
    "DBInstanceIdentifier": "arrakis-production",
    "DBInstanceStatus": "storage-full",
    "Engine": "postgres",
    "EngineVersion": "15.8",
    "AllocatedStorage": 100,
    "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-db", "Status": "active"}],
}


def test_an_instance_that_is_being_made_has_no_address() -> None:
    seen = Instance.of(
        {**INSTANCE, "Endpoint": {"Address": "db.example", "Port": 5432, "HostedZoneId": "Z1"}}
    )
    assert (seen.address, seen.port, seen.security_groups) == ("db.example", 5432, ("sg-db",))
    assert (seen.identifier, seen.status, seen.version, seen.storage_gib) == (
        "arrakis-production",
        "storage-full",
        "15.8",
        100,
    )
    assert (seen.storage_left, seen.connections, seen.events) == (None, None, None)
    assert (Instance.of(INSTANCE).address, Instance.of(INSTANCE).port) == (None, None)


@pytest.mark.parametrize(
    ("statuses", "condition"),
    [
        (
            "available backing-up modifying storage-optimization storage-config-upgrade storage-initialization"
            " configuring-enhanced-monitoring configuring-iam-database-auth configuring-log-exports"
            " configuring-associated-roles",
            Condition.USABLE,
        ),
        (
            "rebooting starting upgrading maintenance renaming resetting-master-credentials moving-to-vpc"
            " converting-to-vpc creating insufficient-capacity",
            Condition.CHANGING,
        ),
        (
            "stopped stopping failed storage-full inaccessible-encryption-credentials deleting delete-precheck"
            " inaccessible-encryption-credentials-recoverable incompatible-create incompatible-network"
            " incompatible-option-group incompatible-parameters incompatible-restore restore-error whatever",
            Condition.DOWN,
        ),
    ],
)
def test_what_the_status_of_an_instance_means(statuses: str, condition: Condition) -> None:
    for status in statuses.split():
        assert Instance.of({**INSTANCE, "DBInstanceStatus": status}).condition is condition, status


GIB = 2**30


@pytest.mark.parametrize(
    ("allocated", "left", "short"),
    [
        (100, None, None),
        (100, 0.0, True),
        (100, 10.0 * GIB - 1, True),
        (100, 10.0 * GIB, False),
        (5, 1.0 * GIB - 1, True),  # a fifth of it, and too little all the same
        (5, 1.0 * GIB, False),
    ],
)
def test_when_an_instance_is_short_of_storage(allocated: int, left: float | None, short: bool | None) -> None:
    instance = replace(Instance.of({**INSTANCE, "AllocatedStorage": allocated}), storage_left=left)
    assert instance.short_of_storage is short


MEMBER = {"CacheClusterId": "redis-001", "ReadEndpoint": {"Address": "redis-001.example", "Port": 6379}}
PRIMARY = {"PrimaryEndpoint": {"Address": "master.redis.example", "Port": 6379}, "NodeGroupMembers": [MEMBER]}
GROUP: dict[str, Any] = {
    "ReplicationGroupId": "redis",
    "Status": "available",
    "MemberClusters": ["redis-001", "redis-002"],
}


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        (GROUP | {"NodeGroups": [PRIMARY]}, "master.redis.example"),
        (
            GROUP
            | {
                "ConfigurationEndpoint": {"Address": "clustercfg.redis.example", "Port": 6379},
                "NodeGroups": [{"NodeGroupMembers": [MEMBER]}],
            },
            "clustercfg.redis.example",
        ),
        (GROUP | {"Status": "creating"}, None),
    ],
)
def test_where_a_replication_group_is(raw: dict[str, Any], address: str | None) -> None:
    seen = Cache.of_group(raw)
    assert (seen.address, seen.port) == (address, 6379 if address else None)
    assert (seen.nodes, seen.members, seen.status) == (2, ("redis-001", "redis-002"), raw["Status"])
    assert (seen.events, seen.memory_used_percent, seen.security_groups) == (None, None, ())


@pytest.mark.parametrize(
    ("status", "condition"),
    [
        ("available", Condition.USABLE),
        ("modifying", Condition.USABLE),
        ("snapshotting", Condition.USABLE),
        ("creating", Condition.CHANGING),
        ("rebooting cluster nodes", Condition.CHANGING),
        ("deleting", Condition.DOWN),
        ("deleted", Condition.DOWN),
        ("create-failed", Condition.DOWN),
        ("restore-failed", Condition.DOWN),
        ("incompatible-network", Condition.DOWN),
        ("whatever", Condition.DOWN),
    ],
)
def test_what_the_status_of_a_cache_means(status: str, condition: Condition) -> None:
    assert Cache.of_group({**GROUP, "Status": status}).condition is condition


@pytest.mark.parametrize(("used", "short"), [(None, None), (0.0, False), (90.0, False), (90.1, True)])
def test_when_a_cache_is_short_of_memory(used: float | None, short: bool | None) -> None:
    assert replace(Cache.of_group(GROUP), memory_used_percent=used).short_of_memory is short


def test_a_cluster_that_is_in_no_group() -> None:
    raw = {
        "CacheClusterId": "redis",
        "CacheClusterStatus": "rebooting cluster nodes",
        "Engine": "redis",
        "CacheNodes": [{"CacheNodeId": "0001", "Endpoint": {"Address": "redis.example", "Port": 6379}}],
        "SecurityGroups": [{"SecurityGroupId": "sg-redis", "Status": "active"}],
    }
    seen = Cache.of_cluster(raw)
    assert (seen.address, seen.port, seen.nodes) == ("redis.example", 6379, 1)
    assert (seen.status, seen.security_groups) == ("rebooting cluster nodes", ("sg-redis",))
