"""PgBouncer in transaction pooling before a lab's PostgreSQL, as production has it. Debian's package."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from lab.processes import HOST, die_with_parent, free_ports
from tests.waiting import eventually

_POOL = 3  # fewer than the sessions that a run opens side by side


@contextmanager
def pooled(url: str, folder: Path, *, console: bool = True) -> Iterator[str]:
    """Start one; yield the database's address through it; stop it at the end. Its console is for all or nobody."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    assert program, "pgbouncer is not installed: run .ci/run, or install it"
    [port] = free_ports(1)
    server = urlsplit(url)
    settings, users = folder / "pgbouncer.ini", folder / "users.txt"
    users.write_text(f'"{server.username}" ""\n')
    settings.write_text(
        f"[databases]\n* = host={server.hostname} port={server.port} user={server.username}\n"
        f"[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = {'any' if console else 'trust'}\nauth_file = {users}\n"
        f"pool_mode = transaction\ndefault_pool_size = {_POOL}\nmax_client_conn = 200\n"
        "server_reset_query = DISCARD ALL\n"
    )
    folder.chmod(0o755)
    # PgBouncer refuses to run as root.
    user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    argv = [program, str(settings)] if user is None else [program, "-u", "nobody", str(settings)]
    log = folder / "pgbouncer.log"
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, preexec_fn=die_with_parent)
    address = f"postgresql://{server.username}@{HOST}:{port}{server.path}"
    try:
        eventually(lambda: _answers(address, process, log))
        yield address
    finally:
        process.terminate()
        process.wait()


def _answers(address: str, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        psycopg.connect(address, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
