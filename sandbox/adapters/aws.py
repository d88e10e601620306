"""AWS through botocore, which is what boto3 does its calls with: no more of it is needed, and it is sooner imported."""

import io
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

import botocore.session
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from botocore.response import StreamingBody
from botocore.utils import parse_timestamp

from sandbox.deadline import within
from sandbox.errors import ArrakisError, Conflict, Denied, Missing, Throttled, Unreachable
from sandbox.secrets import learn

__all__ = ["Aws"]

_READING = ("describe_", "get_", "list_", "filter_", "lookup_", "simulate_")
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_INVALID = frozenset(
    {
        "AuthFailure",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_SLOWER = frozenset(
    {
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "SlowDown",
        "TooManyRequestsException",
    }
)
_ABSENT = frozenset({"404", "NoSuchBucket", "NoSuchKey"})
_NAMELESS = {
    ("ecs:describe_task_definition", "ClientException")
}  # for what is not there there is no code of its own
_TAKEN = frozenset({"ConditionalRequestConflict", "PreconditionFailed", "ResourceAlreadyExistsException"})
# What botocore finds out before it asks: a login that has ended. `aws login` is known to newer versions only.
_LOGGED_OUT = (
    exceptions.CredentialRetrievalError,
    exceptions.SSOError,
    exceptions.TokenRetrievalError,
    getattr(exceptions, "LoginError", exceptions.SSOError),
)
_CONNECTING, _ATTEMPTS = 2, 2  # seconds, and how often at most
_TELLING = 200  # characters of a message; a proxy's page of HTML has thousands
_LOG_IN = "log in again: `aws sso login`, or however this account's keys are given out"
_NAME_KEYS = "log in (`aws sso login`), or set AWS_PROFILE"


class Aws:
    """An account and region. Satisfies AwsReader and AwsWriter; probes may share one and ask side by side.

    Clients are made when first used, from one session. Moments in the answers are UTC.
    """

    def __init__(self, *, region: str | None, timeout: float = 10.0) -> None:
        """Take the region; `timeout` bounds each socket operation, in seconds, and a call takes little more than twice that."""
        self._region = region
        # An answer may come in pieces, each of them in time: the whole of it is bounded, too.
        self._longest = _ATTEMPTS * (_CONNECTING + timeout) + 1
        self._config = Config(
            connect_timeout=_CONNECTING,
            read_timeout=timeout,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        )
        learn(os.environ.get("AWS_SECRET_ACCESS_KEY"), os.environ.get("AWS_SESSION_TOKEN"))
        self._session: Any = None  # made when first used: a wrong AWS_PROFILE is one source's trouble
        self._clients: dict[str, Any] = {}
        self._making = threading.Lock()  # clients serve all threads, but a session must make one at a time

    def read(self, service: str, operation: str, /, **params: object) -> Mapping[str, Any]:
        """Call one reading operation, e.g. `read("cloudwatch", "describe_alarms")`."""
        if not operation.startswith(_READING):
            raise ValueError(f"{operation} is no reading operation")
        return self._call(service, operation, params)

    def write(self, service: str, operation: str, /, **params: object) -> Mapping[str, Any]:
        """Call any operation, e.g. `write("cloudwatch", "put_metric_data", …)`."""
        return self._call(service, operation, params)

    def _call(self, service: str, operation: str, params: Mapping[str, object]) -> Mapping[str, Any]:
        try:
            call = partial(getattr(self._client(service), operation), **params)
            answer: dict[str, Any] = within(self._longest, call, f"AWS {service}")
        except ClientError as error:
            raise _refused(error, f"{service}:{operation}") from error
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise Denied("AWS: no credentials found", hint=_NAME_KEYS) from error
        except _LOGGED_OUT as error:
            raise Denied(f"AWS: the login has expired: {error}", hint=_LOG_IN) from error
        except RuntimeError as error:  # what botocore says of AWS_CREDENTIAL_EXPIRATION
            raise Denied(f"AWS: the login has expired: {error}", hint=_LOG_IN) from error
        except ResponseParserError as error:  # it quotes the whole answer, a page of HTML mostly
            raise Unreachable(
                f"AWS {service}: the answer is not what AWS gives",
                hint="check AWS_ENDPOINT_URL, and any proxy",
            ) from error
        except (BotoCoreError, ValueError) as error:
            raise Unreachable(
                f"AWS {service}: {error}", hint="check the network and AWS_ENDPOINT_URL"
            ) from error
        if isinstance(answer.get("Body"), StreamingBody):
            answer["Body"] = io.BufferedReader(_Body(answer["Body"], f"{service}:{operation}"))
        return answer

    def _client(self, service: str) -> Any:
        with self._making:
            self._session = self._session or _session()
            if service not in self._clients:
                self._clients[service] = self._session.create_client(
                    service, region_name=self._region, config=self._config
                )
            return self._clients[service]


class _Body(io.RawIOBase):
    """What an answer streams, read as it comes; what goes wrong on the way is said as at any other call."""

    def __init__(self, body: Any, what: str) -> None:
        self._body, self._what = body, what

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._body.read(len(buffer))
        except BotoCoreError as error:
            raise Unreachable(
                f"AWS {self._what}: the answer ended too early: {error}", hint="try again"
            ) from error
        buffer[: len(data)] = data
        return len(data)


def _session() -> Any:
    core = botocore.session.get_session()
    core.register_component("data_loader", _descriptions())
    # By itself botocore gives some moments in UTC and others in this machine's time, as the service writes them.
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    core.register("before-parse", _refuse_broken)
    return core


def _refuse_broken(*, operation_model: Any, response_dict: Mapping[str, Any], **_: object) -> None:
    """Raise where an answer broke off, or is a stranger's page: botocore takes either for one with nothing in it."""
    body, length = response_dict["body"], response_dict["headers"].get("content-length")
    if response_dict["status_code"] >= 300 or not isinstance(body, bytes):
        return  # an error's own words, or a stream, which sees to its length itself
    if operation_model.http.get("method") == "HEAD":
        return  # what it is the length of is not sent
    shape = operation_model.output_shape
    due = shape is not None and not all("location" in each.serialization for each in shape.members.values())
    lost = length != str(len(body)) if length else due and not body
    text = body.strip() if "json" in operation_model.service_model.resolved_protocol else b""
    if lost or (text and (text[:1], text[-1:]) != (b"{", b"}")):
        raise ResponseParserError(f"{len(body)} bytes of {length}")


@cache
def _descriptions() -> Any:
    """botocore's descriptions of the services, which take longer to read than most calls: read once a process."""
    return botocore.session.get_session().get_component("data_loader")


def _moment(value: object) -> datetime:
    moment: datetime = parse_timestamp(value)
    return moment.astimezone(UTC)


def _refused(error: ClientError, what: str) -> ArrakisError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    message = str(error.response.get("Error", {}).get("Message", ""))[:_TELLING]
    if code in _DENIED:
        return Denied(f"AWS refused {what}: {code}", hint="the role's policy has to allow it")
    if code == "RequestTimeTooSkewed":
        return Denied(f"AWS {what}: this machine's clock is wrong ({code})", hint="set the clock")
    if code in _EXPIRED:
        return Denied(f"AWS {what}: the login has expired ({code})", hint=_LOG_IN)
    if code in _INVALID:
        return Denied(
            f"AWS {what}: the access key is not valid ({code})",
            hint=f"{_NAME_KEYS}; a clock that is wrong gives the same answer",
        )
    if code in _SLOWER or "Throttl" in code:
        return Throttled(
            f"AWS {what}: asked to come more slowly ({code})", hint="try again in a minute; others ask too"
        )
    if code in _TAKEN:
        return Conflict(f"AWS {what}: there is one already ({code})", constraint="one object a name")
    if code in _ABSENT or "NotFound" in code or (what, code) in _NAMELESS:
        return Missing(f"AWS {what}: {message}")
    return Unreachable(f"AWS {what}: {code} {message}")
