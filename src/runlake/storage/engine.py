"""`Storage`: one lake's storage, the seam that everything above it uses.

It knows rows and states as columns, never what a metric means. Opening it costs nothing; the
lake file is read when it is first needed, and kept.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Final, final

from runlake import arguments, ids, schema
from runlake.errors import FormatError, InvalidInputError, NotFoundError, StateError
from runlake.settings import cache_root
from runlake.storage import layout, manifests, names, pinfs, rowobject
from runlake.storage.cache import PINS, open_cache
from runlake.storage.fs import open_filesystem
from runlake.storage.latefs import late_files
from runlake.storage.manifest import check_format
from runlake.storage.nullfs import NullFilesystem
from runlake.storage.points import PointFiles, expired
from runlake.storage.reader import Reader
from runlake.storage.snapshot import SnapshotExpiredError, Snapshots

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from runlake.settings import Settings
    from runlake.storage.cache import Cache
    from runlake.storage.filesystem import Filesystem
    from runlake.storage.latefs import LateFiles
    from runlake.storage.layout import SegmentName
    from runlake.storage.names import Claim
    from runlake.storage.pinfs import PinnedFilesystem
    from runlake.storage.rowobject import RowObject
    from runlake.storage.snapshot import Snapshot
    from runlake.storage.tables import SnapshotTables

# A snapshot may expire while it is read; a store on which that happens this often in a row is
# not merely busy.
_READ_TRIES: Final = 5
_FILES_SHOWN: Final = 3
_OURS: Final = frozenset(
    {"log", "names", "tables", "manifests", "artifacts", "quarantine", layout.LAKE_FILE}
)


@final
class Storage:
    """The storage of one lake: read snapshots, append segments, claim names.

    Attributes:
        fs: the filesystem below.
        url: the lake, without credentials.
    """

    def __init__(self, fs: Filesystem, settings: Settings) -> None:
        """Keep both; no request is made.

        Args:
            fs: the lake's filesystem.
            settings: for the cache and for what counts as stale.
        """
        self.fs = fs
        self.url = fs.url
        self._settings = settings
        self._lake: str | None = None
        self._conditional_create: bool | None = None
        self._snapshots: Snapshots | None = None
        self._reader: Reader | None = None
        self._lock = threading.Lock()
        _storages.add(self)

    def begin_anew_in_child(self) -> None:
        """Forget in a forked child what threads of the parent may hold locked."""
        self._lock = threading.Lock()
        self._snapshots = self._reader = None

    @property
    def conditional_create(self) -> bool | None:
        """Whether the store creates conditionally, as the lake file says; None if not read."""
        return self._conditional_create

    def lake_id(self) -> str | None:
        """Return the lake's id, None if there is no lake here yet; one read, the first time.

        Raises:
            StorageError: the store cannot be read.
            FormatError: the lake file is damaged.
            NewerFormatError: a newer runlake made this lake.
        """
        if self._lake is None:
            try:
                self._adopt(self.fs.get(layout.LAKE_FILE))
            except FileNotFoundError:
                return None
        return self._lake

    def require_lake(self) -> str:
        """Return the lake's id.

        Raises:
            NotFoundError: there is no lake here.
            StorageError: the store cannot be read.
            FormatError: the lake file is damaged, or newer than this runlake.
        """
        lake = self.lake_id()
        if lake is not None:
            return lake
        found = self._others(ours=frozenset())
        what = f"it holds {found}, but no {layout.LAKE_FILE}" if found else "nothing is there"
        message = (
            f"{self.url} is not a lake: {what}. The first run that is logged there makes one; "
            "`--lake`, RUNLAKE_URL or set_tracking_uri name another place."
        )
        raise NotFoundError(message, url=self.url)

    def holds_others(self) -> bool:
        """Tell whether the place holds things that are no lake's; only a local one can tell."""
        return bool(self._others())

    def ensure_lake(self) -> str:
        """Return the lake's id; make the lake if there is none.

        Of many processes that come at once, all get the same id.

        Raises:
            StateError: the folder holds other things, and should not become a lake by accident.
            StorageError: the store cannot be written.
            FormatError: the lake file is damaged, or newer than this runlake; or it is gone, and
                the newest manifest is damaged.
        """
        lake = self.lake_id()
        if lake is not None:
            return lake
        others = self._others()
        if others:
            message = (
                f"{self.url} holds {others} and is not a lake. Choose an empty folder or a new "
                f"one, for example {self.url.rstrip('/')}/lake"
            )
            raise StateError(message, url=self.url)
        fields = {
            "format": schema.FORMAT_VERSION,
            # The lake's file alone may be lost: under another id its manifests were foreign.
            "lake": manifests.newest(self.fs, lake=None).lake or ids.new_lake_id(),
            "conditional_create": self.fs.probe(),
        }
        data = json.dumps(fields, separators=(",", ":")).encode()
        is_ours = self.fs.put_absent(layout.LAKE_FILE, data)
        # A store that cannot create conditionally says "ours" to everybody; what is there rules.
        self._adopt(data if is_ours and fields["conditional_create"] else self._lake_file())
        return self.require_lake()

    def snapshot(self, experiment_ids: Collection[str] | None = None) -> Snapshot:
        """Take a snapshot; it is never older than the one before.

        Args:
            experiment_ids: the experiments wanted, None for all.

        Returns:
            What the store shows now; always with the reserved partition.

        Raises:
            NotFoundError: there is no lake here.
            StorageError: the store cannot be read.
            FormatError: a manifest is damaged, another lake's, or newer than this runlake.
        """
        lake = self.require_lake()
        with self._lock:
            # One for all threads, because it remembers what must not be gone back behind.
            if self._snapshots is None:
                self._snapshots = Snapshots(self.fs, lake=lake)
        return self._snapshots.take(experiment_ids)

    def tables(self, snapshot: Snapshot) -> SnapshotTables:
        """Read what a snapshot knows; footers that were read before are not read again.

        Args:
            snapshot: one of this storage's.

        Returns:
            Facts and summaries as they stand in the footers, and the files with the rows.

        Raises:
            SnapshotExpiredError: an object is gone; take another snapshot.
            StorageError: the store cannot be read.
            NewerFormatError: a newer runlake wrote something that must be understood.
        """
        cache = self._cache()
        with self._lock:
            if self._reader is None:
                self._reader = Reader(self.fs, cache, stale_s=self._settings.stale_s)
        return self._reader.load(snapshot)

    def pin(self, tables: SnapshotTables) -> tuple[SnapshotTables, PinnedFilesystem | None]:
        """Let the rows of a snapshot stay although their writers replace the objects.

        Args:
            tables: what a snapshot knows.

        Returns:
            The same, with the rows read from where they stay; and that place, until it is
            closed or forgotten. None if there are no rows.

        Raises:
            SnapshotExpiredError: an object is gone already; take another snapshot.
            StorageError: the store cannot be read, or the cache cannot be written.
        """
        rows = tables.points
        if not isinstance(rows, PointFiles):
            return tables, None
        pinned = self._pin(rows.fs, rows.objects)
        return replace(tables, points=rows.on(pinned)), pinned

    def read_pinned(self, snapshot: Snapshot) -> tuple[SnapshotTables, PinnedFilesystem]:
        """Read an earlier snapshot, and let its rows stay.

        Args:
            snapshot: one of this storage's.

        Returns:
            As `pin`.

        Raises:
            InvalidInputError: it is a snapshot of another lake.
            SnapshotExpiredError: an object is gone already; take another snapshot.
            StorageError: the store cannot be read, or the cache cannot be written.
        """
        if snapshot.manifest.lake != self.require_lake():
            message = f"this is a snapshot of another lake, not of {self.url}."
            raise InvalidInputError(message)
        pinned = self._pin(self.fs, rowobject.objects_of(snapshot))
        reader = Reader(pinned, self._cache(), stale_s=self._settings.stale_s)
        return reader.load(snapshot), pinned

    def late_files(self, tables: SnapshotTables) -> LateFiles | None:
        """Name the files with a snapshot's rows for a connection that lives as it likes.

        Args:
            tables: what a snapshot knows.

        Returns:
            The files; they stay as long as somebody holds what opens them. None if there are
            no rows.

        Raises:
            SnapshotExpiredError: an object is gone; take another snapshot.
            StorageError: the store cannot be read, or the cache cannot be written.
        """
        kept, pinned = self.pin(tables)
        if pinned is None or not isinstance(kept.points, PointFiles):
            return None
        return late_files(pinned, kept.points)

    def read(
        self, experiment_ids: Collection[str] | None = None
    ) -> tuple[Snapshot, SnapshotTables]:
        """Take a snapshot and read it, again if it expires in between.

        Args:
            experiment_ids: the experiments wanted, None for all.

        Returns:
            The snapshot, and what it knows.

        Raises:
            NotFoundError: there is no lake here.
            SnapshotExpiredError: every try expired.
            StorageError: the store cannot be read.
            FormatError: something is damaged beyond passing over, or newer than this runlake.
        """
        for _ in range(_READ_TRIES - 1):
            snapshot = self.snapshot(experiment_ids)
            try:
                return snapshot, self.tables(snapshot)
            except SnapshotExpiredError:
                continue
        snapshot = self.snapshot(experiment_ids)
        return snapshot, self.tables(snapshot)

    def append(self, name: SegmentName, data: bytes) -> bool:
        """Put a segment under its name.

        Args:
            name: its name, which says which rows it holds.
            data: the whole file; its footer carries a nonce.

        Returns:
            True if the object under this name is ours, False if it is another.

        Raises:
            StorageError: the store cannot be written.
        """
        return self.fs.put_absent(name.key, data)

    def read_claim(self, name: str) -> Claim | None:
        """Return the claim that rules an experiment's name, see `names.read_claim`."""
        return names.read_claim(self.fs, name)

    def make_claim(self, claim: Claim) -> bool:
        """Claim an experiment's name, see `names.make_claim`."""
        return names.make_claim(self.fs, claim)

    def _pin(self, fs: Filesystem, wanted: Sequence[RowObject]) -> PinnedFilesystem:
        cache = self._cache()
        root = cache_root(self._settings) if cache is None else cache.folder.parent
        try:
            return pinfs.pin(fs, wanted, cache=cache, root=root / PINS)
        except FileNotFoundError as error:
            raise expired(self.url, error) from error

    def _cache(self) -> Cache | None:
        """Return the cache of a far lake."""
        if self.fs.is_local:
            return None
        in_memory = self.url.startswith("memory:")
        return open_cache(self._settings, lake=self.require_lake(), in_memory=in_memory)

    def _lake_file(self) -> bytes:
        """Read the lake file that somebody has just written."""
        try:
            return self.fs.get(layout.LAKE_FILE)
        except FileNotFoundError as error:
            message = f"{self.url}/{layout.LAKE_FILE} was there and is gone. Try again."
            raise StateError(message, url=self.url) from error

    def _adopt(self, data: bytes) -> None:
        """Learn from the lake file which lake this is."""
        try:
            fields = json.loads(data)
            check_format(fields["format"], key=layout.LAKE_FILE, url=self.url)
            lake, conditional = str(fields["lake"]), bool(fields["conditional_create"])
        except (ValueError, KeyError, TypeError) as error:
            message = f"{self.url}/{layout.LAKE_FILE} is no readable lake file: {error!r}"
            raise FormatError(message, url=self.url) from error
        self._lake, self._conditional_create = lake, conditional

    def _others(self, ours: Collection[str] = _OURS) -> str:
        """Name some things in a local folder other than `ours`; "" if there are none."""
        if not self.fs.is_local:  # a prefix in a bucket is listed in full or not at all
            return ""
        folder = self.fs.local_file(layout.LAKE_FILE).parent
        try:
            found = sorted(item.name for item in folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return ""
        others = [name for name in found if name not in ours and not name.startswith(".")]
        shown = ", ".join(map(repr, others[:_FILES_SHOWN]))
        rest = len(others) - _FILES_SHOWN
        return f"{shown} and {rest} more" if rest > 0 else shown


def open_storage(settings: Settings, fs: Filesystem | None = None) -> Storage:
    """Return the storage of the lake that settings name; no request is made.

    Args:
        settings: the URL, and all that storage and readers go by.
        fs: the lake's filesystem, where it is open already.

    Raises:
        InvalidInputError: the scheme is unknown, or the address is a server's.
        MissingDependencyError: the filesystem's package is not installed.
    """
    if settings.is_disabled:
        return Storage(NullFilesystem(settings.url), settings)
    if fs is not None:
        return Storage(fs, settings)
    options = dict(arguments.mapping("storage_options", settings.storage_options))
    fs = open_filesystem(settings.url, storage_options=options, settings=settings)
    return Storage(fs, settings)


_storages: weakref.WeakSet[Storage] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for storage in list(_storages):
        storage.begin_anew_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
