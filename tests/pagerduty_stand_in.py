"""A stand-in for PagerDuty's REST API on this machine, over TLS: what it insists on, how it refuses, and how it fails."""

import itertools
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from tests import pagerduty_shapes as shapes
from tests.pagerduty_serving import Asked, Refusal, Server, Trouble
from tests.pagerduty_shapes import HOST

__all__ = ["Asked", "StandIn", "Trouble", "stand_in"]

ALARM = "arrakis-production-sandbox-orphaned-resources"
MOST_NOTES, MOST_BYTES = 2000, 65_535
_ACCEPTED = "application/vnd.pagerduty+json;version=2"


class StandIn:
    """One account. Everything it was asked is in `requests`; what is put in by the test needs no key."""

    def __init__(self, folder: Path) -> None:
        """Take a folder for the certificate."""
        self.token, self.sender = "u+StandInKey-canary-7731", "on-call@example.com"
        self.requests: list[Asked] = []
        self.late, self.closing = threading.Event(), threading.Event()
        self.arrived = threading.Condition()
        self._incidents: dict[str, dict[str, Any]] = {}
        self._alerts: dict[str, list[dict[str, Any]]] = {}
        self._notes: dict[str, list[dict[str, Any]]] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        self._troubles: list[Trouble] = []
        self._numbers = itertools.count(4711)
        self._lock = threading.RLock()
        self.ca = folder / "ca.pem"
        self._server = Server(self, shapes.certificate(self.ca))
        self.url = f"https://{HOST}:{self._server.server_address[1]}"

    @property
    def variables(self) -> dict[str, str]:
        """The variables that lead a program here."""
        return {
            "PAGERDUTY_TOKEN": self.token,
            "PAGERDUTY_FROM": self.sender,
            "PAGERDUTY_URL": self.url,
            "SSL_CERT_FILE": str(self.ca),
        }

    def add_incident(
        self,
        alarm: str = ALARM,
        *,
        title: str | None = None,
        alerts: int = 1,
        details: Any = None,
        status: str = "triggered",
        account: str = "123456789012",
        region: str = "us-east-1",
        days: float = 0,
    ) -> str:
        """Open an incident as an alarm of CloudWatch's does, and return its id.

        It has that many alerts; `details` takes the place of CloudWatch's message in them. It is so many `days` old.
        """
        with self._lock:
            number = next(self._numbers)
            name, entry = f"Q1STANDIN{number}", f"R1STANDIN{number}"
            message = shapes.message(alarm, account, region) if details is None else details
            self._entries[entry] = {
                "id": entry,
                "type": "trigger_log_entry",
                "channel": {"type": "api", "details": message, "cef_details": {"details": message}},
            }
            self._incidents[name] = shapes.incident(
                name, number, alarm if title is None else title, entry, status
            )
            self._incidents[name]["created_at"] = shapes.now(time.time() - 86_400 * days)
            self._alerts[name] = []
            self._notes[name] = []
            for _ in range(alerts):
                self.add_alert(name, alarm, details=message)
            return name

    def add_alert(self, incident: str, alarm: str, *, details: Any = None) -> dict[str, Any]:
        """Add one more alert, and return it: it may be changed."""
        message = shapes.message(alarm, "123456789012", "us-east-1") if details is None else details
        with self._lock:
            made = shapes.alert(f"Q2STANDIN{next(self._numbers)}", alarm, message, incident)
            self._alerts[incident].append(made)
            return made

    def add_note(self, incident: str, text: str, author: str = "PUSR002") -> str:
        """Write a note by hand, and return its id; what comes by the API is PUSR001's."""
        with self._lock:
            name = f"PNOTE{next(self._numbers)}"
            self._notes[incident].append(shapes.note(name, text, author))
            return name

    def notes(self, incident: str) -> list[str]:
        """Return the texts on a timeline, oldest first."""
        with self._lock:
            return [str(note["content"]) for note in self._notes[incident]]

    def status(self, incident: str) -> str:
        """Return an incident's status."""
        with self._lock:
            return str(self._incidents[incident]["status"])

    def set_status(self, incident: str, status: str, *, at: float | None = None) -> None:
        """Set it by hand, at a moment in seconds of the clock."""
        with self._lock:
            self._incidents[incident].update(status=status, last_status_change_at=shapes.now(at))

    def remove(self, incident: str) -> None:
        """Forget an incident."""
        with self._lock:
            del self._incidents[incident]

    def trouble(self, kind: str, **how: Any) -> None:
        """Let a trouble befall the requests that come; see Trouble."""
        with self._lock:
            self._troubles.append(Trouble(kind=kind, **how))

    def recover(self) -> None:
        """End all troubles."""
        with self._lock:
            self._troubles.clear()

    def asked(self, method: str, part: str = "") -> list[Asked]:
        """Return the requests of a method whose path has a part."""
        with self._lock:
            return [each for each in self.requests if each.method == method and part in each.path]

    def wait_for(self, method: str, part: str = "", count: int = 1, seconds: float = 20.0) -> None:
        """Return when so many such requests have come in. Raises TimeoutError."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: len(self.asked(method, part)) >= count, seconds):
                raise TimeoutError(f"no {method} {part}")

    def close(self) -> None:
        """End it, with all that hangs."""
        self.closing.set()
        self.late.set()
        self._server.end()

    def take(self, asked: Asked) -> Trouble | None:
        """Note a request, and return what is to befall it."""
        with self._lock:
            self.requests.append(asked)
            found = None
            for trouble in self._troubles:
                if trouble.times and trouble.method in ("", asked.method) and trouble.path in asked.path:
                    trouble.times -= 1
                    found = trouble
                    break
        with self.arrived:
            self.arrived.notify_all()
        return found

    def answer(self, asked: Asked) -> tuple[int, Any]:
        """Do what is asked. Raises Refusal."""
        if asked.headers.get("authorization") != f"Token token={self.token}":
            raise Refusal(401, "Unauthorized", 2006)
        if asked.headers.get("accept") != _ACCEPTED:
            raise Refusal(406, "Not Acceptable", 2001)
        for method, pattern, work in self._routes():
            found = re.fullmatch(pattern, asked.path)
            if found and method == asked.method:
                with self._lock:
                    return deepcopy(work(asked, **found.groupdict()))
        raise Refusal(404, "Not Found", 2100)

    def _routes(self) -> list[tuple[str, str, Callable[..., tuple[int, Any]]]]:
        one = r"/incidents/(?P<name>\w+)"
        return [
            ("GET", "/incidents", self._list),
            ("GET", one, self._read),
            ("PUT", one, self._change),
            ("GET", f"{one}/alerts", self._list_alerts),
            ("GET", f"{one}/notes", self._list_notes),
            ("POST", f"{one}/notes", self._post_note),
            ("PUT", rf"{one}/notes/(?P<note>\w+)", self._put_note),
            ("DELETE", rf"{one}/notes/(?P<note>\w+)", self._delete_note),
            ("GET", r"/log_entries/(?P<entry>\w+)", self._log_entry),
        ]

    def _found(self, name: str) -> str:
        for known, incident in self._incidents.items():
            if name in (known, str(incident["incident_number"])):
                return known
        raise Refusal(404, "Not Found", 2100)

    def _list(self, asked: Asked) -> tuple[int, Any]:
        statuses = asked.query.get("statuses[]", ["triggered", "acknowledged", "resolved"])
        keys = asked.query.get("incident_key")
        everything = asked.query.get("date_range") == ["all"]
        since = "" if everything else shapes.now(time.time() - 86_400 * 30)
        found = [
            incident
            for name, incident in self._incidents.items()
            if incident["status"] in statuses
            and incident["created_at"] >= since
            and (keys is None or any(alert["alert_key"] in keys for alert in self._alerts[name]))
        ]
        return 200, _page(asked, "incidents", found)

    def _read(self, _: Asked, name: str) -> tuple[int, Any]:
        return 200, {"incident": self._incidents[self._found(name)]}

    def _change(self, asked: Asked, name: str) -> tuple[int, Any]:
        self._insist_on_sender(asked)
        incident = self._incidents[self._found(name)]
        wanted = asked.body["incident"]
        if wanted.get("type") not in ("incident", "incident_reference"):
            raise Refusal(400, "Invalid Input Provided", 2001, "Incident type is wrong")
        if wanted["status"] == "resolved" == incident["status"]:
            raise Refusal(400, "Incident Already Resolved", 1001)
        self.set_status(incident["id"], wanted["status"])  # also one that was resolved: it is open again
        return 200, {"incident": incident}

    def _list_alerts(self, asked: Asked, name: str) -> tuple[int, Any]:
        return 200, _page(asked, "alerts", self._alerts[self._found(name)])

    def _list_notes(self, _: Asked, name: str) -> tuple[int, Any]:
        return 200, {"notes": self._notes[self._found(name)]}

    def _post_note(self, asked: Asked, name: str) -> tuple[int, Any]:
        self._insist_on_sender(asked)
        incident = self._found(name)
        if len(self._notes[incident]) >= MOST_NOTES:
            raise Refusal(400, "Invalid Input Provided", 2001, "Incident has too many notes")
        self.add_note(incident, _content(asked), "PUSR001")
        return 200, {"note": self._notes[incident][-1]}

    def _put_note(self, asked: Asked, name: str, note: str) -> tuple[int, Any]:
        self._insist_on_sender(asked)
        found = self._note(name, note)
        found.update(content=_content(asked), updated_at=shapes.now())
        return 200, {"note": found}

    def _delete_note(self, asked: Asked, name: str, note: str) -> tuple[int, Any]:
        self._insist_on_sender(asked)
        self._notes[self._found(name)].remove(self._note(name, note))
        return 204, None

    def _note(self, name: str, note: str) -> dict[str, Any]:
        for each in self._notes[self._found(name)]:
            if each["id"] == note:
                return each
        raise Refusal(404, "Not Found", 2100)

    def _log_entry(self, asked: Asked, entry: str) -> tuple[int, Any]:
        if entry not in self._entries:
            raise Refusal(404, "Not Found", 2100)
        found = dict(self._entries[entry])
        if "channels" not in asked.query.get("include[]", []):
            found["channel"] = {"type": "api"}
        return 200, {"log_entry": found}

    def _insist_on_sender(self, asked: Asked) -> None:
        sender = asked.headers.get("from", "")
        if not sender:
            raise Refusal(400, 'You must specify a user\'s email address in the "From" header', 2001)
        if "@" not in sender:
            raise Refusal(400, 'Malformed "From" header', 1028)
        if sender != self.sender:
            raise Refusal(400, "Requester User Not Found", 1008)


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Yield a stand-in; it ends with the block."""
    with tempfile.TemporaryDirectory() as folder:
        running = StandIn(Path(folder))
        try:
            yield running
        finally:
            running.close()


def _content(asked: Asked) -> str:
    content = asked.body["note"]["content"]
    if not content or len(content.encode()) > MOST_BYTES:
        raise Refusal(400, "Invalid Input Provided", 2001, "Content is too long or empty")
    return str(content)


def _page(asked: Asked, member: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    limit = min(int(asked.query.get("limit", ["25"])[0]), 100)
    offset = int(asked.query.get("offset", ["0"])[0])
    if offset + limit > 10_000:
        raise Refusal(400, "Invalid Input Provided", 2001, "Offset is too large")
    end = offset + limit
    return {
        member: found[offset:end],
        "limit": limit,
        "offset": offset,
        "more": end < len(found),
        "total": None,
    }
