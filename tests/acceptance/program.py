"""A Python program of this house in a process of its own, forked from a nursery instead of started."""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.acceptance.nursery import NUMBER

ROOT = Path(__file__).resolve().parents[2]


class Program:
    """A program that runs, with pipes for its output; as much of subprocess.Popen as tests need."""

    def __init__(self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: int) -> None:
        """Run `words`, which are Python's: a file and its arguments, or `-m`, a module and its arguments."""
        self.returncode: int | None = None
        self._keeper, theirs = socket.socketpair()
        out, err = os.pipe(), os.pipe()
        socket.send_fds(_nursery(_at_start(env)), [b"x"], [theirs.fileno(), stdin, out[1], err[1]])
        for each in (theirs.detach(), out[1], err[1]):
            os.close(each)
        self.stdout, self.stderr = (os.fdopen(end, encoding="utf-8") for end in (out[0], err[0]))
        self._keeper.sendall(json.dumps({"words": words, "cwd": str(cwd), "env": dict(env)}).encode())
        self._keeper.shutdown(socket.SHUT_WR)
        self.pid = self._number()

    def __enter__(self) -> Self:
        """Return the program itself."""
        return self

    def __exit__(self, *_: "type[BaseException] | BaseException | TracebackType | None") -> None:
        """End it, if it has not ended by itself."""
        self.kill()
        self.wait()
        for each in (self.stdout, self.stderr, self._keeper):
            each.close()

    def poll(self) -> int | None:
        """Return its exit code if it has ended."""
        if self.returncode is None and select.select([self._keeper], [], [], 0)[0]:
            self.returncode = self._number()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code, minus the signal where one ended it."""
        if self.returncode is None and not select.select([self._keeper], [], [], timeout)[0]:
            raise TimeoutError(f"it has not ended after {timeout} seconds")
        code = self.poll()
        assert code is not None
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end and return all that it wrote."""
        with ThreadPoolExecutor(2) as readers:
            ends = [readers.submit(each.read) for each in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except TimeoutError:
                self.kill()
                raise
            out, err = (end.result() for end in ends)
        return out, err

    def kill(self) -> None:
        """End it as `kill -9` does, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _number(self) -> int:
        said = self._keeper.recv(NUMBER.size, socket.MSG_WAITALL)
        if len(said) < NUMBER.size:
            raise ChildProcessError("the nursery has failed: its standard error says why")
        number: int = NUMBER.unpack(said)[0]
        return number


def _at_start(env: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """The variables that Python reads once, when it starts: programs that differ in them share no nursery."""
    return frozenset(
        (name, value)
        for name, value in env.items()
        if name.startswith(("LC_", "PYTHON")) or name in ("LANG", "TZ")
    )


@cache
def _nursery(start: frozenset[tuple[str, str]]) -> socket.socket:
    """Start a nursery, and return the socket on which it is asked; it ends when that is closed."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.nursery", str(theirs.fileno())],
            cwd=ROOT,
            env=dict(start),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    @atexit.register
    def end() -> None:
        ours.close()
        process.wait()

    return ours
