"""Rows of kinds that are rare, and too long or too many for the states that ride in footers.

Objects of a lake never change, so what of these kinds a file holds is read once for all of the
process, and kept within a bound: a search that is asked again opens no file again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import StorageError
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from runlake.storage.tables import PointFile, SnapshotTables
else:
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")
    pq = lazy("pyarrow.parquet")

RARE: Final = (schema.DATASET, schema.MODEL_METRIC)
_KEPT_BYTES: Final = 64 << 20
# What keeping a file costs besides its rows.
_FILE_BYTES: Final = 1 << 9


class RareRow(NamedTuple):
    """One row.

    Attributes:
        run_id: whom it is about.
        key: about what.
        clock: of its writer, microseconds since 1970.
        writer: whose it is.
        seq: its number.
        num: a number, or None.
        str: a text, or None.
    """

    run_id: str
    key: str
    clock: int
    writer: str
    seq: int
    num: float | None
    str: str | None


class _Shelf:
    """What files hold of rare kinds, those asked for last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, dict[str, list[RareRow]]] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._size_bytes = 0
        self.lock = threading.Lock()

    def get(self, path: str) -> dict[str, list[RareRow]] | None:
        with self.lock:
            if path in self._kept:
                self._kept.move_to_end(path)
            return self._kept.get(path)

    def put(self, path: str, rows: dict[str, list[RareRow]]) -> None:
        texts = sum(len(row.str or "") for of in rows.values() for row in of)
        size = _FILE_BYTES + texts + 300 * sum(map(len, rows.values()))
        with self.lock:
            self._size_bytes += size - self._sizes.get(path, 0)
            self._kept[path], self._sizes[path] = rows, size
            while self._size_bytes > _KEPT_BYTES:
                oldest, _ = self._kept.popitem(last=False)
                self._size_bytes -= self._sizes.pop(oldest)


_shelf = _Shelf()


def read_rare(
    tables: SnapshotTables, kind: str, *, writers: Collection[str], run_ids: Collection[str]
) -> Iterator[RareRow]:
    """Yield the rows of one of the kinds `RARE` that some writers put about some runs.

    Args:
        tables: the snapshot.
        kind: which.
        writers: those that put them; rows of others may come too.
        run_ids: the runs.

    Raises:
        FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
        StorageError: the store cannot be read.
    """
    if not run_ids:
        return
    wanted = set(run_ids) - set(tables.purged)
    for file in tables.event_files(writers, run_ids):
        rows = _shelf.get(file.path)
        if rows is None:
            rows = _read(file)
            _shelf.put(file.path, rows)
        for row in rows.get(kind, ()):
            if row.run_id in wanted and (file.table or row.seq >= file.first + file.skip_rows):
                yield row


def _read(file: PointFile) -> dict[str, list[RareRow]]:
    """Return the rare rows of a file, by kind."""
    named = ["run_id", "kind", "key", "timestamp", "num", "str"]
    columns = [*named, "writer", "seq"] if file.table else named
    found: dict[str, list[RareRow]] = {}
    try:
        with pq.ParquetFile(file.path) as opened:
            start = 0
            for group in range(opened.num_row_groups):
                for row in _chosen(opened, group, columns, file, start=start):
                    found.setdefault(row[0], []).append(row[1])
                start += opened.metadata.row_group(group).num_rows
    except (pa.ArrowException, ValueError) as error:
        message = f"{file.path}: the rows cannot be read: {error}"
        raise StorageError(message) from error
    return found


def _chosen(
    opened: pq.ParquetFile, group: int, columns: list[str], file: PointFile, *, start: int
) -> Iterator[tuple[str, RareRow]]:
    """Yield the rare rows of a row group, each with its kind."""
    kinds: Any = opened.read_row_group(group, columns=["kind"])["kind"].cast(pa.string())
    is_rare: Any = pc.is_in(kinds, value_set=arrays.strings(RARE))
    if not pc.any(is_rare).as_py():
        return
    places: list[Any] = pc.indices_nonzero(is_rare).to_pylist()
    rows = opened.read_row_group(group, columns=columns).filter(is_rare)
    clocks = rows["timestamp"].cast(pa.int64())
    listed = [rows[name].to_pylist() for name in ("kind", "run_id", "key", "num", "str")]
    if file.table:
        writers, seqs = rows["writer"].to_pylist(), rows["seq"].to_pylist()
    else:
        writers = [file.writer] * len(places)
        seqs = [file.first + start + place for place in places]
    for kind, run_id, key, num, text, clock, writer, seq in zip(
        *listed, clocks.to_pylist(), writers, seqs, strict=True
    ):
        yield kind, RareRow(run_id, key, clock, writer, seq, num, text)
