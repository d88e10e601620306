"""Child processes that end with their parent, and the ports they listen on."""

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ANYBODY",
    "HOST",
    "NOBODY",
    "SERVER_ENV",
    "Identity",
    "answers",
    "become_nobody_in_namespace",
    "die_with_parent",
    "free_ports",
    "spawn",
    "talk",
]

HOST = "127.0.0.1"
NOBODY = 65534
"""The user that has nothing: PostgreSQL refuses to run as root."""
SERVER_ENV: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_PR_SET_PDEATHSIG = 1
# Loaded once, here: between fork and exec nothing should be looked up.
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(with_signal: int = signal.SIGTERM) -> None:
    """Ask the kernel to signal this process when the thread that started it ends. On Linux only.

    Call it after any change of identity, which would clear it, and start the process from a main thread.
    """
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, with_signal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a child is: what it does before exec, its user and group, the signal at its parent's end."""

    become: Callable[[], None] | None = None
    uid: int | None = None
    death_signal: signal.Signals = signal.SIGTERM

    def assume(self) -> None:
        """Take it on, in the child, between fork and exec."""
        if self.become:
            self.become()
        die_with_parent(self.death_signal)


ANYBODY = Identity()


def spawn(
    argv: Sequence[object],
    *,
    log: Path,
    env: Mapping[str, str] = SERVER_ENV,
    cwd: Path = Path("/"),
    identity: Identity = ANYBODY,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own that ends with its parent and writes to `log`."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            preexec_fn=identity.assume,
            user=identity.uid,
            group=identity.uid,
            extra_groups=None if identity.uid is None else [],
        )


def free_ports(count: int) -> list[int]:
    """Distinct free ports, below Linux' ephemeral range which no outgoing connection takes."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = random.SystemRandom().randint(20000, 29999)
            listener = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                listener.bind((HOST, port))
                ports.append(port)
    return ports


def talk(port: int, request: bytes = b"", size: int = 4096) -> bytes:
    """What a port of this machine answers to `request`; nothing where nobody answers within a second."""
    try:
        with socket.create_connection((HOST, port), 1) as connection:
            if request:
                connection.sendall(request)
            return connection.recv(size)
    except OSError:
        return b""


def answers(port: int) -> bool:
    """Whether somebody accepts connections on a port of this machine."""
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def become_nobody_in_namespace() -> None:
    """Appear as uid 65534 without leaving root's files: PostgreSQL refuses to run as root. Linux only."""
    uid, gid, clone_newuser = os.getuid(), os.getgid(), 0x10000000
    if _LIBC.unshare(clone_newuser):
        raise OSError(ctypes.get_errno(), "unshare")
    for name, value in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {uid} 1"),
        ("gid_map", f"{NOBODY} {gid} 1"),
    ):
        Path("/proc/self", name).write_text(value)
