"""Check a lake against the specification, file by file. It reads everything and mends nothing.

Every object is listed and every segment read whole: name, footer, row count, page checksums
and digest. The normative text is `docs/spec/v1.md`.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runlake.errors import FormatError, NewerFormatError
from runlake.storage import layout, manifest, names, segments
from runlake.storage.filesystem import Range
from runlake.storage.manifest import NOTHING_CONSUMED, Manifest
from runlake.storage.snapshot import Stream, choose

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runlake.storage.filesystem import Entry, Filesystem
    from runlake.storage.layout import SegmentName

# What a finding is called; programs may compare these.
DAMAGED: Final = "damaged"
NEWER: Final = "newer"
HOLE: Final = "hole"
MISSING: Final = "missing"
UNKNOWN: Final = "unknown"
SUPERSEDED: Final = "superseded"
CONSUMED: Final = "consumed"
_NOTES: Final = frozenset({SUPERSEDED, CONSUMED, NEWER})

_BATCH_BYTES: Final = 64 << 20
_FOREIGN: Final = ("artifacts/", "names/probes/")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found about one file.

    Attributes:
        key: the file, below the lake's root.
        kind: `damaged`, `hole`, `missing` and `unknown` are faults; `newer` (another version
            must check it), `superseded` and `consumed` (vacuum may take it) are none.
        detail: a sentence for people.
    """

    key: str
    kind: str
    detail: str

    @property
    def is_fault(self) -> bool:
        """Whether something is wrong with the lake."""
        return self.kind not in _NOTES


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found.

    Attributes:
        lake: the lake's id, None if its file cannot be read.
        object_count: objects listed, artifacts among them.
        segment_count: segments read whole.
        row_count: rows in them, superseded ones among them.
        size_bytes: of all objects listed.
        findings: by key.
    """

    lake: str | None
    object_count: int
    segment_count: int
    row_count: int
    size_bytes: int
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.is_fault for finding in self.findings)


@dataclass(slots=True)
class _Check:
    """A check under way."""

    fs: Filesystem
    lake: str | None = None
    newest: Manifest | None = None
    row_count: int = 0
    findings: list[Finding] = field(default_factory=list)

    def say(self, key: str, kind: str, detail: str) -> None:
        self.findings.append(Finding(key, kind, detail))


def verify(fs: Filesystem) -> Report:
    """Check every file of a lake.

    Args:
        fs: the lake's storage. Writers may be at work: what they replace while it is checked
            is not reported.

    Returns:
        What was found; nothing is changed.

    Raises:
        StorageError: the store cannot be read.
    """
    check = _Check(fs)
    # Listed before the manifests are read, as for a snapshot.
    entries = fs.list("")
    by_key = {entry.key: entry for entry in entries}
    _check_lake_file(check, by_key)
    found = {entry.key: name for entry in entries if (name := layout.parse_segment(entry.key))}
    _check_manifests(check, by_key)
    _check_claims(check, by_key)
    _check_streams(check, found.values())
    _check_segments(check, by_key, found)
    _check_unknown(check, by_key, found)
    return Report(
        lake=check.lake,
        object_count=len(entries),
        segment_count=len(found),
        row_count=check.row_count,
        size_bytes=sum(entry.size_bytes for entry in entries),
        findings=tuple(sorted(check.findings, key=lambda finding: (finding.key, finding.kind))),
    )


def _check_lake_file(check: _Check, entries: Mapping[str, Entry]) -> None:
    key = layout.LAKE_FILE
    if key not in entries:
        check.say(key, MISSING, "every lake has this file; without it nothing is read")
        return
    try:
        fields = json.loads(check.fs.get(key))
        manifest.check_format(fields["format"], key=key, url=check.fs.url)
        check.lake = str(fields["lake"])
    except NewerFormatError as error:
        check.say(key, NEWER, str(error))
    except (FormatError, ValueError, KeyError, TypeError) as error:
        check.say(key, DAMAGED, f"no readable lake file: {error!r}")


def _check_manifests(check: _Check, entries: Mapping[str, Entry]) -> None:
    """Check that manifests are ours and whole, and that the newest one's files are there."""
    numbers = sorted(number for key in entries if (number := layout.parse_manifest(key)))
    for before, after in itertools.pairwise(numbers):
        if after != before + 1:
            check.say(layout.manifest(before + 1), MISSING, f"the next one there is {after}")
    for number in numbers:
        key = layout.manifest(number)
        try:
            data = check.fs.get(key)
        except FileNotFoundError:  # vacuumed since it was listed
            continue
        try:
            lake = check.lake or str(json.loads(data)["lake"])
            check.newest = manifest.decode(
                data, number=number, key=key, lake=lake, url=check.fs.url
            )
        except NewerFormatError as error:
            check.say(key, NEWER, str(error))
        except (FormatError, ValueError, KeyError, TypeError) as error:
            check.say(key, DAMAGED, str(error))
    if check.newest is not None:
        _check_tables(check, check.newest, entries)


