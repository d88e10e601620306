"""Values for a shell to set, whatever they hold. Pure.

`eval $(…)` without quotes cuts the output at white space, replaces what looks like a file pattern by the files
there are, and joins the rest with single spaces before it is read as a command. So the output holds no character that
any of this could change: one outside a small alphabet is written as its bytes in octal, which printf turns back.
"""

from collections.abc import Mapping

from sandbox.errors import ArrakisError
from sandbox.health import Connection

__all__ = ["exports", "variables"]

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/@%+,-")


def variables(connection: Connection) -> Mapping[str, str]:
    """Return the variables that a program in a sandbox reads, and their values."""
    return {
        "SANDBOX_ID": connection.id,
        "SANDBOX_NAME": connection.name,
        "SANDBOX_SCHEMA": connection.schema,
        "SANDBOX_REDIS_PREFIX": connection.redis_prefix,
        "SANDBOX_NATS_PREFIX": connection.nats_prefix,
    }


def exports(values: Mapping[str, str]) -> str:
    """Return the lines that set these variables in dash, bash and zsh, safe under `eval $(…)` and `eval "$(…)"`.

    Raises ArrakisError for a value with a line break or another control character in it.
    """
    return "\n".join(f"export {name}={_word(name, value)};" for name, value in values.items())


def _word(name: str, value: str) -> str:
    if not value.isprintable():  # and printf in $(…) would lose a line break at the end
        raise ArrakisError(f"{name} cannot be set: {value!r} has control characters in it")
    data = value.encode()
    if data and _SAFE.issuperset(data):
        return value
    octal = "".join(chr(byte) if byte in _SAFE else f"\\0{byte:03o}" for byte in data)
    return f"\"$(printf %b '{octal}')\""
