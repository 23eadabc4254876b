"""Runs of W&B: what its client wrote while it was offline, and histories that were exported.

A folder of offline runs is read without the `wandb` package: its record log is a simple format,
and the fields of its messages are stable. Several folders of one run id are one run that was
resumed. For files of exported histories see `wandb_export`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from base64 import b64encode
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runlake import schema
from runlake.errors import NotFoundError
from runlake.importers import histories
from runlake.importers.source import (
    Note,
    Source,
    SourceError,
    SourceEvent,
    SourceExperiment,
    SourceFile,
    SourceInput,
    SourceRun,
)
from runlake.importers.wandb_export import SUFFIXES, ExportedHistories
from runlake.importers.wandb_log import RecordLog
from runlake.importers.wandb_run import RUN, WandbRun, history, output, samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from runlake.importers.histories import Row
    from runlake.importers.wire import Message

_HISTORY_FILE: Final = "wandb/history.jsonl"
_RECORD_FILE: Final = "wandb/run.json"
_OUTPUT_FILE: Final = "output.log"
_NO_PROJECT: Final = "uncategorized"
_PRELUDE_RECORDS: Final = 100
_UNENDED: Final = "has no exit record (killed, or still running): it is KILLED here"
_CUT: Final = "the last record of the file was cut off; it is left out"
_RUNTIME: Final = "the running time of each row (_runtime) is left out: points have their time"
_FROM_SUMMARY: Final = "stood in the summary only: it is one point at the last step"
_SUMMARY_LATER: Final = f"stood in the summary of an unfinished run only: see {_RECORD_FILE!r}"
_SUMMARY_DIFFERS: Final = f"its summary is no last value: it stands in {_RECORD_FILE!r}"
_NO_FILE: Final = "a file of it is not on this machine"
_NO_LIST: Final = "the list of its files is not in the record log"
_LINK: Final = "a reference to a file elsewhere: it stands in " + repr(_RECORD_FILE)
_LOGS: Final = "W&B's own debug logs are left out"


def open_source(source: str, *, experiment: str | None = None) -> Source:
    """Open what W&B left in a folder or a file.

    Args:
        source: a `.wandb` file, the folder of a run, a folder above such as `wandb`; or an
            exported history: a Parquet or CSV file, or a folder of them.
        experiment: the experiment of all runs; None takes each run's project.

    Returns:
        The source; close it.

    Raises:
        NotFoundError: there is nothing.
        SourceError: it holds no run of W&B.
    """
    root = Path(source)
    if not root.exists():
        message = f"there is no {source!r}. Give a folder with runs of W&B, or a file of one."
        raise NotFoundError(message)
    logs = sorted(_found(root, {".wandb"}))
    if logs:
        return OfflineRuns(root, logs, experiment)
    exported = sorted(_found(root, SUFFIXES))
    if exported:
        return ExportedHistories(root, exported, experiment)
    message = (
        f"{source!r} holds no run of W&B: neither 'run-*.wandb', which its client writes while it "
        "is offline, nor an exported history (.parquet, .csv)."
    )
    raise SourceError(message)


def _found(root: Path, suffixes: set[str] | frozenset[str]) -> set[Path]:
    """Return the files of some suffixes at or below a path; links to folders are not followed."""
    if root.is_file():
        return {root} if root.suffix.lower() in suffixes else set()
    return {
        Path(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if Path(name).suffix.lower() in suffixes
    }


class OfflineRuns(Source):
    """The runs below a folder, each from its record logs and the files beside them."""

    kind = "wandb"

    def __init__(self, root: Path, files: Sequence[Path], experiment: str | None) -> None:
        """Look who wrote each log; see `open_source`."""
        self.name = str(root)
        self._experiment = experiment
        self._notes: list[Note] = []
        self._groups: dict[tuple[str, str, str], list[tuple[int, Path]]] = {}
        self._damaged: dict[Path, SourceError] = {}
        for file in files:
            try:
                begun = _prelude(file)
            except SourceError as error:
                self._damaged[file] = error
                continue
            if begun is None:
                self._notes.append(Note("a file holds no run", str(file)))
                continue
            group = begun.entity, begun.project, begun.run_id
            self._groups.setdefault(group, []).append((begun.start_us or 0, file))

    def count(self) -> int:
        """Return how many runs there are."""
        return len(self._groups) + len(self._damaged)

    def runs(self) -> Iterator[SourceRun]:
        """Yield the runs by entity, project and id; those that are damaged last."""
        for group, parts in sorted(self._groups.items()):
            files = [file for _, file in sorted(parts)]
            sketch = SourceRun(
                source_id="/".join(group),
                experiment=self._home(group[1]),
                version=histories.version_of(_files_of(files)),
            )
            yield replace(sketch, read=partial(_read, files, sketch))
        for file, why in self._damaged.items():
            yield histories.unreadable(file.name, self._home(_NO_PROJECT), why)

    def _home(self, project: str) -> SourceExperiment:
        return SourceExperiment(self._experiment or project or _NO_PROJECT)

    def notes(self) -> Iterator[Note]:
        """Return the files that held nothing."""
        yield from self._notes


def _read(files: Sequence[Path], sketch: SourceRun) -> SourceRun:
    return _OfflineRun(files).run(sketch)


def _prelude(file: Path) -> WandbRun | None:
    """Return whose log it is, which stands near its begin; None where it says nothing."""
    found = WandbRun()
    for count, record in enumerate(RecordLog(file).records()):
        if RUN in record:
            found.begin(record.inner(RUN))
            return found
        if count > _PRELUDE_RECORDS:
            break
    return None


class _OfflineRun:
    """One run, read when it is asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._logs = [RecordLog(file) for file in files]
        self._said = WandbRun()
        for log in self._logs:
            self._said.read(log)
        self._cut = [log.path for log in self._logs if log.cut_at is not None]
        # Of each log: its last step, and the time of it.
        self._ends: dict[int, tuple[int, int]] = {}
        self._found = histories.survey(self._history())
        self._notes: list[Note] = []

    def run(self, sketch: SourceRun) -> SourceRun:
        """Return it as the importer takes it."""
        said, found = self._said, self._found
        config = {key: value for key, value in said.config.items() if key not in _OWN_KEYS}
        ends = [found.last_us, said.last_us]
        if said.start_us is not None:
            ends.append(said.start_us + said.runtime_s * 1_000_000)
        return replace(
            sketch,
            name=said.name or said.run_id,
            status=said.status,
            start_us=said.start_us,
            end_us=max((end for end in ends if end is not None), default=None),
            user=said.environment.get("username"),
            source_name=said.environment.get("program"),
            params=histories.params_of(config),
            tags=self._tags(),
            inputs=[
                SourceInput(used["name"] or used["id"], used["id"], None, "wandb-artifact")
                for used in said.used
            ],
            points=self._points,
            artifacts=self._files,
            events=self._events,
            notes=self._all_notes,
        )

    def _tags(self) -> dict[str, str]:
        said = self._said
        tags = {
            "wandb.run_id": said.run_id,
            "wandb.entity": said.entity,
            "wandb.project": said.project,
            "wandb.group": said.group,
            "wandb.job_type": said.job_type,
            "wandb.sweep_id": said.sweep_id,
            "wandb.host": said.host,
            "wandb.forked_from": said.forked_from,
            "wandb.tags": json.dumps(said.labels, ensure_ascii=False) if said.labels else "",
            "wandb.exit_code": "" if said.exit_code is None else str(said.exit_code),
            "wandb.os": said.environment.get("os", ""),
            "wandb.python": said.environment.get("python", ""),
            "mlflow.note.content": said.notes,
            "mlflow.source.git.commit": said.commit,
            "mlflow.source.git.repoURL": said.remote,
        }
        return {key: text for key, text in tags.items() if text}

    def _history(self) -> Iterator[Row]:
        for place, log in enumerate(self._logs):
            step = moment = 0
            for row in history([log], self._said.start_us or 0):
                step, moment = max(step, row.step), max(moment, row.time_us)
                yield row
            self._ends[place] = step, moment or self._said.start_us or 0

    def _points(self) -> Iterator[pa.Table]:
        yield from histories.points(self._history())
        pieces = histories.Pieces()
        for row in samples(self._logs):
            for key, value in row.values.items():
                number = histories.number_of(value)
                if number is not None:
                    pieces.add(key, row.step, row.time_us, number)
            yield from pieces.full()
        # Of a log that may still go on, the last step is not known.
        for place, summary in self._said.ended.items():
            for key, number in _numbers(summary):
                if key not in self._found.last:
                    pieces.add(key, *self._ends[place], number)
        yield from pieces.rest()

    def _events(self) -> Iterator[SourceEvent]:
        if self._found.histograms:
            yield from histories.histogram_events(self._history())
        for alert in self._said.alerts:
            said = json.dumps({"title": alert.title, "text": alert.text}, ensure_ascii=False)
            yield SourceEvent(schema.ALERT, alert.level, None, said, alert.time_us)

    def _all_notes(self) -> Iterator[Note]:
        yield from self._found.notes(_HISTORY_FILE)
        if not self._said.is_ended:
            yield Note(_UNENDED)
        for path in self._cut:
            yield Note(_CUT, path.name)
        if self._found.last_step is not None:
            yield Note(_RUNTIME)
        for key, number in _numbers(self._said.summary):
            last = self._found.last.get(key)
            if last is None:
                yield Note(_FROM_SUMMARY if self._said.is_ended else _SUMMARY_LATER, key)
            elif last != number and not (math.isnan(last) and math.isnan(number)):
                yield Note(_SUMMARY_DIFFERS, key)
        if any((log.path.parent / "logs").is_dir() for log in self._logs):
            yield Note(_LOGS)
        yield from self._notes

    # Files.

    def _files(self) -> Iterator[SourceFile]:
        self._notes = []
        given: set[str] = set()
        # What was written last has the plain name, as in W&B.
        for age, log in enumerate(reversed(self._logs)):
            folder = log.path.parent / "files"
            for file in sorted(_regular(folder)):
                path = file.relative_to(folder).as_posix()
                about = self._found.files.get(path)
                if path in given:
                    path = f"wandb/part-{len(self._logs) - age}/{path}"
                if not file.is_file():
                    self._notes.append(Note(_NO_FILE, path))
                    continue
                given.add(path)
                yield SourceFile.local(path, file, about)
        if _OUTPUT_FILE not in given and self._said.has_output:
            yield SourceFile(_OUTPUT_FILE, self._write_output)
        if self._found.others:
            yield SourceFile(
                _HISTORY_FILE,
                lambda folder: histories.write_others(self._history(), folder / "history.jsonl"),
            )
        yield from self._logged_artifacts()
        yield SourceFile(_RECORD_FILE, self._write_record)

    def _write_output(self, folder: Path) -> Path:
        file = folder / _OUTPUT_FILE
        with file.open("w", encoding="utf-8", newline="") as written:
            written.writelines(output(self._logs))
        return file

    def _write_record(self, folder: Path) -> Path:
        said = self._said
        told = {
            "run_id": said.run_id,
            "config": said.config,
            "summary": said.summary,
            "metrics": said.metrics,
            "artifacts": [_told(artifact) for artifact in said.artifacts],
            "used_artifacts": said.used,
            "environment": said.environment,
        }
        file = folder / "run.json"
        file.write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
        return file

    def _logged_artifacts(self) -> Iterator[SourceFile]:
        versions: dict[str, int] = {}
        for artifact in self._said.artifacts:
            name = artifact.text(5)
            versions[name] = versions.get(name, 0) + 1
            folder = f"artifacts/{name}" + (f"@{versions[name]}" if versions[name] > 1 else "")
            entries = artifact.inner(12).inners(4)
            if not entries:
                self._notes.append(Note(_NO_LIST, name))
            for entry in entries:
                path, local = f"{folder}/{entry.text(1)}", entry.text(6)
                if entry.text(3):
                    self._notes.append(Note(_LINK, path))
                elif not local or not Path(local).is_file():
                    self._notes.append(Note(_NO_FILE, path))
                else:
                    fetch = partial(_checked, Path(local), entry.text(2))
                    yield SourceFile(path, fetch, entry.whole(4))


