"""What /metrics shows: counts and ages, never a name."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_NAME = "arrakis_webhook_"
_SOURCES = frozenset({"/pagerduty", "/action", "/sns", "/events", "/healthz", "/metrics"})
_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The counts of one server."""

    def __init__(self, waiting: Callable[[], tuple[int, float]]) -> None:
        """Take how to see how many deliveries wait, and for how many seconds the oldest has."""
        self._waiting, self._registry = waiting, (here := CollectorRegistry())
        self._requests = Counter(
            _NAME + "requests", "Requests by path and status.", ["path", "status"], registry=here
        )
        self._deliveries = Counter(
            _NAME + "deliveries", "Deliveries by what became of them.", ["outcome"], registry=here
        )
        self._triages = Counter(
            _NAME + "triages", "Tries of a triage by how they ended.", ["outcome"], registry=here
        )
        self._seconds = Histogram(
            _NAME + "answer_seconds", "Time to an answer.", buckets=_BUCKETS, registry=here
        )
        self._depth = Gauge(
            _NAME + "queue_depth", "Deliveries that wait, or are being triaged.", registry=here
        )
        self._age = Gauge(
            _NAME + "queue_oldest_seconds", "How long the oldest of them has waited.", registry=here
        )

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request; a path that there is not is `other`, or anybody could fill the memory."""
        self._requests.labels(path if path in _SOURCES else "other", str(status)).inc()
        self._seconds.observe(seconds)

    def kept(self, outcome: str) -> None:
        """Count a delivery: accepted, duplicate or full."""
        self._deliveries.labels(outcome).inc()

    def triaged(self, outcome: str) -> None:
        """Count a try of a triage: done, again or aside."""
        self._triages.labels(outcome).inc()

    def render(self) -> bytes:
        """Return all of it in the text format of Prometheus. Raises Unreachable where the queue cannot be read."""
        depth, age = self._waiting()
        self._depth.set(depth)
        self._age.set(age)
        return generate_latest(self._registry)
