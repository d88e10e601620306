"""One request, from its bytes to its answer. The server and the Lambda function both ask here."""

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from logging import Logger
from typing import Any

from runbooks.pagerduty.webhook import signatures, sns
from runbooks.pagerduty.webhook.certificates import Certificates
from runbooks.pagerduty.webhook.delivery import (
    Delivery,
    Forged,
    Malformed,
    document,
    from_action,
    from_alarm,
    from_event,
    from_pagerduty,
)
from runbooks.pagerduty.webhook.errands import Errands
from runbooks.pagerduty.webhook.queue import Receipt
from runbooks.pagerduty.webhook.settings import Settings
from sandbox.errors import ArrakisError, Unreachable
from sandbox.joblog import fields

__all__ = ["LARGEST", "Answer", "Handler", "Ports", "Request", "complaint"]

LARGEST = 256 * 1024  # bytes of a body; PagerDuty promises no more
_TOLD, _MINUTE = 30, 60.0  # refusals that are logged, and in how many seconds
_SIGNATURE, _SHARED = "x-pagerduty-signature", "x-arrakis-secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What came in. The headers' names are in small letters; the body is as it was sent, to the byte."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back: an HTTP status, and a few words that tell a stranger nothing."""

    status: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What a handler works with: where deliveries go, how an address of SNS is called, the clock (UTC), and the log.

    `patience` is how long a request waits for SNS, in seconds; `kept` hears what became of each delivery.
    """

    put: Callable[[Delivery], Receipt]
    fetch: Callable[[str], bytes]
    clock: Callable[[], datetime]
    log: Logger
    patience: float = 0.7
    kept: Callable[[Receipt], None] = lambda _: None


class Handler:
    """Checks who sent a request, and keeps what it asks for. It does nothing else: what is kept is triaged elsewhere."""

    def __init__(self, settings: Settings, ports: Ports) -> None:
        """Take whose requests are served, and what to work with."""
        self._settings, self._ports = settings, ports
        self._certificates = Certificates(ports.fetch, clock=ports.clock, patience=ports.patience)
        self._told: deque[float] = deque(maxlen=_TOLD)
        self._untold = 0
        self._confirming: Errands[bytes] = Errands(patience=ports.patience)
        routes = {
            "/pagerduty": (settings.pagerduty, self._pagerduty),
            "/action": (settings.action, self._action),
            "/events": (settings.events, self._events),
            "/sns": (settings.topics, self._sns),
        }
        self._routes = {path: route for path, (served, route) in routes.items() if served}

    def handle(self, request: Request) -> Answer:
        """Return the answer; whatever is wrong with a request, or with us, is one."""
        route = self._routes.get(request.path)
        if route is None:
            return Answer(status=404, text="not found")
        if request.method != "POST":
            return Answer(status=405, text="POST only")
        if len(request.body) > LARGEST:
            return Answer(status=413, text="too large")
        try:
            return self._keep(route(request), request.path)
        except Malformed as error:
            return self._refuse(Answer(status=400, text="malformed"), request.path, error)
        except Forged as error:
            return self._refuse(Answer(status=403, text="not accepted"), request.path, error)
        except Unreachable as error:
            return self._refuse(Answer(status=503, text="try again"), request.path, error)
        except Exception as error:  # a fault of ours: the sender tries again
            self._ports.log.error("Request failed", extra=fields(path=request.path, **complaint(error)))
            return Answer(status=500, text="failed")

    def _keep(self, deliveries: Iterable[Delivery | None], path: str) -> Answer:
        receipts = []
        for delivery in filter(None, deliveries):
            receipts.append(receipt := self._ports.put(delivery))
            self._ports.kept(receipt)
            said = fields(delivery=delivery.key, subject=delivery.subject, path=path)
            self._ports.log.info(f"Delivery {receipt}", extra=said)
        if Receipt.FULL in receipts:
            return Answer(status=503, text="try again")
        if Receipt.ACCEPTED in receipts:
            return Answer(status=202, text="accepted")
        return Answer(status=202, text="known already" if receipts else "nothing to do")

    def _refuse(self, answer: Answer, path: str, error: ArrakisError) -> Answer:
        """Say why in the log, but not as often as strangers like."""
        now = time.monotonic()
        if len(self._told) < _TOLD or now - self._told[0] > _MINUTE:
            self._told.append(now)
            said = fields(path=path, status=answer.status, error=error, untold=self._untold)
            self._ports.log.warning("Request refused", extra=said)
            self._untold = 0
        else:
            self._untold += 1
        return answer

    def _pagerduty(self, request: Request) -> list[Delivery | None]:
        header = request.headers.get(_SIGNATURE, "")
        if not signatures.signed(header, request.body, self._settings.pagerduty):
            raise Forged("the signature is none of PagerDuty's with our secrets")
        return [from_pagerduty(request.body, self._ports.clock())]

    def _action(self, request: Request) -> Iterable[Delivery]:
        self._know(request, self._settings.action)
        return from_action(request.body, self._ports.clock())

    def _events(self, request: Request) -> list[Delivery | None]:
        self._know(request, self._settings.events)
        return [from_event(document(request.body), self._ports.clock())]

    def _know(self, request: Request, secrets: Iterable[str]) -> None:
        if not signatures.known(request.headers.get(_SHARED, ""), secrets):
            raise Forged(f"the header {_SHARED} is none of our secrets")

    def _sns(self, request: Request) -> list[Delivery | None]:
        now = self._ports.clock()
        envelope = sns.opened(request.body, self._settings.topics, now)
        sns.verify(envelope, self._certificates.key)
        if envelope.type == "Notification":
            return [from_alarm(envelope.message, envelope.identity, now)]
        said = fields(topic=envelope.topic)
        if envelope.type == "SubscriptionConfirmation":
            address = sns.confirmation(envelope)
            self._confirming.run(f"SNS for {envelope.topic}", lambda: self._ports.fetch(address))
            self._ports.log.info("Subscription confirmed", extra=said)
        else:  # its SubscribeURL would subscribe again
            self._ports.log.warning("Subscription ended", extra=said)
        return []


def complaint(error: BaseException) -> dict[str, Any]:
    """Return what may be logged of an error: its words if they are meant to be read, else its kind and where it came from."""
    if isinstance(error, ArrakisError):
        return {"error": error}
    return {"kind": type(error).__name__, "stack": "".join(traceback.format_tb(error.__traceback__))}
