"""Check a lake against the specification, file by file. It reads everything and mends nothing.

Every object is listed, and every segment and every file of compacted rows in force is read
whole: name, footer, counts, page checksums, statistics, order and digest. Then what the tables
say of writers and runs is made again of their rows. The normative text is `docs/spec/v1.md`.

Requests: one listing of everything; one GET for each manifest, claim and segment (segments in
parallel, 64 MB at once); one download for each table file in force; 64 KiB of each that no
manifest names; with `artifacts` the ranges of each artifact, 4 MiB each. Memory is bounded by a row
group of each file that overlaps others, and by what is said of one run.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runlake.errors import FormatError, NewerFormatError
from runlake.storage import flow, layout, manifest, manifests
from runlake.storage.manifest import NOTHING_CONSUMED, Manifest
from runlake.storage.snapshot import Stream, choose
from runlake.storage.table_files import TABLES
from runlake.upkeep.checks import log_check
from runlake.upkeep.checks.findings import (
    ARTIFACT,
    COUNT,
    DAMAGED,
    FOREIGN,
    LEFTOVER,
    MISSING,
    NEWER,
    ORPHAN,
    PURGED,
    QUARANTINED,
    UNKNOWN,
    Checked,
    Notebook,
    Report,
)
from runlake.upkeep.checks.history_check import check_claims, read_history
from runlake.upkeep.checks.orphans import QUARANTINE, read_footers
from runlake.upkeep.checks.registry_check import RegistryCheck
from runlake.upkeep.checks.state_check import ArtifactBook, StateCheck
from runlake.upkeep.checks.table_check import TableReader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from runlake.storage.filesystem import Entry, Filesystem
    from runlake.storage.table_files import TableHeader
    from runlake.upkeep.checks.history_check import History
    from runlake.upkeep.checks.log_check import Segment

_THREADS: Final = 4
_TRIES: Final = 5
_RUN_PARTS: Final = 3  # artifacts/<experiment>/<run>


def verify(
    fs: Filesystem,
    *,
    artifacts: bool = False,
    progress: Callable[[Checked], None] = lambda _: None,
) -> Report:
    """Check every file of a lake.

    Args:
        fs: the lake's storage. Writers, compactors and vacuums may be at work: what they
            replace while it is checked is not reported.
        artifacts: ask for every artifact too, and compare its SHA-256; else only the sizes of
            those that are there.
        progress: called after each file.

    Returns:
        What was found; nothing is changed.

    Raises:
        StorageError: the store cannot be read.
    """
    return Check(fs, Notebook(progress=progress)).run(artifacts=artifacts)


@dataclass(slots=True)
class Check:
    """A check under way.

    Attributes:
        fs: the lake's storage.
        book: where findings go.
        lake: the lake's id, None if it is not known.
        entries: all objects, by key.
        history: the manifests.
        base: the manifest in force, number 0 where there is none; None if it cannot be read.
        watermarks: as table `writers` says, by experiment.
        footers: of table files that no manifest in force names.
    """

    fs: Filesystem
    book: Notebook
    lake: str | None = None
    entries: Mapping[str, Entry] = field(default_factory=dict)
    history: History | None = None
    base: Manifest | None = None
    watermarks: dict[str, dict[str, int]] = field(default_factory=dict)
    footers: dict[str, TableHeader] = field(default_factory=dict)
    table_count: int = 0
    table_rows: int = 0
    _artifacts: ArtifactBook = field(default_factory=ArtifactBook)

    def run(self, *, artifacts: bool = False) -> Report:
        """Check everything.

        Args:
            artifacts: read every artifact too.

        Returns:
            What was found.

        Raises:
            StorageError: the store cannot be read.
        """
        # Listed before the manifests are read, as for a snapshot.
        entries = self.fs.list("")
        self.entries = {entry.key: entry for entry in entries}
        self._check_lake_file()
        history = read_history(self.fs, self.entries, self.book, lake=self.lake)
        self.history, self.base = history, history.newest
        if not history.numbers:
            self.base = Manifest(lake=self.lake or "")
        check_claims(self.fs, self.entries, self.book)
        found = log_check.listed(entries)
        self._expect(found)
        if self.base is not None:
            self._check_tables()
        row_count = log_check.check_segments(self.fs, found, self.book, self._artifacts)
        log_check.check_streams(found, self._watermark, self.book)
        self._check_orphans(found)
        self._check_artifacts(is_deep=artifacts)
        purged = frozenset[str]() if self.base is None else self.base.purged
        RegistryCheck(self.fs, self.entries, self.book).check(self.lake, purged, self._artifacts)
        self._check_unknown({segment.entry.key for segment in found})
        return Report(
            lake=self.lake,
            object_count=len(entries),
            segment_count=len(found),
            row_count=row_count,
            size_bytes=sum(entry.size_bytes for entry in entries),
            findings=self.book.sorted(),
            table_count=self.table_count,
            table_rows=self.table_rows,
        )

    def _expect(self, found: list[Segment]) -> None:
        """Say how much there is to read."""
        files = [] if self.base is None else [f for of in self.base.tables.values() for f in of]
        sizes = [each.entry.size_bytes for each in found] + [each.size_bytes for each in files]
        self.book.all_files, self.book.all_bytes = len(sizes), sum(sizes)

    def _check_lake_file(self) -> None:
        key = layout.LAKE_FILE
        if key not in self.entries:
            detail = "every lake has this file; without it nothing is read"
            self.book.say(key, MISSING, detail)
            return
        try:
            fields = json.loads(self.fs.get(key))
            manifest.check_format(fields["format"], key=key, url=self.fs.url)
            self.lake = str(fields["lake"])
        except NewerFormatError as error:
            self.book.say(key, NEWER, str(error))
        except (FormatError, ValueError, KeyError, TypeError, RecursionError) as error:
            self.book.say(key, DAMAGED, f"no readable lake file: {error!r}")

    def _check_tables(self) -> None:
        """Check the tables of each experiment, of far lakes several at once."""
        base = self.base or Manifest(lake="")
        files = [file for of in base.tables.values() for file in of]
        experiments = sorted({file.experiment_id for file in files})
        threads = 1 if self.fs.is_local else _THREADS
        with ThreadPoolExecutor(threads, thread_name_prefix="runlake-verify") as pool:
            readers = list(pool.map(self._check_experiment, experiments))
        self.table_count = sum(len(reader.finished) for reader in readers)
        self.table_rows = sum(reader.rows for reader in readers)
        known = {writer for of in self.watermarks.values() for writer in of}
        unread = any(self.book.is_broken(file.path) for file in files)
        if self.base is not None and not unread:
            for writer in sorted(self.base.consumed.keys() - known):
                detail = f"it has a watermark of writer {writer}, but no table knows that writer"
                self.book.say(layout.manifest(self.base.number), COUNT, detail)

    def _check_experiment(self, experiment_id: str) -> TableReader:
        """Check the tables of one experiment; again, if they are replaced meanwhile."""
        tries = _TRIES
        while True:
            base, own = self.base or Manifest(lake=""), Notebook(on_file=self.book.count)
            with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
                reader = TableReader(self.fs, base, own, Path(folder))
                check = StateCheck(reader, experiment_id, own, self._artifacts)
                check.check()
                for table in base.tables.keys() - TABLES.keys():
                    for file in base.files(table, experiment_id):
                        reader.read_all(file)
            tries -= 1
            if not reader.gone or not tries or not self._has_moved(base):
                break
        for file in reader.gone:
            own.say(file.path, MISSING, f"manifest {base.number} names it; its rows cannot be read")
        for finding in own.findings:
            self.book.say(finding.key, finding.kind, finding.detail)
        self.watermarks[experiment_id] = check.watermarks
        return reader

    def _has_moved(self, base: Manifest) -> bool:
        """Take the newest manifest; tell whether it is another than the one at hand."""
        try:
            newest = manifests.newest(self.fs, lake=base.lake)
        except FormatError:
            return False
        if newest.number <= base.number:
            return False
        self.base = newest
        return True

    def _watermark(self, stream: Stream) -> int | None:
        """Tell how far a stream is compacted; None where that cannot be known."""
        if self.base is None:
            return None
        known = self.watermarks.get(stream.experiment_id, {}).get(stream.writer, NOTHING_CONSUMED)
        return self.base.consumed.get(stream.writer, known)

    def _check_orphans(self, found: list[Segment]) -> None:
        """Look at the table files that the manifest in force does not name."""
        named = frozenset[str]() if self.base is None else self.base.paths()
        others = [
            entry
            for key, entry in self.entries.items()
            if key not in named and layout.parse_table_file(key) is not None
        ]
        self.footers, problems = read_footers(self.fs, others)
        top = 0 if self.history is None else self.history.top
        for entry in others:
            name = layout.parse_table_file(entry.key)
            number = 0 if name is None else name.number
            said = self.footers.get(entry.key)
            if said is not None and self.lake not in {None, said.lake}:
                detail = f"it is of lake {said.lake}: somebody has copied it here"
                self.book.say(entry.key, FOREIGN, detail)
                continue
            if self.base is None:
                detail = "no manifest that can be read tells whether it is in force"
            elif number > max(top, self.base.number):
                detail = f"a compactor may still commit it as manifest {number}, or had died"
            else:
                detail = "no manifest in force names it; vacuum takes it when its grace is over"
            self.book.say(entry.key, ORPHAN, detail + problems.get(entry.key, ""))
        if self.base is not None:
            self._check_lost_manifests(found, self.base)

    def _check_lost_manifests(self, found: list[Segment], base: Manifest) -> None:
        """Find commits whose rows are nowhere else: their manifest has been in force."""
        names = log_check.streams(segment.name for segment in found)
        for key, header in self.footers.items():
            table = layout.parse_table_file(key)
            if table is None or table.number <= base.number or header.lake != base.lake:
                continue
            lost = layout.manifest(table.number)
            mending = "`runlake verify --repair` rebuilds it"
            if table.number > base.number + 1:
                seen = layout.manifest(table.number - 1)
                detail = f"it is lost: who wrote files for the next one has seen it. {mending}"
                self.book.say(seen, MISSING, detail)
            if not set(header.replaces) <= self.entries.keys():
                detail = (
                    f"it is lost: files that vacuum took lie in those written for it. {mending}"
                )
                self.book.say(lost, MISSING, detail)
            for writer, (_, last) in header.inputs.items():
                stream = Stream(table.experiment_id, writer)
                mark = self._watermark(stream)
                mark = NOTHING_CONSUMED if mark is None else mark
                reached, _ = choose(names.get(stream, []), mark)
                reach = reached[-1][0].last if reached else mark
                if reach < last:
                    rows = f"rows {reach + 1} to {last} of writer {writer}"
                    detail = f"it is lost: {rows} are only in files written for it. {mending}"
                    self.book.say(lost, MISSING, detail)

    def _check_artifacts(self, *, is_deep: bool) -> None:
        """Check that artifacts are there and have the size, and the content, that was logged."""
        purged = frozenset[str]() if self.base is None else self.base.purged
        self._check_purged(purged)
        if is_deep:
            self._check_unlogged(purged)
        for key, said in sorted(self._artifacts.files.items()):
            if key.split("/")[2] in purged or said.is_deleted:
                continue
            entry = self.entries.get(key)
            if entry is None and is_deep:
                entry = next((each for each in self.fs.list(key) if each.key == key), None)
            if entry is None:
                if is_deep:
                    self.book.say(key, ARTIFACT, "it was logged as an artifact, and is not there")
            elif entry.size_bytes != said.size_bytes:
                detail = f"it has {entry.size_bytes} bytes, {said.size_bytes} were logged"
                self.book.say(key, ARTIFACT, detail)
            elif is_deep and said.sha256 and self._sha256(entry) != said.sha256:
                self.book.say(key, ARTIFACT, "its content is not what was logged")

    def _check_purged(self, purged: Collection[str]) -> None:
        """Report files of purged runs: the purge was ended, or somebody put them since."""
        counts: Counter[tuple[str, str]] = Counter()
        for _, place in self._files():
            if place[1] in purged:
                counts[place] += 1
        for (experiment_id, run_id), count in counts.items():
            detail = f"{count} of its files; `runlake purge {run_id}` takes them away"
            self.book.say(layout.artifacts(experiment_id, run_id), PURGED, detail)

    def _check_unlogged(self, purged: Collection[str]) -> None:
        """Note artifacts that no event speaks of, or whose latest event says that they are gone."""
        for key, (_, run_id) in self._files():
            said = self._artifacts.files.get(key)
            if run_id in purged or (said is not None and not said.is_deleted):
                continue
            detail = "it was deleted, and its bytes are still there; `runlake artifacts rm` again"
            if said is None:
                detail = "no event speaks of it: its writer is at work, or died before it said so"
            self.book.say(key, ORPHAN, detail)

    def _files(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield the keys of all artifacts, each with its experiment and run."""
        for key in self.entries:
            parts = key.split("/")
            if key.startswith(layout.ARTIFACTS) and len(parts) > _RUN_PARTS:
                yield key, (parts[1], parts[2])

    def _sha256(self, entry: Entry) -> str:
        digest = hashlib.sha256()
        try:
            for piece in flow.pieces(self.fs, entry.key, size=entry.size_bytes):
                digest.update(piece)
        except FileNotFoundError:
            return ""
        return digest.hexdigest()

    def _check_unknown(self, known: set[str]) -> None:
        """Report every object that no version of the format has a place for."""
        named = frozenset[str]() if self.base is None else self.base.paths()
        for key in self.entries:
            if key.startswith(QUARANTINE):
                self.book.say(key, QUARANTINED, "a repair has put it here; readers pass it over")
            elif key.startswith("names/probes/"):
                self.book.say(key, LEFTOVER, "a probe of the store has left it; it may be deleted")
            elif not (
                key in known
                or key in named
                or key == layout.LAKE_FILE
                or key.startswith("artifacts/")
                or _is_table(key)
                or layout.parse_manifest(key) is not None
                or layout.parse_claim(key) is not None
                or layout.parse_model_claim(key) is not None
                or layout.parse_version_claim(key) is not None
            ):
                detail = "no file of a lake has such a name; readers pass it over"
                self.book.say(key, UNKNOWN, detail)


def _is_table(key: str) -> bool:
    """Tell whether a key may be a table's: a file, or what publishes it to other engines."""
    is_log = key.startswith(layout.TABLES) and "/_delta_log/" in key
    return is_log or layout.parse_table_file(key) is not None
