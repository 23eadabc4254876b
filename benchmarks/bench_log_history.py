"""How fast do whole columns go in, against bare pyarrow writing the same columns?

`log_history` returns when the points lie in the journal as finished segments; the second
figure waits until they are in the store. pyarrow writes them once, into one file, with the
encodings and checksums of our segments, and keeps no summary of them.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import runlake
from benchmarks import data
from benchmarks.harness import AT_LEAST, Figure, scratch, shown_rounds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.harness import Options

_COLUMNS = 5
_AS_SEGMENTS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["run_id", "kind", "key"],
    "column_encoding": {
        "step": "DELTA_BINARY_PACKED",
        "timestamp": "DELTA_BINARY_PACKED",
        "num": "BYTE_STREAM_SPLIT",
    },
    "write_page_checksum": True,
    "store_schema": False,
    "row_group_size": 1 << 20,
}


def measure(options: Options) -> list[Figure]:
    """Return points a second, and the share of pyarrow's speed."""
    rows = options.size(50_000_000, quick=50_000) // _COLUMNS
    times = options.size(3, quick=1)
    figures: list[Figure] = []
    for kind, make in (("float32-valued curves", data.curve), ("float64 noise", data.noise)):
        wide = _wide(rows, make)
        ours = [_ours(wide) for _ in range(times)]
        bare = [_bare(wide) for _ in range(times)]
        points = rows * _COLUMNS
        note = f"{points:,} points in {_COLUMNS} columns"
        limit = statistics.median(bare)
        for what, spans in (
            ("returned", [a for a, _ in ours]),
            ("in the store", [b for _, b in ours]),
        ):
            rates = [points / span for span in spans]
            rate = statistics.median(rates)
            title = f"{kind}, {what}"
            shown = f"{note}; {shown_rounds(rates)}"
            figures.append(Figure(title, rate, "points/s", sense=AT_LEAST, note=shown))
            figures.append(Figure(title, limit, "points/s", "pyarrow", sense=AT_LEAST, note=note))
            figures.append(
                Figure(f"{title}, share of pyarrow", rate / limit, "", bound=0.5, sense=AT_LEAST)
            )
    return figures


def _wide(rows: int, make: Callable[..., Any]) -> pa.Table:
    columns: dict[str, Any] = {"step": np.arange(rows, dtype=np.int64)}
    columns["timestamp"] = pa.array(data.moments(rows, seed=1), pa.timestamp("us", tz="UTC"))
    for number, key in enumerate(data.keys(_COLUMNS)):
        columns[key] = make(rows, seed=number)
    return pa.table(columns)


def _ours(wide: pa.Table) -> tuple[float, float]:
    """Return seconds until the call returned, and until the store had it."""
    with scratch() as folder:
        lake = runlake.open(folder / "lake")
        run = lake.start_run()
        began = time.perf_counter()
        run.log_history(wide)
        returned = time.perf_counter() - began
        run.finish()
        lake.close()
        return returned, time.perf_counter() - began


def _bare(wide: pa.Table) -> float:
    """Return points a second of pyarrow, the long columns made before the clock starts."""
    rows = wide.num_rows
    run_id = pa.repeat("0" * 32, rows).dictionary_encode()
    kind = pa.repeat("metric", rows).dictionary_encode()
    names = ["run_id", "kind", "key", "step", "timestamp", "num", "str"]
    texts = pa.nulls(rows, pa.string())
    tables = []
    for key in data.keys(_COLUMNS):
        coded = pa.repeat(key, rows).dictionary_encode()
        columns: list[Any] = [
            run_id,
            kind,
            coded,
            wide["step"],
            wide["timestamp"],
            wide[key],
            texts,
        ]
        tables.append(pa.table(columns, names=names))
    with scratch() as folder:
        span = _write(pa.concat_tables(tables).unify_dictionaries(), folder / "bare.parquet")
    return rows * _COLUMNS / span


def _write(table: pa.Table, file: Path) -> float:
    began = time.perf_counter()
    pq.write_table(table, file, **_AS_SEGMENTS)
    return time.perf_counter() - began
