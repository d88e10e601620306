"""Which production is meant: a named file under environments/, and variables that override it."""

import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from diagnostics.stack import Stack
from sandbox.errors import ArrakisError
from sandbox.text import near

__all__ = [
    "CUSTOM",
    "FOLDER",
    "Environment",
    "command",
    "names",
    "naming",
    "prefixes",
    "resolve",
    "settings_of",
    "state_folder",
]

CUSTOM = "custom"
"""What an environment is called that variables alone describe."""

FOLDER = Path(__file__).resolve().parents[2] / "environments"
"""Where the environments' files are."""

_URLS = {"database_url": "DATABASE_URL", "redis_url": "REDIS_URL", "nats_url": "NATS_URL"}
_KINDS, _EXAMPLES = {int: "whole number", str: "name in quotes"}, {int: "3", str: '"…"'}
_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A target. The addresses hold secrets: they are never printed. `typed`: its name must be typed to confirm."""

    name: str
    database_url: str
    redis_url: str
    nats_url: str
    nats_tls_ca: str | None = None
    stack: Stack = field(default_factory=Stack)
    region: str | None = None
    account: str | None = None
    typed: bool = True
    state: Path = Path()

    @property
    def lab(self) -> bool:
        """Whether this is the embedded stand-in."""
        return self.name == "lab"


def command(environment: Environment | None = None) -> str:
    """Return how this toolkit was called, for the commands that are printed."""
    base = os.environ.get("RUNBOOKS_COMMAND", "invoke")
    return f"{base} lab" if environment and environment.lab else base


def naming(environment: Environment) -> str:
    """Return ` --env NAME` for the commands that are printed; empty where a variable names the environment, or nothing can."""
    named = environment.name in (CUSTOM, "lab") or os.environ.get("ARRAKIS_ENV") == environment.name
    return "" if named else f" --env {environment.name}"


def state_folder(variables: Mapping[str, str]) -> Path:
    """Return where plans, the journal and what waits are kept on this host, a folder for each environment."""
    if named := variables.get("RUNBOOKS_STATE_DIR"):
        return Path(named)
    from platformdirs import user_state_path

    return user_state_path("arrakis-runbooks")


def resolve(option: str | None, variables: Mapping[str, str], folder: Path, state: Path) -> Environment:
    """Return the target named by `--env` or ARRAKIS_ENV, or the one that the variables alone describe.

    Raises ArrakisError if there is none, the name is unknown, or an address is missing.
    """
    name = option or variables.get("ARRAKIS_ENV")
    if name:
        settings = {} if name == "lab" else settings_of(name, folder)
    elif variables.get("DATABASE_URL"):
        name, settings = CUSTOM, {}
    else:
        raise ArrakisError(
            "no environment is named",
            hint=f"--env NAME ({_known(folder)}), or try `{command()} lab rb-sb-003`",
        )
    if "alarm_prefix" in settings:  # it would be passed over, and another environment's alarms taken for ours
        raise ArrakisError(
            f"alarm_prefix in environments/{name}.toml stands under [stack] now", hint="move it there"
        )
    region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION") or settings.get("region")
    addresses = {field: variables.get(variable) or settings.get(field) for field, variable in _URLS.items()}
    resolved = {field: _address(field, value, region) for field, value in addresses.items()}
    return Environment(
        name=name,
        **resolved,
        nats_tls_ca=variables.get("NATS_TLS_CA"),
        stack=_stack(settings.get("stack", {}), name),
        region=region,
        account=settings.get("account"),
        typed=_typed(settings, resolved, variables),
        state=state / name,
    )


def names(folder: Path) -> list[str]:
    """Return the names of the environments that have a file."""
    return sorted(file.stem for file in folder.glob("*.toml"))


def prefixes(folder: Path) -> dict[str, str]:
    """Return how the alarms of each environment begin that has a file and says so; a file that cannot be read says nothing."""
    found = {}
    for name in names(folder):
        with suppress(ArrakisError):
            if prefix := _stack(settings_of(name, folder).get("stack", {}), name).alarm_prefix:
                found[name] = prefix
    return found


def settings_of(name: str, folder: Path) -> dict[str, Any]:
    """Return what an environment's file says. Raises ArrakisError if there is none, or it is not TOML."""
    try:
        return tomllib.loads((folder / f"{Path(name).name}.toml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        meant = near(name, names(folder))
        hint = f"did you mean {meant}?" if meant else f"there are: {_known(folder)}"
        raise ArrakisError(f"there is no environment {name!r}", hint=hint) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ArrakisError(
            f"environments/{name}.toml is not TOML: {error}", hint="correct the file"
        ) from error


def _stack(table: object, name: str) -> Stack:
    """Return what [stack] of an environment's file names. Raises ArrakisError for a name that there is not."""
    known = [each.name for each in fields(Stack)]
    if not isinstance(table, dict):
        raise ArrakisError(
            f"[stack] in environments/{name}.toml is no table", hint='write [stack], then cluster = "…"'
        )
    for key in table:
        if key not in known:
            meant = near(key, known) or ", ".join(known)
            raise ArrakisError(
                f"[stack] in environments/{name}.toml knows no {key!r}", hint=f"one of {meant}"
            )
        wanted = int if key == "stream_replicas" else str
        if type(table[key]) is not wanted:
            raise ArrakisError(
                f"{key} under [stack] in environments/{name}.toml is no {_KINDS[wanted]}",
                hint=f"write it as {key} = {_EXAMPLES[wanted]}",
            )
    return Stack(**table)


def _known(folder: Path) -> str:
    return ", ".join(names(folder)) or "none is set up"


def _address(field: str, value: object, region: str | None) -> str:
    """Return an address given as it is, or by the name of a secret whose JSON has a `url` member."""
    variable = _URLS[field]
    if isinstance(value, dict) and "secret" in value:
        try:
            return _from_secret(str(value["secret"]), region)
        except ArrakisError as error:
            error.hint = f"{error.hint}; or set {variable} yourself"  # the secret's keeper may be the patient
            raise
    if not isinstance(value, str):
        raise ArrakisError(
            f"{variable} is not set", hint=f"set it, or name {field} in the environment's file"
        )
    try:
        parts = urlsplit(value.split(",")[0] if variable == "NATS_URL" else value)
        well_formed = bool(parts.scheme and parts.hostname) and (parts.port or True)
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ArrakisError(f"{variable} is malformed", hint="write it as scheme://user:password@host:port/…")
    return value


def _from_secret(name: str, region: str | None) -> str:
    import json

    from sandbox.adapters.aws import Aws

    secret = Aws(region=region).read("secretsmanager", "get_secret_value", SecretId=name)
    try:
        return str(json.loads(secret["SecretString"])["url"])
    except (ValueError, KeyError, TypeError):
        raise ArrakisError(
            f"secret {name} has no `url` member", hint="it should be JSON with a url"
        ) from None


def _typed(settings: Mapping[str, Any], addresses: Mapping[str, str], variables: Mapping[str, str]) -> bool:
    """Whether the name must be typed: in production, and where a variable points a named environment elsewhere."""
    if _is_stand_in(addresses, variables):
        return False
    overridden = any(variables.get(variable) for variable in _URLS.values())
    return overridden or settings.get("confirm", "typed") == "typed"


def _is_stand_in(addresses: Mapping[str, str], variables: Mapping[str, str]) -> bool:
    """Whether every address, AWS included, is on this machine: only a stand-in is, as a tunnel has the real AWS."""
    urls = [*addresses.values(), variables.get("AWS_ENDPOINT_URL", "")]
    return all(
        urlsplit(url).hostname in _LOCAL for joined in urls for url in joined.split(",") if url or not joined
    )
