"""A service is deployed anew once, and watched until it is stable, or nothing is left to wait for."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Resource, Reversibility, State
from runbooks.remedies.service import RestartService
from sandbox.errors import ArrakisError, Missing, Unreachable
from tests.unit.evidence import NOW
from tests.unit.routing import SANDBOX, stream_state

OLD, NEW = "ecs-svc/1", "ecs-svc/2"


def deployment(id: str, status: str = "PRIMARY", **changes: Any) -> dict[str, Any]:
    """Return a deployment as ECS tells it."""
    told = {"id": id, "status": status, "rolloutState": "COMPLETED", "desiredCount": 2, "runningCount": 2}
    told |= {"pendingCount": 0, "failedTasks": 0, "taskDefinition": "arn:x/arrakis-worker:3"}
    return told | changes


def service(*deployments: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the service as ECS tells it, with as many running as its deployments have."""
    running = sum(each["runningCount"] for each in deployments)
    told: dict[str, Any] = {"serviceName": "arrakis-worker", "status": "ACTIVE", "desiredCount": 2}
    told |= {"runningCount": running, "pendingCount": 0, "deployments": list(deployments), "events": []}
    return told | {"taskDefinition": "arn:x/arrakis-worker:3"} | changes


BEFORE = service(deployment(OLD))
ROLLING = service(deployment(NEW, runningCount=0), deployment(OLD, "ACTIVE", runningCount=1))
AFTER = service(deployment(NEW))


@dataclass
class Ecs:
    """ECS, which says what was prepared, the last of it for ever; and messaging, whose stream comes after some looks."""

    says: list[dict[str, Any] | Exception | None]
    stream_after: int = 0
    begun: list[Mapping[str, Any]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def read(self, name: str, operation: str, /, **params: Any) -> Mapping[str, Any]:
        assert (name, operation, params) == (
            "ecs",
            "describe_services",
            {"cluster": "c", "services": ["arrakis-worker"]},
        )
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, Exception):
            raise said
        return {"services": [said]} if said else {"services": [], "failures": [{"reason": "MISSING"}]}

    def write(self, name: str, operation: str, /, **params: Any) -> Mapping[str, Any]:
        assert (name, operation) == ("ecs", "update_service")
        self.begun.append(params)
        return {"service": service(deployment(NEW, runningCount=0), deployment(OLD, "ACTIVE"))}

    def stream(self, name: str) -> Any:
        assert name == "SANDBOX"
        self.stream_after -= 1
        return stream_state(SANDBOX) if self.stream_after < 0 else None

    def remedy(self) -> RestartService:
        """Return the remedy, with nothing else in its hands."""
        systems: Any = type("Systems", (), {"aws": self, "streams": self})()
        return RestartService(_Held(read=systems, write=systems, fence=lambda _: None, tell=self.told.append))


class _Held(Gate):
    """A gate whose lease is held."""

    @contextmanager
    def lease(self) -> Iterator[None]:
        yield


ACTION = Action(
    id="a1",
    verb="restart service",
    resource=Resource(kind="service", id="arrakis-worker"),
    before={"cluster": "c", "service": "arrakis-worker", "deployment": OLD},
    after={"stream": "SANDBOX"},
    reason="",
    reversibility=Reversibility.IRREVERSIBLE,
)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Time passes by sleeping, and no faster."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("runbooks.remedies.service.time.sleep", sleep)
    monkeypatch.setattr("runbooks.remedies.service.time.monotonic", lambda: now[0])
    return lambda: now[0]


