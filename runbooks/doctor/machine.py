"""What this machine brings along: Python, the packages, a folder for plans and the journal, a terminal."""

import os
import platform
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runbooks.doctor.checks import Takes, well, wrong
from runbooks.engine.environment import FOLDER, command, state_folder
from runbooks.engine.model import Finding
from sandbox.text import counted, size

__all__ = ["MACHINE", "Folder", "Machine", "Packages", "findings", "read_machine"]

MACHINE = "this machine"

_OLDEST, _NEWEST = (3, 11), (3, 13)
_LITTLE = 100 * 2**20  # bytes; a journal of years is smaller
_LOCK = FOLDER.parent / "requirements.run.lock"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+) *(;.*?)?\\?$", re.MULTILINE)
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """How many packages are pinned, which of them are missing, and which are of another version."""

    pinned: int
    missing: tuple[str, ...]
    differing: tuple[str, ...]

    @classmethod
    def of(cls, lock: str) -> "Packages":
        """Compare what is installed with a lock file's text. What it pins for some systems only may be missing."""
        missing, differing, pins = [], [], _PIN.findall(lock)
        for name, wanted, somewhere in pins:
            try:
                found = version(name)
            except PackageNotFoundError:
                missing += [] if somewhere else [name]
                continue
            if found != wanted:
                differing.append(f"{name} {found}, not {wanted}")
        return cls(pinned=len(pins), missing=tuple(missing), differing=tuple(differing))


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Where plans and the journal are kept: what may be done there or, where it has to be made, above it; free bytes.

    `mode` is None where it does not exist yet.
    """

    path: Path
    mode: int | None
    writable: bool
    free: int

    @classmethod
    def of(cls, path: Path) -> "Folder":
        """Look at a folder; nothing is written to it."""
        there = next(each for each in (path, *path.absolute().parents) if each.exists())
        return cls(
            path=path,
            mode=stat.S_IMODE(path.stat().st_mode) if path.is_dir() else None,
            writable=there.is_dir() and os.access(there, os.W_OK | os.X_OK),
            free=shutil.disk_usage(there).free,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was seen. `packages` is None where there is no lock file beside the toolkit; `encoding` is the output's."""

    system: str
    python: tuple[int, int, int]
    packages: Packages | None
    folder: Folder
    encoding: str


def read_machine(variables: Mapping[str, str], *, lock: Path = _LOCK) -> Machine:
    """Return what there is."""
    return Machine(
        system=platform.system(),
        python=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        packages=Packages.of(lock.read_text(encoding="utf-8")) if lock.exists() else None,
        folder=Folder.of(state_folder(variables)),
        encoding=(getattr(sys.stdout, "encoding", None) or "").lower(),
    )


def findings(seen: Machine) -> Iterator[Finding]:
    """Say what of it would be in the way. Pure."""
    yield _python(seen)
    yield _packages(seen.packages)
    yield _folder(seen.folder)
    yield _terminal(seen.encoding)


def _python(seen: Machine) -> Finding:
    found = seen.python
    told = f"Python {'.'.join(map(str, found))} on {seen.system}"
    if _OLDEST <= found[:2] <= _NEWEST:
        return well(MACHINE, "Python", told)
    span = " to ".join(".".join(map(str, each)) for each in (_OLDEST, _NEWEST))
    takes = Takes.LOOKING if found[:2] < _OLDEST else Takes.NOTHING
    return wrong(
        MACHINE, "Python", f"{told}: this was tried with {span}", fix=f"install Python {span}", takes=takes
    )


def _packages(found: Packages | None) -> Finding:
    fix = f"{command()} --list  # brings .venv up to date"
    if found is None:
        return wrong(
            MACHINE, "packages", "there is no requirements.run.lock to compare with", fix="install it whole"
        )
    if found.missing:
        told = (
            f"{counted(len(found.missing), 'package is', 'packages are')} missing: {_listed(found.missing)}"
        )
        return wrong(MACHINE, "packages", told, fix=fix, takes=Takes.LOOKING)
    if found.differing:
        told = f"{len(found.differing)} of {found.pinned} are of another version: {_listed(found.differing)}"
        return wrong(MACHINE, "packages", told, fix=fix)
    return well(MACHINE, "packages", f"the {found.pinned} packages are as they are pinned")


def _folder(found: Folder) -> Finding:
    where = f"plans and journal in {found.path}"
    if not found.writable:
        fix = "export RUNBOOKS_STATE_DIR=…  # a folder that is yours"
        return wrong(MACHINE, "state", f"{where}: it cannot be written", fix=fix, takes=Takes.LOOKING)
    if found.free < _LITTLE:
        fix = f"df -h {found.path}"
        return wrong(MACHINE, "state", f"{where}: {size(found.free)} are free", fix=fix, takes=Takes.CHANGING)
    if found.mode is not None and found.mode & 0o077:
        told = f"{where}: others may look into it ({found.mode:04o})"
        return wrong(MACHINE, "state", told, fix=f"chmod 700 {found.path}")
    return well(MACHINE, "state", f"{where}, {size(found.free)} free")


def _terminal(encoding: str) -> Finding:
    if encoding.replace("-", "") == "utf8":
        return well(MACHINE, "terminal", "it takes UTF-8")
    told = f"the output is {encoding or 'of no known encoding'}, not UTF-8: some signs will look odd"
    return wrong(MACHINE, "terminal", told, fix="export LANG=C.UTF-8")


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
