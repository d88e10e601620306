"""The launcher in a copied folder. A stand-in `venv` module makes a .venv whose Python only pretends, so nothing
is fetched and nothing takes long."""

from __future__ import annotations

import ast
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).parents[2] / "inv"
LOCK = "click==8.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"

FAKE_VENV = """
import os, sys
bin = os.path.join(sys.argv[1], "bin")
os.makedirs(bin)
os.makedirs(os.path.join(sys.argv[1], "lib", "python%d.%d" % sys.version_info[:2], "site-packages"))
for name in ("python", "uv"):
    with open(os.path.join(bin, name), "w") as f:
        f.write(open(os.environ["FAKE_PROGRAM"]).read())
    os.chmod(os.path.join(bin, name), 0o755)
"""
WORKS = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$*" in *"-m runbooks"*) echo "handed over: $RUNBOOKS_COMMAND $*";; esac
"""


class House:
    """A folder with a copy of the launcher, and how to run it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a house"
        self.root.mkdir()
        shutil.copy(SOURCE, self.root / "inv")
        self.lock = self.root / "requirements.lock"
        self.lock.write_text(LOCK)
        self.calls = folder / "calls"
        self.calls.touch()
        self.program = folder / "program"
        self.program.write_text(WORKS)
        self.modules = folder / "modules"
        (self.modules / "venv").mkdir(parents=True)
        (self.modules / "venv" / "__init__.py").touch()
        (self.modules / "venv" / "__main__.py").write_text(FAKE_VENV)
        self.env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "PYTHONPATH": str(self.modules),
            "PYTHONDONTWRITEBYTECODE": "1",
            "FAKE_PROGRAM": str(self.program),
            "CALLS": str(self.calls),
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.root / "inv"), *arguments]

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.env,
            cwd=cwd or self.root,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def installs(self) -> int:
        return self.calls.read_text().count("--require-hashes")

    def tools_say(self, text: str) -> None:
        self.program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit 1\n")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def launcher() -> Iterator[ModuleType]:
    loader = SourceFileLoader("inv_launcher", str(SOURCE))
    spec = spec_from_loader("inv_launcher", loader)
    assert spec is not None
    module = module_from_spec(spec)
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    yield module
    sys.dont_write_bytecode = kept


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The last line of a set-up that ended in an orderly way."""
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


def test_sets_up_once_and_hands_over(house: House, tmp_path: Path) -> None:
    first = house.run("lab", "rb-sb-003", cwd=tmp_path)
    assert first.stdout == f"handed over: ./inv -m runbooks --search-root {house.root} lab rb-sb-003\n"
    assert "inv: ready after" in first.stderr
    [path_file] = house.root.glob(".venv/lib/python*/site-packages/*.pth")
    assert path_file.read_text() == f"{house.root}\n"

    second = house.run("test")
    assert (second.stderr, house.installs()) == ("", 1)


def test_a_changed_lock_is_installed_again(house: House) -> None:
    house.run("test")
    house.lock.write_text(LOCK + "# changed\n")
    again = house.run("test")
    assert "requirements.lock has changed" in again.stderr
    assert "making .venv" not in again.stderr
    assert house.installs() == 2


def test_an_unfinished_venv_is_redone(house: House) -> None:
    (house.root / ".venv" / "bin").mkdir(parents=True)
    (house.root / ".venv" / "left over").touch()
    result = house.run("test")
    assert "redoing .venv" in result.stderr
    assert result.returncode == 0
    assert not (house.root / ".venv" / "left over").exists()


def test_a_moved_folder_is_set_up_anew(house: House) -> None:
    house.run("test")
    house.root = house.root.rename(house.root.with_name("moved"))
    assert "redoing .venv" in house.run("test").stderr


def test_a_failed_set_up_is_not_taken_for_a_finished_one(house: House) -> None:
    house.tools_say("something odd")
    assert "something odd" in refused(house.run("test"))
    house.program.write_text(WORKS)
    assert house.run("test").stdout.startswith("handed over")


def test_two_at_once_wait_for_one_another(house: House) -> None:
    with (house.root / ".inv.lock").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        child = subprocess.Popen(
            house.command("test"), env=house.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert child.stderr is not None
        assert "another ./inv is setting up" in child.stderr.readline()
        assert not (house.root / ".venv").exists()
    out, _ = child.communicate(timeout=60)
    assert out.startswith("handed over")


def test_pip_takes_over_where_uv_is_refused(house: House) -> None:
    house.program.write_text(WORKS + 'case "$0" in */uv) echo denied; exit 1;; esac\n')
    result = house.run("test")
    assert "going on with pip" in result.stderr
    assert result.stdout.startswith("handed over")
    assert house.calls.read_text().splitlines()[2].startswith("python -m pip install -q --require-hashes")


def test_no_venv_module(house: House) -> None:
    (house.modules / "ensurepip.py").write_text("raise ImportError('removed')\n")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"`apt install python{version}-venv`" in refused(house.run("test"))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "WARNING: Retrying: NewConnectionError('[Errno 101] Network is unreachable')\nERROR: No matching …",
            "no network",
        ),
        ("WARNING: Retrying: Temporary failure in name resolution", "no network"),
        ("error: Failed to fetch\n  cause: dns error: failed to lookup", "no network"),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE\n  a==1 from x",
            "do not match (a==1)",
        ),
        ("error: Hash mismatch for `click==8.0`", "do not match (click==8.0)"),
        ("error: Couldn't parse requirement in `requirements.lock` at position 0", "a line cannot be parsed"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("error: failed to write: Read-only file system (os error 30)", "cannot write in"),
        ("SSLError: CERTIFICATE_VERIFY_FAILED", "set PIP_CERT"),
        ("ERROR: No matching distribution found for uv==0.13.8", "has no uv==0.13.8"),
    ],
)
def test_what_the_tools_say_becomes_one_line(house: House, said: str, expected: str) -> None:
    house.tools_say(said)
    assert expected in refused(house.run("test"))


@pytest.mark.parametrize("content", ["", "<<<<<<< ours\n" + LOCK, "click==8.0\n"])
def test_a_broken_lock_is_noticed_before_anything_is_made(house: House, content: str) -> None:
    house.lock.write_text(content)
    assert "git checkout requirements.lock" in refused(house.run("test"))
    assert not (house.root / ".venv").exists()


def test_a_missing_lock(house: House) -> None:
    house.lock.unlink()
    assert "cannot read requirements.lock" in refused(house.run("test"))


def test_an_old_python_says_which_one_is_needed(
    launcher: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        launcher.Trouble, match=r"needs Python 3\.11 or newer; found 3\.9\.2 at .*python3\.12 \./inv"
    ):
        launcher.settle_on_python()


def test_an_old_python_goes_on_with_a_newer_one(
    launcher: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, answer in {"python3.13": "command not found", "python3.12": "3.12"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho {answer}\n")
        (tmp_path / name).chmod(0o755)
    started: list[list[str]] = []
    monkeypatch.setattr(sys, "version_info", (2, 7, 18))
    monkeypatch.setattr(sys, "argv", ["./inv", "test"])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "execv", lambda path, argv: started.append(argv))
    monkeypatch.setattr(launcher, "Trouble", SystemExit)
    with pytest.raises(SystemExit):  # execv came back, which it never does in truth
        launcher.settle_on_python()
    assert started == [[str(tmp_path / "python3.12"), str(SOURCE), "test"]]


def test_it_parses_under_old_pythons() -> None:
    ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 6))
    assert not any(
        isinstance(node, ast.JoinedStr) for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8")))
    )
