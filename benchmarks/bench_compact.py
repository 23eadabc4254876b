"""How fast are segments compacted, in what memory, and how small do points become?

A lake is copied, and compacted by a process of its own, with the default budget of memory. Beside
it the physical limit: bare pyarrow reads the same segments, sorts the points and writes them with
the same encodings, with all rows in memory and nothing else to keep.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import asking, data, lakes
from benchmarks.harness import AT_LEAST, ROOT, Figure, folder_bytes, scratch
from runlake.storage.table_files import METRICS, parquet_options

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.harness import Options

_COMPACT = """
import json, sys, time
from pathlib import Path
import runlake

lake = runlake.open(sys.argv[1])
began = time.perf_counter()
done = lake.maintain.compact()
seconds = time.perf_counter() - began
lake.maintain.vacuum(dry_run=False, grace_s=0)
# Not getrusage, which counts what the parent held when it forked.
[line] = [line for line in Path("/proc/self/status").open() if line.startswith("VmHWM")]
peak = int(line.split()[1]) / 1024
print(json.dumps({"seconds": seconds, "rows": done.rows, "peak": peak}))
"""


def measure(options: Options) -> list[Figure]:
    """Return rows a second, peak memory, bytes a point, and answers before and after."""
    figures = []
    for name in ["points100k"] if options.quick else ["points10m", "points100m"]:
        made = lakes.made(name, options.lakes)
        with scratch() as folder:
            lake = folder / "lake"
            shutil.copytree(made.folder, lake)
            size = f"{made.rows:,} rows in {made.segments} segments"
            before = folder_bytes(lake / "log")
            found = compacted(lake)
            rate = found["rows"] / found["seconds"] / 1e6
            bound = None if options.quick else 1.0
            what = f"compaction, {size}"
            figures += [
                Figure(what, rate, "M rows/s", bound=bound, sense=AT_LEAST),
                Figure(f"{what}, peak memory of the process", found["peak"], "MiB"),
                Figure(f"bytes a row, fresh, {size}", before / made.rows, "bytes"),
                Figure(
                    f"bytes a row, compacted, {size}",
                    folder_bytes(lake / "tables") / made.rows,
                    "bytes",
                    bound=4.2,
                ),
            ]
            if name != "points100m":  # all rows in memory would not fit
                figures.append(Figure(what, _bare(made.folder), "M rows/s", "bare pyarrow"))
            figures += _answers(made, lake, options)
    return figures


def compacted(lake: Path) -> dict[str, float]:
    """Compact a lake in a process of its own, and take away what that replaced."""
    done = subprocess.run(
        [sys.executable, "-c", _COMPACT, str(lake)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _bare(lake: Path) -> float:
    """Return how many million rows a second bare pyarrow sorts and writes."""
    began = time.perf_counter()
    files = sorted((lake / "log").glob("*/*.parquet"))
    rows = pa.concat_tables([pq.read_table(file, partitioning=None) for file in files])
    points = rows.rename_columns({"num": "value"})
    points = points.append_column("writer", pa.array([""] * rows.num_rows, pa.string()))
    points = points.select([column.name for column in METRICS.columns])
    names = ("run_id", "key", "step", "timestamp")
    order: list[tuple[str, Literal["ascending", "descending"]]] = [
        (name, "ascending") for name in names
    ]
    plain = pa.schema([field.with_type(_plain(field.type)) for field in points.schema])
    points = points.cast(plain).sort_by(order)
    with (
        scratch() as folder,
        pq.ParquetWriter(
            folder / "points.parquet", points.schema, **parquet_options(METRICS)
        ) as writer,
    ):
        writer.write_table(points, row_group_size=METRICS.group_rows)
    return rows.num_rows / (time.perf_counter() - began) / 1e6


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _answers(made: lakes.Made, lake: Path, options: Options) -> list[Figure]:
    """Ask the lake before and after."""
    figures = []
    key = data.keys(1)[0]
    last = made.run_id(made.shape.sweep.runs)
    for state, folder in (("before", made.folder), ("after", lake)):
        with asking.opened(folder) as opened:
            spans = asking.warm(
                opened,
                lambda asked: asked.history(key, runs=[last], max_points=500),
                count=options.size(21, quick=2),
            )
        what = f"one curve, warm, {state} compaction, {made.rows:,} rows"
        figures.append(asking.figure(what, spans, None, note=f"{made.segments} segments"))
    return figures
