"""Programs that ours are measured beside, each in an environment of its own under `.bench/`, made once."""

import subprocess
import venv
from pathlib import Path

__all__ = ["AWS_CLI", "aws_cli"]

_FOLDER = Path(__file__).resolve().parents[1] / ".bench"
AWS_CLI = "awscli==1.46.2"
"""The package that AWS's command line is installed from."""


def aws_cli() -> Path:
    """Return AWS's command line. Raises SystemExit where it cannot be installed."""
    return _program("aws", AWS_CLI)


def _program(name: str, package: str) -> Path:
    """Return a program out of a package, which is installed if it is not there yet."""
    folder = _FOLDER / package
    program = folder / "bin" / name
    if not program.exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{package} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return program
