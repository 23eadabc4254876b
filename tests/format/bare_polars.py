"""Reads a lake with Polars and the standard library of Python 3.14, as `docs/spec/v1.md` says.

    python bare_polars.py LAKE

Run-level answers come from the states in the footers and in the tables, points from the rows.
runlake is not imported.
"""

from __future__ import annotations

import base64
import json
import math
import re
import sys
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SEGMENT = re.compile(r"log/experiment_id=([^/]+)/([0-9A-Z]{26})\.(\d{15})-(\d{12})(\.z)?\.parquet")
STALE_S = 900.0
OPEN = ("RUNNING", "SCHEDULED")

Row = dict[str, Any]


class Segment(NamedTuple):
    """What a segment's name says, and where it is."""

    first: int
    last: int
    merged: bool
    experiment_id: str
    writer: str
    file: Path


class Live(NamedTuple):
    """A segment that is taken, with the rows of it that an earlier one holds."""

    segment: Segment
    skip_rows: int


def find(lake: Path) -> tuple[list[Live], Row]:
    """Take a snapshot: the live segments, and the newest manifest."""
    streams: dict[tuple[str, str], list[Segment]] = {}
    for file in sorted(lake.glob("log/*/*.parquet")):
        match = SEGMENT.fullmatch(file.relative_to(lake).as_posix())
        if match:
            experiment_id, writer, last, count, merged = match.groups()
            first = int(last) - int(count) + 1
            segment = Segment(first, int(last), bool(merged), experiment_id, writer, file)
            streams.setdefault((experiment_id, writer), []).append(segment)
    manifests = sorted(lake.glob("manifests/*.json"))
    newest = json.loads(manifests[-1].read_text()) if manifests else {}
    if newest.get("format", 1) != 1:
        sys.exit("this lake is newer than this reader")
    consumed = {row["writer"]: row["last"] for row in table(lake, newest, "writers").to_dicts()}
    for writer, last in newest.get("consumed", {}).items():
        consumed[writer] = max(last, consumed.get(writer, -1))
    live = [
        taken
        for (_, writer), segments in streams.items()
        for taken in cover(segments, consumed.get(writer, -1))
    ]
    return live, newest


def table(lake: Path, newest: Row, name: str) -> pl.DataFrame:
    """Return the rows of a compacted table, with the partition of each."""
    parts = [
        pl.read_parquet(lake / file["path"], hive_partitioning=False).with_columns(
            experiment_id=pl.lit(file["experiment"])
        )
        for file in newest.get("tables", {}).get(name, ())
    ]
    return pl.concat(parts) if parts else pl.DataFrame()


def cover(segments: list[Segment], watermark: int) -> list[Live]:
    """From the watermark on, take the segment that holds the next row and reaches farthest."""
    taken: list[Live] = []
    following = watermark + 1
    while True:
        holding = [one for one in segments if one.first <= following <= one.last]
        if not holding:
            return taken
        best = max(holding, key=lambda one: (one.last, -one.first, one.merged))
        taken.append(Live(best, following - best.first))
        following = best.last + 1


def footer(file: Path) -> tuple[Row, list[Row], list[Row]]:
    """Return a segment's header, facts and summaries."""
    texts = pl.read_parquet_metadata(file)
    header = json.loads(texts["runlake"])
    if header["format"] != 1:
        sys.exit(f"{file.name} is newer than this reader")
    facts, summaries = (
        pl.read_ipc_stream(unpacked(base64.b64decode(texts[f"runlake.state.{part}"])))
        for part in ("facts", "summaries")
    )
    return header, facts.to_dicts(), summaries.to_dicts()


def unpacked(packed: bytes) -> bytes:
    """Return what was compressed."""
    if packed.startswith(b"\x28\xb5\x2f\xfd"):
        return zstd.decompress(packed)
    return zlib.decompress(packed)


