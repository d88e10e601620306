"""Logs of the scheduled jobs: one JSON line a record on stderr, in the form of the deployed system's (pino).

`{"level":50,"time":1700000000000,"pid":1,"hostname":"…","component":"CleanupProvider","msg":"…","error":{…}}`
"""

import json
import logging
import os
import socket
from typing import Any, TextIO

from sandbox.errors import ArrakisError
from sandbox.model import Sandbox

__all__ = ["fields", "logger"]

_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "silent": logging.CRITICAL + 10,
}


class _Pino(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "level": record.levelno + 10,  # Python's 20 is pino's 30, and so on
            "time": int(record.created * 1000),
            "pid": os.getpid(),
            "hostname": socket.gethostname(),
            "component": record.name,
            "msg": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(line, separators=(",", ":"), default=str)


def logger(component: str, *, level: str, stream: TextIO) -> logging.Logger:
    """Return a logger of its own for one job. `level` is LOG_LEVEL. Raises ArrakisError on one that does not exist."""
    if level.lower() not in _LEVELS:
        raise ArrakisError(f"LOG_LEVEL={level!r} is no level", hint=f"one of {', '.join(_LEVELS)}")
    log = logging.Logger(component, _LEVELS[level.lower()])
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Pino())
    log.addHandler(handler)
    return log


def fields(sandbox: Sandbox | None = None, **more: Any) -> dict[str, Any]:
    """Return a record's `extra`: the sandbox by id and name, and whatever else; an error by its kind and words."""
    found = {"sandboxId": str(sandbox.id), "name": sandbox.name} if sandbox else {}
    if isinstance(error := more.get("error"), Exception):
        more["error"] = {"type": type(error).__name__, "message": str(error)}
        if hint := getattr(error, "hint", ""):
            more["error"]["hint"] = hint
    return {"fields": found | more}
