"""A manifest: the numbered file that says which rows are compacted, and where they lie now.

The newest manifest of a lake stands; those before it are history. It re-expresses rows that
writers have put long before, so that losing the race to write one never loses a row. Nothing
here does I/O. The normative text is `docs/spec/v1.md`, "Manifest".
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake.errors import FormatError, NewerFormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NOTHING_CONSUMED: Final = -1
"""The watermark of a writer of whom no row is compacted; sequence numbers start at 0."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """One compacted file.

    Attributes:
        path: its key below the lake's root.
        size_bytes: its length.
        rows: how many rows it holds.
        experiment_id: the partition.
        min_run: the least run id in it, empty ones aside; of table `writers` the least writer.
        max_run: the greatest run id in it; of table `writers` the greatest writer.
    """

    path: str
    size_bytes: int
    rows: int
    experiment_id: str
    min_run: str
    max_run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is compacted, as of one commit.

    Attributes:
        lake: the lake's id; a manifest of another lake is never read.
        number: 1, 2, 3, ...; 0 stands for "there is none yet".
        nonce: tells this commit from any other under the same number.
        parent: the nonce of the manifest before, None for the first.
        commit_us: when it was made, microseconds since 1970; always later than its parent.
        tables: for each table (`metrics`, `events`, `facts`, `summaries`, `writers`) its files.
        consumed: for each writer the sequence number of the last row that the tables hold.
        consumed_cold: keys of files of table `writers`, with the watermarks of writers that
            are not in `consumed`.
        cold_hi: the greatest such writer; a writer above it is not in those files.
        purged: runs that must never be shown again.
        copied: for each run that came from another lake, its writers' last rows.
    """

    lake: str
    number: int = 0
    nonce: str = ""
    parent: str | None = None
    commit_us: int = 0
    tables: Mapping[str, tuple[TableFile, ...]] = field(default_factory=dict)
    consumed: Mapping[str, int] = field(default_factory=dict)
    consumed_cold: tuple[str, ...] = ()
    cold_hi: str = ""
    purged: frozenset[str] = frozenset()
    copied: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def may_be_cold(self, writer: str) -> bool:
        """Tell whether the watermark of a writer stands in a cold file, if it has one."""
        return writer not in self.consumed and bool(self.consumed_cold) and writer <= self.cold_hi

    def files(self, table: str, experiment_id: str | None = None) -> tuple[TableFile, ...]:
        """Return the files of one table, of one experiment or of all."""
        return tuple(
            file
            for file in self.tables.get(table, ())
            if experiment_id is None or file.experiment_id == experiment_id
        )

    def paths(self) -> frozenset[str]:
        """Return the keys of all table files."""
        return frozenset(file.path for files in self.tables.values() for file in files)


def encode(manifest: Manifest) -> bytes:
    """Return a manifest as the JSON text that `decode` reads."""
    fields = {
        "format": schema.FORMAT_VERSION,
        "lake": manifest.lake,
        "n": manifest.number,
        "nonce": manifest.nonce,
        "parent": manifest.parent,
        "commit_ts": manifest.commit_us,
        "tables": {
            table: [
                {
                    "path": file.path,
                    "size": file.size_bytes,
                    "rows": file.rows,
                    "experiment": file.experiment_id,
                    "min_run": file.min_run,
                    "max_run": file.max_run,
                }
                for file in files
            ]
            for table, files in manifest.tables.items()
        },
        "consumed": dict(manifest.consumed),
        "consumed_cold": list(manifest.consumed_cold),
        "cold_hi": manifest.cold_hi,
        "purged": sorted(manifest.purged),
        "copied": {run_id: dict(lasts) for run_id, lasts in manifest.copied.items()},
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def decode(data: bytes, *, number: int, key: str, lake: str | None, url: str) -> Manifest:
    """Read a manifest.

    Args:
        data: the file.
        number: the number in its name.
        key: its key, for messages.
        lake: the id of the lake that it was found in; None where the manifest is to tell it.
        url: the lake's URL, for messages.

    Returns:
        The manifest; it is whole, and of this lake.

    Raises:
        FormatError: it is damaged, or it belongs to another lake.
        NewerFormatError: a newer runlake wrote it.
    """
    try:
        fields = json.loads(data)
        check_format(fields["format"], key=key, url=url)
        manifest = _read(fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{url}/{key} is no readable manifest: {error!r}"
        raise FormatError(message, url=url) from error
    if lake is not None and manifest.lake != lake:
        message = (
            f"ALARM: {url}/{key} belongs to lake {manifest.lake}, but this lake is {lake}. "
            "Somebody has copied the files of one lake over those of another; nothing is read "
            "until they are apart again: `runlake verify` names the foreign ones, and with "
            "--repair moves them to quarantine/."
        )
        raise FormatError(message, url=url)
    if manifest.number != number:
        message = f"{url}/{key} says it is manifest {manifest.number}, its name says {number}."
        raise FormatError(message, url=url)
    return manifest


def terms(purged: Iterable[str], copied: Mapping[str, Mapping[str, int]]) -> str:
    """Return a digest of which runs are purged and copied, "" where none is.

    Table files carry it, so that who rebuilds a lost manifest from them knows whether any other
    still tells which runs must not be shown again.

    Args:
        purged: runs that must never be shown again.
        copied: for each run that came from another lake, its writers' last rows.
    """
    said = [sorted(purged), copied]
    if not any(said):
        return ""
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def check_format(number: object, *, key: str, url: str) -> None:
    """Refuse a file whose format is newer than ours, politely.

    Args:
        number: what the file says its format is.
        key: the file, for messages.
        url: the lake, for messages.

    Raises:
        FormatError: the number is none.
        NewerFormatError: it is greater than `schema.FORMAT_VERSION`.
    """
    if not isinstance(number, int) or number < 1:
        message = f"{url}/{key}: format is {number!r}, expected a number from 1 on."
        raise FormatError(message, url=url)
    if number > schema.FORMAT_VERSION:
        message = (
            f"{url}/{key}: format {number} is newer than this runlake reads "
            f"({schema.FORMAT_VERSION}). Upgrade: pip install --upgrade runlake"
        )
        raise NewerFormatError(message, url=url)


def _read(fields: dict[str, Any]) -> Manifest:
    """Build a manifest from its JSON fields; anything missing or of a wrong type raises."""
    return Manifest(
        lake=str(fields["lake"]),
        number=int(fields["n"]),
        nonce=str(fields["nonce"]),
        parent=None if fields["parent"] is None else str(fields["parent"]),
        commit_us=int(fields["commit_ts"]),
        tables={
            str(table): tuple(_read_file(file) for file in files)
            for table, files in fields["tables"].items()
        },
        consumed={str(writer): int(last) for writer, last in fields["consumed"].items()},
        consumed_cold=tuple(str(path) for path in fields["consumed_cold"]),
        cold_hi=str(fields["cold_hi"]),
        purged=frozenset(str(run_id) for run_id in fields["purged"]),
        copied={
            str(run_id): {str(writer): int(last) for writer, last in lasts.items()}
            for run_id, lasts in fields["copied"].items()
        },
    )


def _read_file(fields: dict[str, Any]) -> TableFile:
    return TableFile(
        path=str(fields["path"]),
        size_bytes=int(fields["size"]),
        rows=int(fields["rows"]),
        experiment_id=str(fields["experiment"]),
        min_run=str(fields["min_run"]),
        max_run=str(fields["max_run"]),
    )
