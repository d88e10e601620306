"""PagerDuty's REST API, through its official client, bounded where that is not.

By itself that client repeats for ever what is refused because of too many calls (429), sends again what got no answer, notes
included, and waits as long as a server sends a byte now and then. Here each call ends in time, and nothing is sent twice.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runbooks.pagerduty.account import Account
from runbooks.pagerduty.line import Answer, Line
from sandbox.errors import ArrakisError, Denied, Missing, Throttled, Unreachable
from sandbox.text import brief, clean

__all__ = ["Client", "Declined", "Note"]

_ID = re.compile(r"[A-Za-z0-9]{1,40}")
_PAGE, _REACH = 100, 10_000  # entries a page, and how far pages go
_PATIENCE = 5.0  # seconds that are waited at most until calls are let in again
_TELLING = 200  # characters of what PagerDuty said
_ALREADY = frozenset({1001, 1002})  # resolved, acknowledged
_STRANGERS = frozenset({1008, 1018, 1028})  # what is said of a From that is nobody's
_STATUSES = ("acknowledged", "resolved")


class Declined(ArrakisError):
    """PagerDuty will not do this, however often it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note on an incident's timeline; `author` is a user's id and `by` the name, both empty where that is not told."""

    id: str
    text: str
    author: str
    by: str = ""
    at: datetime | None = None


class Client:
    """An account's incidents, read and changed; for one thread.

    Every method raises Unreachable for no answer in time, or none that can be used: what was asked may be done then, or not;
    Throttled, which is one, where too many calls were made; Denied for a key or a From that is not accepted; Missing for what is
    not there; Declined for what PagerDuty will never do, and for what is no id.
    """

    def __init__(self, account: Account, *, budget: float | None = None) -> None:
        """Take the account, and the seconds that all calls together may take; without, each has the account's timeout."""
        self._account, self._line = account, Line(account)
        self._end = float("inf") if budget is None else time.monotonic() + budget

    def incident(self, incident: str) -> dict[str, Any]:
        """Return an incident, by its id or its number, as PagerDuty has it."""
        return self._get(f"/incidents/{_known(incident)}", "incident", self._until())

    def alerts(self, incident: str) -> list[dict[str, Any]]:
        """Return all alerts of an incident."""
        return self._paged(f"/incidents/{_known(incident)}/alerts", "alerts", {})

    def trigger(self, incident: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the first event of an incident as it came in, with its channel; None when it is not to be had."""
        named = incident.get("first_trigger_log_entry")
        if not (isinstance(named, Mapping) and isinstance(named.get("id"), str)):
            return None
        try:
            path = f"/log_entries/{_known(named['id'])}"
            return self._get(path, "log_entry", self._until(), {"include": ["channels"]})
        except ArrakisError:  # it only adds to what the alerts say
            return None

    def open_with(self, alarm: str) -> list[dict[str, Any]]:
        """Return the incidents that are not resolved and have an alert of this key: CloudWatch's is the alarm's name."""
        asked = {"incident_key": alarm, "statuses": ["triggered", "acknowledged"], "date_range": "all"}
        return self._paged("/incidents", "incidents", asked)

    def notes(self, incident: str) -> list[Note]:
        """Return all notes of an incident, as PagerDuty orders them."""
        answer = self._ask("GET", f"/incidents/{_known(incident)}/notes", self._until())
        return [
            Note(
                id=each["id"],
                text=each["content"],
                author=_author(each, "id"),
                by=_author(each, "summary"),
                at=_moment(each.get("created_at")),
            )
            for each in _entries(answer, "notes")
            if isinstance(each.get("id"), str) and isinstance(each.get("content"), str)
        ]

    def add_note(self, incident: str, text: str) -> None:
        """Put a note on an incident's timeline. After Unreachable it may be there: look before it is added again."""
        path = f"/incidents/{_known(incident)}/notes"
        self._ask("POST", path, self._until(), json={"note": {"content": text}})

    def change_note(self, incident: str, note: str, text: str) -> None:
        """Change a note's text."""
        path = f"/incidents/{_known(incident)}/notes/{_known(note)}"
        self._ask("PUT", path, self._until(), json={"note": {"content": text}})

    def remove_note(self, incident: str, note: str) -> None:
        """Take a note off the timeline; one that is gone is no error."""
        try:
            self._ask("DELETE", f"/incidents/{_known(incident)}/notes/{_known(note)}", self._until())
        except Missing:
            return

    def set_status(self, incident: str, status: str) -> str:
        """Acknowledge or resolve an incident, and return the status that it has then.

        One that has it is left; so is one that is resolved, as to acknowledge it would open it again.
        """
        if status not in _STATUSES:
            raise ValueError(f"{status} is no status to set")
        path, until = f"/incidents/{_known(incident)}", self._until()
        found = self._get(path, "incident", until).get("status")
        if found in (status, "resolved"):
            return str(found)
        wanted = {"incident": {"type": "incident_reference", "status": status}}
        answer = self._answer("PUT", path, until, json=wanted)
        if not (answer.status == 400 and _code(answer) in _ALREADY):
            self._accept(answer)
        return status

    def close(self) -> None:
        """End the connection."""
        self._line.close()

    def _until(self) -> float:
        """Return the moment at which a call that begins now must have ended."""
        return min(time.monotonic() + self._account.timeout, self._end)

    def _get(
        self, path: str, member: str, until: float, params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        answer = self._ask("GET", path, until, **({"params": params} if params else {}))
        found = answer.get(member)
        if not isinstance(found, dict):
            raise _strange()
        return found

    def _paged(self, path: str, member: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        until, found = self._until(), []
        for offset in range(0, _REACH, _PAGE):
            answer = self._ask("GET", path, until, params={**params, "limit": _PAGE, "offset": offset})
            found += _entries(answer, member)
            if answer.get("more") is not True:
                break
        return found

    def _ask(self, method: str, path: str, until: float, **content: Mapping[str, Any]) -> dict[str, Any]:
        return self._accept(self._answer(method, path, until, **content))

    def _answer(self, method: str, path: str, until: float, **content: Mapping[str, Any]) -> Answer:
        """Return the answer; one 429 is waited out, if that is soon: what is refused so was not done."""
        answer = self._line.ask(method, path, until, **content)
        if answer.status != 429:
            return answer
        pause = _reset(answer)
        if pause is None or pause > min(_PATIENCE, until - time.monotonic()):
            return answer
        time.sleep(pause)
        return self._line.ask(method, path, until, **content)

    def _accept(self, answer: Answer) -> dict[str, Any]:
        """Return an answer's body. Raises what its status means."""
        status = answer.status
        if 200 <= status < 300:
            if status == 204:
                return {}
            if not isinstance(answer.body, dict):
                raise _strange()
            return answer.body
        if status == 429:
            pause = _reset(answer)
            soon = "later" if pause is None else f"in {brief(pause)} s"
            raise Throttled(
                "PagerDuty: too many calls were made with this key (429)", hint=f"try again {soon}"
            )
        raise _refusal(answer, self._said(answer))

    def _said(self, answer: Answer) -> str:
        """Return what an error's body says, never with the key in it."""
        error = answer.body.get("error") if isinstance(answer.body, dict) else None
        parts = [error]
        if isinstance(error, dict):
            details = error.get("errors")
            parts = [error.get("message"), *(details if isinstance(details, list) else [details])]
        said = "; ".join(part for part in parts if isinstance(part, str))
        return clean(" ".join(said.replace(self._account.token, "…").split()))[:_TELLING]


def _refusal(answer: Answer, said: str) -> ArrakisError:
    """Return what a status that is no success means."""
    status, told = answer.status, f"PagerDuty: {said} ({answer.status})"
    told = told if said else f"PagerDuty answered {status}"
    if status < 400 or status == 408 or status >= 500:
        return Unreachable(told, hint="try again later; see PagerDuty's status page")
    if status == 401:
        return Denied(
            "PagerDuty does not accept the key (401)",
            hint="check PAGERDUTY_TOKEN, and whether the account is in the US or EU region",
        )
    if status in (402, 403):
        return Denied(told, hint="the key has no right to this; docs/pagerduty.md lists those it needs")
    if status == 404:
        return Missing(
            f"PagerDuty knows no such thing: {said or 'not found'} (404)", hint="check the incident's id"
        )
    if status == 400 and (_code(answer) in _STRANGERS or '"from" header' in said.lower()):
        return Denied(told, hint="set PAGERDUTY_FROM to the e-mail address of a user of that account")
    return Declined(told)


def _strange() -> Unreachable:
    return Unreachable(
        "PagerDuty: the answer is not what PagerDuty gives", hint="check PAGERDUTY_URL, and any proxy"
    )


def _entries(answer: Mapping[str, Any], member: str) -> list[dict[str, Any]]:
    found = answer.get(member)
    if not isinstance(found, list):
        raise _strange()
    return [each for each in found if isinstance(each, dict)]


def _known(name: str) -> str:
    """Return an id that a path can be built from."""
    if not _ID.fullmatch(name):
        raise Declined(f"{clean(name)[:60]!r} is no id of PagerDuty's", hint="it looks like Q1ABC2DEF3GHI4")
    return name


def _author(note: Mapping[str, Any], member: str) -> str:
    user = note.get("user")
    return str(user.get(member) or "") if isinstance(user, Mapping) else ""


def _moment(said: object) -> datetime | None:
    """Return a moment that PagerDuty told, in UTC; None for what is none."""
    try:
        return datetime.fromisoformat(str(said)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _code(answer: Answer) -> object:
    error = answer.body.get("error") if isinstance(answer.body, dict) else None
    return error.get("code") if isinstance(error, dict) else None


def _reset(answer: Answer) -> float | None:
    """Return the seconds until calls are let in again, if that is said."""
    said = answer.headers.get("ratelimit-reset", "")
    return float(said) if re.fullmatch(r"\d{1,6}", said, re.ASCII) else None
