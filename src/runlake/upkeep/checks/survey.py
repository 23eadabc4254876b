"""What is in table files, as the rebuilding of a manifest must know it."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage import layout
from runlake.storage.manifest import TableFile
from runlake.storage.table_files import TABLES, WRITERS
from runlake.upkeep.checks.chunks import distrusted
from runlake.upkeep.checks.rebuild import COUNTED, Surveyed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow.parquet as pq

    from runlake.storage.filesystem import Entry, Filesystem
    from runlake.storage.table_files import TableHeader
else:
    pq = lazy("pyarrow.parquet")


def survey(
    fs: Filesystem, entries: Sequence[Entry], headers: Mapping[str, TableHeader]
) -> dict[str, Surveyed]:
    """Read whose rows are in table files.

    Args:
        fs: the lake's storage.
        entries: the files.
        headers: what they say of themselves; others are left out.

    Returns:
        By key what is in each file that can be read.

    Raises:
        StorageError: the store cannot be read.
    """
    found = {}
    with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
        for entry in entries:
            header = headers.get(entry.key)
            surveyed = None if header is None else _survey(fs, entry, header, Path(folder))
            if surveyed is not None:
                found[entry.key] = surveyed
    return found


def _survey(fs: Filesystem, entry: Entry, header: TableHeader, folder: Path) -> Surveyed | None:
    name = layout.parse_table_file(entry.key)
    if name is None or name.table not in TABLES:
        return None
    copy = folder / "file"
    try:
        with distrusted():
            if fs.is_local:
                return _read(fs.local_file(entry.key), entry, header, name)
            fs.download(entry.key, copy)
            return _read(copy, entry, header, name)
    except (FormatError, FileNotFoundError):
        return None
    finally:
        copy.unlink(missing_ok=True)


def _read(local: Path, entry: Entry, header: TableHeader, name: layout.TableName) -> Surveyed:
    table = TABLES[name.table]
    counts: Counter[str] = Counter()
    lasts: dict[str, int] = {}
    least, greatest = "", ""
    wanted = {table.owner} | ({"writer"} if name.table in COUNTED else set())
    columns = ["writer", "last"] if name.table == WRITERS.name else sorted(wanted)
    with pq.ParquetFile(local, pre_buffer=False, page_checksum_verification=True) as opened:
        for place in range(opened.num_row_groups):
            rows = opened.read_row_group(place, columns=columns)
            owners: list[Any] = rows[table.owner].unique().to_pylist()
            least = min(filter(None, (least, *owners)), default="")
            greatest = max(greatest, *owners)
            if name.table in COUNTED:
                said: Any = rows["writer"].value_counts()
                counts.update({each["values"]: each["counts"] for each in said.to_pylist()})
            elif name.table == WRITERS.name:
                listed: list[Any] = rows.to_pylist()
                lasts.update({row["writer"]: row["last"] for row in listed})
    file = TableFile(
        path=entry.key,
        size_bytes=entry.size_bytes,
        rows=header.rows,
        experiment_id=name.experiment_id,
        min_run=least,
        max_run=greatest,
    )
    return Surveyed(file, name, header, counts, lasts)