@pytest.mark.parametrize(
    ("said", "stream_after", "state", "why"),
    [
        (BEFORE, 0, State.BEFORE, "deployment 1: 2 of 2 tasks run"),
        (ROLLING, 0, State.PARTLY, "deployment 2: 1 of 2 tasks run, 2 deployments"),
        (AFTER, 0, State.AFTER, "deployment 2: 2 of 2 tasks run, and stream SANDBOX is there"),
        (AFTER, 9, State.PARTLY, "deployment 2: 2 of 2 tasks run, but there is no stream SANDBOX"),
        (None, 0, State.CHANGED, "there is no such active service any more"),
        (
            service(deployment(OLD), status="DRAINING"),
            0,
            State.CHANGED,
            "there is no such active service any more",
        ),
        (service(deployment(OLD), desiredCount=0), 0, State.CHANGED, "it is told to run no task now"),
        (service(), 0, State.CHANGED, "its deployments are not ECS's own"),
    ],
)
def test_how_it_stands(said: Any, stream_after: int, state: State, why: str) -> None:
    seen = Ecs([said], stream_after).remedy().observe(ACTION)
    assert (seen.state, seen.reason) == (state, why)


@pytest.mark.parametrize(
    ("said", "user"),
    [
        (BEFORE, None),
        (
            service(deployment(OLD), deployment("ecs-svc/0", "ACTIVE")),
            "a deployment of it is under way already",
        ),
        (ROLLING, None),
        (AFTER, None),
        (None, None),
    ],
)
def test_a_deployment_of_somebody_else_is_waited_for(said: Any, user: str | None) -> None:
    assert Ecs([said]).remedy().in_use(ACTION) == user


def test_it_is_begun_once_never_with_another_count_and_watched_until_stable() -> None:
    happened = {"createdAt": NOW, "message": "has started 1 tasks."}
    later = {"createdAt": NOW + timedelta(seconds=9), "message": "steady \x1b[2J"}
    ecs = Ecs([BEFORE, BEFORE, ROLLING, Unreachable("no answer"), {**ROLLING, "events": [happened]},
               {**AFTER, "events": [later, happened]}], stream_after=2)  # fmt: skip
    ecs.remedy().apply(ACTION)
    assert ecs.begun == [{"cluster": "c", "service": "arrakis-worker", "forceNewDeployment": True}]
    assert ecs.told == [
        "  arrakis-worker: deployment 1: 2 of 2 tasks run",
        "  arrakis-worker: deployment 2: 1 of 2 tasks run, 2 deployments",
        "  arrakis-worker: cannot tell: no answer",
        "  arrakis-worker: deployment 2: 1 of 2 tasks run, 2 deployments",
        "  arrakis-worker: steady \\x1b[2J",
    ]


def test_one_that_was_begun_is_not_begun_twice() -> None:
    ecs = Ecs([ROLLING, ROLLING, AFTER])
    ecs.remedy().apply(ACTION)
    assert ecs.begun == []


FAILING = service(deployment(NEW, runningCount=0, failedTasks=3), desiredCount=2)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ([BEFORE, FAILING], "3 tasks of the new deployment did not stay up"),
        (
            [BEFORE, service(deployment(NEW, runningCount=0, rolloutState="FAILED"))],
            "0 tasks of the new deployment",
        ),
        ([BEFORE, service(deployment(NEW), status="INACTIVE")], "the service is not active any more"),
        ([BEFORE, None], "the service is not active any more"),
        ([BEFORE, ROLLING], "it is not stable within 10 minutes: deployment 2: 1 of 2 tasks run"),
        ([BEFORE, BEFORE], "it is not stable within 10 minutes: deployment 1"),
    ],
)
def test_what_does_not_become_stable_is_an_error(
    says: list[Any], why: str, clock: Callable[[], float]
) -> None:
    ecs = Ecs(says)
    with pytest.raises(ArrakisError, match=why):
        ecs.remedy().apply(ACTION)
    assert len(ecs.begun) == 1
    assert clock() < 11 * 60


def test_a_stable_service_without_its_stream_is_an_error() -> None:
    with pytest.raises(Missing, match="is stable, but makes no stream SANDBOX"):
        Ecs([BEFORE, AFTER], stream_after=10**6).remedy().apply(ACTION)