def _check_tables(check: _Check, newest: Manifest, entries: Mapping[str, Entry]) -> None:
    for files in newest.tables.values():
        for file in files:
            entry = entries.get(file.path)
            if entry is None:
                check.say(file.path, MISSING, f"manifest {newest.number} names it")
            elif entry.size_bytes != file.size_bytes:
                said = f"{entry.size_bytes} bytes, the manifest says {file.size_bytes}"
                check.say(file.path, DAMAGED, said)


def _check_claims(check: _Check, entries: Mapping[str, Entry]) -> None:
    for key in entries:
        number = layout.parse_claim(key)
        if number is None:
            continue
        try:
            names.decode(check.fs.get(key), number=number, key=key, url=check.fs.url)
        except FileNotFoundError:
            check.say(key, MISSING, "a claim was deleted while the lake was checked")
        except NewerFormatError as error:
            check.say(key, NEWER, str(error))
        except FormatError as error:
            check.say(key, DAMAGED, str(error))


def _check_streams(check: _Check, found: Iterable[SegmentName]) -> None:
    """Check from names alone that no row is missing, and say what is superfluous."""
    streams: dict[Stream, list[SegmentName]] = {}
    for name in found:
        streams.setdefault(Stream(name.experiment_id, name.writer), []).append(name)
    for stream, of_stream in streams.items():
        consumed = {} if check.newest is None else check.newest.consumed
        watermark = consumed.get(stream.writer, NOTHING_CONSUMED)
        chosen, hole = choose(of_stream, watermark)
        if hole is not None:
            prefix = f"{layout.partition(stream.experiment_id)}{stream.writer}"
            detail = f"row {hole} is in no segment, though later rows are; readers stop before it"
            check.say(prefix, HOLE, detail)
        live = {name for name, _ in chosen}
        for name in of_stream:
            if name.last <= watermark:
                check.say(name.key, CONSUMED, f"its rows up to {watermark} are compacted")
            elif name not in live and any(other.covers(name) for other in live):
                check.say(name.key, SUPERSEDED, "another segment holds the same rows")


def _check_segments(
    check: _Check, entries: Mapping[str, Entry], found: Mapping[str, SegmentName]
) -> None:
    """Read every segment whole."""
    for batch in _batches([entries[key] for key in found]):
        for entry, data in _read(check.fs, batch):
            if data is not None:
                _check_segment(check, found[entry.key], data)


def _check_segment(check: _Check, name: SegmentName, data: bytes) -> None:
    key = name.key
    try:
        rows, footer = segments.decode(data, key=key)
    except NewerFormatError as error:
        check.say(key, NEWER, str(error))
        return
    except (FormatError, OSError, ValueError) as error:
        check.say(key, DAMAGED, str(error))
        return
    check.row_count += rows.num_rows
    header = footer.header
    said = (header.experiment_id, header.writer, header.first, header.last, rows.num_rows)
    named = (name.experiment_id, name.writer, name.first, name.last, name.count)
    if said != named:
        check.say(key, DAMAGED, f"the footer says {said}, the name says {named}")
    elif segments.digest(rows) != header.digest:
        check.say(key, DAMAGED, "the rows are not those that the footer's digest was made of")


def _check_unknown(
    check: _Check, entries: Mapping[str, Entry], found: Mapping[str, SegmentName]
) -> None:
    """Report every object that no version of the format has a place for."""
    for key in entries:
        is_known = (
            key in found
            or key == layout.LAKE_FILE
            or key.startswith((*_FOREIGN, layout.TABLES))
            or layout.parse_manifest(key) is not None
            or layout.parse_claim(key) is not None
        )
        if not is_known:
            check.say(key, UNKNOWN, "no file of a lake has such a name; readers pass it over")


def _read(fs: Filesystem, batch: list[Entry]) -> Iterator[tuple[Entry, bytes | None]]:
    """Read objects whole, at once; None for those that are gone."""
    try:
        ranges = [Range(entry.key, 0, entry.size_bytes) for entry in batch]
        yield from zip(batch, fs.get_ranges(ranges), strict=True)
    except FileNotFoundError:  # replaced since it was listed: one by one, to find which
        for entry in batch:
            try:
                yield entry, fs.get(entry.key)
            except FileNotFoundError:
                yield entry, None


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Cut into batches that fit into memory."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if batch and size + entry.size_bytes > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.size_bytes
    if batch:
        yield batch
