"""The line to PagerDuty: one question, one answer, in time. What the official client does beyond that is turned off."""

import logging
import math
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from runbooks.pagerduty.account import Account
from sandbox.deadline import within
from sandbox.errors import Unreachable
from sandbox.text import brief, clean

__all__ = ["Answer", "Line"]

_TELLING = 200  # characters of what the network said
_PARTING = 0.05  # seconds for a thread to see that its connection has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: a status, and the body's JSON; None where it is none."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: Any = field(repr=False)


class Line:
    """A connection that is made when first used and kept. After a question without an answer it is made anew."""

    def __init__(self, account: Account) -> None:
        """Take the account; nothing is sent yet."""
        self._account = account
        self._call: _Call | None = None

    def ask(self, method: str, path: str, until: float, **content: Mapping[str, Any]) -> Answer:
        """Return the answer to one request, sent once; `content` is its `params` or `json`.

        `until` is a moment of the monotonic clock. Raises Unreachable without an answer by then: what was asked may be done, or not.
        """
        seconds = until - time.monotonic()
        if seconds <= 0:
            raise Unreachable(f"PagerDuty gave no answer within {brief(self._account.timeout)} s")
        call = self._call = self._call or _Call(self._account)
        bound = math.ceil(10 * seconds) / 10  # as a person reads it
        try:
            return within(bound, lambda: call.send(method, path, bound, content), "PagerDuty")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection; a request that is under way ends with it."""
        call, self._call = self._call, None
        if call:
            call.end()

    def __del__(self) -> None:
        self.close()


class _Call:
    """The official client, and the socket under it. Only ended from another thread than that which sends."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._session: Any = None
        self._stream: Any = None
        self._ended = False
        self._sending = threading.Lock()

    def send(self, method: str, path: str, seconds: float, content: Mapping[str, Any]) -> Answer:
        with self._sending:
            try:
                import pagerduty

                self._session = self._session or _session(self._account)
                self._session.timeout = seconds
                answer = self._request(pagerduty.HttpError, method, path, content)
            except Exception as error:  # of three libraries, and none of their errors may reach a remediation
                raise _unreachable(error) from error
            finally:
                if self._ended and self._session is not None:
                    self._session.close()
        return Answer(status=answer.status_code, headers=answer.headers, body=_json(answer))

    def end(self) -> None:
        self._ended = True
        if self._stream is not None:  # wakes the thread that waits on it
            with suppress(OSError):
                socket.socket.shutdown(self._stream.get_extra_info("socket"), socket.SHUT_RDWR)
        if self._sending.acquire(timeout=_PARTING):  # else it closes when it wakes
            try:
                if self._session is not None:
                    self._session.close()
            finally:
                self._sending.release()

    def _request(self, refused: type[Exception], method: str, path: str, content: Mapping[str, Any]) -> Any:
        follow = {"trace": lambda name, info: self._follow(name, info)}
        try:
            return self._session.request(method, path, extensions=follow, **content)
        except refused as error:  # of a key, and redirects: an answer like others
            return error.response  # type: ignore[attr-defined]

    def _follow(self, name: str, info: Mapping[str, Any]) -> None:
        """Know the socket; and send nothing any more once nobody waits for the answer, as it is asked again then."""
        if name.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._stream = info["return_value"]
        elif not name.endswith(".started") or "clos" in name:
            return
        if self._ended:
            if self._stream is not None:
                self._stream.close()
            raise Unreachable("PagerDuty gave no answer in time")


def _session(account: Account) -> Any:
    import pagerduty

    ways = dict.fromkeys(("http://", "https://", "all://")) if account.local else None
    session = pagerduty.RestApiV2Client(
        account.token, default_from=account.sender, base_url=account.url, mounts=ways
    )
    session.log = logging.Logger("quiet", logging.CRITICAL + 1)
    session.max_network_attempts = 0
    session.retry = {429: 1}  # 0 would mean for ever …
    session.max_http_attempts = -1  # … and with this none is repeated
    return session


def _unreachable(error: Exception) -> Unreachable:
    cause = error.__cause__ or error
    said = clean(" ".join(str(cause).split()))[:_TELLING] or type(cause).__name__
    return Unreachable(f"PagerDuty cannot be reached: {said}", hint="check the network, and PAGERDUTY_URL")


def _json(answer: Any) -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None
