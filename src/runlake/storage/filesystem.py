"""What a lake asks of a filesystem: the verbs, and what each of them promises.

Keys lie below the lake's root and use `/`. A verb either does all of what it says or raises:
`FileNotFoundError` for a key that is not there, `StorageError` for everything else, after
transient failures have been tried again with jitter. Nothing else may be told from an error.
Every verb may be called from any thread, from an exit handler, and after a fork.
The normative text is `docs/spec/v1.md`, "What the filesystem must offer".
"""

from __future__ import annotations

import errno
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from runlake.errors import InvalidInputError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from runlake.storage.later import Mark
    from runlake.storage.source import Watch

_UNKEPT: Final = re.compile(r"[\x00-\x1f\x7f\\]")
ABSENT: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
READS: Final = frozenset({"read", "download", "copy", "delete", "list"})
"""Operations for which an absent file is an answer and not a failure."""
TEMPORARY: Final = ".tmp-"
"""How the names of half-written files begin; no listing shows them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object in a listing.

    Attributes:
        key: below the lake's root, `/` between the parts.
        size_bytes: its length.
        time_us: when the store says it was written, microseconds since 1970, UTC; whole
            seconds on S3.
    """

    key: str
    size_bytes: int
    time_us: int

    def tail(self, size: int) -> Range:
        """Return the range of its last `size` bytes, or of all that it has."""
        return Range(self.key, max(0, self.size_bytes - size), self.size_bytes)


class Range(NamedTuple):
    """Bytes `start` to `end` of one object, `end` not included."""

    key: str
    start: int
    end: int


class Leftover(NamedTuple):
    """What an interrupted upload has left: parts of an object, or a file under a hidden name.

    Attributes:
        key: of the object that was to be, or of the hidden file.
        size_bytes: of what is there.
        time_us: when the last of it came, by the store's clock, microseconds since 1970, UTC.
        token: how the store names it; empty for a file.
    """

    key: str
    size_bytes: int
    time_us: int
    token: str = ""


Entries: TypeAlias = list[Entry]
Leftovers: TypeAlias = list[Leftover]
Chunks: TypeAlias = list[bytes]


class Filesystem(ABC):
    """The storage of one lake.

    Attributes:
        url: what the user passed, normalised and without credentials.
        is_local: True if every object is a file that `local_file` names.
        conditional_create: what `probe` found; None before it was asked.
    """

    url: str
    is_local: bool
    conditional_create: bool | None

    @abstractmethod
    def local_file(self, key: str) -> Path:
        """Return the local file of a key; `StorageError` where `is_local` is False."""

    @abstractmethod
    def list(self, prefix: str) -> Entries:
        """Return all objects whose key starts with `prefix`, sorted by key.

        The listing is fresh and complete, or it raises; it is not a snapshot: an object that
        comes or goes meanwhile may or may not be in it. Nothing there means an empty list.
        """

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Return a whole object; `FileNotFoundError` if it is not there."""

    @abstractmethod
    def get_ranges(self, ranges: Sequence[Range]) -> Chunks:
        """Return the bytes of many ranges, in their order, fetched in parallel.

        A range that goes past the object's end comes back shorter.
        `FileNotFoundError` if any of the objects is not there.
        """

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write an object whole or not at all; replace what is there."""

    @abstractmethod
    def put_absent(self, key: str, data: bytes) -> bool:
        """Write an object only if there is none under this key.

        Payloads carry a nonce, so that equal bytes mean "the same write": an ambiguous answer
        of the store is settled by reading back.

        Returns:
            True if the object under this key holds exactly `data`, False if another one.
        """

    @abstractmethod
    def upload(self, key: str, file: Path, *, watch: Watch | None = None) -> None:
        """Stream a local file to a key, whole or not at all; it may be empty.

        A file that is written to meanwhile raises `FileChangedError`, and there is no new
        object. Memory is bounded. Where the store can keep parts of an upload that was
        interrupted, the next one of this file goes on with them.

        Args:
            key: where to.
            file: what.
            watch: told of the bytes as they are read and as they arrive.
        """

    def place(self, key: str, file: Path, *, watch: Watch | None = None) -> Mark | None:
        """Bring a local file to a key as `upload` does; its digest may be made later.

        Args:
            key: where to.
            file: what.
            watch: told as by `upload`; it has no digest where that comes later.

        Returns:
            None where the watch has the digest; else what stands in its place, see `later`.
        """
        self.upload(key, file, watch=watch)
        return None

    @abstractmethod
    def download(self, key: str, file: Path) -> None:
        """Stream an object to a local file, which appears whole; folders are made."""

    @abstractmethod
    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the lake; `FileNotFoundError` if the source is not there."""

    @abstractmethod
    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are fine."""

    def leftovers(self) -> Leftovers:
        """Return what interrupted uploads have left, where the store does not take it away."""
        return []

    def sweep(self, leftovers: Iterable[Leftover]) -> None:  # noqa: B027 - where there are none
        """Take leftovers away; those that are gone are fine."""

    @abstractmethod
    def now_us(self) -> int:
        """Return the store's clock, microseconds since 1970, UTC; far stores give seconds."""

    @abstractmethod
    def probe(self) -> bool:
        """Ask the store whether it can create conditionally, and remember the answer.

        A fresh key is created twice with different bytes; the second must be refused.
        """


def check_key(key: str) -> str:
    """Return the key if it stays inside the lake and every store keeps it as it is.

    Raises:
        InvalidInputError: it does not.
    """
    parts = key.split("/")
    if not all(parts) or "." in parts or ".." in parts or _UNKEPT.search(key):
        message = (
            f"{key!r} is no key: use non-empty parts joined by '/', none of them '.' or '..', "
            "without control characters and without '\\', which Azure turns into '/'."
        )
        raise InvalidInputError(message)
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix if it stays inside the lake.

    Raises:
        InvalidInputError: it does not.
    """
    if prefix.startswith("/") or "//" in prefix or {".", ".."} & set(prefix.split("/")):
        message = f"{prefix!r} is no prefix of a key: it must not hold '//', '.' or '..'."
        raise InvalidInputError(message)
    return prefix


def check_data(key: str, data: bytes) -> bytes:
    """Return the data of an object that is not empty.

    An empty object cannot be told from one that a broken upload left, and s3fs overwrites
    with empty content where it was told to create.

    Raises:
        InvalidInputError: there is no data.
    """
    if not data:
        message = f"the object for {key!r} is empty; a lake holds no empty objects but artifacts."
        raise InvalidInputError(message)
    return data


def missing(url: str, key: str) -> FileNotFoundError:
    """Return the error that says that a key is not there."""
    return FileNotFoundError(errno.ENOENT, "no such object", f"{url}/{key}")


def failed(operation: str, cause: BaseException, *, url: str, key: str) -> StorageError:
    """Return the error that says what could not be done, where, and why.

    Args:
        operation: the deed, as in "could not *write* s3://…".
        cause: what the store or its library said.
        url: the lake.
        key: the object or prefix; "" if the lake itself is meant.

    Returns:
        The error, to be raised from `cause`.
    """
    where = f"{url}/{key}" if key else url
    reason = str(cause) or type(cause).__name__
    return StorageError(f"could not {operation} {where}: {reason}", url=url)
