"""The webhook as a function of AWS Lambda.

Requests, notifications and alarms are checked and put into a queue of SQS; what that gives back is triaged, by the same function.
"""

import base64
import binascii
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import cache
from logging import Logger
from typing import Any
from uuid import uuid4

from runbooks.pagerduty.webhook.certificates import fetch
from runbooks.pagerduty.webhook.claims import Claims, Standing
from runbooks.pagerduty.webhook.delivery import Delivery, Malformed, document, from_alarm, from_event, moment
from runbooks.pagerduty.webhook.handler import Answer, Handler, Ports, Request, complaint
from runbooks.pagerduty.webhook.queue import Receipt
from runbooks.pagerduty.webhook.settings import Settings, resolve
from sandbox.deadline import within
from sandbox.errors import ArrakisError
from sandbox.joblog import fields, logger
from sandbox.ports import AwsWriter

__all__ = ["Function", "handle"]

_FRESH = timedelta(minutes=5)  # for as long as secrets are kept: a changed one takes hold by itself
_SPARE = 5.0  # seconds of an invocation that are kept for saying how it went
_PAUSES = (5, 20, 60, 180, 600)  # seconds before a message that failed comes again
_PATIENCE = 3.0  # seconds for SNS; there is no thread here that others wait for


def handle(event: Mapping[str, Any], context: Any) -> dict[str, Any] | None:
    """Handle one event with what the variables name. Raises ArrakisError where AWS has to try again."""
    return _function().handle(event, seconds=context.get_remaining_time_in_millis() / 1000)


@cache
def _function() -> "Function":
    from sandbox.adapters.aws import Aws

    level = os.environ.get("LOG_LEVEL") or "info"
    aws = Aws(region=os.environ.get("AWS_REGION"), timeout=5)
    return Function(os.environ, aws, _deliver, log=logger("Webhook", level=level, stream=sys.stderr))


def _deliver(delivery: Delivery) -> None:
    """Triage it. What that takes is imported now: a request that starts an instance has to be answered at once."""
    from runbooks.pagerduty.responder import deliver

    deliver(delivery)


