"""Where archives lie: a folder of this host, or a bucket of S3. What lies there once is never overwritten."""

import base64
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol, TypeVar

from sandbox.errors import ArrakisError, Conflict, Denied, Missing
from sandbox.ports import AwsReader, AwsWriter
from sandbox.private import sync_folder

__all__ = ["Bucket", "Depot", "Folder", "KeepingDepot", "keeping", "reading"]

T = TypeVar("T")

_BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")
_MOST = 5 * 2**30  # bytes of an object that S3 takes in one call


class Depot(Protocol):
    """A place that archives are read from."""

    @property
    def address(self) -> str:
        """Return where it is, whatever folder one is in."""
        ...

    def check(self) -> None:
        """Raise ArrakisError unless it can be told what lies here, and, for a folder, more be put there."""
        ...

    def holds(self, name: str) -> bool:
        """Whether an archive of this name lies here. Raises ArrakisError where that cannot be told."""
        ...

    def fetch(self, name: str) -> IO[bytes]:
        """Return an archive, opened for reading. Raises Missing if there is none."""
        ...


class KeepingDepot(Depot, Protocol):
    """A place that archives are put into."""

    def keep(self, name: str, write: Callable[[IO[bytes]], T]) -> T:
        """Put there what `write` writes into the file that it is given, whole or not at all; return what it returns.

        Raises Conflict where one of this name lies there, ArrakisError where it cannot be written; what `write` raises, too.
        """
        ...


def reading(address: str, aws: AwsReader) -> Depot:
    """Return the place of an address. Raises ArrakisError for one that is malformed."""
    named = _bucket(address)
    return Bucket(*named, aws) if named else Folder(Path(address))


def keeping(address: str, aws: AwsWriter) -> KeepingDepot:
    """Return the place of an address, to put something there. Raises ArrakisError for one that is malformed."""
    named = _bucket(address)
    return _KeepingBucket(*named, aws) if named else Folder(Path(address))


class Folder:
    """A folder of this host. Files there are their owner's alone. Satisfies KeepingDepot."""

    def __init__(self, path: Path) -> None:
        """Take the folder, which has to exist."""
        self._path = path.expanduser().absolute()

    @property
    def address(self) -> str:
        """Return its path."""
        return str(self._path)

    def check(self) -> None:
        """Raise ArrakisError unless it is there, and may be written to."""
        if not self._path.is_dir():
            raise Missing(f"there is no folder {self._path}", hint="make it, or name another with --archive")
        if not os.access(self._path, os.W_OK | os.X_OK):
            raise Denied(f"{self._path} is not ours to write to", hint="name another with --archive")

    def holds(self, name: str) -> bool:
        """Whether there is such a file."""
        self.check()
        return (self._path / name).exists()

    def fetch(self, name: str) -> IO[bytes]:
        """Return the file, opened."""
        try:
            return (self._path / name).open("rb")
        except FileNotFoundError:
            raise Missing(
                f"there is no archive {self._path / name}", hint="was it made on another host?"
            ) from None
        except OSError as error:
            raise ArrakisError(f"{self._path / name} cannot be read: {error.strerror}") from error

    def keep(self, name: str, write: Callable[[IO[bytes]], T]) -> T:
        """Write it under another name, and rename it when it is on the disk."""
        self.check()
        part, whole = self._path / f".{name}.part", self._path / name
        if whole.exists():
            raise Conflict(f"{whole} is there already", constraint="one archive a name")
        try:
            with _told(self.address):
                part.unlink(missing_ok=True)  # of somebody who was killed
                made = _written(part, write)
                part.rename(whole)
                sync_folder(self._path)
        finally:
            part.unlink(missing_ok=True)
        return made


class Bucket:
    """A bucket of S3, below a prefix. Satisfies Depot. Needs s3:ListBucket and s3:GetObject."""

    def __init__(self, bucket: str, prefix: str, aws: AwsReader) -> None:
        """Take its name, the beginning of every key, and the account."""
        self._bucket, self._prefix, self._aws = bucket, prefix, aws

    @property
    def address(self) -> str:
        """Return it as it is written for the AWS command line."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def check(self) -> None:
        """Raise ArrakisError unless it may be listed."""
        self._listed("")

    def holds(self, name: str) -> bool:
        """Whether there is such an object."""
        return self._key(name) in self._listed(name)

    def fetch(self, name: str) -> IO[bytes]:
        """Return a copy of the object in a file that has no name, and ends with whoever reads it."""
        with ExitStack() as stack:
            copy = stack.enter_context(tempfile.TemporaryFile())
            body = self._aws.read("s3", "get_object", Bucket=self._bucket, Key=self._key(name))["Body"]
            with _told(tempfile.gettempdir()):
                shutil.copyfileobj(body, copy)
            stack.pop_all()
        return copy

    def _listed(self, name: str) -> set[str]:
        found = self._aws.read(
            "s3", "list_objects_v2", Bucket=self._bucket, Prefix=self._key(name), MaxKeys=1
        )
        return {each["Key"] for each in found.get("Contents", ())}

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name


class _KeepingBucket(Bucket):
    """A bucket that archives are put into. Satisfies KeepingDepot. Needs s3:PutObject besides."""

    def __init__(self, bucket: str, prefix: str, aws: AwsWriter) -> None:
        super().__init__(bucket, prefix, aws)
        self._writer = aws

    def keep(self, name: str, write: Callable[[IO[bytes]], T]) -> T:
        """Write it into a file that has no name, and put it there as one object, whose SHA-256 S3 compares."""
        with tempfile.TemporaryFile() as file:
            with _told(tempfile.gettempdir()):
                made = write(file)
                size = file.tell()
            if size > _MOST:
                raise ArrakisError(
                    f"the archive has {size / 2**30:.1f} GiB, and S3 takes 5 in one call",
                    hint="keep more rows at first, and fewer in the next run: --keep",
                )
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            self._writer.write(
                "s3",
                "put_object",
                Bucket=self._bucket,
                Key=self._key(name),
                Body=file,
                ChecksumSHA256=base64.b64encode(digest).decode(),
                IfNoneMatch="*",
            )
        return made


def _bucket(address: str) -> tuple[str, str] | None:
    """The bucket and prefix of an address of S3; None for a folder's."""
    if "://" not in address:
        return None
    read = _BUCKET.fullmatch(address)
    if read is None:
        raise ArrakisError(
            f"{address!r} is no place for an archive", hint="name a folder, or s3://bucket/prefix"
        )
    return read[1], (read[2] or "").strip("/")


def _written(path: Path, write: Callable[[IO[bytes]], T]) -> T:
    """Make a file that is its owner's alone, and see it on the disk."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        made = write(file)
        file.flush()
        os.fsync(file.fileno())
    return made


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Say what the disk says."""
    try:
        yield
    except OSError as error:
        raise ArrakisError(
            f"the archive cannot be written to {where}: {error.strerror or error}",
            hint="free some disk, or name another place with --archive",
        ) from error
