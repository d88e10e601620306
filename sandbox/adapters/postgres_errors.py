"""What PostgreSQL and libpq say, as an operator should read it. Never a part of the address: it holds a password."""

import psycopg
from psycopg import errors

from sandbox.errors import ArrakisError, Busy, Conflict, Denied, Missing, Unreachable

__all__ = ["translated"]


def translated(error: psycopg.Error, host: str) -> ArrakisError:
    """Return a driver's error as one of ours."""
    first = error.diag.message_primary or _said(error)
    if isinstance(error, psycopg.DataError):
        return ArrakisError(
            f"PostgreSQL cannot take a value: {error.diag.message_primary or 'it holds a NUL'}"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return Denied(
            f"PostgreSQL refused: {first}", hint="grant this role the right, or use another DATABASE_URL"
        )
    if isinstance(error, errors.UndefinedTable | errors.UndefinedFunction | errors.InvalidSchemaName):
        return Missing(
            f"PostgreSQL has no such thing: {first}",
            hint=f"is {host} the right database? The control tables are sql/migrations/0001_control_tables.sql",
        )
    if isinstance(error, errors.DependentObjectsStillExist):
        detail = (error.diag.message_detail or "").partition("\n")[0]
        return Busy(f"PostgreSQL did not drop it: {first}: {detail}", hint="what rests on it has to go first")
    if isinstance(error, errors.LockNotAvailable):
        return Busy(f"PostgreSQL could not take the lock: {first}", hint="somebody uses it; try again later")
    if isinstance(error, errors.DeadlockDetected | errors.SerializationFailure | errors.QueryCanceled):
        return Busy(f"PostgreSQL gave up: {first}", hint="nothing was changed; try again")
    if isinstance(error, errors.UniqueViolation):
        return Conflict(f"PostgreSQL: {first}", constraint=error.diag.constraint_name or "")
    if isinstance(error, psycopg.OperationalError) and _no_answer(error.sqlstate):
        return Unreachable(f"PostgreSQL at {host}: {first}", hint="is it up, and is DATABASE_URL right?")
    return ArrakisError(f"PostgreSQL at {host}: {first}")


def _no_answer(code: str | None) -> bool:
    """Whether an operational error means that the server cannot be talked to; others concern the statement alone.

    See PostgreSQL's appendix A: class 08 is the connection, 57P01 to 57P03 are shutting down or starting up, and 53300
    is too many connections.
    """
    return code is None or code.startswith("08") or code in ("57P01", "57P02", "57P03", "53300")


_UNANSWERED = {
    "Connection refused": "connection refused",
    "timeout expired": "no answer in time",
    "connection timeout": "no answer in time",
    "could not translate host name": "its host name is not known",
    "failed to resolve host": "its host name is not known",
    "server closed the connection": "it closed the connection",
    "the connection is closed": "the connection is closed",
    "does not support SSL": "it does not speak TLS",
    "SSL error": "TLS failed",
}


def _said(error: psycopg.Error) -> str:
    """Return why there is no connection: the server's own words, or ours; libpq's may quote parts of the address."""
    text = str(error)
    if isinstance(error, psycopg.ProgrammingError):  # ours: it concerns a statement, not the address
        return text.splitlines()[0]
    if "FATAL:" in text:
        return text.partition("FATAL:")[2].strip().splitlines()[0]
    return next((ours for theirs, ours in _UNANSWERED.items() if theirs in text), "there is no connection")
