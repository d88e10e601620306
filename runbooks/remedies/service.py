"""A service of ECS started anew: a new deployment of what it runs already, watched until it is stable."""

import time
from datetime import datetime

from diagnostics.compute import Deployment, Service, read_service
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, Observation, State
from runbooks.rights import RESTARTING
from sandbox.errors import ArrakisError, Missing
from sandbox.text import clean, counted

__all__ = ["RestartService"]

_POLL, _LONGEST_POLL = 0.5, 10.0  # seconds between two looks at it
_PATIENCE = 10 * 60.0  # seconds that it is watched for, as `aws ecs wait services-stable` does
_ENOUGH = 3  # of its tasks that fail: ECS would go on for ever, later each time
_STREAM_PATIENCE = 30.0  # seconds in which the EventRouter makes its stream, once its task runs


class RestartService:
    """Starts the worker service's tasks anew, and sees that the EventRouter's stream is there then.

    Deployments bear no mark of who began them: one that is newer than the plan's is taken for ours, and not begun twice.
    How many tasks it should run is never changed.
    """

    verb = "restart service"
    rights = RESTARTING

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def observe(self, action: Action) -> Observation:
        """Look whether its tasks are those of the plan's deployment, or of a newer one, and whether that is stable."""
        service = self._service(action)
        if service is None or service.status != "ACTIVE":
            return Observation(state=State.CHANGED, reason="there is no such active service any more")
        if not service.desired:
            return Observation(state=State.CHANGED, reason="it is told to run no task now")
        primary = service.primary
        if primary is None:
            return Observation(state=State.CHANGED, reason="its deployments are not ECS's own")
        evidence = {"deployment": primary.id}
        if primary.id == action.before["deployment"]:
            return Observation(state=State.BEFORE, reason=_told(service), evidence=evidence)
        if not service.stable:
            return Observation(state=State.PARTLY, reason=_told(service), evidence=evidence)
        if not self._has_stream(action):
            why = f"{_told(service)}, but there is no stream {action.after['stream']}"
            return Observation(state=State.PARTLY, reason=why, evidence=evidence)
        why = f"{_told(service)}, and stream {action.after['stream']} is there"
        return Observation(state=State.AFTER, reason=why, evidence=evidence)

    def in_use(self, action: Action) -> str | None:
        """Say whether another deployment is under way."""
        service = self._service(action)
        if service is None or service.primary is None or service.primary.id != action.before["deployment"]:
            return None  # it is ours, to be watched to its end; or observe says what else it is
        return "a deployment of it is under way already" if len(service.deployments) > 1 else None

    def apply(self, action: Action) -> None:
        """Begin a new deployment, unless one was begun since the plan; wait until it is stable, then for the stream."""
        service = self._service(action)
        ours = service.primary if service else None
        if ours is None or ours.id == action.before["deployment"]:
            ours = self._begin(action)
        self._watch(action, ours)
        end = time.monotonic() + _STREAM_PATIENCE
        while not self._has_stream(action):
            if time.monotonic() > end:
                raise Missing(
                    f"{action.resource.id} is stable, but makes no stream {action.after['stream']}",
                    hint="its log says why: does the server have as many replicas as it asks for?",
                )
            time.sleep(_POLL)

    def revert(self, action: Action) -> None:
        """Impossible."""
        raise ArrakisError("the tasks that ran before have ended", hint="the new ones run the same")

    def _begin(self, action: Action) -> Deployment:
        with self._gate.lease():
            answer = self._gate.write.aws.write(
                "ecs",
                "update_service",
                cluster=action.before["cluster"],
                service=action.before["service"],
                forceNewDeployment=True,
            )
        begun = Service.of(answer["service"]).primary
        if begun is None:
            raise ArrakisError("ECS began no deployment", hint="the service's deployments are not ECS's own")
        return begun

    def _watch(self, action: Action, ours: Deployment) -> None:
        """Wait until the deployment is the only one and as many tasks run as should; tell what changes on the way."""
        since: datetime | None = None

        def look() -> tuple[bool, str]:
            nonlocal since
            service = self._service(action)
            since = self._tell_events(action, service, since)
            if service and service.stable and service.primary and service.primary.id == ours.id:
                return True, _told(service)
            return False, _told(_insist(service, ours))

        late = self._gate.watch(action, look, pause=_POLL, longest=_LONGEST_POLL, patience=_PATIENCE)
        if late is not None:
            raise ArrakisError(f"it is not stable within {_PATIENCE / 60:.0f} minutes: {late}")

    def _tell_events(
        self, action: Action, service: Service | None, since: datetime | None
    ) -> datetime | None:
        """Tell the service's events that are newer; none at the first look. Return when the newest was."""
        events = service.events if service else ()
        for at, message in reversed(events):
            if since and at > since:
                self._gate.tell(f"  {action.resource.id}: {clean(message)}")
        return max([at for at, _ in events] + ([since] if since else []), default=None)

    def _service(self, action: Action) -> Service | None:
        return read_service(
            self._gate.read.aws, cluster=action.before["cluster"], name=action.before["service"]
        )

    def _has_stream(self, action: Action) -> bool:
        return self._gate.read.streams.stream(action.after["stream"]) is not None


def _insist(service: Service | None, ours: Deployment) -> Service:
    """Return the service; raise where nothing is left to wait for: it is gone, or the new tasks do not stay up."""
    if service is None or service.status != "ACTIVE":
        raise ArrakisError("the service is not active any more")
    mine = next((each for each in service.deployments if each.id == ours.id), None)
    if mine and (mine.rollout == "FAILED" or (mine.failed >= _ENOUGH and not mine.running)):
        raise ArrakisError(
            f"{counted(mine.failed, 'task')} of the new deployment did not stay up",
            hint=f"look at the tasks' stoppedReason, and at what {mine.definition} says",
        )
    return service


def _told(service: Service) -> str:
    primary = service.primary
    which = f"deployment {primary.id.rpartition('/')[2]}: " if primary else ""
    more = f", {len(service.deployments)} deployments" if len(service.deployments) > 1 else ""
    return f"{which}{service.running} of {service.desired} tasks run{more}"
