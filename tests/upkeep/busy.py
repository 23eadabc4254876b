"""A small lake in which everything has happened: for the tests of verify and repair."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cache
from typing import TYPE_CHECKING

from runlake import ids, schema
from runlake.storage import layout
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.upkeep import commit
from runlake.upkeep.vacuum import vacuum
from tests.storage.lakes import EXPERIMENT, START_US
from tests.upkeep.made import LAKE, MadeWriter, Row, compactor, make_lake, point, said

if TYPE_CHECKING:
    from runlake.storage.filesystem import Filesystem

MODEL = b"a model"
ARTIFACT = f"artifacts/{EXPERIMENT}/run-1/model.pkl"


def rows_of(number: int, *, is_closed: bool = True) -> list[Row]:
    """Return rows of two runs, of which one is shared by all writers."""
    rows = []
    for run_id in (f"run-{number}", "run-shared"):
        rows += [
            said(run_id, schema.STATUS, "", schema.RUNNING, at=0),
            said(run_id, schema.PARAM, "lr", f"0.{number}", at=1),
            said(run_id, schema.TAG, "note", "draft", at=2),
            said(run_id, schema.TAG, "note", "final", at=3),
            said(run_id, schema.NOTE, "traceback", "none", at=3),
        ]
        rows += [
            point(run_id, key, step, math.nan if step == number else step * 1.5 + number)
            for key in ("acc", "loss")
            for step in range(9)
        ]
    if number == 1:
        about = json.dumps({"sha256": hashlib.sha256(MODEL).hexdigest()})
        size = float(len(MODEL))
        rows.append(Row("run-1", schema.ARTIFACT, "model.pkl", None, START_US, size, about))
    if is_closed:
        rows.append(said("", schema.CLOSE, at=99))
    return rows


def make_busy(
    fs: Filesystem, *, is_tidy: bool = True, writers: int = 4
) -> list[tuple[MadeWriter, int]]:
    """Make a lake: compacted writers, commit by commit and merged, and two that are still open.

    Args:
        fs: where.
        is_tidy: vacuum, so that each row is in one file only.
        writers: how many are compacted whole.

    Returns:
        The writers, each with its last row.
    """
    objects, made = _made(is_tidy, writers, commit.HOT_WRITERS)
    for key, data in objects.items():
        fs.put(key, data)
    return list(made)


@cache
def _made(
    is_tidy: bool,  # noqa: FBT001 - a key of the cache
    writers: int,
    hot_writers: int,
) -> tuple[dict[str, bytes], list[tuple[MadeWriter, int]]]:
    """Make such a lake once; return all objects and the writers."""
    del hot_writers  # the compactor looks it up itself
    fs = MemoryFilesystem(f"busy-{ids.new_nonce()}/lake")
    made = _fill(fs, writers)
    if is_tidy:
        vacuum(fs, lake=LAKE, grace_s=0, is_dry_run=False)
        keep_newest_manifest(fs)
    objects = {entry.key: fs.get(entry.key) for entry in fs.list("")}
    fs.delete_many(objects)
    return objects, made


def _fill(fs: Filesystem, writers: int) -> list[tuple[MadeWriter, int]]:
    make_lake(fs)
    fs.put(ARTIFACT, MODEL)
    made = []
    for number in range(1, writers + 1):
        writer = MadeWriter(number, rows_of(number))
        last = len(writer.rows) - 1
        for first, end in ((0, 20), (21, last)):
            writer.put(fs, first, end)
            compactor(fs).compact(EXPERIMENT)
        made.append((writer, last))
    open_one = MadeWriter(8, rows_of(8, is_closed=False))
    for first, end in ((0, 9), (10, 19)):
        open_one.put(fs, first, end)
    compactor(fs).compact(EXPERIMENT)  # all but the newest segment
    live = MadeWriter(9, rows_of(9, is_closed=False))
    live.put(fs, 0, 5)
    live.put(fs, 6, 30)
    return [*made, (open_one, 19), (live, 30)]


def keep_newest_manifest(fs: Filesystem) -> None:
    """Delete all manifests but one, as vacuums do in time."""
    keys = sorted(entry.key for entry in fs.list(layout.MANIFESTS))
    fs.delete_many(keys[:-1])
