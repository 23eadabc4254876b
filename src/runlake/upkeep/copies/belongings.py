"""The files of runs on their way from one lake into another, checked by their digests.

Events say what each file was when it was put. Of two files under one name the one that the
later event speaks of stands, as it does in a lake.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from runlake import schema
from runlake._lazy import lazy
from runlake.storage import arrays, layout, links, segments
from runlake.storage.table_files import EVENTS, read_groups

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.storage.filesystem import Entry, Filesystem
    from runlake.storage.manifest import Manifest
    from runlake.upkeep.copies.written import Held
    from runlake.upkeep.sources import Files
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

_PARALLEL: Final = 8
_CHUNK_BYTES: Final = 1 << 20
_FEW_RUNS: Final = 64


class Said(NamedTuple):
    """The latest event about a file.

    Attributes:
        place: its clock, writer and number, by which the latest is told.
        digest: SHA-256 of the file, in hex; "" if it says none.
        is_deleted: it says that the file was deleted.
    """

    place: tuple[int, str, int]
    digest: str
    is_deleted: bool = False


class Side(NamedTuple):
    """One of the two lakes.

    Attributes:
        fs: its storage.
        newest: its newest manifest.
        live: its live segments in the partition.
        files: of its tables.
    """

    fs: Filesystem
    newest: Manifest
    live: Collection[Held]
    files: Files


@dataclass(slots=True)
class Brought:
    """What was brought.

    Attributes:
        count: files.
        size_bytes: their length.
        wrong: keys of files that cannot be brought, with the reason.
    """

    count: int = 0
    size_bytes: int = 0
    wrong: dict[str, str] = field(default_factory=dict)


@final
class Belongings:
    """Brings the files of runs of one partition."""

    def __init__(self, source: Side, target: Side, experiment_id: str) -> None:
        """Keep both sides; nothing is read yet.

        Args:
            source: where files come from.
            target: where they go.
            experiment_id: the partition.
        """
        self._source, self._target, self._experiment_id = source, target, experiment_id

    def bring(self, run_ids: Collection[str]) -> Brought:
        """Bring what the target has not, or has an older one of; delete what was deleted.

        Args:
            run_ids: the runs.

        Returns:
            What was brought. A file that is not what its event says was not, nor one below
            another where the target is a disk.

        Raises:
            FileNotFoundError: an object of either is gone.
            StorageError: a store cannot be read or written.
            FormatError: a compacted file or a segment is damaged, or a link in the target leads
                out of a run's folder.
        """
        there = self._listed(self._source.fs, run_ids)
        here = self._listed(self._target.fs, run_ids)
        if not there and not here:
            return Brought()
        said = self._said(self._source, run_ids)
        known = self._said(self._target, run_ids)
        gone = {key for key in here if _is_gone(said.get(key), known.get(key))}
        self._target.fs.delete_many(list(gone))
        wanted = [
            (entry, said.get(key))
            for key, entry in there.items()
            if _is_wanted(entry, here.get(key), said.get(key), known.get(key))
        ]
        brought = Brought()
        if self._target.fs.is_local:
            for key, above in layout.files_above({*there, *here} - gone):
                brought.wrong[key] = f"lies below the file {above}, which no disk can hold"
            wanted = [each for each in wanted if each[0].key not in brought.wrong]
        folders = (posixpath.dirname(entry.key) for entry, _ in wanted)
        links.refuse_ways_out(self._target.fs, folders)
        with ThreadPoolExecutor(_PARALLEL) as pool:
            moved = pool.map(lambda each: self._move(*each, is_there=each[0].key in here), wanted)
            for (entry, _), became in zip(wanted, moved, strict=True):
                if became is None:
                    brought.wrong[entry.key] = "is not what its event says"
                elif became:
                    brought.count += 1
                    brought.size_bytes += entry.size_bytes
        return brought

    def _move(self, entry: Entry, said: Said | None, *, is_there: bool) -> bool | None:
        """Copy one file; False if it is there already, None if it is not what its event says."""
        source, target = self._source.fs, self._target.fs
        with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
            path = Path(folder) / "artifact"
            if said is not None and said.digest and is_there:
                target.download(entry.key, path)
                if _digest(path) == said.digest:
                    return False
            source.download(entry.key, path)
            if said is not None and said.digest and _digest(path) != said.digest:
                return None
            target.upload(entry.key, path)
        return True

    def _listed(self, fs: Filesystem, run_ids: Collection[str]) -> dict[str, Entry]:
        """Return the files of runs by key, but for what a link has put among them."""
        root = f"artifacts/{self._experiment_id}/"
        if len(run_ids) > _FEW_RUNS:
            found = [fs.list(root)]
        else:
            prefixes = [layout.artifacts(self._experiment_id, run_id) for run_id in run_ids]
            with ThreadPoolExecutor(_PARALLEL) as pool:
                found = list(pool.map(fs.list, prefixes))
        listed = {
            entry.key: entry
            for entries in found
            for entry in entries
            if entry.key.removeprefix(root).partition("/")[0] in run_ids
        }
        for key in list(links.led_out(fs, listed)):
            del listed[key]
        return listed

    def _said(self, side: Side, run_ids: Collection[str]) -> dict[str, Said]:
        """Return the latest event of each file, by its key in the store."""
        found: dict[str, Said] = {}
        for run_id, path, text, place in _events(side, self._experiment_id, run_ids):
            key = layout.artifacts(self._experiment_id, run_id) + path
            said = Said(place, _sha256(text), text is None)
            found[key] = max(found.get(key, said), said)
        return found


def _is_wanted(entry: Entry, here: Entry | None, said: Said | None, known: Said | None) -> bool:
    """Tell whether a file of the source goes, or is at least to be looked at.

    Args:
        entry: the file.
        here: what the target has under its name.
        said: what the source says of it.
        known: what the target says.
    """
    if _is_gone(said, known) or _is_gone(known, said):
        return False
    if here is None:
        return True
    if said is not None and known is not None:
        # Later there, or the same: what is here was checked when it came.
        return said.place > known.place or (
            said.place == known.place and here.size_bytes != entry.size_bytes
        )
    if known is not None:
        return False
    return said is not None or here.size_bytes != entry.size_bytes


def _is_gone(said: Said | None, other: Said | None) -> bool:
    """Tell whether one lake says last that a file was deleted."""
    return said is not None and said.is_deleted and (other is None or said.place >= other.place)


def _events(
    side: Side, experiment_id: str, run_ids: Collection[str]
) -> Iterator[tuple[str, str, str | None, tuple[int, str, int]]]:
    """Yield run, path, text and place of the events about files of some runs."""
    least, greatest = min(run_ids), max(run_ids)
    wanted = arrays.strings(sorted(run_ids))
    for file in side.newest.files(EVENTS.name, experiment_id):
        if file.max_run < least or file.min_run > greatest:
            continue
        path = side.files.path(file)
        for rows in read_groups(path, EVENTS, key=file.path, between=(least, greatest)):
            found = _chosen(rows, wanted)
            for row in found.to_pylist():
                place = (row["timestamp"], row["writer"], row["seq"])
                yield row["run_id"], row["key"], row["str"], place
    for held in side.live:
        if held.lasts.keys().isdisjoint(run_ids):
            continue
        name = held.segment.name
        rows, _ = segments.decode(side.fs.get(name.key), key=name.key)
        numbered = rows.append_column("seq", arrays.numbers(np.arange(name.first, name.last + 1)))
        for row in _chosen(numbered, wanted).to_pylist():
            place = (row["timestamp"], name.writer, row["seq"])
            yield row["run_id"], row["key"], row["str"], place


def _chosen(rows: pa.Table, wanted: pa.StringArray) -> pa.Table:
    """Return the events about files of some runs, times as numbers."""
    is_file: Any = pc.equal(rows["kind"].cast(pa.string()), arrays.text(schema.ARTIFACT))
    found = rows.filter(pc.and_(is_file, pc.is_in(rows["run_id"], value_set=wanted)))
    place = found.schema.get_field_index("timestamp")
    return found.set_column(place, "timestamp", found["timestamp"].cast(pa.int64()))


def _sha256(text: str | None) -> str:
    try:
        return str(json.loads(text or "{}").get("sha256", ""))
    except (ValueError, AttributeError):
        return ""


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest()
