"""A lake as it was at one snapshot, for several questions that must agree.

The objects of the snapshot stay for as long as the pinned lake is open, although runs are
logged and deleted and writers replace their segments. Of a far lake, compacted files are left
where they are: they are good until vacuum's grace is over, and then an answer says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Self, TypeVar, final

from runlake._lazy import lazy, made_once
from runlake.errors import StateError
from runlake.query.engine import Query
from runlake.questions import Questions
from runlake.storage.snapshot import SnapshotExpiredError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake.artifacts import replacement, sending, store
    from runlake.query import artifacts as stored
    from runlake.query.folded import Folded
    from runlake.registry import reading, standing, trail
    from runlake.registry.trail import Trail
    from runlake.settings import Settings
    from runlake.storage.engine import Storage
    from runlake.storage.pinfs import PinnedFilesystem
    from runlake.storage.snapshot import Snapshot
    from runlake.storage.tables import SnapshotTables
else:
    reading = lazy("runlake.registry.reading")
    replacement = lazy("runlake.artifacts.replacement")
    sending = lazy("runlake.artifacts.sending")
    standing = lazy("runlake.registry.standing")
    store = lazy("runlake.artifacts.store")
    stored = lazy("runlake.query.artifacts")
    trail = lazy("runlake.registry.trail")

_Answer = TypeVar("_Answer")


@final
class PinnedLake(Questions):
    """One snapshot of a lake, asked as a lake is; `lake.at` makes it.

    Threads may share it. Close it, or use it as a context manager, so that what only stayed
    for it can go; the end of the process does the same.
    """

    def __init__(
        self,
        storage: Storage,
        settings: Settings,
        *,
        snapshot: Snapshot | None,
        tables: SnapshotTables,
        pinned: PinnedFilesystem | None,
        folded: Folded | None = None,
    ) -> None:
        """Keep what was read; `lake.at` reads it.

        Args:
            storage: of the lake.
            settings: of the lake.
            snapshot: the snapshot; None for a lake in which nothing was logged yet.
            tables: what it knows.
            pinned: where its rows stay; None if there are none.
            folded: what was made of it already.
        """
        super().__init__(storage, settings, read_only=True)
        self.url = storage.url
        self._snapshot = snapshot
        self._tables = tables
        self._pinned = pinned
        self._folded = folded
        self._is_open = True

    def __repr__(self) -> str:
        """Name the lake."""
        return f"<Lake {self.url} at one snapshot>"

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot that every answer comes from."""
        return self._snapshot

    @made_once
    def registry(self) -> Trail:
        """What stood in the model registry, and what had happened: the half of it that asks.

        Files are not part of a snapshot: `download` fetches what of them is there now.
        """
        artifacts = store.Artifacts(
            self._storage,
            lambda run_id: self.get_run(run_id).info.experiment_id,
            ledger=store.Ledger(
                self._logged_files,
                self._refuse,
                self._refuse,
                self._refuse,
                # What was logged since is no part of the snapshot.
                lambda *_: replacement.Heard(frozenset(), "", is_open=False),
            ),
            parallel=self.settings.parallel_requests,
        )
        house = reading.House(
            ask=self._ask,
            get_run=self.get_run,
            artifacts=artifacts,
            check_writable=self._refuse,
            is_read_only=lambda: True,
            settings=self.settings,
        )
        return trail.Trail(house, standing.StoodAt(self.url, self._ask))

    def refresh(self) -> NoReturn:
        """Refuse: it stands at its snapshot.

        Raises:
            StateError: always.
        """
        self._refuse()

    def close(self) -> None:
        """Let go of the snapshot; connections made from it live on."""
        self._check_fork()
        with self._snapshot_lock:
            self._is_open = False
            if self._query is not None:
                self._query.close()
            self._query = None
            if self._pinned is not None:
                self._pinned.close()

    def _ask(self, answer: Callable[[Query], _Answer]) -> _Answer:
        try:
            return answer(self._fresh())
        except FileNotFoundError as error:
            message = (
                f"an object of this snapshot of {self.url} is gone: the grace period of vacuum is "
                f"over. Ask the lake itself, or pin a newer snapshot. ({error})"
            )
            raise SnapshotExpiredError(message, url=self.url) from error

    def _fresh(self) -> Query:
        self._check_fork()
        with self._snapshot_lock:
            if not self._is_open:
                message = f"this snapshot of {self.url} was closed; pin it again: lake.at(…)."
                raise StateError(message, url=self.url)
            if self._query is None:
                self._query = Query(self._tables, limits=self._limits())
                self._query.folded = self._folded or self._query.folded
            return self._query

    def _refuse(self, *_: object) -> NoReturn:
        message = (
            f"this is {self.url} at one snapshot, which never changes; ask the lake itself, or "
            "pin a newer one: lake.at(lake.snapshot)."
        )
        raise StateError(message, url=self.url)

    def _logged_files(self, run_id: str) -> dict[str, sending.Logged]:
        found = self._ask(lambda query: stored.logged_files(query, run_id))
        return {path: sending.Logged(size, sha256, at_us) for path, size, sha256, at_us in found}

    def _check_fork(self) -> None:
        snapshot = self._snapshot
        super()._check_fork()
        self._snapshot = snapshot
