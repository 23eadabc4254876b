"""Bring the runs of a source into a lake: whole, once, and checked.

Small runs go in groups: one segment holds all of a group, so that it is there or not. A large run
has a writer of its own and several segments. Which runs share a group follows from the source, and
the names of segments from what they hold; so whoever was interrupted, or works beside somebody who
imports the same, puts the same again, and what is there already stays. Of a run that is there, but
has grown since or was logged by somebody else, only those points come that the lake lacks. The
last that is said of a run is an event of kind `import`; a run with one came whole.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from runlake import clock, ids, schema
from runlake._lazy import lazy
from runlake._version import __version__
from runlake.errors import ConflictError, InvalidInputError
from runlake.importers import check, facts
from runlake.importers.files import Brought, bring_files
from runlake.importers.homes import Homes
from runlake.importers.source import SourceError
from runlake.importers.spool import Spool
from runlake.importers.tally import Remainder, Tally, joined, tallies
from runlake.lake_parts import storage_of
from runlake.questions import ask
from runlake.redaction import redactor
from runlake.writing import bulk
from runlake.writing.bulk import BulkRow
from runlake.writing.events import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from runlake.importers.facts import Facts
    from runlake.importers.report import Report
    from runlake.importers.source import Source, SourceExperiment, SourceRun
    from runlake.lake import Lake
    from runlake.query import imported
    from runlake.query.engine import Query
else:
    imported = lazy("runlake.query.imported")

GROUP_RUNS: Final = 250
"""So many small runs at most go in one segment."""
GROUP_ROWS: Final = 1 << 19
"""A group goes when it has so many points; a run that has more has segments of its own."""
GROUP_BYTES: Final = 1 << 28
"""A group goes when its files have so many bytes; they are in the store by then."""
SEGMENT_ROWS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is.

    Attributes:
        runs: runs that were looked at.
        all_runs: how many there are; None: not known.
        points: points that came.
        artifact_bytes: bytes of files that came.
    """

    runs: int
    all_runs: int | None
    points: int
    artifact_bytes: int


@dataclass(slots=True, kw_only=True)
class Prepared:
    """One run, read.

    Attributes:
        run: as the source gave it.
        run_id: in the lake.
        experiment_id: in the lake.
        facts: what it says.
        spool: its points.
        files: its artifacts.
        times: when it began and ended.
        parent_id: of its parent in the lake.
        fingerprint: of all of these.
    """

    run: SourceRun
    run_id: str
    experiment_id: str
    facts: Facts
    spool: Spool
    files: Brought
    times: tuple[int, int | None]
    parent_id: str | None
    fingerprint: str


