"""What RDS, ElastiCache and EC2 answer, read; above all, whether security groups let a task in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.servers import Access, Cache, Instance

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


def test_an_instance_that_is_being_made_has_no_address() -> None:
    raw = {
        "DBInstanceIdentifier": "arrakis-production",
        "DBInstanceStatus": "storage-full",
        "Engine": "postgres",
        "EngineVersion": "15.8",
        "AllocatedStorage": 100,
        "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-db", "Status": "active"}],
    }
    seen = Instance.of({**raw, "Endpoint": {"Address": "db.example", "Port": 5432, "HostedZoneId": "Z1"}})
    assert (seen.address, seen.port, seen.security_groups) == ("db.example", 5432, ("sg-db",))
    assert (seen.identifier, seen.status, seen.version, seen.storage_gib) == (
        "arrakis-production",
        "storage-full",
        "15.8",
        100,
    )
    assert (seen.storage_left, seen.connections, seen.events) == (None, None, None)
    assert (Instance.of(raw).address, Instance.of(raw).port) == (None, None)


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
