"""Which runs belong to an experiment: those of which the earliest fact lies in its partition.

A run that was gone on with in another experiment has rows in both and belongs to the first.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage import arrays, layout, segments
from runlake.storage.table_files import FACTS, TABLES, WRITERS
from runlake.upkeep.holders import tails, texts
from runlake.upkeep.sources import local

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.manifest import Manifest, TableFile
    from runlake.upkeep.holders import Tail
else:
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")
    pq = lazy("pyarrow.parquet")

Birth: TypeAlias = tuple[int, str]  # the clock of a fact, and its writer
_SAID: Final = ["run_id", "writer", "clock"]


def runs_at_home(fs: Filesystem, newest: Manifest, experiment_id: str) -> set[str]:
    """Return the runs that belong to an experiment, purged ones among them.

    Args:
        fs: the lake's storage.
        newest: the newest manifest.
        experiment_id: the experiment.

    Returns:
        Their ids; of runs about which only rows are here and no facts anywhere too.

    Raises:
        FileNotFoundError: a compacted file is gone; there is a newer manifest.
        StorageError: the store cannot be read.
        FormatError: a compacted file is damaged.
    """
    listed = [
        (name, entry)
        for entry in fs.list(layout.LOG)
        if (name := layout.parse_segment(entry.key)) is not None
    ]
    here = [pair for pair in listed if pair[0].experiment_id == experiment_id]
    runs = set(_runs_in_tables(fs, newest, experiment_id))
    for tail in tails(fs, here, unread={}):
        runs |= _runs_of(fs, tail)
    runs.discard("")
    if not runs:
        return runs
    births: dict[str, tuple[Birth, str]] = {}
    wanted = arrays.strings(sorted(runs))
    for file in newest.files(FACTS.name):
        if file.max_run >= min(runs) and file.min_run <= max(runs):
            for facts in _columns(fs, file, _SAID):
                _note(births, facts, wanted, file.experiment_id)
    for tail in tails(fs, listed, unread={}):
        writer = [tail.name.writer] * tail.footer.state.facts.num_rows
        facts = tail.footer.state.facts.append_column("writer", arrays.strings(writer))
        _note(births, facts.select(_SAID), wanted, tail.name.experiment_id)
    return {run for run in runs if births.get(run, ((0, ""), experiment_id))[1] == experiment_id}


def _runs_in_tables(fs: Filesystem, newest: Manifest, experiment_id: str) -> Iterator[str]:
    for table in TABLES.values():
        if table.name != WRITERS.name:
            for file in newest.files(table.name, experiment_id):
                for rows in _columns(fs, file, ["run_id"]):
                    yield from texts(rows["run_id"])


def _runs_of(fs: Filesystem, tail: Tail) -> set[str]:
    """Return the runs that a segment holds rows or a state of."""
    found = tail.stated()
    if tail.runs is None or tail.runs[0] == tail.runs[1]:
        return found | set(tail.runs or ())
    key = tail.entry.key
    try:
        rows, _ = segments.decode(fs.get(key), key=key)
    except (FileNotFoundError, FormatError):  # replaced; or what cannot be read is said later
        return found
    return found | texts(rows["run_id"])


def _columns(fs: Filesystem, file: TableFile, columns: list[str]) -> Iterator[pa.Table]:
    """Yield some columns of a compacted file, row group by row group."""
    with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
        path = local(fs, file.path, Path(folder) / "file.parquet")
        try:
            with pq.ParquetFile(path, read_dictionary=columns[:2], pre_buffer=False) as opened:
                for group in range(opened.num_row_groups):
                    yield opened.read_row_group(group, columns=columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            message = f"{file.path}: the runs cannot be read: {error}"
            raise FormatError(message) from error


def _note(
    births: dict[str, tuple[Birth, str]],
    facts: pa.Table,
    wanted: pa.StringArray,
    experiment_id: str,
) -> None:
    """Take in the earliest facts of some runs."""
    known = facts.filter(pc.is_in(facts["run_id"], value_set=wanted))
    if not known.num_rows:
        return
    plain = pa.table({name: _plain(known[name]) for name in _SAID})
    least = plain.group_by(["run_id", "writer"]).aggregate([("clock", "min")])
    rows = zip(
        *(least[name].to_pylist() for name in ("run_id", "clock_min", "writer")), strict=True
    )
    for run_id, clock, writer in rows:
        said = (clock, writer), experiment_id
        births[run_id] = min(births.get(run_id, said), said)


def _plain(column: Any) -> Any:  # noqa: ANN401 - a column of any type
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
