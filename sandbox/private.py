"""Folders and files that nobody but their owner may look into, whatever the umask; and a new name seen on the disk."""

import os
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["make_folder", "opened", "sync_folder"]


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, each of mode 0700. One that is there stays as it is."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):  # somebody else was faster
        path.mkdir()
        with suppress(PermissionError):  # a disk that knows no modes
            path.chmod(0o700)


def opened(path: Path, flags: int) -> int:
    """Open a file, made where it is missing, and see to it that its mode is 0600. Return the descriptor. Raises OSError."""
    descriptor = os.open(path, flags | os.O_CREAT, 0o600)
    found = os.fstat(descriptor)
    if stat.S_IMODE(found.st_mode) != 0o600 and found.st_uid == os.geteuid():
        with suppress(PermissionError):  # a disk that knows no modes
            os.fchmod(descriptor, 0o600)
    return descriptor


def sync_folder(folder: Path) -> None:
    """See a folder's new names on the disk, which syncing the files does not. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