@final
class Import:
    """One import at work."""

    def __init__(
        self,
        source: Source,
        lake: Lake,
        report: Report,
        *,
        artifacts: bool,
        progress: Callable[[Progress], None],
    ) -> None:
        """Read what the lake has; nothing is written yet.

        Args:
            source: where runs come from.
            lake: where they go.
            report: takes what is done.
            artifacts: whether files come too.
            progress: called after each run.
        """
        self._source, self._lake, self._report = source, lake, report
        self._artifacts, self._progress = artifacts, progress
        lake._check_writable()  # noqa: SLF001 - of the same house
        storage_of(lake).ensure_lake()
        self._is_secret = redactor(lake.settings.redact).is_secret
        self._known: dict[str, tuple[str, dict[str, Any]]] = {}
        self._there: set[str] = set()
        self._look()
        self._homes = Homes(lake, report)
        self._seen: dict[str, str] = {}
        self._group: list[Prepared] = []

    def run(self) -> None:
        """Bring everything."""
        bins: dict[str, SourceExperiment] = {}
        total = self._source.count()
        with tempfile.TemporaryDirectory(prefix="runlake-import-") as folder:
            for number, run in enumerate(self._source.runs()):
                self._report.add(runs=1)
                if run.experiment.is_deleted:
                    bins[run.experiment.name] = run.experiment
                aside = Path(folder) / str(number)
                self._one(run, aside)
                self._tell(number + 1, total)
            self._flush()
        for experiment in self._source.experiments():
            self._homes.of(experiment)
            if experiment.is_deleted:
                bins[experiment.name] = experiment
        for experiment in bins.values():
            self._homes.delete(experiment)
        self._report.lose("", self._source.notes())

    def _tell(self, runs: int, total: int | None) -> None:
        report = self._report
        self._progress(Progress(runs, total, report.points, report.artifact_bytes))

    def _look(self) -> None:
        """Find out which runs the lake has, and which came from where."""
        self._lake.refresh()
        self._there = ask(self._lake, imported.run_ids)
        self._known = {
            run_id: (kind, json.loads(about))
            for run_id, (kind, about) in ask(self._lake, imported.imports).items()
        }

    # One run.

    def _one(self, run: SourceRun, aside: Path) -> None:
        try:
            run_id = facts.run_id_of(self._source.kind, run)
            self._refuse_twin(run, run_id)
            if self._is_there(run, run_id):
                self._report.add(already=1, unread=1)
                self._homes.of(run.experiment)
                return
            aside.mkdir()
            found = self._read(run if run.read is None else run.read(), run_id, aside)
        except (SourceError, InvalidInputError, OSError) as error:
            # The store's own errors are no InvalidInputError, but an OSError of their kind.
            if not isinstance(error, InvalidInputError) and hasattr(error, "kind"):
                raise
            self._report.add(failed=1)
            self._report.fail(f"run {run.source_id} did not come: {error}")
            return
        if self._is_same(found):
            self._pass_over(found)
        elif run_id in self._there:
            self._flush()
            self._bring_more(found)
        elif found.spool.row_count > GROUP_ROWS:
            self._flush()
            self._bring_alone(found, found.facts.rows, lambda: found.spool.pieces(SEGMENT_ROWS))
        else:
            self._take(found)

    def _refuse_twin(self, run: SourceRun, run_id: str) -> None:
        if run_id in self._seen:
            message = f"the source has another run of the id {run_id}: {self._seen[run_id]!r}."
            raise SourceError(message)
        self._seen[run_id] = run.source_id

    def _is_there(self, run: SourceRun, run_id: str) -> bool:
        kind, about = self._known.get(run_id, ("", {}))
        return (
            bool(run.version)
            and kind == self._source.kind
            and about.get("version") == run.version
            and (not self._artifacts or bool(about.get("artifacts")))
        )

    def _is_same(self, found: Prepared) -> bool:
        _, about = self._known.get(found.run_id, ("", {}))
        return bool(about.get("fingerprint") == found.fingerprint)

    def _read(self, run: SourceRun, run_id: str, aside: Path) -> Prepared:
        """Read all of a run; its files are in the lake then."""
        experiment_id = self._homes.of(run.experiment)
        spool = Spool(run.points(), aside)
        times = facts.moments(run, spool.first_us, spool.last_us)
        parent = run.parent_id
        parent_id = None if parent is None else facts.ids_of(self._source.kind, parent)
        said = facts.facts_of(run, run_id, parent_id, times=times, is_secret=self._is_secret)
        files = Brought({}, [], 0, [])
        if self._artifacts:
            known = self._files_there(run_id)
            place = (experiment_id, run_id)
            files = bring_files(run.artifacts(), self._lake.artifacts, place, known)
        fingerprint = facts.digest(
            [
                [row[1:] for row in said.rows],
                sorted((key, tally.count, tally.checksum) for key, tally in spool.tallies.items()),
                sorted(files.digests.items()),
                experiment_id,
            ]
        )
        return Prepared(
            run=run,
            run_id=run_id,
            experiment_id=experiment_id,
            facts=said,
            spool=spool,
            files=files,
            times=times,
            parent_id=parent_id,
            fingerprint=fingerprint,
        )

    def _files_there(self, run_id: str) -> dict[str, tuple[int, str]]:
        if run_id not in self._there:
            return {}
        found = ask(self._lake, lambda query: imported.artifacts(query, [run_id]))
        return {path: about for (_, path), about in found.items()}

    # Writing.

    def _take(self, found: Prepared) -> None:
        """Add a small run to the group; let the group go if it is full.

        What is full follows from the source alone: with a watch, two who import the same at once
        would cut their groups apart, and put runs twice.
        """
        if self._group and self._group[0].experiment_id != found.experiment_id:
            self._flush()
        self._group.append(found)
        rows = sum(each.spool.row_count for each in self._group)
        sizes = (each.files.digests.values() for each in self._group)
        is_heavy = sum(size for files in sizes for size, _ in files) >= GROUP_BYTES
        if len(self._group) >= GROUP_RUNS or rows >= GROUP_ROWS or is_heavy:
            self._flush()

    def _flush(self) -> None:
        group, self._group = self._group, []
        if group:
            group = self._still_lacking(group)
        if not group:
            return
        rows = [row for each in group for row in (*each.facts.rows, *self._closing(each))]
        points = [(each.run_id, each.spool.all()) for each in group]
        start = min(each.times[0] for each in group)
        said = to_json([(each.run_id, each.fingerprint) for each in group])
        try:
            self._writer(group[0], start, said).put(rows, points)
        except ConflictError:
            self._settle(group)
            return
        for each in group:
            self._came(each, each.spool.row_count, is_new=True)
        self._check(group)

    def _still_lacking(self, group: list[Prepared]) -> list[Prepared]:
        """Return the runs that nobody else has brought since they were looked for."""
        self._lake.refresh()
        there = ask(self._lake, imported.run_ids)
        met = [each for each in group if each.run_id in there]
        if met:
            self._look()
        for each in met:
            if self._is_same(each):
                self._pass_over(each)
            else:
                self._bring_more(each)
        return [each for each in group if each.run_id not in there]

    def _settle(self, group: Sequence[Prepared]) -> None:
        """See after a clash that all of it is there: somebody else has put the same just before.

        Raises:
            ConflictError: it is not.
        """
        self._look()
        for each in group:
            if not self._is_same(each):
                message = f"somebody else imports run {each.run.source_id} at once. Try again."
                raise ConflictError(message, url=self._lake.url)
            self._pass_over(each)

    def _pass_over(self, found: Prepared) -> None:
        self._report.add(already=1)
        found.spool.drop()

    def _bring_alone(
        self,
        found: Prepared,
        rows: Sequence[BulkRow],
        pieces: Callable[[], Iterator[pa.Table]],
        *,
        last: Sequence[BulkRow] | None = None,
    ) -> None:
        """Bring one run under a writer of its own.

        Args:
            found: the run.
            rows: what it says first, the same each time; else a segment that was put before would
                be another's.
            pieces: its points.
            last: of a run that came before, what it says last, now.
        """
        writer = self._writer(found, found.times[0], self._content(found))
        count = 0
        ahead: pa.Table | None = None
        first: Sequence[BulkRow] = rows
        for piece in pieces():
            if ahead is not None:
                writer.put(first, [(found.run_id, ahead)], is_last=False)
                first = ()
            ahead = piece
            count += piece.num_rows
        closing = [*first, *(last or ()), *self._closing(found)]
        try:
            writer.put(closing, [] if ahead is None else [(found.run_id, ahead)])
        except ConflictError:
            self._settle([found])
            return
        self._came(found, count, is_new=last is None)
        self._check([found], said=last)

    def _bring_more(self, found: Prepared) -> None:
        """Bring what the lake lacks of a run of which it has something."""
        self._lake.refresh()
        writer_id = self._writer_id(found.times[0], self._content(found))
        is_own = found.run_id in self._known

        def others(query: Query) -> Iterator[pa.Table]:
            return imported.points(query, [found.run_id], but=writer_id)

        there = ask(self._lake, lambda query: joined(map(tallies, others(query))))
        changed = {
            key
            for key, tally in found.spool.tallies.items()
            if not tally.is_same(there.get(key, Tally()))
        }
        both = changed & there.keys()
        left = ask(
            self._lake, lambda query: Remainder(check.only(each, both) for each in others(query))
        )

        def pieces() -> Iterator[pa.Table]:
            for piece in found.spool.pieces(SEGMENT_ROWS):
                rest = left.of(check.only(piece, changed))
                if rest.num_rows:
                    yield rest

        if is_own:
            self._bring_alone(
                found,
                [],
                pieces,
                last=check.changes(self._lake, found, self._known[found.run_id][1]),
            )
        else:
            self._bring_alone(found, found.facts.rows, pieces)

    def _closing(self, found: Prepared) -> list[BulkRow]:
        """Return what is said of a run last: its files, and that it came whole."""
        is_again = found.run_id in self._known
        moment = found.times[0] if found.times[1] is None else found.times[1]
        clock_us = clock.now_us() if is_again else max(moment, found.times[0])
        about = {
            "source": self._source.name,
            "source_id": found.run.source_id,
            "version": found.run.version,
            "fingerprint": found.fingerprint,
            "artifacts": self._artifacts,
            "status": [found.run.status, found.times[1]],
            "by": __version__,
        }
        rows = [BulkRow(*row, clock_us) for row in found.files.rows]
        count = float(found.spool.row_count)
        kind = self._source.kind
        return [
            *rows,
            BulkRow(found.run_id, schema.IMPORT, kind, count, to_json(about), clock_us),
        ]

    def _writer(self, found: Prepared, start_us: int, content: str) -> bulk.BulkWriter:
        return bulk.BulkWriter(
            storage_of(self._lake),
            self._writer_id(start_us, content),
            experiment_id=found.experiment_id,
            experiment_name=found.run.experiment.name,
        )

    def _writer_id(self, start_us: int, content: str) -> str:
        return ids.derived_writer_id(start_us, content)

    def _content(self, found: Prepared) -> str:
        return to_json([(found.run_id, found.fingerprint)])

    def _came(self, found: Prepared, points: int, *, is_new: bool) -> None:
        """Count a run that is in the store now."""
        said, files = found.facts, found.files
        self._report.add(
            brought=int(is_new),
            grown=int(not is_new),
            points=points,
            logged_models=len(found.run.models),
            params=said.params,
            tags=said.tags,
            inputs=said.inputs,
            events=said.events,
            artifacts=len(files.rows),
            artifact_bytes=files.size_bytes,
        )
        notes = [*found.run.notes(), *said.notes, *found.spool.notes, *files.notes]
        self._report.lose(found.run.source_id, notes)

    def _check(self, group: Sequence[Prepared], *, said: Sequence[BulkRow] | None = None) -> None:
        """Read runs back and compare; of one that came before only what was said now."""
        check.check(self._lake, group, self._report, said=said)
        for each in group:
            each.spool.drop()
