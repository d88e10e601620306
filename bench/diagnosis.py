"""How long `invoke rb-sb-003` takes until everything is diagnosed, beside one log query and beside its own slowest probe."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from bench import peers
from bench.measuring import Claim, Figure, Line, Result, Size, in_turns, ratios, timed
from bench.probe import PROBES
from lab import control
from lab.control import Lab
from lab.names import CLEANUP_LOGS

__all__ = ["LINE"]

_ROOT = Path(__file__).resolve().parents[1]
_OURS, _PEER = "invoke rb-sb-003", "aws logs filter-log-events"
_PROPOSED = 2  # the exit code of a diagnosis with a plan
_PROBE = 1.3
_HOURS = 6
_MISSED = (
    "What bounds it is importing: half of the time, as four drivers are loaded and not one, and in one interpreter"
    " imports do not run side by side. Tried and kept: only the procedure that is called for is loaded, and botocore without boto3. Tried: no garbage collection"
    " meanwhile: no faster."
)


def _run_program(words: Sequence[object], env: Mapping[str, str], code: int = 0) -> None:
    done = subprocess.run(
        list(map(str, words)), cwd=_ROOT, env=dict(env), capture_output=True, text=True, check=False
    )
    if done.returncode != code:
        raise SystemExit(f"{words} ended with {done.returncode}: {done.stderr.strip()}")


def _environment(lab: Lab, state: Path) -> Mapping[str, str]:
    return {**os.environ, **lab.env, "ARRAKIS_ENV": "lab", "RUNBOOKS_STATE_DIR": str(state)}


def _query() -> Sequence[object]:
    """Return the runbook page's first query of a log, as a person would type it."""
    since = f"{(time.time() - _HOURS * 3600) * 1000:.0f}"
    about = ["--log-group-name", CLEANUP_LOGS, "--filter-pattern", "ERROR", "--start-time", since]
    return [peers.aws_cli(), "logs", "filter-log-events", *about]


def _run(size: Size) -> Result:
    cli = _query()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        home = Path(folder) / "lab"
        try:
            lab = control.lay_out(control.start(home, watch_parent=True), "rb-sb-003")
            env = _environment(lab, Path(folder) / "state")
            calls = {
                _OURS: partial(_run_program, [sys.executable, "-m", "runbooks", "rb-sb-003"], env, _PROPOSED),
                _PEER: partial(_run_program, cli, env),
            } | {
                name: partial(_run_program, [sys.executable, "-m", "bench.probe", name], env)
                for name in PROBES
            }
            ways = {name: partial(timed, call) for name, call in calls.items()}
            took = in_turns(ways, size.rounds)
        finally:
            control.reset(home)
    slowest = took[max(PROBES, key=lambda name: median(took[name]))]
    return Result(
        figures=[
            *(Figure(name=name, unit="s", values=took[name]) for name in (_OURS, _PEER)),
            *(
                Figure(name=f"start-up, and the probe `{name}` alone", unit="s", values=took[name])
                for name in PROBES
            ),
        ],
        claims=[
            Claim(
                said="a diagnosis, to one `aws logs filter-log-events`",
                values=ratios(took[_OURS], took[_PEER]),
                bound=1.0,
                missed=_MISSED,
            ),
            Claim(
                said=f"a diagnosis, to its start-up and the slowest of its {len(PROBES)} probes",
                values=ratios(took[_OURS], slowest),
                bound=_PROBE,
                missed=_MISSED,
            ),
        ],
        notes=[
            "Each is a program of its own, from its start to its end. The servers are this machine's, so that nothing is waited for:"
            " what is measured are the interpreter and what it imports. A far network is not measured: to ours it would add the slowest of"
            " four probes that ask side by side, and after them that of what asks who uses the orphans. `aws` is AWS's command line, version 1, as pip"
            " installs it."
        ],
        versions={**lab.versions, "awscli": peers.AWS_CLI.partition("==")[2]},
    )


LINE = Line(
    name="diagnosis",
    title="Diagnosis of RB-SB-003",
    on="the lab's incident",
    run=_run,
)