def all_rows(lake: Path, newest: Row, live: list[Live]) -> pl.DataFrame:
    """Return every row of the snapshot, with its writer and sequence number if it has one."""
    parts = [
        pl.read_parquet(taken.segment.file, hive_partitioning=False)
        .with_row_index("place")
        .filter(pl.col("place") >= taken.skip_rows)
        .with_columns(
            writer=pl.lit(taken.segment.writer),
            experiment_id=pl.lit(taken.segment.experiment_id),
            seq=pl.col("place").cast(pl.Int64) + taken.segment.first,
        )
        for taken in live
    ]
    metrics, events = (table(lake, newest, name) for name in ("metrics", "events"))
    if metrics.height:
        parts.append(metrics.rename({"value": "num"}).with_columns(kind=pl.lit("metric")))
    if events.height:
        parts.append(events)
    rows = pl.concat(parts, how="diagonal_relaxed")
    return rows.with_columns(time=pl.col("timestamp").dt.timestamp("us"))


def order(fact: Row) -> tuple[int, str, int]:
    """Return the order of facts."""
    return fact["clock"], fact["writer"], fact["seq"]


def grouped(rows: list[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Group rows by columns."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def fold_summary(states: list[Row]) -> list[Any]:
    """Join the cumulative states of one metric of one run."""
    parts = [max(of, key=lambda s: s["n"]) for of in grouped(states, "writer").values()]
    last = max(
        parts,
        key=lambda s: (
            s["last_step"],
            s["last_time"],
            not math.isnan(s["last"]),
            -math.inf if math.isnan(s["last"]) else s["last"],
        ),
    )
    first = min(
        parts,
        key=lambda s: (
            s["first_step"],
            s["first_time"],
            math.isnan(s["first"]),
            0.0 if math.isnan(s["first"]) else s["first"],
        ),
    )
    known = [s for s in parts if s["min"] is not None]
    least = min(known, key=lambda s: (s["min"], s["min_step"], s["min_time"]), default={})
    most = min(known, key=lambda s: (-s["max"], s["max_step"], s["max_time"]), default={})
    n, nan_count = sum(s["n"] for s in parts), sum(s["nan_count"] for s in parts)
    return [
        last["last"],
        last["last_step"],
        first["first"],
        first["first_step"],
        least.get("min"),
        least.get("min_step"),
        most.get("max"),
        most.get("max_step"),
        n,
        nan_count,
        sum(s["sum"] for s in parts) / (n - nan_count) if n > nan_count else None,
    ]


def fold_status(
    words: list[Row], told: set[str], closed: set[str], fresh: set[str]
) -> tuple[str, bool]:
    """Return the status of a run, and whether it is stale."""
    own = [word for word in words if word["key"] == ""]
    said = [order(word) for word in words if word["key"] == "set"]
    left = [word for word in own if not said or order(word) > max(said)]
    latest = [max(of, key=order) for of in grouped(left, "writer").values()]
    for status in OPEN:
        for word in latest:
            is_open = word["writer"] in fresh and word["writer"] not in closed
            if word["str"] == status and is_open:
                return status, False
    last = max(words, key=order)
    is_quiet = last["key"] == "" or fresh.isdisjoint(told)
    return last["str"], last["str"] in OPEN and is_quiet


def fold_experiments(rows: list[Row], names: dict[str, tuple[str, str]]) -> list[list[Any]]:
    """Return id, name and stage of every experiment."""
    events = grouped(rows, "run_id")
    ids = {experiment_id for (experiment_id,) in events} | set(names)
    found = []
    for experiment_id in sorted(ids):
        kinds = grouped(sorted(events.get((experiment_id,), []), key=order), "kind")
        name = names.get(experiment_id, ("", ""))[1]
        if ("experiment_create",) in kinds:
            name = kinds["experiment_create",][0]["key"]
        if ("experiment_rename",) in kinds:
            name = kinds["experiment_rename",][-1]["key"]
        flags = kinds.get(("experiment_delete",), []) + kinds.get(("experiment_restore",), [])
        deleted = bool(flags) and max(flags, key=order)["kind"] == "experiment_delete"
        found.append([experiment_id, name, "deleted" if deleted else "active"])
    return found


def fold_run(run_id: str, facts: list[Row], closed: set[str], fresh: set[str]) -> list[Any]:
    """Return id, experiment, name, status, staleness and whether the run itself is deleted."""
    kinds = grouped(sorted(facts, key=order), "kind")
    attributes = grouped(kinds.get(("run",), []), "key")
    name = None
    if ("auto_name",) in attributes:
        name = attributes["auto_name",][0]["str"]
    if ("name",) in attributes:
        name = attributes["name",][-1]["str"]
    flags = kinds.get(("delete",), []) + kinds.get(("restore",), [])
    is_deleted = bool(flags) and max(flags, key=order)["kind"] == "delete"
    if ("status",) in kinds:
        told = {fact["writer"] for fact in facts}
        status, is_stale = fold_status(kinds["status",], told, closed, fresh)
    else:
        status, is_stale = "RUNNING", fresh.isdisjoint(fact["writer"] for fact in facts)
    return [run_id, min(facts, key=order)["experiment_id"], name, status, is_stale, is_deleted]


def main(lake: Path) -> None:
    """Print one JSON object: for each answer its rows."""
    live, newest = find(lake)
    purged = set(newest.get("purged", ()))
    facts, summaries = (
        [
            row
            for row in table(lake, newest, name).to_dicts()
            if row["run_id"] not in purged and row["experiment_id"] != "_lake"
        ]
        for name in ("facts", "summaries")
    )
    names: dict[str, tuple[str, str]] = {}
    written: dict[str, float] = {}
    for mark in table(lake, newest, "writers").to_dicts():
        written[mark["writer"]] = mark["time"] / 1e6
        if mark["experiment_id"] != "_lake":
            named = mark["writer"], mark["experiment_name"]
            names[mark["experiment_id"]] = max(names.get(mark["experiment_id"], named), named)
    for taken in live:
        segment = taken.segment
        written[segment.writer] = max(
            written.get(segment.writer, 0.0), segment.file.stat().st_mtime
        )
        if segment.experiment_id == "_lake":
            continue
        header, of_facts, of_summaries = footer(segment.file)
        own = {"writer": segment.writer, "experiment_id": segment.experiment_id}
        facts += [fact | own for fact in of_facts if fact["run_id"] not in purged]
        summaries += [state | own for state in of_summaries if state["run_id"] not in purged]
        named = segment.writer, header["experiment_name"]
        names[segment.experiment_id] = max(names.get(segment.experiment_id, named), named)
    rows = all_rows(lake, newest, live)
    rows = rows.filter(~pl.col("run_id").cast(pl.String).is_in(list(purged)))
    of_experiments = pl.col("kind").cast(pl.String).str.starts_with("experiment_")
    reserved = rows.filter(pl.col("experiment_id") == "_lake", of_experiments)
    experiments = fold_experiments(reserved.rename({"time": "clock"}).to_dicts(), names)
    stages = {experiment_id: stage for experiment_id, _, stage in experiments}
    closed = {fact["writer"] for fact in facts if fact["kind"] == "close"}
    fresh = {writer for writer, moment in written.items() if time.time() - moment < STALE_S}
    runs = [
        fold_run(run_id, of_run, closed, fresh)
        for (run_id,), of_run in grouped(facts, "run_id").items()
        if run_id
    ]
    pairs = grouped(facts, "kind", "run_id", "key").items()
    params = {key: min(said, key=order)["str"] for key, said in pairs if key[0] == "param"}
    tags = {key: max(said, key=order)["str"] for key, said in pairs if key[0] == "tag"}
    metrics = rows.filter(pl.col("kind") == "metric")
    found = {
        "metrics": metrics.select("run_id", "key", "step", "time", "num", "writer").rows(),
        "summaries": [
            [*key, *fold_summary(states)]
            for key, states in grouped(summaries, "run_id", "key").items()
        ],
        "params": [[*key[1:], value] for key, value in params.items()],
        "tags": [[*key[1:], value] for key, value in tags.items() if value is not None],
        "experiments": experiments,
        "runs": [
            [*run[:-1], "deleted" if run[-1] or stages[run[1]] == "deleted" else "active"]
            for run in runs
        ],
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
