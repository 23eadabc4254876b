"""The Delta projection: a transaction log beside the compacted files, for engines that read it.

The manifest stays the only truth. A publication says what the newest manifest says, once more,
as the next version of a Delta table: no row is copied, and what is published can be deleted and
published again. Any number of publishers may work at once; each version is put if absent, and
who comes too late looks again. Engines may read the table and must not write it, which its
protocol tells them. After Delta's `PROTOCOL.md`, reader version 1, writer version 7.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from runlake import ids
from runlake._version import __version__
from runlake.errors import ConflictError, FormatError, InvalidInputError, StateError
from runlake.storage import layout, manifests
from runlake.storage.filesystem import Range
from runlake.storage.table_files import EVENTS, FACTS, METRICS, SUMMARIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runlake.storage.filesystem import Entry, Filesystem
    from runlake.storage.manifest import Manifest, TableFile
    from runlake.storage.table_files import Table

PUBLISHED: Final = {table.name: table for table in (METRICS, EVENTS, FACTS, SUMMARIES)}
"""The tables that can be published."""
FEATURE: Final = "runlakeProjection"
"""What a writer would have to know to write the table; nobody does."""

_LOG: Final = "_delta_log/"
_VERSION: Final = re.compile(r"(\d{20})\.json")
_PARTITION: Final = "experiment_id"
_APP: Final = "runlake"
_TYPES: Final = {
    "VARCHAR": "string",
    "BIGINT": "long",
    "DOUBLE": "double",
    "BOOLEAN": "boolean",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
}
_TRIES: Final = 20
_GATHER: Final = 1000


@dataclass(frozen=True, slots=True)
class Published:
    """What stands in the log of one table.

    Attributes:
        table: which.
        version: the newest version; -1 where there is none.
        manifest: the number of the manifest that it says; -1 where it does not tell.
        files: how many files it names.
        added: how many of them are new in it; 0 if nothing was done.
        removed: how many files it no longer names; 0 if nothing was done.
    """

    table: str
    version: int
    manifest: int
    files: int
    added: int = 0
    removed: int = 0


@dataclass(slots=True)
class DeltaLog:
    """What a table's log says, all versions taken together.

    Attributes:
        version: the newest; -1 for none.
        manifest: the number of the manifest that the newest version says; -1 if it does not.
        sizes: for each file its length, by its key below the lake's root.
        metadata: the last `metaData`.
    """

    version: int = -1
    manifest: int = -1
    sizes: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, Any] | None = None


def publish(
    fs: Filesystem,
    *,
    lake: str,
    tables: Iterable[str] | None = None,
    is_alone: bool = False,
) -> list[Published]:
    """Publish the newest manifest as Delta tables; twice is the same as once.

    Args:
        fs: the lake's storage.
        lake: its id.
        tables: which, of `PUBLISHED`; None for all.
        is_alone: nobody else publishes, so that a store will do that cannot create
            conditionally.

    Returns:
        What stands now, and what was done, by table.

    Raises:
        InvalidInputError: there is no such table.
        StateError: the store cannot create conditionally, and we may not be alone.
        ConflictError: others published first, time and again.
        StorageError: the store cannot be read or written.
        FormatError: a manifest or a log is damaged, or another's.
    """
    wanted = list(PUBLISHED) if tables is None else list(dict.fromkeys(tables))
    unknown = sorted(set(wanted) - set(PUBLISHED))
    if unknown:
        message = f"no table {unknown[0]!r} can be published; there are {', '.join(PUBLISHED)}."
        raise InvalidInputError(message)
    _refuse_unsafe_store(fs, is_alone=is_alone)
    return [_publish(fs, PUBLISHED[table], lake) for table in wanted]


def republish(fs: Filesystem, *, lake: str) -> list[Published]:
    """Publish again the tables that were published before; costs a listing for each table.

    Whoever compacts, purges or vacuums calls it, because what is dropped is soon deleted.

    Args:
        fs: the lake's storage.
        lake: its id.

    Returns:
        As `publish`; nothing for a lake that is not published.

    Raises:
        StateError: the store cannot create conditionally.
        ConflictError: others published first, time and again.
        StorageError: the store cannot be read or written.
        FormatError: a manifest or a log is damaged, or another's.
    """
    there = [table for table in PUBLISHED if _listed(fs, table)]
    return publish(fs, lake=lake, tables=there) if there else []


def read_log(fs: Filesystem, table: str) -> DeltaLog:
    """Read the log of a table: one GET for each version.

    Args:
        fs: the lake's storage.
        table: its name.

    Returns:
        What it says; nothing at version -1 where it was never published.

    Raises:
        StorageError: the store cannot be read.
        FormatError: a version is missing or damaged.
    """
    return _replay(fs, table, _listed(fs, table))


def _publish(fs: Filesystem, table: Table, lake: str) -> Published:
    for _ in range(_TRIES):
        # The log before the manifest: what is published meanwhile is never older than ours.
        listed = _listed(fs, table.name)
        newest = manifests.newest(fs, lake=lake)
        if listed and _last_said(fs, table.name, listed) == newest.number:
            return Published(
                table.name, _number(listed[-1]), newest.number, len(newest.files(table.name))
            )
        log = _replay(fs, table.name, listed)
        if log.manifest > newest.number:
            return Published(table.name, log.version, log.manifest, len(log.sizes))
        _refuse_foreign(fs, table, lake, log)
        done = _next_version(table, newest, log)
        key = _version_key(table.name, log.version + 1)
        if fs.put_absent(key, _encode(done.actions)):
            files = len(newest.files(table.name))
            return Published(
                table.name, log.version + 1, newest.number, files, done.added, done.removed
            )
    message = f"{fs.url}: others published {table.name} first, {_TRIES} times. Try again."
    raise ConflictError(message, url=fs.url)


@dataclass(frozen=True, slots=True)
class _Version:
    """A version that is to be put."""

    actions: list[dict[str, Any]]
    added: int
    removed: int


def _next_version(table: Table, newest: Manifest, log: DeltaLog) -> _Version:
    """Return what leads from what the log says to what the manifest says."""
    files = {file.path: file for file in newest.files(table.name)}
    time_ms = newest.commit_us // 1000
    added = [_add(table, files[path], time_ms) for path in sorted(files.keys() - log.sizes.keys())]
    removed = [
        _remove(table, path, log.sizes[path], time_ms)
        for path in sorted(log.sizes.keys() - files.keys())
    ]
    actions: list[dict[str, Any]] = [_commit_info(newest, log.version)]
    metadata = _metadata(table, newest.lake)
    if log.metadata is None:
        protocol = {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": [FEATURE]}
        actions.append({"protocol": protocol})
    if log.metadata != metadata:
        actions.append({"metaData": metadata})
    txn = {"appId": _APP, "version": newest.number, "lastUpdated": time_ms}
    return _Version([*actions, {"txn": txn}, *removed, *added], len(added), len(removed))


def _commit_info(newest: Manifest, version: int) -> dict[str, Any]:
    info: dict[str, Any] = {
        "timestamp": newest.commit_us // 1000,
        "operation": "RUNLAKE PUBLISH",
        "operationParameters": {"manifest": str(newest.number), "nonce": newest.nonce},
        "engineInfo": f"runlake/{__version__}",
        "txnId": ids.new_nonce(),
    }
    if version >= 0:
        info["readVersion"] = version
    return {"commitInfo": info}


def _metadata(table: Table, lake: str) -> dict[str, Any]:
    fields = [
        {"name": name, "type": _TYPES[kind], "nullable": True, "metadata": {}}
        for name, kind, _ in table.columns
    ]
    fields.append({"name": _PARTITION, "type": "string", "nullable": True, "metadata": {}})
    return {
        "id": _table_id(table, lake),
        "name": table.name,
        "description": f"What runlake has compacted of {table.name}; read only.",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": fields}, separators=(",", ":")),
        "partitionColumns": [_PARTITION],
        "configuration": {},
    }


def _table_id(table: Table, lake: str) -> str:
    """Return a GUID that is the same whoever publishes."""
    digits = hashlib.blake2b(f"{lake}/{table.name}".encode(), digest_size=16).hexdigest()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _add(table: Table, file: TableFile, time_ms: int) -> dict[str, Any]:
    stats: dict[str, Any] = {"numRecords": file.rows}
    if table in {METRICS, SUMMARIES}:
        # In the others some rows are about no run, and the manifest's bounds leave these aside.
        stats["minValues"] = {"run_id": file.min_run}
        stats["maxValues"] = {"run_id": file.max_run}
    action = {
        "path": _relative(table, file.path),
        "partitionValues": {_PARTITION: file.experiment_id},
        "size": file.size_bytes,
        "modificationTime": time_ms,
        "dataChange": True,
        "stats": json.dumps(stats, ensure_ascii=False, separators=(",", ":")),
    }
    return {"add": action}


def _remove(table: Table, path: str, size_bytes: int, time_ms: int) -> dict[str, Any]:
    action = {
        "path": _relative(table, path),
        "deletionTimestamp": time_ms,
        "dataChange": True,
        "extendedFileMetadata": True,
        "size": size_bytes,
    }
    name = layout.parse_table_file(path)
    if name is not None:
        action["partitionValues"] = {_PARTITION: name.experiment_id}
    return {"remove": action}


def _relative(table: Table, path: str) -> str:
    """Return a file's path from the table's root, as a URI."""
    return quote(path.removeprefix(_root(table.name)), safe="/=")


def _root(table: str) -> str:
    return f"{layout.TABLES}{table}/"


def _version_key(table: str, version: int) -> str:
    return f"{_root(table)}{_LOG}{version:020d}.json"


def _encode(actions: Sequence[Mapping[str, Any]]) -> bytes:
    lines = (json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in actions)
    return ("\n".join(lines) + "\n").encode()


def _listed(fs: Filesystem, table: str) -> list[Entry]:
    """Return the versions that are there, in order."""
    prefix = f"{_root(table)}{_LOG}"
    found = fs.list(prefix)
    return [entry for entry in found if _VERSION.fullmatch(entry.key.removeprefix(prefix))]


def _number(entry: Entry) -> int:
    """Return the number of a version."""
    return int(entry.key[-len("00000000000000000000.json") : -len(".json")])


def _last_said(fs: Filesystem, table: str, listed: Sequence[Entry]) -> int:
    """Return the number of the manifest that the newest version says, -1 if it does not."""
    log = DeltaLog()
    key = listed[-1].key
    _apply(log, table, fs.get(key), where=f"{fs.url}/{key}")
    return log.manifest


def _replay(fs: Filesystem, table: str, listed: Sequence[Entry]) -> DeltaLog:
    """Take all versions together, in order."""
    log = DeltaLog()
    for start in range(0, len(listed), _GATHER):
        batch = listed[start : start + _GATHER]
        found = fs.get_ranges([Range(entry.key, 0, entry.size_bytes) for entry in batch])
        for entry, data in zip(batch, found, strict=True):
            if entry.key != _version_key(table, log.version + 1):
                message = (
                    f"{fs.url}/{_version_key(table, log.version + 1)} is missing, so what was "
                    f"published cannot be told. Delete {_root(table)}{_LOG} and publish again; "
                    "no row lies there."
                )
                raise FormatError(message, url=fs.url)
            log.version += 1
            log.manifest = -1
            _apply(log, table, data, where=f"{fs.url}/{entry.key}")
    return log


def _apply(log: DeltaLog, table: str, data: bytes, *, where: str) -> None:
    """Do to a log what the actions of one version say."""
    try:
        for line in data.splitlines():
            ((kind, action),) = json.loads(line).items()
            if kind == "add":
                log.sizes[_root(table) + unquote(action["path"])] = int(action["size"])
            elif kind == "remove":
                log.sizes.pop(_root(table) + unquote(action["path"]), None)
            elif kind == "metaData":
                log.metadata = action
            elif kind == "txn" and action["appId"] == _APP:
                log.manifest = int(action["version"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{where} is no readable version of a Delta table: {error!r}"
        raise FormatError(message, url=where) from error


def _refuse_foreign(fs: Filesystem, table: Table, lake: str, log: DeltaLog) -> None:
    """Refuse a log that somebody else has made."""
    if log.metadata is None or log.metadata.get("id") == _table_id(table, lake):
        return
    where = f"{fs.url}/{_root(table.name)}{_LOG}"
    message = (
        f"{where} is the log of another Delta table, not of this lake's {table.name}. Delete it "
        "and publish again; no row lies there."
    )
    raise FormatError(message, url=fs.url)


def _refuse_unsafe_store(fs: Filesystem, *, is_alone: bool) -> None:
    """Refuse a store on which two publishers could both put one version."""
    if is_alone:
        return
    safe = fs.conditional_create
    if safe if safe is not None else fs.probe():
        return
    message = (
        f"{fs.url} cannot create an object only where there is none, so two publishers at once "
        "could leave a log that names the wrong files. `runlake export` writes files for other "
        "engines."
    )
    raise StateError(message, url=fs.url)
