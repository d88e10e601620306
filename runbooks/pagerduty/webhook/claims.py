"""Which deliveries are in somebody's hands, or done, in a DynamoDB table: a queue of SQS may give one to two at once, or twice.

An item has the partition key `key`, the `state`, who holds it, until when that counts, and `expires` for the table's time to live.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from sandbox.errors import ArrakisError
from sandbox.ports import AwsWriter

__all__ = ["Claims", "Standing"]

_REMEMBERED = timedelta(days=4)
_NAMES = {"#key": "key", "#state": "state", "#until": "until"}
_FREE = "attribute_not_exists(#key) OR (#state = :claimed AND #until < :now)"
_HELD = "ConditionalCheckFailedException"


class Standing(StrEnum):
    """How a delivery stands for whoever asks for it."""

    OURS = "ours"
    DONE = "done"
    HELD = "held by another"


class Claims:
    """The table, for one holder: an invocation."""

    def __init__(self, aws: AwsWriter, table: str, *, holder: str) -> None:
        """Take AWS, the table's name, and who holds what is claimed."""
        self._aws, self._table, self._holder = aws, table, holder

    def take(self, key: str, *, now: datetime, until: datetime) -> Standing:
        """Claim a delivery until then, unless it is done or another holds it. Raises Unreachable or Denied."""
        item = self._item(key, "claimed", until=until, now=now)
        values = {":claimed": {"S": "claimed"}, ":now": _number(now)}
        if self._tried(
            "put_item",
            Item=item,
            ConditionExpression=_FREE,
            ExpressionAttributeNames=_NAMES,
            ExpressionAttributeValues=values,
        ):
            return Standing.OURS
        answer = self._aws.read(
            "dynamodb", "get_item", TableName=self._table, Key={"key": {"S": key}}, ConsistentRead=True
        )
        found = answer.get("Item", {})
        if found.get("state") == {"S": "done"}:
            return Standing.DONE
        # The call is sent again where its answer was lost: then it is our own claim that stands in the way.
        return Standing.OURS if found.get("holder") == {"S": self._holder} else Standing.HELD

    def done(self, key: str, *, now: datetime) -> None:
        """Say that a delivery was triaged. Raises Unreachable or Denied."""
        item = self._item(key, "done", until=now, now=now)
        self._aws.write("dynamodb", "put_item", TableName=self._table, Item=item)

    def give_back(self, key: str) -> None:
        """Let others claim what is held no more; what another has taken since stays. Raises Unreachable or Denied."""
        self._tried(
            "delete_item",
            Key={"key": {"S": key}},
            ConditionExpression="#state = :claimed AND holder = :holder",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues={":claimed": {"S": "claimed"}, ":holder": {"S": self._holder}},
        )

    def _item(self, key: str, state: str, *, until: datetime, now: datetime) -> dict[str, dict[str, str]]:
        return {
            "key": {"S": key},
            "state": {"S": state},
            "holder": {"S": self._holder},
            "until": _number(until),
            "expires": _number(now + _REMEMBERED),
        }

    def _tried(self, operation: str, **params: object) -> bool:
        """Call it, and return whether its condition held."""
        try:
            self._aws.write("dynamodb", operation, TableName=self._table, **params)
        except ArrakisError as error:
            # The adapter has no error of its own for a condition that does not hold; what AWS said is the cause.
            answer = getattr(error.__cause__, "response", {})
            if answer.get("Error", {}).get("Code") != _HELD:
                raise
            return False
        return True


def _number(moment: datetime) -> dict[str, str]:
    return {"N": str(int(moment.timestamp()))}
