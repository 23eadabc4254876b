"""What a lake says of its experiments: the rows of the reserved partition, in their order."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runlake import schema
from runlake._lazy import lazy
from runlake.storage import segments
from runlake.storage.table_files import EVENTS, read_groups
from runlake.upkeep.sources import local

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.snapshot import Snapshot
else:
    pa = lazy("pyarrow")


class Naming(NamedTuple):
    """What is said of one experiment.

    Attributes:
        name: the latest; None where it has none but in the footers of its writers.
        earlier: names that it had before.
        location: where its artifacts lie if not in the lake.
    """

    name: str | None
    earlier: frozenset[str]
    location: str | None


def namings(fs: Filesystem, snapshot: Snapshot) -> dict[str, Naming]:
    """Return what is said of each experiment.

    Args:
        fs: the lake's storage.
        snapshot: of the lake, with the reserved partition.

    Returns:
        By experiment id.

    Raises:
        FileNotFoundError: an object of the snapshot is gone.
        StorageError: the store cannot be read.
        FormatError: an object is damaged.
    """
    names: dict[str, list[tuple[bool, tuple[Any, ...], str]]] = {}
    locations: dict[str, str] = {}
    for row in lake_rows(fs, snapshot):
        kind, of = row["kind"], row["run_id"]
        if kind not in {schema.EXPERIMENT_CREATE, schema.EXPERIMENT_RENAME}:
            continue
        place = (row["timestamp"], row["writer"], row["seq"])
        # The latest rename stands, else the earliest creation: see the specification, "Fold".
        is_rename = kind == schema.EXPERIMENT_RENAME
        names.setdefault(of, []).append((is_rename, place, row["key"]))
        if not is_rename and (location := _location(row["str"])) is not None:
            locations[of] = location
    return {of: _settled(said, locations.get(of)) for of, said in names.items()}


def lake_rows(fs: Filesystem, snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    """Yield the rows of the reserved partition with `writer`, `seq` and plain times.

    Args:
        fs: the lake's storage.
        snapshot: of the lake.

    Raises:
        FileNotFoundError: an object of the snapshot is gone.
        StorageError: the store cannot be read.
        FormatError: an object is damaged.
    """
    partition, purged = schema.RESERVED_PARTITION, snapshot.manifest.purged
    for segment in snapshot.segments:
        name = segment.name
        if name.experiment_id != partition:
            continue
        rows, _ = segments.decode(fs.get(name.key), key=name.key)
        listed = _plain(rows).to_pylist()
        for place, row in enumerate(listed[segment.skip_rows :], name.first + segment.skip_rows):
            if row["run_id"] not in purged:
                yield {**row, "writer": name.writer, "seq": place}
    with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
        for file in snapshot.manifest.files(EVENTS.name, partition):
            path = local(fs, file.path, Path(folder) / "events.parquet")
            for rows in read_groups(path, EVENTS, key=file.path):
                yield from (row for row in _plain(rows).to_pylist() if row["run_id"] not in purged)


def _settled(said: list[tuple[bool, tuple[Any, ...], str]], location: str | None) -> Naming:
    renames = [each for each in said if each[0]]
    _, _, name = max(renames) if renames else min(said)
    return Naming(name, frozenset(key for _, _, key in said) - {name}, location)


def _location(text: str | None) -> str | None:
    """Return the artifact location in the JSON of a claim."""
    try:
        found = json.loads(text or "{}").get("artifact_location")
    except (ValueError, AttributeError):
        return None
    return None if found is None else str(found)


def _plain(rows: pa.Table) -> pa.Table:
    """Return rows whose times are numbers, as Python takes them without loss."""
    place = rows.schema.get_field_index("timestamp")
    return rows.set_column(place, "timestamp", rows["timestamp"].cast(pa.int64()))
