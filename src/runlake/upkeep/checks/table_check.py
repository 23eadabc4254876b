"""Reading files of compacted rows for a check: row group by row group, believing nothing.

A file is held against its name, the manifest's entry, its own footer, and the order and the
bounds that readers rely on. What is wrong is written down; rows of a file that cannot be
trusted are not handed on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import FormatError, NewerFormatError
from runlake.storage import arrays, layout
from runlake.storage.standing import coded
from runlake.storage.table_files import (
    FACTS,
    METRICS,
    SUMMARIES,
    TABLES,
    WRITERS,
    arrow_schema,
    read_header,
)
from runlake.upkeep.checks.chunks import (
    UnusableError,
    distrusted,
    strange_columns,
    untrue_statistics,
)
from runlake.upkeep.checks.findings import DAMAGED, FOREIGN, NEWER, PURGED
from runlake.upkeep.order import group_codes, sort_order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.manifest import Manifest, TableFile
    from runlake.storage.table_files import Table
    from runlake.upkeep.checks.findings import Notebook
else:
    pa = lazy("pyarrow")
    pq = lazy("pyarrow.parquet")


@final
class TableReader:
    """Reads and checks the files that one manifest names.

    Attributes:
        base: the manifest.
        finished: keys of the files that were read to their end.
        gone: files that are not there.
        rows: how many rows they have together.
    """

    def __init__(self, fs: Filesystem, base: Manifest, book: Notebook, folder: Path) -> None:
        """Start with nothing read.

        Args:
            fs: the lake's storage.
            base: what names the files.
            book: where findings go.
            folder: of this host, for copies of files from far away; it is the caller's.
        """
        self.base = base
        self.finished: set[str] = set()
        self.gone: list[TableFile] = []
        self.rows = 0
        self._fs, self._book, self._folder = fs, book, folder

    def groups(self, file: TableFile) -> Iterator[pa.Table]:
        """Yield the rows of a file, row group by row group, each checked.

        Args:
            file: the manifest's entry.

        Raises:
            UnusableError: it is damaged, foreign or newer, and that is written down; or gone.
            StorageError: the store cannot be read.
        """
        name = layout.parse_table_file(file.path)
        table = None if name is None else TABLES.get(name.table)
        local, is_copy = self._local(file), not self._fs.is_local
        try:
            with distrusted():
                self._check_size(file, local)
                if table is not None:
                    self._check_header(file, local)
                    yield from self._rows(file, table, local)
        except FormatError as error:
            raise self._bad(file.path, str(error)) from error
        finally:
            if is_copy:
                local.unlink(missing_ok=True)
        self.finished.add(file.path)
        self.rows += file.rows
        self._book.count(file.size_bytes)

    def read_all(self, file: TableFile) -> bool:
        """Read a file to its end for what is wrong in it; tell whether it could be read."""
        try:
            for _ in self.groups(file):
                pass
        except UnusableError:
            return False
        return True

    def _local(self, file: TableFile) -> Path:
        copy = self._folder / file.path.replace("/", "-")
        try:
            if self._fs.is_local:
                copy = self._fs.local_file(file.path)
                copy.stat()
            else:
                self._fs.download(file.path, copy)
        except FileNotFoundError as error:
            if file not in self.gone:
                self.gone.append(file)
            raise UnusableError(file.path) from error
        return copy

    def _bad(self, key: str, detail: str, kind: str = DAMAGED) -> UnusableError:
        self._book.say(key, kind, detail)
        return UnusableError(key)

    def _check_size(self, file: TableFile, local: Path) -> None:
        size = local.stat().st_size
        if size != file.size_bytes:
            said = f"{size} bytes, manifest {self.base.number} says {file.size_bytes}"
            raise self._bad(file.path, said)

    def _check_header(self, file: TableFile, local: Path) -> None:
        key, name = file.path, layout.parse_table_file(file.path)
        try:
            header = read_header(local, key=key)
        except NewerFormatError as error:
            raise self._bad(key, str(error), NEWER) from error
        if header.lake != self.base.lake:
            detail = f"it belongs to lake {header.lake}, this lake is {self.base.lake}"
            raise self._bad(key, detail, FOREIGN)
        said = (header.table, header.experiment_id, header.experiment_id, header.rows)
        named = name and (name.table, name.experiment_id, file.experiment_id, file.rows)
        if said != named:
            detail = f"its footer says {said}, its name and the manifest say {named}"
            raise self._bad(key, detail)
        if name is not None and header.n > name.number:
            detail = f"it was written for manifest {header.n}, its name says {name.number}"
            raise self._bad(key, detail)

    def _rows(self, file: TableFile, table: Table, local: Path) -> Iterator[pa.Table]:
        key, wanted = file.path, arrow_schema(table)
        numbered = [each.name for each in wanted if pa.types.is_dictionary(each.type)]
        least, greatest, before = "", "", None
        with pq.ParquetFile(
            local, read_dictionary=numbered, pre_buffer=False, page_checksum_verification=True
        ) as opened:
            may_grow = table.name in {FACTS.name, SUMMARIES.name}
            problem = strange_columns(opened.metadata, wanted, may_have_more=may_grow)
            if problem is not None:
                raise self._bad(key, problem)
            for place in range(opened.num_row_groups):
                rows = opened.read_row_group(place, columns=wanted.names).cast(wanted)
                problem = (
                    untrue_statistics(opened.metadata, place, rows)
                    or _nulls(table, rows)
                    or _disorder(table, rows, before)
                )
                if problem is not None:
                    raise self._bad(key, problem)
                owners = coded(rows[table.owner]).values.to_pylist()
                least = min(filter(None, (least, *owners)), default="")
                greatest = max(greatest, *owners)
                self._check_purged(key, table, owners)
                before = rows.slice(rows.num_rows - 1)
                yield rows
        if (least, greatest) != (file.min_run, file.max_run):
            said = f"{file.min_run!r} to {file.max_run!r}"
            detail = f"it holds {least!r} to {greatest!r}, the manifest says {said}"
            raise self._bad(key, detail)

    def _check_purged(self, key: str, table: Table, owners: list[Any]) -> None:
        is_reserved = f"={schema.RESERVED_PARTITION}/" in key
        if table.name != WRITERS.name and self.base.purged and not is_reserved:
            for run_id in sorted(self.base.purged.intersection(owners)):
                self._book.say(key, PURGED, f"it holds rows of run {run_id}, which was purged")


def _nulls(table: Table, rows: pa.Table) -> str | None:
    """Tell whether a column has nulls that must not."""
    columns = rows.column_names if table.name == METRICS.name else table.order
    found = [name for name in columns if rows[name].null_count]
    return f"column {found[0]} has nulls" if found else None


def _disorder(table: Table, rows: pa.Table, before: pa.Table | None) -> str | None:
    """Tell whether rows are out of order; `before` is the row that stands before them."""
    edge = rows.slice(0, 0) if before is None else pa.concat_tables([before, rows.slice(0, 1)])
    for part in (rows, edge.unify_dictionaries().combine_chunks()):
        if sort_order(part, table.order) is not None:
            return f"its rows are not in the order of {', '.join(table.order)}"
        if table.is_folded and part.num_rows:
            codes = group_codes(part, table.order)
            if (codes[1:] == codes[:-1]).any():
                return f"two of its rows agree in {', '.join(table.order)}"
    return None


def numbers_of(column: pa.ChunkedArray[Any]) -> Any:  # noqa: ANN401 - a NumPy column
    """Return the values of a column of numbers without nulls."""
    whole: Any = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    return arrays.values(whole)
