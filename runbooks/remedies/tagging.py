"""The two tags of an emergency stop put on what it stops, and taken away again. A stop never fails for want of them."""

from collections.abc import Mapping
from datetime import datetime

from diagnostics.scaling import read_tags
from runbooks.engine.gate import Gate
from runbooks.engine.model import Action, State
from runbooks.remedies.tags import KEYS, Kept, decode, encode
from sandbox.errors import ArrakisError

__all__ = ["Tagging"]


class Tagging:
    """The tags of an action's rule or service; the action's `before` has its arn, and the id of the stop."""

    def __init__(self, gate: Gate) -> None:
        """Work through the gate."""
        self._gate = gate

    def keep(self, action: Action, kept: Kept, *, in_force: bool) -> None:
        """Write how it was. Those of an earlier stop that is `in_force` stay: they hold how it truly was. Never raises."""
        try:
            there = self._read(action)
            mine = there is not None and there.stop.id == kept.stop.id
            if there is None or (there.before != kept.before if mine else not in_force):
                self._write(action, encode(kept))
            elif not mine:
                self._tell(action, f"the tags of stop {there.stop.id} stay: they hold how it was before that")
        except ArrakisError as error:
            self._tell(action, f"how it was is not kept as tags: {error}")

    def cleared(self, action: Action, told: str) -> tuple[State, str]:
        """How something stands that is as it was before: done with only once this stop's tags are gone."""
        try:
            there = self._read(action)
        except ArrakisError as error:
            return State.BEFORE, f"{told}; whether its tags are gone cannot be told: {error}"
        if there and there.stop.id == action.before["stop"]:
            return State.PARTLY, f"{told}, but the tags of stop {there.stop.id} are on it"
        return State.BEFORE, told

    def overtaken(self, action: Action) -> str | None:
        """Say which later stop has stopped it since; None where none has, or the tags cannot be read."""
        try:
            there = self._read(action)
        except ArrakisError:
            return None
        if there is None or there.stop.at <= datetime.fromisoformat(action.before["at"]):
            return None
        return (
            f"{there.stop.by} stopped it again since, with {there.stop.id}: `emergency-resume` brings it back"
        )

    def forget(self, action: Action) -> None:
        """Take this stop's tags away. Those that cannot be read are left; raises ArrakisError where AWS keeps them."""
        try:
            there = self._read(action)
        except ArrakisError as error:
            self._tell(action, f"whether its tags are gone cannot be told: {error}")
            return
        if there and there.stop.id == action.before["stop"]:
            self._remove(action)

    def _read(self, action: Action) -> Kept | None:
        return decode(read_tags(self._gate.read.aws, action.before["arn"]))

    def _write(self, action: Action, tags: Mapping[str, str]) -> None:
        aws, arn = self._gate.write.aws, action.before["arn"]
        if action.resource.kind == "rule":
            told = [{"Key": key, "Value": value} for key, value in tags.items()]
            aws.write("events", "tag_resource", ResourceARN=arn, Tags=told)
        else:
            told = [{"key": key, "value": value} for key, value in tags.items()]
            aws.write("ecs", "tag_resource", resourceArn=arn, tags=told)

    def _remove(self, action: Action) -> None:
        aws, arn = self._gate.write.aws, action.before["arn"]
        if action.resource.kind == "rule":
            aws.write("events", "untag_resource", ResourceARN=arn, TagKeys=list(KEYS))
        else:
            aws.write("ecs", "untag_resource", resourceArn=arn, tagKeys=list(KEYS))

    def _tell(self, action: Action, what: str) -> None:
        self._gate.tell(f"  {action.resource.id}: {what}")
