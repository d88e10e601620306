"""How a call ends: its exit code, and one line with a next step for whatever went wrong."""

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable

import click

from sandbox.errors import ArrakisError, Blocked, SandboxCode, SandboxError, Unreachable
from sandbox.secrets import concealed
from sandbox.text import clean

__all__ = ["EXITS", "Internal", "Misuse", "Refused", "calmly", "code_of", "exit_of", "plain"]

EXITS = {
    0: "done, healthy, or nothing to do",
    1: "an error, or wrong use",
    2: "`status`: the sandbox is degraded or unhealthy",
    3: "could not tell: a server did not answer",
    4: "refused: not confirmed, or something elsewhere would be taken along",
    5: "partly done: what is left is said, and repeating it finishes it",
    130: "interrupted with Ctrl-C",
    143: "ended by SIGTERM, as `timeout` sends it",
    141: "whoever read the output had seen enough, as in `… | head -1`",
}
"""Every exit code, and what it means."""


class Refused(ArrakisError):
    """Not confirmed by anybody; nothing was changed."""


class Misuse(ArrakisError):
    """Wrong use of the command line."""


class Internal(ArrakisError):
    """What nobody thought of."""


def exit_of(error: ArrakisError) -> int:
    """Return the exit code of an error."""
    if isinstance(error, Unreachable):
        return 3
    if isinstance(error, Refused | Blocked):
        return 4
    return 5 if isinstance(error, SandboxError) and error.code is SandboxCode.CLEANUP_FAILED else 1


def code_of(error: ArrakisError) -> str:
    """Return the word that a program tells an error by: the deployed system's code, or the kind of error."""
    if isinstance(error, SandboxError):
        return str(error.code)
    return "INVALID" if type(error) is ArrakisError else type(error).__name__.upper()


def plain(error: ArrakisError) -> dict[str, str]:
    """Return an error as a JSON object."""
    code = code_of(error)
    return {"code": code, "message": str(error).removeprefix(f"{code}: "), "hint": error.hint}


def calmly(work: Callable[[], int], *, json: bool) -> int:
    """Do it and return its exit code; whatever goes wrong is one line, with `json` also a document."""
    try:
        try:
            code = work()
            sys.stdout.flush()
            return code
        except click.exceptions.Exit as end:
            return end.exit_code
        except click.exceptions.NoArgsIsHelpError as error:
            print(error.format_message(), file=sys.stderr)
            return 1
        except click.ClickException as error:
            return _failed(_misused(error), json=json)
        except ArrakisError as error:
            return _failed(error, json=json)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read us has seen enough, as in `… | head -1`
        _let_go_of_output()
        return 141
    except Exception as error:
        return _surprised(error, json=json)


def _failed(error: ArrakisError, *, json: bool) -> int:
    hint = f"\n  next: {clean(error.hint)}" if error.hint else ""
    print(f"gaib: {clean(error)}{hint}", file=sys.stderr, flush=True)
    if json:
        print(_document(error), flush=True)
    return exit_of(error)


def _document(error: ArrakisError) -> str:
    return json.dumps({"success": False, "error": plain(error)}, indent=1)


def _misused(error: click.ClickException) -> ArrakisError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "gaib"
    return Misuse(error.format_message(), hint=f"{path} --help")


def _surprised(error: Exception, *, json: bool) -> int:
    """A fault of ours, or a full disk. What an error says may quote a secret: its kind has to do."""
    debug = bool(os.environ.get("GAIB_DEBUG"))
    why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    hint = "" if debug else "GAIB_DEBUG=1 shows where"
    with contextlib.suppress(OSError):
        if debug:
            sys.stderr.write(concealed("".join(traceback.format_exception(error))))
        _failed(Internal(f"something unexpected went wrong ({why})", hint=hint), json=json)
    _let_go_of_output()
    return 1


def _let_go_of_output() -> None:
    """Send what is still in the buffers nowhere: the interpreter would complain about it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
        with contextlib.suppress(OSError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
