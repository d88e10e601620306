"""AWS through boto3."""

from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from sandbox.errors import ArrakisError, Denied, Missing, Unreachable

__all__ = ["Aws"]

_READING = ("describe_", "get_", "list_", "filter_", "lookup_")
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403", "ExpiredToken"})


class Aws:
    """An account and region. Satisfies AwsReader and AwsWriter. Clients are made when first used, from one session."""

    def __init__(self, *, region: str | None, timeout: float = 10.0) -> None:
        """Take the region; `timeout` bounds each socket operation, in seconds."""
        self._region = region
        self._config = Config(
            connect_timeout=2,
            read_timeout=timeout,
            retries={"mode": "standard", "total_max_attempts": 2},
        )
        self._session: Any = None  # made when first used: a wrong AWS_PROFILE is one source's trouble
        self._clients: dict[str, Any] = {}

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
            self._session = self._session or boto3.session.Session(region_name=self._region)
            if service not in self._clients:
                self._clients[service] = self._session.client(service, config=self._config)
            answer: Mapping[str, Any] = getattr(self._clients[service], operation)(**params)
            return answer
        except ClientError as error:
            raise _refused(error, f"{service}:{operation}") from error
        except NoCredentialsError as error:
            raise Denied("AWS: no credentials found", hint="log in, or set AWS_PROFILE") from error
        except (BotoCoreError, ValueError) as error:
            raise Unreachable(
                f"AWS {service}: {error}", hint="check the network and AWS_ENDPOINT_URL"
            ) from error


def _refused(error: ClientError, what: str) -> ArrakisError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    message = str(error.response.get("Error", {}).get("Message", ""))
    if code in _DENIED:
        return Denied(
            f"AWS refused {what}: {code}", hint="check the role's policy and that the login is fresh"
        )
    if "NotFound" in code:
        return Missing(f"AWS {what}: {message}")
    return Unreachable(f"AWS {what}: {code} {message}")
