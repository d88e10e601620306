"""Which credentials botocore signs with: where they come from, and until when they last. Never the credentials themselves."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import botocore.session
from botocore import exceptions

from sandbox.errors import Denied

__all__ = ["Credentials", "read_credentials"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Where they come from, in botocore's word: `env`, `shared-credentials-file`, `assume-role`, `sso`, `iam-role` …

    `expires` is UTC; None where they do not expire, or, if they are `temporary`, where nothing here says when.
    """

    source: str
    temporary: bool
    expires: datetime | None


def read_credentials() -> Credentials:
    """Return what is known of the credentials, renewed first as for any call. Raises Denied where there are none to be had."""
    try:
        found = botocore.session.get_session().get_credentials()
        if found is None:
            raise Denied("AWS: no credentials found", hint="log in (`aws sso login`), or set AWS_PROFILE")
        temporary = True
        with suppress(RuntimeError):  # those that have ended are known, too
            temporary = bool(found.get_frozen_credentials().token)
    except (exceptions.BotoCoreError, exceptions.ClientError, ValueError) as error:
        raise Denied(
            f"AWS: no credentials: {error}",
            hint="log in (`aws sso login`); check AWS_PROFILE and the AWS variables",
        ) from error
    expires = getattr(found, "_expiry_time", None)  # botocore says it nowhere else
    return Credentials(
        source=str(found.method), temporary=temporary, expires=expires.astimezone(UTC) if expires else None
    )
