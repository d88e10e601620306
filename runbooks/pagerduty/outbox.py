"""What waits to be sent to PagerDuty: one file an item, on this host's disk. It outlives a process that is killed at any moment.

Nothing has to be locked to keep an item: its file comes into being whole, under a name of its own, and is never changed. A later
item of the same incident and step stands for the earlier ones; whoever sent one takes away it and the earlier, never a later.
"""

import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sandbox.errors import ArrakisError, Busy
from sandbox.private import make_folder, opened, sync_folder

__all__ = ["Item", "Outbox"]

_STALE = 3600.0  # seconds after which a half-written file is what a killed process left
_SLOTS = 64  # locks, which all incidents share
_PAUSE = 0.02  # seconds between two looks at a lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What an incident is to have: the note of a step, or, where `step` is None, the status that `text` names.

    `name` is the file's, and sorts all items of this host by when they were kept.
    """

    name: str
    incident: str
    step: str | None
    text: str

    @property
    def kept_at(self) -> float:
        """When it was kept, in seconds of the clock."""
        return _number(self.name) / 1e9


class Outbox:
    """The items of one environment on this host. Any number of processes may share it."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; it is made when something is kept."""
        self._waiting, self._locks = folder / "outbox", folder / "locks"
        self.refused = folder / "refused"
        """Where what PagerDuty will never take is set aside."""

    def keep(self, incident: str, step: str | None, text: str) -> Item:
        """Keep an item; it is on the disk when this returns. Raises ArrakisError when that cannot be done."""
        key = _key(incident, step)
        try:
            earlier = self._names(key)
            number = max([time.time_ns(), *(_number(name) + 1 for name in earlier)])  # clocks go back
            name = f"{number:020d}-{key}-{uuid.uuid4().hex[:8]}.json"
            item = Item(name=name, incident=incident, step=step, text=text)
            _write(self._waiting / name, asdict(item))
            self._take_away(earlier)
        except OSError as error:
            raise ArrakisError(
                f"it cannot be kept on disk: {error.strerror}",
                hint="free some disk, or point RUNBOOKS_STATE_DIR elsewhere",
            ) from error
        return item

    def items(self, incident: str | None = None) -> list[Item]:
        """Return what waits, for all or one, oldest first, of each step only the latest. What cannot be read is passed over."""
        latest: dict[str, Item] = {}
        for name in self._names(f"{_hash(incident)}-*" if incident else "*"):
            with suppress(OSError, ValueError, TypeError):
                item = _item(self._waiting / name)
                latest[_key(item.incident, item.step)] = item
        return sorted(latest.values(), key=lambda item: item.name)

    def done(self, item: Item) -> None:
        """Take an item away, and the earlier ones that it stood for. Raises OSError."""
        names = self._names(_key(item.incident, item.step))
        self._take_away([name for name in names if name <= item.name])

    def refuse(self, item: Item, reason: str) -> None:
        """Set an item aside with the reason why it will never be sent. Raises OSError."""
        _write(self.refused / item.name, {**asdict(item), "reason": reason})
        self.done(item)

    def sweep(self) -> list[str]:
        """Set aside what cannot be read, and return the files' names; take away what killed processes left half written."""
        if not self._waiting.is_dir():
            return []
        for half in self._waiting.glob(".*"):
            with suppress(FileNotFoundError):
                if time.time() - half.stat().st_mtime > _STALE:
                    half.unlink()
        spoilt = []
        for name in self._names():
            try:
                _item(self._waiting / name)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, TypeError):
                make_folder(self.refused)
                with suppress(FileNotFoundError):
                    (self._waiting / name).rename(self.refused / name)
                    spoilt.append(name)
        return spoilt

    @contextmanager
    def locked(self, incident: str, until: float) -> Iterator[None]:
        """Be the only one on this host to send to an incident. Raises Busy if that is not had by a moment of the monotonic clock."""
        try:
            make_folder(self._locks)
            path = self._locks / f"{int(_hash(incident), 16) % _SLOTS:02d}"
            lock = opened(path, os.O_RDWR)
        except OSError:  # a disk that takes nothing has nothing to share either
            yield
            return
        try:
            while not _taken(lock):
                if time.monotonic() >= until:
                    raise Busy(f"another process is sending to {incident}", hint="try again in a moment")
                time.sleep(_PAUSE)
            yield
        finally:
            os.close(lock)

    def _names(self, key: str = "*") -> list[str]:
        return sorted(path.name for path in self._waiting.glob(f"[0-9]*-{key}-*.json"))

    def _take_away(self, names: list[str]) -> None:
        for name in names:
            (self._waiting / name).unlink(missing_ok=True)


def _key(incident: str, step: str | None) -> str:
    return f"{_hash(incident)}-{_hash(json.dumps(step))}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _number(name: str) -> int:
    return int(name.partition("-")[0])


def _item(path: Path) -> Item:
    """Read an item back. Raises ValueError or TypeError for what is none."""
    read = json.loads(path.read_bytes())
    item = Item(**read)
    if not (item.name == path.name and isinstance(item.incident, str) and isinstance(item.text, str)):
        raise ValueError("it is not what its name says")
    return item


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Make a file that is there as a whole or not at all, and its owner's alone; see it, and its name, on the disk."""
    make_folder(path.parent)
    half = path.with_name(f".{path.name}")
    try:
        with os.fdopen(opened(half, os.O_WRONLY | os.O_TRUNC), "wb") as file:
            file.write(json.dumps(content).encode())
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    except OSError:
        with suppress(OSError):
            half.unlink()
        raise
    sync_folder(path.parent)
