"""What moto does not answer to whoever asks what may be done: policies simulated; and a cache's events, of which there are none."""

from moto.core.responses import ActionResult
from moto.elasticache.responses import ElastiCacheResponse
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.iam.models import IAMBackend
from moto.iam.responses import IamResponse

__all__ = ["install"]


def install() -> None:
    """Put the answers into moto; a second call changes nothing."""
    IamResponse.simulate_principal_policy = _simulate  # type: ignore[attr-defined]
    ElastiCacheResponse.describe_events = _no_events  # type: ignore[attr-defined]


def _simulate(self: IamResponse) -> ActionResult:
    """Say what a user's own policies allow; whoever is no user of the stand-in, as the lab's key, may do anything."""
    name = self._get_param("PolicySourceArn").partition(":user/")[2]
    users = [user.name for user in self.backend.list_users("/", None, None)]
    policies = _policies(self.backend, name) if name in users else None
    given = self._get_param("ContextEntries", [])
    context = {each["ContextKeyName"]: each["ContextKeyValues"][0] for each in given}
    results = [
        {
            "EvalActionName": action,
            "EvalResourceName": resource,
            "EvalDecision": "allowed" if _allows(policies, action, resource, context) else "implicitDeny",
        }
        for action in self._get_param("ActionNames")
        for resource in self._get_param("ResourceArns")
    ]
    return ActionResult({"EvaluationResults": results, "IsTruncated": False})


def _policies(backend: IAMBackend, user: str) -> list[IAMPolicy]:
    return [IAMPolicy(backend.get_user_policy(user, name)) for name in backend.list_user_policies(user)]


def _allows(policies: list[IAMPolicy] | None, action: str, resource: str, context: dict[str, str]) -> bool:
    if policies is None:
        return True
    said = {policy.is_action_permitted(action, resource, None, context) for policy in policies}
    return PermissionResult.PERMITTED in said and PermissionResult.DENIED not in said


def _no_events(self: ElastiCacheResponse) -> ActionResult:
    return ActionResult({"Events": []})
