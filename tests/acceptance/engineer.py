"""An engineer who calls the tasks as a person or a machine does: as programs, with an environment of their own."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.control import Lab
from tests.acceptance.dump import age
from tests.acceptance.program import ROOT, Program

_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")
_SECONDS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a call said, and how long it took."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        read: dict[str, Any] = json.loads(self.out)
        return read

    @property
    def said(self) -> str:
        """All that was printed."""
        return self.out + self.err


class Engineer:
    """Somebody at a lab, with a host of their own for plans and journal."""

    def __init__(self, lab: Lab, state: Path, **variables: str) -> None:
        """Take the lab, where plans and journal live, and variables that override the lab's."""
        self.lab, self.state = lab, state
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self.env: Mapping[str, str] = {
            **inherited,
            **lab.env,
            "RUNBOOKS_STATE_DIR": str(state),
            "SANDBOX_OWNER": "chani",
            **variables,
        }

    def but(self, **variables: str | None) -> "Engineer":
        """Return the same engineer with other variables; None takes one away."""
        other = Engineer(self.lab, self.state)
        changed = {**self.env, **variables}
        other.env = {name: value for name, value in changed.items() if value is not None}
        return other

    def call(self, *args: str, typing: str | None = None) -> Answer:
        """Call a task and wait for its end; `typing` is what is typed at a terminal, and without it there is none."""
        began = time.monotonic()
        with self.calling(*args, terminal=typing is not None) as (program, terminal):
            if typing is not None:
                os.write(terminal, f"{typing}\n".encode())
            out, err = program.communicate(_SECONDS)
        return Answer(code=program.wait(), out=out, err=err, seconds=time.monotonic() - began)

    def cold(self, *args: str) -> Answer:
        """Call a task as a shell does: Python is started for it, and it imports by itself what it needs."""
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "runbooks", *args],
            cwd=ROOT,
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
    def calling(self, *args: str, terminal: bool = False) -> Iterator[tuple[Program, int]]:
        """Call a task, and give it and the terminal's other end (-1 without one); it does not outlive the block."""
        here, there = os.openpty() if terminal else (-1, os.open(os.devnull, os.O_RDONLY))
        try:
            with Program(["-m", "runbooks", *args], cwd=ROOT, env=self.env, stdin=there) as program:
                yield program, here
        finally:
            for end in (here, there):
                if end >= 0:
                    os.close(end)

    def plan(self, *args: str) -> dict[str, Any]:
        """Diagnose, and return the plan."""
        answer = self.call("rb-sb-003", "--json", *args)
        assert answer.code == 2, answer.said
        made: dict[str, Any] = answer.document["plan"]
        return made

    def apply(self, plan_id: str) -> dict[str, Any]:
        """Apply a plan that must go through, and return the document."""
        answer = self.call("apply", "--plan", plan_id, "--yes", "--json")
        assert answer.code == 0, answer.said
        return answer.document

    def undo(self, run_id: str) -> None:
        """Undo a run, whole."""
        answer = self.call("undo", "--run", run_id, "--yes", "--json")
        assert answer.code == 0, answer.said

    def give_back(self, document: Mapping[str, Any]) -> None:
        """Undo a run, and let the incident look as old as it did."""
        self.undo(document["run"]["id"])
        actions = document["plan"]["actions"]
        age(self.lab, [a["resource"]["id"] for a in actions if a["resource"]["kind"] == "keys"])

    def journal(self) -> list[dict[str, Any]]:
        """The whole records of the journal."""
        try:
            lines = (self.state / "custom" / "journal.jsonl").read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]