class Function:
    """One instance of the function, which serves one event after another."""

    def __init__(
        self,
        variables: Mapping[str, str],
        aws: AwsWriter,
        triage: Callable[[Delivery], None],
        *,
        log: Logger,
        fetch: Callable[[str], bytes] = fetch,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take the variables (WEBHOOK_QUEUE_URL, WEBHOOK_TABLE, and those of Settings), AWS, and what triages."""
        self._variables, self._aws, self._triage = variables, aws, triage
        self._log, self._fetch, self._clock = log, fetch, clock
        self._handler: tuple[Handler, Settings, datetime] | None = None

    def handle(self, event: Mapping[str, Any], *, seconds: float) -> dict[str, Any] | None:
        """Handle one event within so many seconds. Raises ArrakisError where AWS has to try again, or cannot have meant us."""
        if "http" in event.get("requestContext", {}):
            return self._request(event)
        records = event.get("Records", [])
        kinds = {record.get("eventSource") or record.get("EventSource") for record in records}
        if kinds == {"aws:sqs"}:
            failed = [record["messageId"] for record in records if not self._triaged(record, seconds)]
            return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}
        if kinds == {"aws:sns"}:
            for record in records:
                self._notified(record["Sns"])
        elif "detail-type" in event:
            self._keep(from_event(event, self._clock()))
        else:
            raise ArrakisError("the event is none that the webhook knows", hint="what invokes the function?")
        return None

    def _request(self, event: Mapping[str, Any]) -> dict[str, Any]:
        text = event.get("body") or ""
        try:
            body = base64.b64decode(text, validate=True) if event.get("isBase64Encoded") else text.encode()
            answer = self._handling()[0].handle(
                Request(
                    method=event["requestContext"]["http"]["method"],
                    path=event["rawPath"],
                    headers={name.lower(): value for name, value in event.get("headers", {}).items()},
                    body=body,
                )
            )
        except (binascii.Error, UnicodeEncodeError):
            answer = Answer(status=400, text="malformed")
        headers = {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}
        return {"statusCode": answer.status, "headers": headers, "body": f"{answer.text}\n"}

    def _handling(self) -> tuple[Handler, Settings]:
        """Return the handler, with settings that are not older than five minutes."""
        now = self._clock()
        if self._handler is None or now >= self._handler[2]:
            settings = resolve(self._variables)
            if self._handler is None or settings != self._handler[1]:
                ports = Ports(
                    put=self._put, fetch=self._fetch, clock=self._clock, log=self._log, patience=_PATIENCE
                )
                handler = Handler(settings, ports)
            else:  # it knows the certificates
                handler = self._handler[0]
            self._handler = handler, settings, now + _FRESH
        return self._handler[:2]

    def _notified(self, envelope: Mapping[str, Any]) -> None:
        """Keep what SNS itself brings: who may invoke the function is IAM's business, its signature need not be checked."""
        if envelope.get("TopicArn") not in self._handling()[1].topics:
            self._log.warning("Notification refused: its topic is none of WEBHOOK_TOPICS")
            return
        try:
            self._keep(from_alarm(envelope["Message"], envelope["MessageId"], self._clock()))
        except Malformed as error:  # it will not be better the next time
            self._log.error("Notification refused", extra=fields(error=error))

    def _keep(self, delivery: Delivery | None) -> None:
        if delivery:
            self._put(delivery)
            said = fields(delivery=delivery.key, subject=delivery.subject)
            self._log.info("Delivery accepted", extra=said)

    def _put(self, delivery: Delivery) -> Receipt:
        """Send it to the queue. Whether it was there before turns out when it is triaged. Raises Unreachable or Denied."""
        self._aws.write(
            "sqs",
            "send_message",
            QueueUrl=self._named("WEBHOOK_QUEUE_URL"),
            MessageBody=json.dumps(asdict(delivery) | {"received": delivery.received.isoformat()}),
        )
        return Receipt.ACCEPTED

    def _triaged(self, record: Mapping[str, Any], seconds: float) -> bool:
        """Triage one message; return whether the queue may forget it. What may not comes again, and ends among the dead letters."""
        try:
            delivery = _delivery(record["body"])
            return self._claimed_and_triaged(delivery, seconds)
        except (Exception, SystemExit) as error:
            said = fields(message=record["messageId"], **complaint(error))
            self._log.error("Triage failed", extra=said)
            self._sooner(record)
            return False

    def _sooner(self, record: Mapping[str, Any]) -> None:
        """Let a message come again after a pause of our own: by itself it would after the time that the longest triage takes."""
        tries = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
        try:
            self._aws.write(
                "sqs",
                "change_message_visibility",
                QueueUrl=self._named("WEBHOOK_QUEUE_URL"),
                ReceiptHandle=record["receiptHandle"],
                VisibilityTimeout=_PAUSES[min(tries, len(_PAUSES)) - 1],
            )
        except ArrakisError as error:  # then it comes later
            self._log.warning("It comes again later than it could", extra=fields(error=error))

    def _claimed_and_triaged(self, delivery: Delivery, seconds: float) -> bool:
        now, said = self._clock(), fields(delivery=delivery.key, subject=delivery.subject)
        claims = Claims(self._aws, self._named("WEBHOOK_TABLE"), holder=uuid4().hex)
        standing = claims.take(delivery.key, now=now, until=now + timedelta(seconds=seconds))
        if standing is not Standing.OURS:
            self._log.info(f"Not triaged: {standing}", extra=said)
            return standing is Standing.DONE
        try:
            within(max(1.0, seconds - _SPARE), lambda: self._triage(delivery), "the triage")
        except BaseException:
            self._give_back(claims, delivery.key)
            raise
        claims.done(delivery.key, now=self._clock())
        self._log.info("Triaged", extra=said)
        return True

    def _give_back(self, claims: Claims, key: str) -> None:
        try:
            claims.give_back(key)
        except ArrakisError as error:  # it is free again when this invocation's time is over
            self._log.warning("The claim stays", extra=fields(delivery=key, error=error))

    def _named(self, variable: str) -> str:
        if value := self._variables.get(variable):
            return value
        raise ArrakisError(f"{variable} is not set", hint="the function's Terraform sets it")


def _delivery(body: str) -> Delivery:
    content = document(body)
    if content.get("kind") not in ("incident", "alarm"):
        raise Malformed("the message is no delivery")
    received = moment(content.get("received"), "received")
    return Delivery(
        key=str(content["key"]), kind=content["kind"], subject=str(content["subject"]), received=received
    )