_OWN_KEYS: Final = {"_wandb", "_runtime", "_step", "_timestamp"}


def _numbers(summary: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a summary but for W&B's own."""
    for key, value in histories.leaves(summary):
        number = histories.number_of(value)
        if number is not None and key.partition(".")[0] not in _OWN_KEYS:
            yield key, number


def _regular(folder: Path) -> Iterator[Path]:
    """Yield what is no folder below one; links to files are what `run.save` leaves."""
    for inside, _, names in os.walk(folder):
        yield from (Path(inside, name) for name in names)


def _checked(file: Path, digest: str, _folder: Path) -> Path:
    """Return a staged file of an artifact after comparing it with the digest that W&B noted."""
    found = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as opened:
        while piece := opened.read(1 << 20):
            found.update(piece)
    if digest and b64encode(found.digest()).decode() != digest:
        message = f"{file} is not what W&B staged: its MD5 differs from the one in the manifest."
        raise SourceError(message)
    return file


def _told(artifact: Message) -> Mapping[str, object]:
    """Return an artifact as JSON; where its files lay on that machine is nobody's business."""
    entries = [
        {"path": one.text(1), "digest": one.text(2), "ref": one.text(3), "size": one.whole(4)}
        for one in artifact.inner(12).inners(4)
    ]
    return {
        "type": artifact.text(4),
        "name": artifact.text(5),
        "digest": artifact.text(6),
        "description": artifact.text(7),
        "metadata": artifact.text(8),
        "aliases": artifact.texts(11),
        "entries": entries,
    }


def _files_of(logs: Sequence[Path]) -> Iterator[Path]:
    """Yield each log, and the files beside it that are there."""
    for log in logs:
        yield log
        yield from sorted(file for file in _regular(log.parent / "files") if file.is_file())
