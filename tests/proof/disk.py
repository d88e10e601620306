"""A small disk for a host's plans and journal, which can be filled to the last byte, or be made read-only."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen, SubprocessError

from lab import volume
from lab.processes import NOBODY, Identity, spawn

__all__ = ["PAGE", "Disk", "small_disk"]

PAGE = 4096
"""Bytes that a file's end takes, however short it is."""


@dataclass(frozen=True)
class Disk:
    """A disk of one MiB, seen through the process that has it mounted."""

    folder: Path
    pid: int

    @property
    def left(self) -> int:
        """How many bytes are free."""
        return volume.left(self.pid)

    def leave(self, path: Path, room: int) -> None:
        """Fill it so that a file may grow by so many bytes, up to a page more: its last page is its own already."""
        self.fill(but=room - -path.stat().st_size % PAGE)

    def fill(self, *, but: int = 0) -> None:
        """Fill it but for so many bytes, up to a page more."""
        filler = self.folder / "filler"
        with filler.open("ab") as file:
            file.write(b"x" * ((self.left - max(0, but)) // PAGE * PAGE))

    def clear(self) -> None:
        """Free what was filled."""
        (self.folder / "filler").unlink()

    def protect(self) -> None:
        """Make it read-only."""
        volume.protect(self.pid)


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Mount a small disk, and take it away at the end."""
    place = folder / volume.FOLDER
    place.mkdir()
    keeper = _keeper(place)
    try:
        yield Disk(Path(f"/proc/{keeper.pid}/root{place}"), keeper.pid)
    finally:
        keeper.kill()
        keeper.wait()


def _keeper(place: Path) -> "Popen[bytes]":
    """Start a process that has the disk mounted, the way that this machine allows."""
    volume.insist()
    for identity in (Identity(), Identity(uid=NOBODY)):
        try:
            started = spawn(
                ["/bin/sleep", "600"],
                log=place.parent / "keeper.log",
                identity=Identity(become=volume.furnished(identity, place, 1).become),
            )
        except (OSError, SubprocessError):
            continue
        if volume.find(started.pid):
            return started
        started.kill()
        started.wait()
    raise AssertionError("no small disk can be had here")
