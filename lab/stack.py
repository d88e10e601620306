"""The AWS resources that are there before anything happens.

They are made inside the moto process: through the API, with a client for each service, they would take a second more.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from inspect import signature
from typing import Any
from uuid import uuid4

from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.ecs.models import ecs_backends
from moto.elasticache.models import elasticache_backends
from moto.events.models import events_backends
from moto.logs.models import logs_backends
from moto.rds.models import rds_backends

from lab.names import CACHE, CLEANUP, CLUSTER, CONTAINER, INSTANCE, LOG_GROUPS, REGION, WORKER

__all__ = ["lay_out"]

_POSTGRES, _REDIS = 5432, 6379
_ROLE = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/"
_FEWEST, _MOST = 1, 4  # tasks of the worker's service that autoscaling lets run


def lay_out(environment: Mapping[str, str]) -> None:
    """Make them all; `environment` is what the clean-up job's task definition says. Before the first request."""
    network = _network()
    _servers(network)
    _tasks(network, environment)
    for group in LOG_GROUPS:
        logs_backends[DEFAULT_ACCOUNT_ID][REGION].create_log_group(group, {})


def _network() -> dict[str, Any]:
    """Three security groups in the default network: the tasks' may reach the database's and the cache's ports."""
    ec2 = ec2_backends[DEFAULT_ACCOUNT_ID][REGION]
    tasks, database, cache = (
        ec2.create_security_group(f"arrakis-lab-{name}", f"Arrakis: {name}")
        for name in ("tasks", "database", "cache")
    )
    for group, port in ((database, _POSTGRES), (cache, _REDIS)):
        source = [{"GroupId": tasks.id}]
        ec2.authorize_security_group_ingress(group.id, "tcp", str(port), str(port), [], source_groups=source)
    subnets = [subnet.id for subnet in ec2.get_default_subnets().values()]
    return {"tasks": tasks.id, "database": database.id, "cache": cache.id, "subnets": subnets}


def _servers(network: Mapping[str, Any]) -> None:
    rds_backends[DEFAULT_ACCOUNT_ID][REGION].create_db_instance(
        {
            "db_instance_identifier": INSTANCE,
            "db_instance_class": "db.t4g.medium",
            "engine": "postgres",
            "engine_version": "15.8",
            "allocated_storage": 100,
            "db_name": "arrakis",
            "master_username": "lab",
            "vpc_security_group_ids": [network["database"]],
        }
    )
    elasticache = elasticache_backends[DEFAULT_ACCOUNT_ID][REGION]
    common = {"engine": "redis", "engine_version": "7.0", "cache_node_type": "cache.t4g.small"}
    guarded = {"security_group_ids": [network["cache"]], "replication_group_id": CACHE}
    group = elasticache.create_replication_group(
        **_filled(
            elasticache.create_replication_group,
            replication_group_description="Arrakis",
            **common,
            **guarded,
        )
    )
    # AWS makes the members too, and they alone tell their security groups, which moto keeps to itself.
    for member in group.member_clusters:
        made = _filled(elasticache.create_cache_cluster, cache_cluster_id=member, **common, **guarded)
        cluster: Any = elasticache.create_cache_cluster(**made)
        cluster.security_groups = [{"SecurityGroupId": network["cache"], "Status": "active"}]


def _tasks(network: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """The cluster with its worker, and the clean-up job with its schedule."""
    ecs = ecs_backends[DEFAULT_ACCOUNT_ID][REGION]
    placed = {
        "awsvpcConfiguration": {
            "subnets": network["subnets"],
            "securityGroups": [network["tasks"]],
            "assignPublicIp": "DISABLED",
        }
    }
    cluster = ecs.create_cluster(CLUSTER)
    for family, container, words in ((WORKER, "worker", {}), (CLEANUP, CONTAINER, environment)):
        definition = _container(family, container, words)
        ecs.register_task_definition(
            family,
            [definition],
            task_role_arn=f"{_ROLE}{family}-task",
            execution_role_arn=f"{_ROLE}arrakis-lab-execution",
            requires_compatibilities=["FARGATE"],
            cpu="256",
            memory="512",
        )
    os.environ["MOTO_ECS_SERVICE_RUNNING"] = "1"  # moto starts no task of a service; it is told how many run
    worker = ecs.create_service(
        CLUSTER, WORKER, 1, WORKER, launch_type="FARGATE", network_configuration=placed
    )
    steady = f"(service {WORKER}) has reached a steady state."
    worker.events = [{"id": str(uuid4()), "createdAt": datetime.now(UTC), "message": steady}]
    _watch_over_worker()
    events = events_backends[DEFAULT_ACCOUNT_ID][REGION]
    events.put_rule(CLEANUP, scheduled_expression="rate(15 minutes)", state="ENABLED")
    target = {
        "Id": CLEANUP,
        "Arn": cluster.arn,
        "RoleArn": f"{_ROLE}arrakis-lab-events",
        "EcsParameters": {
            "TaskDefinitionArn": f"arn:aws:ecs:{REGION}:{DEFAULT_ACCOUNT_ID}:task-definition/{CLEANUP}",
            "TaskCount": 1,
            "LaunchType": "FARGATE",
            "NetworkConfiguration": {
                "awsvpcConfiguration": {
                    "Subnets": network["subnets"],
                    "SecurityGroups": [network["tasks"]],
                    "AssignPublicIp": "DISABLED",
                }
            },
        },
    }
    events.put_targets(CLEANUP, None, [target])


def _watch_over_worker() -> None:
    """Let autoscaling keep the worker's service within its limits."""
    applicationautoscaling_backends[DEFAULT_ACCOUNT_ID][REGION].register_scalable_target(
        "ecs",
        f"service/{CLUSTER}/{WORKER}",
        "ecs:service:DesiredCount",
        min_capacity=_FEWEST,
        max_capacity=_MOST,
        role_arn=f"{_ROLE}arrakis-lab-autoscaling",
        suspended_state={  # type: ignore[arg-type]
            "DynamicScalingInSuspended": False,
            "DynamicScalingOutSuspended": False,
            "ScheduledScalingSuspended": False,
        },
    )


def _container(family: str, name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    options = {"awslogs-group": f"/ecs/{family}", "awslogs-region": REGION, "awslogs-stream-prefix": "ecs"}
    return {
        "name": name,
        "image": f"{DEFAULT_ACCOUNT_ID}.dkr.ecr.{REGION}.amazonaws.com/arrakis:lab",
        "memory": 512,
        "essential": True,
        "command": ["node", f"dist/jobs/{name}.js"],
        "environment": [{"name": key, "value": value} for key, value in sorted(environment.items())],
        "logConfiguration": {"logDriver": "awslogs", "options": options},
    }


def _filled(method: Any, **given: Any) -> dict[str, Any]:
    """All arguments of one of moto's methods that has no defaults: None where nothing is given."""
    return dict.fromkeys(signature(method).parameters) | given
