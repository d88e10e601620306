"""Trying mutants: a process of its own imports one in the module's place, and runs the module's tests until one fails.

What the tests need besides is imported once, before, and shared by fork: so a mutant costs little more than its tests. Nothing
is written into the source.
"""

import gc
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from math import ceil
from pathlib import Path
from types import CodeType, ModuleType

import hypothesis
import pytest

from lab import control
from tests.mutants.making import Mutant

__all__ = ["ROOT", "Module", "Outcome", "tried"]

ROOT = Path(__file__).resolve().parents[2]
_SLOWER = 5  # times as long at work as without a change, and
_BESIDES = 5  # seconds besides, that its tests may be
_WAITING = 20  # times as long as that they may wait, on a machine that has others to serve
_OURS = ("bench", "diagnostics", "lab", "runbooks", "sandbox", "sql", "tasks", "tests")


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module of the project, and the tests that have to notice any change to it, the likeliest first.

    With `servers` its tests use a lab: those that run at once have one each, one after the other the same.
    """

    name: str
    path: Path
    tests: tuple[str, ...]
    servers: bool = False

    @property
    def dotted(self) -> str:
        """What it is imported as."""
        return ".".join(self.path.with_suffix("").parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a mutant: the exit code of its tests."""

    mutant: Mutant
    code: int

    @property
    def survived(self) -> bool:
        """Whether no test noticed it."""
        return self.code == 0

    @property
    def hung(self) -> bool:
        """Whether its tests came to no end, which is as good as noticing it."""
        return self.code in (-signal.SIGKILL, -signal.SIGXCPU)


def tried(module: Module, mutants: Sequence[Mutant], *, at_once: int) -> list[Outcome]:
    """Try mutants, and return what became of each. Raises SystemExit where the tests fail without any change.

    Only once in a process, whose standing it changes: what it has imported is there for all mutants.
    """
    _import_what_it_needs(module)
    hypothesis.settings.register_profile(
        "mutants",
        derandomize=True,  # whether one survives must not be chance
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile("mutants")
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        trials = _Trials(module, mutants, at_once=at_once, scratch=Path(scratch))
        how = ["-x", "-s", "--tb=short", "-p", "no:xdist", "-p", "no:cacheprovider"]
        how += [] if module.servers else ["--noconftest"]
        warm = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # a plugin is imported by now
        code = pytest.main([*how, *warm, *module.tests], [trials])
        if trials.is_one:
            os._exit(code)
    if code or len(trials.outcomes) != len(mutants):
        raise SystemExit(f"{module.name} could not be tried")
    return trials.outcomes


class _Trials:
    """A plugin of pytest's: where tests are collected it begins a process for each mutant, which goes on from there."""

    def __init__(self, module: Module, mutants: Sequence[Mutant], *, at_once: int, scratch: Path) -> None:
        self._module, self._mutants, self._at_once, self._scratch = module, mutants, at_once, scratch
        self._tests = [ROOT / each for each in module.tests]
        self._running: dict[int, tuple[Mutant, float, str]] = {}
        self._labs = [f"lab-{number}" for number in range(at_once)]  # that are free
        self._patience = 100  # seconds at work
        self._at_work = 0.0  # seconds that the last one was at work
        self.outcomes: list[Outcome] = []
        self.is_one = False

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Pass over the files beside those that are named."""
        return None if any(each.is_relative_to(collection_path) for each in self._tests) else True

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Return in the processes of the mutants alone."""
        if self._module.servers:
            for lab in self._labs:
                control.start(self._scratch / lab, watch_parent=True)
        if self._try_as_it_is():
            return
        for mutant in self._mutants:
            if self._begin(mutant):
                return
            self._wait(for_fewer_than=self._at_once)
        self._wait(for_fewer_than=1)
        pytest.exit(f"{self._module.name} is done", returncode=0)

    def pytest_sessionfinish(self) -> None:
        """Tell what was imported for the tests, besides our own modules."""
        if self.is_one and not (told := self._scratch / "imported").exists():
            told.write_text(json.dumps([name for name in sys.modules if name.split(".")[0] not in _OURS]))

    def _try_as_it_is(self) -> bool:
        """See that the tests pass with the module as it is, and fail with one that is none; import what they need for all."""
        whole = (ROOT / self._module.path).read_text(encoding="utf-8")
        for source, should_pass in ((whole, True), ("raise AssertionError", False)):
            if self._begin(Mutant(name="", line=0, source=source), loud=should_pass):
                return True
            self._wait(for_fewer_than=1)
            if (self.outcomes.pop().code == 0) is not should_pass:
                raise SystemExit(
                    f"{self._module.name}: its tests {'fail as it is' if should_pass else 'do not need it'}"
                )
            if should_pass:
                self._patience = ceil(_SLOWER * self._at_work) + _BESIDES
        _import(json.loads((self._scratch / "imported").read_text()))
        gc.collect()
        gc.freeze()  # or each of them would look at all of it again
        return False

    def _begin(self, mutant: Mutant, *, loud: bool = False) -> bool:
        """Begin a mutant's process; return whether this is it."""
        lab = self._labs.pop()
        pid = os.fork()
        if pid:
            self._running[pid] = mutant, time.monotonic() + _WAITING * self._patience, lab
            return False
        self.is_one = True
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (self._patience, self._patience))
        home = self._scratch / str(os.getpid())
        home.mkdir()
        os.environ |= {
            "HOME": str(home),
            "PYTEST_DEBUG_TEMPROOT": str(home),
            "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
            "TESTS_LAB": str(self._scratch / lab),
        }
        for name in ("RUNBOOKS_COMMAND", "RUNBOOKS_STATE_DIR", "XDG_STATE_HOME"):
            os.environ.pop(name, None)
        sys.meta_path.insert(0, _Instead(self._module, mutant.source))
        if not loud:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nowhere, descriptor)
        return True

    def _wait(self, *, for_fewer_than: int) -> None:
        """Wait until so few are running, and keep what became of the others; one that comes to no end is ended."""
        while len(self._running) >= for_fewer_than:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid:
                self._at_work = usage.ru_utime + usage.ru_stime
                shutil.rmtree(self._scratch / str(pid), ignore_errors=True)
                mutant, _, lab = self._running.pop(pid)
                self._labs.append(lab)
                self.outcomes.append(Outcome(mutant=mutant, code=os.waitstatus_to_exitcode(status)))
                continue
            for each, (_, end, _) in self._running.items():
                if time.monotonic() > end:
                    with suppress(ProcessLookupError):
                        os.killpg(each, signal.SIGKILL)
            time.sleep(0.005)


class _Instead(MetaPathFinder):
    """Finds a mutant where its module is imported."""

    def __init__(self, module: Module, source: str) -> None:
        self._module, self._source = module, source

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._module.dotted:
            return None
        where = str(ROOT / self._module.path)
        return spec_from_file_location(name, where, loader=_Loader(name, where, self._source))


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, name: str) -> CodeType:
        return compile(self._source, self.path, "exec")


def _import_what_it_needs(module: Module) -> None:
    """Import those of our modules that a module imports, which no change to it changes, and not the module itself."""
    importlib.import_module(module.dotted)
    del sys.modules[module.dotted]
    package, _, name = module.dotted.rpartition(".")
    delattr(sys.modules[package], name)


def _import(names: Iterable[str]) -> None:
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)
