"""What programs are forked from, as starting Python and importing the drivers takes longer than most of them run.

`python -m tests.acceptance.nursery FD` imports all of the house, then waits on a socket. For each program it is sent a socket
and three files: on that socket it reads what to run, and tells its process id and at last its exit code; the files become
the program's standard ones. What runs is the whole program, from its first line to the interpreter's orderly end, with
arguments, environment and folder of its own. It only finds its modules loaded, and what it changes in them ends with it.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import struct
import sys

import botocore.session
from botocore.loaders import create_loader

__all__ = ["NUMBER", "main", "run", "share_models"]

NUMBER = struct.Struct("i")
_SERVICES = ("application-autoscaling", "cloudwatch", "ecs", "events", "logs", "rds", "s3", "sts")
_REGION = "eu-central-1"
_HOUSE = ("diagnostics", "runbooks", "sandbox", "sql")


def main(asked: socket.socket) -> list[str] | None:
    """Fork for each that is asked for; returns in the program's process, with its words, or None once nobody asks."""
    _furnish()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        _, files, _, _ = socket.recv_fds(asked, 1, 4)
        _bury()
        if not files:
            return None
        if os.fork() == 0:
            asked.close()
            return _keep(socket.socket(fileno=files[0]), files[1:])
        for each in files:
            os.close(each)


def run(words: list[str]) -> None:
    """Run `-m MODULE …` or `FILE …`, as Python itself does with such words."""
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def share_models() -> None:
    """Let all sessions of this process share what AWS's services look like: a client reads a megabyte of JSON for it."""
    botocore.session.create_loader = functools.cache(create_loader)


def _furnish() -> None:
    importlib.import_module("runbooks.program")
    for house in _HOUSE:
        importlib.import_module(house)
        for module in pkgutil.walk_packages(importlib.import_module(house).__path__, f"{house}."):
            if not module.name.endswith(".__main__"):  # a program is run, not imported
                importlib.import_module(module.name)
    share_models()
    for service in _SERVICES:
        botocore.session.get_session().create_client(service, _REGION)
    gc.collect()
    gc.freeze()  # no program has to look through all of that again


def _keep(caller: socket.socket, files: list[int]) -> list[str]:
    """Fork the program; this process stays to tell the caller how it ended."""
    with caller.makefile("rb") as request:
        asked = json.loads(request.read())
    if pid := os.fork():
        for each in files:
            os.close(each)
        caller.sendall(NUMBER.pack(pid))
        _, status = os.waitpid(pid, 0)
        caller.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
        os._exit(0)
    caller.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _adopt(files)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    words: list[str] = asked["words"]
    return words


def _bury() -> None:
    """Take notice of the keepers that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _adopt(files: list[int]) -> None:
    """Make the files the standard ones, and open them as Python does at its start."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        os.dup2(files[number], number)
        os.close(files[number])
        former = getattr(sys, name)
        buffering = 1 if name == "stderr" else -1
        opened = os.fdopen(
            number, mode, buffering, encoding=former.encoding, errors=former.errors, closefd=False
        )
        setattr(sys, name, opened)
        setattr(sys, f"__{name}__", opened)


if __name__ == "__main__":
    if begun := main(socket.socket(fileno=int(sys.argv[1]))):
        run(begun)
