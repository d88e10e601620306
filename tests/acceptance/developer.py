"""A developer who calls gaib as a program: in a pipe, or at a terminal of 80 columns."""

import contextlib
import fcntl
import os
import re
import select
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.acceptance.engineer import Answer
from tests.acceptance.program import ROOT, Program

_SECONDS = 60
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_GAIB = """\
#!{python}
import sys
sys.path.insert(0, {root!r})
sys.argv[0] = "gaib"
from sandbox.cli import main
sys.exit(main())
"""
# A session leader's terminal is the first one that it opens.
_AT_TERMINAL = 'exec <"$0" >"$0" 2>&1; exec bash -c "$1"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Developer:
    """Somebody with gaib on the PATH and an environment of their own."""

    env: Mapping[str, str]
    home: Path

    @classmethod
    def at(cls, home: Path, variables: Mapping[str, str], *, owner: str = "chani") -> "Developer":
        """Return a developer with gaib in `home`/bin."""
        program = home / "bin" / "gaib"
        program.parent.mkdir(parents=True)
        program.write_text(_GAIB.format(python=sys.executable, root=str(ROOT)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        env = {
            **variables,
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm-256color",
            "SANDBOX_OWNER": owner,
        }
        return cls(env=env, home=home)

    def but(self, **variables: str | None) -> "Developer":
        """Return the same developer with other variables; None takes one away."""
        changed = {**self.env, **variables}
        return replace(self, env={name: value for name, value in changed.items() if value is not None})

    def call(self, *args: str) -> Answer:
        """Call gaib without any terminal."""
        began = time.monotonic()
        with self.piped(*args) as program:
            out, err = program.communicate(_SECONDS)
        return Answer(code=program.wait(), out=out, err=err, seconds=time.monotonic() - began)

    def shell(self, line: str) -> Answer:
        """Run a line in bash without any terminal."""
        return self.run("bash", "-c", line)

    def run(self, *argv: str) -> Answer:
        """Run a program without any terminal."""
        began = time.monotonic()
        done = subprocess.run(
            argv,
            cwd=self.home,
            env=dict(self.env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        seconds = time.monotonic() - began
        return Answer(code=done.returncode, out=done.stdout, err=done.stderr, seconds=seconds)

    @contextlib.contextmanager
    def piped(self, *args: str) -> Iterator[Program]:
        """Call gaib with pipes, and give the program; it does not outlive the block."""
        words = [str(self.home / "bin" / "gaib"), *args]
        with (
            Path(os.devnull).open() as nothing,
            Program(words, cwd=self.home, env=self.env, stdin=nothing.fileno()) as program,
        ):
            yield program

    @contextlib.contextmanager
    def terminal(self, line: str) -> Iterator["Terminal"]:
        """Run a line in bash at a terminal; it does not outlive the block."""
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        try:
            with subprocess.Popen(
                ["bash", "-c", _AT_TERMINAL, os.ttyname(theirs), line],
                cwd=self.home,
                env=dict(self.env),
                start_new_session=True,
            ) as process:
                try:
                    yield Terminal(process, ours, theirs)
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
        finally:
            os.close(ours)
            os.close(theirs)


class Terminal:
    """What a person at a terminal sees and types."""

    def __init__(self, process: "subprocess.Popen[bytes]", ours: int, theirs: int) -> None:
        """Take the process and both ends; the far one is held open, so that nothing is lost at the end."""
        self._process, self._ours, self._theirs, self.raw = process, ours, theirs, ""

    @property
    def text(self) -> str:
        """All that was shown, without colours and movements."""
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def type(self, keys: str) -> None:
        """Type keys; `\\x03` is Ctrl-C."""
        os.write(self._ours, keys.encode())

    def terminate(self) -> None:
        """End the program as `timeout` does."""
        self._process.terminate()

    def wait_for(self, seen: str | Callable[[str], bool], *, seconds: float = 30) -> None:
        """Read until something is shown."""
        shown = (lambda text: seen in text) if isinstance(seen, str) else seen
        deadline = time.monotonic() + seconds
        while not shown(self.raw):
            assert time.monotonic() < deadline, f"not shown in time: {self.raw}"
            assert self._process.poll() is None or self._ready(), f"it ended before: {self.raw}"
            self._read(0.05)

    def end(self, *, seconds: float = 30) -> int:
        """Wait for the end and return the exit code."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"no end in time: {self.raw}"
            self._read(0.02)
        while self._ready():
            self._read(0)
        return int(self._process.returncode)

    def _ready(self) -> bool:
        return bool(select.select([self._ours], [], [], 0)[0])

    def _read(self, seconds: float) -> None:
        if select.select([self._ours], [], [], seconds)[0]:
            self.raw += os.read(self._ours, 65536).decode()
