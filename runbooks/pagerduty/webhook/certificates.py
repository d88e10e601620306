"""SNS' certificates: fetched with bounds, kept for a day."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from typing import IO, TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from runbooks.pagerduty.webhook.delivery import Forged
from runbooks.pagerduty.webhook.errands import Errands
from sandbox.deadline import within
from sandbox.errors import Unreachable

if TYPE_CHECKING:
    import ssl

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ["Certificates", "fetch"]

_SECONDS = 3.0
_LARGEST = 64 * 1024
_KEPT, _MOST = timedelta(days=1), 32
_A_MINUTE = 30  # fetches: whoever makes up addresses gets no more out of us
_SMALLEST_KEY = 2048


class Certificates:
    """Public keys of certificates by their address, which the caller has checked. Threads may share one."""

    def __init__(
        self, fetch: Callable[[str], bytes], *, clock: Callable[[], datetime], patience: float
    ) -> None:
        """Take how to fetch, the clock (UTC), and how long a caller waits, in seconds."""
        self._fetch, self._clock = fetch, clock
        self._errands: Errands[RSAPublicKey] = Errands(patience=patience)
        self._known: OrderedDict[str, tuple[RSAPublicKey, datetime]] = OrderedDict()
        self._fetched: deque[float] = deque(maxlen=_A_MINUTE)
        self._lock = threading.Lock()

    def key(self, address: str) -> "RSAPublicKey":
        """Return the public key. Raises Forged for what is no certificate of today, Unreachable where it cannot be had now."""
        with self._lock:
            key, until = self._known.get(address, (None, None))
        if key is not None and until is not None and self._clock() < until:
            return key
        return self._errands.run("the certificate of SNS " + address[-40:-4], lambda: self._fresh(address))

    def _fresh(self, address: str) -> "RSAPublicKey":
        with self._lock:
            if len(self._fetched) == _A_MINUTE and time.monotonic() - self._fetched[0] < 60:
                raise Unreachable("too many certificates were asked for", hint="send it again in a minute")
            self._fetched.append(time.monotonic())
        key, until = _read(self._fetch(address), self._clock())
        with self._lock:
            self._known[address] = (key, until)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        return key


def fetch(address: str, *, trust: "ssl.SSLContext | None" = None) -> bytes:
    """Return what is at an https address, within 3 s, without following it elsewhere. Raises Unreachable.

    `trust` is the system's authorities unless it is given.
    """

    def read() -> bytes:
        opener = build_opener(ProxyHandler(), HTTPSHandler(context=trust), _Straight())
        with opener.open(Request(address), timeout=_SECONDS) as answer:
            data: bytes = answer.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise Unreachable("SNS: the answer is too large to be its own", hint="check any proxy")
        return data

    try:
        return within(_SECONDS, read, "SNS")
    except HTTPError as error:
        error.close()
        raise Unreachable(f"SNS answered {error.code}", hint="check any proxy") from None
    except (OSError, HTTPException, ValueError) as error:
        raise Unreachable(
            f"SNS cannot be reached: {type(error).__name__}", hint="check the network"
        ) from None


class _Straight(HTTPRedirectHandler):
    """Follows no redirect: what SNS has, it has where it says."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


def _read(pem: bytes, now: datetime) -> "tuple[RSAPublicKey, datetime]":
    """Return a certificate's key and until when to keep it. Raises Forged."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509 import load_pem_x509_certificate

    try:
        certificate = load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except ValueError:
        raise Forged("SigningCertURL leads to no certificate") from None
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins <= now <= ends:
        raise Forged("the certificate is not valid today")
    if not isinstance(key, RSAPublicKey) or key.key_size < _SMALLEST_KEY:
        raise Forged("the certificate has no RSA key of 2048 bits or more")
    return key, min(now + _KEPT, ends.astimezone(UTC))
