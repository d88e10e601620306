"""PagerDuty: from a page to its diagnosis, and the incident's timeline.

`lambda_handler` is where AWS Lambda enters; see runbooks.pagerduty.webhook.function.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["lambda_handler"]


def lambda_handler(event: Mapping[str, Any], context: object) -> dict[str, Any] | None:
    """Return the answer to one event of AWS Lambda: a request, a notification, an alarm, or a batch of the queue.

    Raises ArrakisError where it cannot be handled now, so that AWS tries again.
    """
    from runbooks.pagerduty.webhook.function import handle

    return handle(event, context)
