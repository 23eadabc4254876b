"""Any other fsspec filesystem as storage: sftp, hdfs, smb, and what plug-ins bring.

They cannot create conditionally, so `probe` says False and `put_absent` looks first: safe for
appends, whose names are never shared, and for readers; compaction there needs the caller's
word that it is alone. An object is written under a hidden name and renamed. Calls take turns,
because these libraries do not promise to be safe for threads.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, final

from runlake import clock, ids
from runlake._lazy import lazy
from runlake.errors import StorageError
from runlake.storage import ioloop, retry
from runlake.storage.filesystem import (
    ABSENT,
    READS,
    TEMPORARY,
    Chunks,
    Entries,
    Entry,
    Filesystem,
    Leftover,
    Leftovers,
    Range,
    check_data,
    check_key,
    check_prefix,
    failed,
    missing,
)
from runlake.storage.source import FileChangedError, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import fsspec

    from runlake.settings import Settings
    from runlake.storage.source import Watch
else:
    fsspec = lazy("fsspec")

T = TypeVar("T")

_TIMES = ("mtime", "modified", "LastModified", "last_modified", "updated", "created")


@final
class PlainFilesystem(Filesystem):
    """A lake on a filesystem that can only rename."""

    def __init__(
        self, url: str, *, address: str, options: Mapping[str, object], settings: Settings
    ) -> None:
        """Keep where the lake is; ask nothing.

        Args:
            url: what the user passed, normalised, without credentials.
            address: the same with credentials, for fsspec.
            options: what fsspec gets.
            settings: for the time that an operation may take.
        """
        self.url = url
        self.is_local = False
        self.conditional_create: bool | None = False
        self._address = address
        self._options = dict(options)
        self._timeout_s = settings.request_timeout_s
        self._turn = threading.RLock()
        self._opened: tuple[int, Any, str] | None = None

    def local_file(self, key: str) -> Path:
        """Raise: these objects are not this host's files."""
        message = f"{self.url}/{key} is far away, not a local file."
        raise StorageError(message, url=self.url)

    def list(self, prefix: str) -> Entries:
        """Return all objects whose key starts with `prefix`, sorted by key."""
        folder = check_prefix(prefix).rpartition("/")[0]

        entries = [
            entry
            for entry in self._find(folder)
            if entry.key.startswith(prefix) and not _is_temporary(entry.key)
        ]
        return sorted(entries, key=lambda entry: entry.key)

    def _find(self, folder: str) -> Entries:
        """Return all files below a folder, hidden ones too."""

        def find() -> dict[str, dict[str, Any]]:
            store, root = self._store()
            store.invalidate_cache()
            found: dict[str, dict[str, Any]] = store.find(f"{root}/{folder}", detail=True)
            return found

        try:
            found = self._ask("list", folder, find)
        except FileNotFoundError:
            return []
        skip = len(self._store()[1]) + 1
        return [
            Entry(path[skip:], int(facts.get("size") or 0), _time_us(facts))
            for path, facts in found.items()
        ]

    def get(self, key: str) -> bytes:
        """Return a whole object; `FileNotFoundError` if it is not there."""
        path = self._path(key)
        return bytes(self._ask("read", key, lambda: self._store()[0].cat_file(path)))

    def get_ranges(self, ranges: Sequence[Range]) -> Chunks:
        """Return the bytes of many ranges, in their order, one after another."""
        return [self._ask("read", wanted.key, partial(self._read, wanted)) for wanted in ranges]

    def put(self, key: str, data: bytes) -> None:
        """Write an object under a hidden name, then rename it over what is there."""
        check_data(check_key(key), data)
        self._ask("write", key, lambda: self._rename_in(key, data))

    def put_absent(self, key: str, data: bytes) -> bool:
        """Look, then write; two that look at once may both write, and the later one stays."""
        path = self._path(key)
        check_data(key, data)
        if not self._ask("create", key, lambda: self._store()[0].exists(path)):
            self._ask("create", key, lambda: self._rename_in(key, data))
        return self.get(key) == data

    def upload(self, key: str, file: Path, *, watch: Watch | None = None) -> None:
        """Stream a local file to a hidden name, then rename it; it may be empty.

        The file is read twice, because these libraries read it by themselves.
        """
        check_key(key)
        with Source(file, watch) as source:
            for _ in source.chunks():
                pass
            self._ask("upload to", key, lambda: self._rename_in(key, (file, source)))
            source.watch.arrived(source.size_bytes)

    def download(self, key: str, file: Path) -> None:
        """Stream an object to a local file, which appears whole."""
        path = self._path(key)
        temporary = file.with_name(TEMPORARY + ids.new_nonce())
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._ask("download", key, lambda: self._store()[0].get_file(path, str(temporary)))
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)

    def copy(self, source: str, target: str) -> None:
        """Copy an object through this host; `FileNotFoundError` if the source is not there."""
        check_key(target)
        data = self.get(source)
        self._ask("copy", target, lambda: self._rename_in(target, data))

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are fine."""
        for key in keys:
            path = self._path(key)
            with suppress(FileNotFoundError):
                self._ask("delete", key, partial(self._remove, path))

    def leftovers(self) -> Leftovers:
        """Return the hidden files of writers that died."""
        found = [entry for entry in self._find("") if _is_temporary(entry.key)]
        return sorted(Leftover(each.key, each.size_bytes, each.time_us) for each in found)

    def sweep(self, leftovers: Iterable[Leftover]) -> None:
        """Delete hidden files; those that are gone are fine."""
        self.delete_many([leftover.key for leftover in leftovers])

    def now_us(self) -> int:
        """Return this host's clock: nothing better is known of every such filesystem."""
        return clock.now_us()

    def probe(self) -> bool:
        """Return False: a look and a rename are two steps."""
        return False

    def _store(self) -> tuple[Any, str]:
        if self._opened is None or self._opened[0] != os.getpid():
            if self._opened is not None:
                ioloop.bury(self._opened)
            options = {"use_listings_cache": False, "skip_instance_cache": True, **self._options}
            store, root = fsspec.core.url_to_fs(self._address, **options)
            self._opened = os.getpid(), store, root.rstrip("/")
        return self._opened[1], self._opened[2]

    def _path(self, key: str) -> str:
        check_key(key)
        return f"{self._store()[1]}/{key}"

    def _read(self, wanted: Range) -> bytes:
        key, start, end = wanted
        return bytes(self._store()[0].cat_file(self._path(key), start=start, end=end))

    def _remove(self, path: str) -> None:
        self._store()[0].rm_file(path)

    def _rename_in(self, key: str, content: bytes | tuple[Path, Source]) -> None:
        path = self._path(key)
        store = self._store()[0]
        folder = path.rpartition("/")[0]
        temporary = f"{folder}/{TEMPORARY}{ids.new_nonce()}"
        store.makedirs(folder, exist_ok=True)
        try:
            if isinstance(content, bytes):
                store.pipe_file(temporary, content)
            else:
                store.put_file(str(content[0]), temporary)
                content[1].finish()
            try:
                store.mv(temporary, path)
            except OSError:
                if not store.exists(path):
                    raise
                store.rm_file(path)  # sftp and others do not rename over a file
                store.mv(temporary, path)
        except BaseException:
            with suppress(OSError):
                store.rm_file(temporary)
            raise

    def _ask(self, operation: str, key: str, call: Callable[[], T]) -> T:
        """Make one call; again after a transient failure, while there is time."""
        deadline = retry.Deadline(self._timeout_s)
        while True:
            try:
                with self._turn:
                    return call()
            except FileChangedError:
                raise
            except Exception as error:
                if isinstance(error, ABSENT) and operation in READS:
                    raise missing(self.url, key) from error
                pause_s = None if retry.is_permanent(error) else deadline.pause_s()
                if pause_s is None:
                    raise failed(operation, error, url=self.url, key=key) from error
            time.sleep(pause_s)


def _is_temporary(path: str) -> bool:
    return path.rpartition("/")[2].startswith(TEMPORARY)


def _time_us(facts: Mapping[str, Any]) -> int:
    """Return the time of an object by whichever name this filesystem gives it; else 0."""
    told = next((facts[name] for name in _TIMES if facts.get(name)), 0)
    if isinstance(told, datetime):
        aware = told if told.tzinfo else told.replace(tzinfo=UTC)
        return int(aware.timestamp() * 1_000_000)
    return int(float(told) * 1_000_000) if isinstance(told, int | float) else 0
