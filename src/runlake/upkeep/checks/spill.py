"""Facts in the order of runs, which lie kind by kind in their files.

What is held against events, which lie run by run, is put down kind by kind on this host, and
read beside each other: so only a row group of each kind is in memory.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.state import FACT_KINDS
from runlake.storage.table_files import FACTS, arrow_schema, read_groups

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
else:
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")
    pq = lazy("pyarrow.parquet")

FACTS_BY_RUN: Final = replace(FACTS, order=("run_id", "kind", "key", "writer"))
"""Table `facts`, as it would be if it were sorted by runs first."""


def by_kind(pieces: Iterable[pa.Table], folder: Path) -> list[Iterator[pa.Table]]:
    """Put facts down kind by kind.

    Args:
        pieces: rows of one file of table `facts`, in its order.
        folder: where; it is made if there are rows.

    Returns:
        For each kind its rows, in the order of `FACTS_BY_RUN`.
    """
    paths: list[Path] = []
    with ExitStack() as opened:
        writers: dict[str, Any] = {}
        for rows in pieces:
            kinds: list[Any] = rows["kind"].unique().to_pylist()
            for kind in kinds:
                if kind not in writers:
                    folder.mkdir(exist_ok=True)
                    paths.append(folder / f"{len(paths)}.parquet")
                    writer = pq.ParquetWriter(paths[-1], arrow_schema(FACTS))
                    writers[kind] = opened.enter_context(writer)
                texts = rows["kind"].cast(pa.string())
                writers[kind].write_table(rows.filter(pc.equal(texts, arrays.text(kind))))
    return [read_groups(path, FACTS, key=str(path)) for path in paths]


def facts_of(rows: pa.Table) -> pa.Table:
    """Return the events that ride in states, as rows of table `facts`."""
    kinds: Any = arrays.strings(sorted(FACT_KINDS))
    is_kept: Any = pc.is_in(rows["kind"].cast(pa.string()), value_set=kinds)
    kept = rows.filter(is_kept)
    kept = kept.append_column("clock", kept["timestamp"].cast(pa.int64()))
    wanted = arrow_schema(FACTS)
    return kept.select(wanted.names).cast(wanted)
