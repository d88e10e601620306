"""A small disk of a server's own: a tmpfs in a mount namespace that nobody else sees. Linux only.

`python -m lab.volume PID FOLDER MIB` makes the one that a process has another size; with `read-only` instead nobody can write
to it any more. A process that enters a namespace must have one thread, and does not come back: it is a program of its own.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lab.errors import LabError
from lab.processes import NOBODY, SERVER_ENV, Identity

__all__ = ["FOLDER", "find", "furnished", "insist", "left", "protect", "resize"]

FOLDER = "volume"
"""What its folder is called, beside the server's data."""

_NEWNS, _NEWUSER = 0x20000, 0x10000000
_RDONLY, _REMOUNT, _PRIVATE_ALL = 0x1, 0x20, 0x40000 | 0x4000
_PROTECT = "read-only"
_SECONDS = 10
_REPOSITORY = Path(__file__).resolve().parent.parent
# Loaded once, here: between fork and exec nothing should be looked up.
_LIBC = ctypes.CDLL(None, use_errno=True)


def insist() -> None:
    """Raise LabError where this user, on this machine, cannot be given such a disk."""
    with tempfile.TemporaryDirectory(prefix="lab-volume-") as folder:
        for identity in (Identity(), Identity(uid=NOBODY)):
            tried = furnished(identity, Path(folder), 1)
            try:
                if subprocess.run(["/bin/true"], preexec_fn=tried.become, cwd="/").returncode == 0:
                    return
            except (OSError, subprocess.SubprocessError):
                continue
    raise LabError(
        "this machine lets nobody mount a disk of its own, so that none can be full",
        hint="the incident needs user namespaces (sysctl user.max_user_namespaces), or root with CAP_SYS_ADMIN",
    )


def furnished(identity: Identity, folder: Path, mib: int) -> Identity:
    """Return the identity that has a disk of so many MiB at `folder`, for a new process."""
    uid, gid = os.getuid(), os.getgid()
    inside = (NOBODY, NOBODY) if uid == 0 else (uid, gid)
    options = f"size={mib}m,mode=0700,uid={inside[0]},gid={inside[1]}".encode()
    target = os.fsencode(folder)

    def become() -> None:
        if identity.uid is None:
            _call(_LIBC.unshare(_NEWUSER | _NEWNS))
            maps = (("uid_map", f"{inside[0]} {uid} 1"), ("gid_map", f"{inside[1]} {gid} 1"))
            for name, value in (("setgroups", "deny"), *maps):
                Path("/proc/self", name).write_text(value)
        else:
            _call(_LIBC.unshare(_NEWNS))
            _call(_LIBC.mount(None, b"/", None, _PRIVATE_ALL, None))
        _call(_LIBC.mount(b"tmpfs", target, b"tmpfs", 0, options))
        if identity.uid is not None:
            os.setgroups([])
            os.setgid(inside[1])
            os.setuid(inside[0])

    return Identity(become=become, death_signal=identity.death_signal)


def find(pid: int) -> Path | None:
    """Return the folder of a process' disk, None where it has none."""
    try:
        mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return None
    folders = [
        Path(line.split()[4].encode().decode("unicode_escape")) for line in mounts if " - tmpfs " in line
    ]
    return next((folder for folder in folders if folder.name == FOLDER), None)


def left(pid: int) -> int:
    """Return how many bytes are free on a process' disk. Raises LabError where it has none."""
    there = os.statvfs(f"/proc/{pid}/root{_insist_on(pid)}")
    return there.f_bavail * there.f_frsize


def resize(pid: int, mib: int) -> None:
    """Give the disk of a process another size. Raises LabError."""
    _ask(pid, str(mib))


def protect(pid: int) -> None:
    """Let nobody write to the disk of a process any more. Raises LabError."""
    _ask(pid, _PROTECT)


def _ask(pid: int, wanted: str) -> None:
    argv = [sys.executable, "-m", "lab.volume", str(pid), str(_insist_on(pid)), wanted]
    done = subprocess.run(
        argv, capture_output=True, text=True, cwd=_REPOSITORY, env=dict(SERVER_ENV), timeout=_SECONDS
    )
    if done.returncode:
        raise LabError(f"the disk could not be made {wanted}: {done.stderr.strip()[-200:]}")


def _insist_on(pid: int) -> Path:
    folder = find(pid)
    if folder is None:
        raise LabError(f"process {pid} has no disk of its own")
    return folder


def _remount(pid: int, folder: Path, wanted: str) -> None:
    """Go where the process lives. Its user namespace may be ours, which cannot be entered."""
    for kind, flag in (("user", _NEWUSER), ("mnt", _NEWNS)):
        theirs = Path(f"/proc/{pid}/ns", kind)
        if theirs.readlink() != Path("/proc/self/ns", kind).readlink():
            space = os.open(theirs, os.O_RDONLY)
            _call(_LIBC.setns(space, flag))
    flags, options = (
        (_REMOUNT | _RDONLY, b"") if wanted == _PROTECT else (_REMOUNT, f"size={wanted}m".encode())
    )
    _call(_LIBC.mount(None, os.fsencode(folder), None, flags, options))


def _call(failed: int) -> None:
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    _remount(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
