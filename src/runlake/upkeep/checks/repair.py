"""Repair: rebuild a manifest that is lost, and put aside what is broken. It deletes nothing.

What is broken is moved to `quarantine/` below the root, under the key that it had, and every
reader passes it over there. A manifest that is damaged, foreign or gone, or that names a file
which is broken or gone, gets a successor that names files which hold every row (see `rebuild`).
It is put only after the tables that it makes were checked as `verify` checks them. Nobody else
should compact the lake meanwhile. The normative text is `docs/spec/v1.md`, "Rebuild".
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runlake import ids
from runlake.errors import DataLossWarning
from runlake.storage import layout, manifest, manifests
from runlake.storage.manifest import NOTHING_CONSUMED, Manifest
from runlake.storage.snapshot import Stream
from runlake.storage.table_files import TABLES, WRITERS
from runlake.upkeep.checks import log_check
from runlake.upkeep.checks.findings import (
    DAMAGED,
    FOREIGN,
    LOST,
    MISSING,
    PURGED,
    QUARANTINED,
    REBUILT,
    REFUSED,
    Checked,
    Finding,
    Mended,
    Notebook,
    Report,
)
from runlake.upkeep.checks.orphans import QUARANTINE, read_footers
from runlake.upkeep.checks.rebuild import Found, chosen_from
from runlake.upkeep.checks.state_check import ArtifactBook, StateCheck
from runlake.upkeep.checks.survey import survey
from runlake.upkeep.checks.table_check import TableReader
from runlake.upkeep.checks.verify import Check, verify
from runlake.upkeep.commit import kept_hot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.layout import SegmentName
    from runlake.storage.manifest import TableFile
    from runlake.upkeep.checks.rebuild import Choice, Surveyed

_TRIES: Final = 8


def repair(
    fs: Filesystem,
    *,
    artifacts: bool = False,
    progress: Callable[[Checked], None] = lambda _: None,
) -> Report:
    """Check a lake, mend what can be mended, and check it again.

    A `DataLossWarning` names each row that is then in no file.

    Args:
        fs: the lake's storage. Writers may be at work; nobody else should compact or vacuum.
        artifacts: read every artifact too.
        progress: called after each file that is checked.

    Returns:
        What is wrong still, and in `mended` what was done.

    Raises:
        StorageError: the store cannot be read or written.
    """
    check = Check(fs, Notebook(progress=progress))
    report = check.run(artifacts=artifacts)
    mended = _Repair(check).run()
    if any(each.deed in {QUARANTINED, REBUILT} for each in mended):
        report = verify(fs, artifacts=artifacts, progress=progress)
    # Last of all: a program may have made errors of warnings.
    for each in mended:
        if each.deed == LOST:
            warnings.warn(f"{fs.url}/{each.key}: {each.detail}", DataLossWarning, stacklevel=2)
    return replace(report, mended=tuple(mended))


@dataclass(slots=True)
class _Repair:
    """A repair under way."""

    check: Check
    mended: list[Mended] = field(default_factory=list)
    lasts: dict[Stream, int] = field(default_factory=dict)

    @property
    def fs(self) -> Filesystem:
        return self.check.fs

    def run(self) -> list[Mended]:
        check = self.check
        if check.lake is None:
            way = "delete it and " if layout.LAKE_FILE in check.entries else ""
            detail = (
                f"bring the file back from a copy, or {way}log a run: that makes it anew, with "
                "the id in the manifests"
            )
            return [Mended(layout.LAKE_FILE, REFUSED, detail)]
        history = check.history
        if history is not None and history.is_newer:
            detail = "a newer runlake wrote it; repair the lake with that version"
            return [Mended(layout.manifest(history.top), REFUSED, detail)]
        made = self._rebuilt() if self._needs_manifest() else check.base
        if made is not None and made is not check.base and not self._put(made):
            made = None
        self._set_aside(made)
        return self.mended

    def say(self, key: str, deed: str, detail: str) -> None:
        self.mended.append(Mended(key, deed, detail))

    def faults(self, *kinds: str) -> list[Finding]:
        return [each for each in self.check.book.sorted() if each.kind in kinds]

    def _needs_manifest(self) -> bool:
        """Tell whether no manifest is in force that can be read and whose files are there."""
        base = self.check.base
        if base is None:
            return True
        return self._is_succeeded(base) or bool(self._broken_of(base))

    def _is_succeeded(self, base: Manifest) -> bool:
        """Tell whether a manifest that is lost has followed this one."""
        lost = [layout.parse_manifest(each.key) or 0 for each in self.faults(MISSING)]
        return max(lost, default=0) > base.number

    def _broken_of(self, base: Manifest) -> frozenset[str]:
        """Return the files of a manifest that are broken or gone."""
        return base.paths() & {each.key for each in self.faults(DAMAGED, FOREIGN, MISSING)}

    def _rebuilt(self) -> Manifest | None:
        """Return the manifest to be put; None where none can be."""
        history, base = self.check.history, self.check.base
        known = history.read[max(history.read)] if history and history.read else None
        start = known or Manifest(lake=self.check.lake or "")
        broken = {each.key for each in self.faults(DAMAGED, FOREIGN)}
        for _ in range(_TRIES):
            found, problem = self._survey(start, broken)
            if problem is not None:
                self.say(layout.manifest(start.number + 1), REFUSED, problem)
                return None
            made = self._first_sound(start, found, broken)
            if made is not None:
                return made
            fresh = {key for key in found if self.check.book.is_broken(key)} - broken
            if not fresh:
                break
            broken |= fresh
        if base is None or not base.number or self._is_succeeded(base):
            detail = (
                "no choice of the table files that are there holds each row once, so what was "
                "in force cannot be told; bring a manifest or the missing files back from a copy"
            )
            self.say(layout.manifest(start.number + 1), REFUSED, detail)
            return None
        return self._without_broken(base)

    def _survey(self, start: Manifest, broken: set[str]) -> tuple[dict[str, Surveyed], str | None]:
        """Read what is in the table files; and say why nothing can be made of them, if so."""
        entries = [
            entry
            for key, entry in self.check.entries.items()
            if layout.parse_table_file(key) is not None and key not in broken
        ]
        headers, _ = read_footers(self.fs, entries)
        own = {key: each for key, each in headers.items() if each.lake == start.lake}
        terms = manifest.terms(start.purged, start.copied)
        for key, header in own.items():
            if header.n > start.number and header.terms != terms:
                return {}, (
                    f"runs were purged or copied after manifest {start.number}, and only the lost "
                    f"manifest told which ({key} says so); bring it back from a copy"
                )
        return survey(self.fs, entries, own), None

    def _first_sound(
        self, start: Manifest, found: Mapping[str, Surveyed], broken: set[str]
    ) -> Manifest | None:
        """Choose files: those since a manifest and its own, else any that are there."""
        ways = [start.paths()] if start.number else []
        if not start.copied:  # rows that came from elsewhere are in no older file
            ways.append(frozenset())
        for proved in ways:
            if not proved <= found.keys():
                continue
            usable = {
                key: each
                for key, each in found.items()
                if not proved or key in proved or each.name.number > start.number
            }
            choice = chosen_from(self._found(start, usable, proved, broken))
            if choice is None:
                continue
            made = self._manifest(start, found, choice)
            if self._is_sound(made):
                self.lasts = dict(choice.lasts)
                return made
        return None

    def _found(
        self,
        start: Manifest,
        usable: Mapping[str, Surveyed],
        proved: frozenset[str],
        broken: set[str],
    ) -> Found:
        whole = [
            segment.name
            for segment in log_check.listed(self.check.entries.values())
            if not self.check.book.is_broken(segment.name.key)
        ]
        reached: dict[Stream, int] = {}
        homes: dict[str, str] = {name.writer: name.experiment_id for name in whole}
        for each in usable.values():
            ends = {writer: last for writer, (_, last) in each.header.inputs.items()}
            for writer, last in {**ends, **each.lasts}.items():
                homes[writer] = each.name.experiment_id
                stream = Stream(each.name.experiment_id, writer)
                reached[stream] = max(last, reached.get(stream, NOTHING_CONSUMED))
        for writer, last in start.consumed.items():
            if writer in homes:
                stream = Stream(homes[writer], writer)
                reached[stream] = max(last, reached.get(stream, NOTHING_CONSUMED))
        gone = broken | (start.paths() - usable.keys())
        names = [layout.parse_table_file(key) for key in gone]
        return Found(
            files=usable,
            proved=proved,
            reached=reached,
            segments=log_check.streams(whole),
            doubtful=frozenset(name.number for name in names if name is not None),
            may_lack=bool(start.purged),
            copied=frozenset(writer for lasts in start.copied.values() for writer in lasts),
        )

    def _manifest(self, start: Manifest, found: Mapping[str, Surveyed], choice: Choice) -> Manifest:
        """Return the manifest that names chosen files."""
        tables: dict[str, list[TableFile]] = {table: [] for table in TABLES}
        for key in sorted(choice.keys):
            tables[found[key].name.table].append(found[key].file)
        foreign = {writer for lasts in start.copied.values() for writer in lasts}
        lasts = {
            stream.writer: last
            for stream, last in choice.lasts.items()
            if stream.writer not in foreign
        }
        consumed, cold_hi = kept_hot(lasts, (), "")
        names = map(layout.parse_table_file, self.check.entries)
        top = max((name.number for name in names if name is not None), default=0)
        number = max(top, self.check.history.top if self.check.history else 0, start.number) + 1
        return Manifest(
            lake=start.lake,
            number=number,
            nonce=ids.new_nonce(),
            parent=start.nonce if number == start.number + 1 and start.number else None,
            commit_us=max(self.fs.now_us(), start.commit_us + 1),
            tables={table: tuple(files) for table, files in tables.items() if files},
            consumed=consumed,
            consumed_cold=tuple(file.path for file in tables[WRITERS.name]) if cold_hi else (),
            cold_hi=cold_hi,
            purged=start.purged,
            copied=start.copied,
        )

    def _is_sound(self, made: Manifest) -> bool:
        """Check the tables of a manifest that is not put yet; note what files are broken."""
        book = Notebook()
        experiments = {file.experiment_id for files in made.tables.values() for file in files}
        for experiment_id in sorted(experiments):
            with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
                reader = TableReader(self.fs, made, book, Path(folder))
                StateCheck(reader, experiment_id, book, ArtifactBook()).check()
            for file in reader.gone:
                book.say(file.path, MISSING, "it is not there any more")
        named = made.paths()
        for finding in book.findings:
            if finding.key in named and finding.kind in {DAMAGED, FOREIGN}:
                self.check.book.say(finding.key, finding.kind, finding.detail)
        return not any(each.is_fault and each.kind != PURGED for each in book.findings)

    def _without_broken(self, base: Manifest) -> Manifest | None:
        """Return a manifest without the files that cannot be read, whose rows are lost."""
        broken = self._broken_of(base)
        names = [name for key in broken if (name := layout.parse_table_file(key)) is not None]
        if base.cold_hi and any(name.table == WRITERS.name for name in names):
            detail = (
                "a file with watermarks is broken, and without it rows would be counted twice; "
                "bring it back from a copy"
            )
            self.say(min(broken), REFUSED, detail)
            return None
        for file in sorted(
            (file for of in base.tables.values() for file in of if file.path in broken),
            key=lambda file: file.path,
        ):
            self.say(file.path, LOST, _lost(file))
        kept = {
            table: tuple(file for file in files if file.path not in broken)
            for table, files in base.tables.items()
        }
        return replace(
            base,
            number=base.number + 1,
            nonce=ids.new_nonce(),
            parent=base.nonce,
            commit_us=max(self.fs.now_us(), base.commit_us + 1),
            tables={table: files for table, files in kept.items() if files},
            consumed_cold=tuple(path for path in base.consumed_cold if path not in broken),
        )

    def _put(self, made: Manifest) -> bool:
        """Put the manifest; tell whether it is in force."""
        key = layout.manifest(made.number)
        is_ours = self.fs.put_absent(key, manifest.encode(made))
        top = max((each.number for each in manifests.listed(self.fs)), default=0)
        if not is_ours or top != made.number:
            self.say(key, REFUSED, "somebody else has compacted meanwhile; repair again")
            return False
        files = sum(len(of) for of in made.tables.values())
        detail = f"it names {files} table files; {len(made.consumed)} writers are compacted"
        self.say(key, REBUILT, detail)
        return True

    def _set_aside(self, base: Manifest | None) -> None:
        """Move what is broken out of the way, unless a manifest in force needs it."""
        needed = frozenset[str]() if base is None else base.paths()
        broken = [each for each in self.faults(DAMAGED, FOREIGN) if each.key not in needed]
        whole = [
            segment.name
            for segment in log_check.listed(self.check.entries.values())
            if not self.check.book.is_broken(segment.name.key)
        ]
        # Manifests last: while another lake's is there no vacuum takes that lake's tables.
        broken.sort(key=lambda each: layout.parse_manifest(each.key) is not None)
        for finding in {each.key: each for each in broken}.values():
            key = finding.key
            name = layout.parse_segment(key)
            is_manifest = layout.parse_manifest(key) is not None
            # Without a manifest that can be read, the one that cannot stays as an alarm.
            is_table = layout.parse_table_file(key) is not None
            if name is None and not ((is_manifest or is_table) and base is not None):
                continue
            if key not in self.check.entries or not self._move(key):
                continue
            self.say(key, QUARANTINED, finding.detail)
            if name is not None:
                self._say_lost(name, whole, base)

    def _move(self, key: str) -> bool:
        target = f"{QUARANTINE}{key}"
        if any(entry.key == target for entry in self.fs.list(target)):
            target = f"{target}.{ids.new_nonce()}"
        try:
            self.fs.copy(key, target)
        except FileNotFoundError:  # its writer has replaced it
            return False
        self.fs.delete_many([key])
        return True

    def _say_lost(
        self, name: SegmentName, whole: Iterable[SegmentName], base: Manifest | None
    ) -> None:
        """Say which rows of a segment are in no other file."""
        stream = Stream(name.experiment_id, name.writer)
        known = self.check.watermarks.get(name.experiment_id, {}).get(name.writer, NOTHING_CONSUMED)
        mark = self.lasts.get(stream, known)
        if base is not None:
            mark = base.consumed.get(name.writer, mark)
        following = max(name.first, mark + 1)
        lost = []
        others = [each for each in whole if _of(each) == _of(name)]
        for each in sorted(others, key=lambda each: each.first):
            if each.first > following:
                lost.append((following, min(each.first - 1, name.last)))
            following = max(following, each.last + 1)
            if following > name.last:
                break
        if following <= name.last:
            lost.append((following, name.last))
        for first, last in lost:
            if first <= last:
                detail = (
                    f"rows {first} to {last} of writer {name.writer} are in no other file; "
                    "`runlake recover` on its host brings them again if its journal is there"
                )
                self.say(name.key, LOST, detail)


def _lost(file: TableFile) -> str:
    """Tell whose rows are lost with a compacted file."""
    of = f"{file.min_run} to {file.max_run}"
    name = layout.parse_table_file(file.path)
    if name is not None and name.table == WRITERS.name:
        return f"its {file.rows} rows about writers {of} are lost; no row of a run is"
    return f"its {file.rows} rows{f', of runs {of},' if file.max_run else ''} are lost"


def _of(name: SegmentName) -> tuple[str, str]:
    return name.experiment_id, name.writer
