"""Projects of Trackio: its SQLite databases and the files beside them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake.errors import NotFoundError
from runlake.importers import histories
from runlake.importers.histories import Row
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
from runlake.importers.trackio_database import MADE, USED, Database, DatabaseRun, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from runlake.importers.trackio_database import ArtifactVersion

_MAGIC: Final = b"SQLite format 3\0"
_OTHERS: Final = "trackio/history.jsonl"
_ARTIFACTS: Final = "trackio/artifacts.json"
_CONTENT: Final = {
    "metrics": "metrics",
    "configs": "config",
    "system_metrics": "metrics",
    "alerts": "text",
}
_LEVELS: Final = {"info": "info", "warn": "warning", "error": "error"}
_INBOX: Final = "rows in Trackio's inbox are left out: open its dashboard once, which takes them in"
_NO_STATUS: Final = "Trackio keeps no status: every run is FINISHED"
_NO_FILE: Final = "a file of it is not on this machine"


def open_source(source: str, *, experiment: str | None = None) -> Source:
    """Open projects of Trackio.

    Args:
        source: a database, or the folder that holds them (`~/.cache/huggingface/trackio`).
        experiment: the experiment of all runs; None takes the project's name, which is the name
            of its database.

    Returns:
        The source; close it.

    Raises:
        NotFoundError: there is nothing.
        SourceError: it is no database of Trackio.
    """
    root = Path(source)
    if not root.exists():
        raise NotFoundError(f"there is no {source!r}. Give a database of Trackio or its folder.")
    files = [root] if root.is_file() else sorted(root.glob("*.db"))
    found = [file for file in files if _is_project(file)]
    if not found:
        message = (
            f"{source!r} holds no database of Trackio ('<project>.db' with a table of metrics)."
        )
        raise SourceError(message)
    return TrackioProjects(root, found, experiment)


def _is_project(file: Path) -> bool:
    """Return whether a file is a database with metrics.

    Raises:
        SourceError: it is a database, and a damaged one.
    """
    with file.open("rb") as opened:
        if opened.read(len(_MAGIC)) != _MAGIC:
            return False
    database = Database(file)
    try:
        return "metrics" in database.tables
    finally:
        database.close()


class TrackioProjects(Source):
    """The runs of one or more projects."""

    kind = "trackio"

    def __init__(self, root: Path, files: Sequence[Path], experiment: str | None) -> None:
        """See `open_source`."""
        self.name = str(root)
        self._files = files
        self._experiment = experiment
        self._notes: list[Note] = []

    def runs(self) -> Iterator[SourceRun]:
        """Yield the runs by project, in the order in which they began.

        Raises:
            SourceError: a database is damaged.
        """
        self._notes = []
        for file in self._files:
            database = Database(file)
            experiment = self._experiment or file.stem
            try:
                for run in database.runs():
                    sketch = SourceRun(
                        source_id=_id(database, run),
                        experiment=SourceExperiment(experiment),
                        name=run.name,
                    )
                    try:
                        sketch = replace(sketch, version=_version(database, run))
                    except SourceError as error:
                        yield histories.unreadable(sketch.source_id, sketch.experiment, error)
                        continue
                    yield replace(sketch, read=partial(_read, database, run, sketch))
                self._notes += database.notes()
            finally:
                database.close()

    def notes(self) -> Iterator[Note]:
        """Return what belongs to projects, not runs."""
        yield from self._notes
        inbox = self._files[0].parent / "inbox"
        count = sum(path.is_file() for path in inbox.rglob("*"))
        if count:
            yield Note(_INBOX, str(inbox), count)


def _id(database: Database, run: DatabaseRun) -> str:
    return run.run_id if run.column == "run_id" else f"{database.file.stem}/{run.run_id}"


def _version(database: Database, run: DatabaseRun) -> str:
    """Return a digest of how many rows a run has, how many characters, and which files."""
    seen = hashlib.sha256(run.name.encode())
    for table, column in _CONTENT.items():
        columns = f"count(*), max(id), sum(length({column}))"
        for counts in database.of_run(table, columns, run):
            seen.update(f"{table}:{counts}\n".encode())
    for query in (MADE, USED):
        seen.update(repr(database.versions(query, run)).encode())
    folder = database.media / database.file.stem / run.name
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        seen.update(f"{file.relative_to(folder).as_posix()}:{stamp(file)}\n".encode())
    return seen.hexdigest()


def _read(database: Database, run: DatabaseRun, sketch: SourceRun) -> SourceRun:
    return _ProjectRun(database, run).run(sketch)


class _ProjectRun:
    """One run of a database."""

    def __init__(self, database: Database, run: DatabaseRun) -> None:
        self._database = database
        self._run = run
        config: dict[str, Any] = {}
        for (text,) in database.of_run("configs", "config", run):
            config = self._json(text)
        self._config = config
        self._found = histories.survey(self._history())
        self._system = histories.survey(self._samples())
        self._alerts = list(database.of_run("alerts", "level, title, text, step, timestamp", run))
        self._made = database.versions(MADE, run)
        self._missing: list[str] = []

    def run(self, sketch: SourceRun) -> SourceRun:
        """Return it as the importer takes it."""
        config, run = self._config, self._run
        began = config.get("_Created")
        firsts = [row.time_us for row in (*_first(self._history()), *_first(self._samples()))]
        if isinstance(began, str):
            firsts.append(_time_us(began, self._database.file))
        tags = {
            "trackio.project": self._database.file.stem,
            "trackio.group": config.get("_Group"),
            "trackio.run_id": run.run_id,
        }
        user = config.get("_Username")
        ends = [end for end in (self._found.last_us, self._system.last_us) if end is not None]
        return replace(
            sketch,
            start_us=min(firsts, default=None),
            end_us=max(ends, default=None),
            user=user if isinstance(user, str) else None,
            params=histories.params_of({k: v for k, v in config.items() if k not in _OWN_KEYS}),
            tags={key: text for key, text in tags.items() if isinstance(text, str)},
            inputs=[
                SourceInput(f"{one.name}:v{one.version}", one.digest, None, "trackio-artifact")
                for one in self._database.versions(USED, run)
            ],
            points=self._points,
            artifacts=self._files,
            events=self._events,
            notes=self._notes,
        )

    def _json(self, text: str | bytes) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except ValueError as error:
            message = f"a row of {self._database.file} is no JSON: {text[:80]!r} ({error})."
            raise SourceError(message) from error
        return found if isinstance(found, dict) else {}

    def _history(self) -> Iterator[Row]:
        file = self._database.file
        for step, moment, text in self._database.of_run(
            "metrics", "step, timestamp, metrics", self._run
        ):
            yield Row(histories.whole_step(step), _time_us(moment, file), self._json(text))

    def _samples(self) -> Iterator[Row]:
        file = self._database.file
        rows = self._database.of_run("system_metrics", "timestamp, metrics", self._run)
        for count, (moment, text) in enumerate(rows):
            found = {f"{schema.SYSTEM_PREFIX}{k}": v for k, v in self._json(text).items()}
            yield Row(count, _time_us(moment, file), found)

    def _points(self) -> Iterator[pa.Table]:
        yield from histories.points(self._history())
        yield from histories.points(self._samples())

    def _events(self) -> Iterator[SourceEvent]:
        if self._found.histograms:
            yield from histories.histogram_events(self._history())
        for level, title, text, step, moment in self._alerts:
            told = {"title": title, "text": text or "", "step": step}
            said = json.dumps(told, ensure_ascii=False)
            at = _time_us(moment, self._database.file)
            yield SourceEvent(schema.ALERT, _LEVELS.get(level, "info"), None, said, at)

    def _files(self) -> Iterator[SourceFile]:
        media = self._database.media
        given = set()
        self._missing = []
        prefix = f"{self._database.file.stem}/{self._run.name}/"
        for path, about in self._found.files.items():
            given.add(path)
            file = media / path
            if ".." in Path(path).parts or not file.is_file():
                self._missing.append(path)
            else:
                yield SourceFile.local(path.removeprefix(prefix), file, about)
        folder = media / prefix
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            if file.relative_to(media).as_posix() not in given:
                yield SourceFile.local(file.relative_to(folder).as_posix(), file)
        if self._found.others:
            yield SourceFile(
                _OTHERS,
                lambda folder: histories.write_others(self._history(), folder / "history.jsonl"),
            )
        yield from self._logged_artifacts()

    def _logged_artifacts(self) -> Iterator[SourceFile]:
        for one in self._made:
            for entry in self._entries(one):
                path = f"artifacts/{one.name}/v{one.version}/{entry['path']}"
                file = self._database.blob(entry["digest"])
                if file.is_file():
                    given = SourceFile.local(path, file)
                    yield given._replace(sha256=entry["digest"])
                else:
                    self._missing.append(path)
        if self._made:
            yield SourceFile(_ARTIFACTS, self._write_artifacts)

    def _entries(self, one: ArtifactVersion) -> list[dict[str, str]]:
        """Return the files of a version: path and digest."""
        try:
            return [
                {"path": each["path"], "digest": each["digest"]}
                for each in json.loads(one.manifest)
            ]
        except (ValueError, TypeError, KeyError) as error:
            message = f"the manifest of {one.name}:v{one.version} cannot be read: {error!r}."
            raise SourceError(message) from error

    def _write_artifacts(self, folder: Path) -> Path:
        file = folder / "artifacts.json"
        told = [one._asdict() for one in self._made]
        file.write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
        return file

    def _notes(self) -> Iterator[Note]:
        yield Note(_NO_STATUS)
        yield from self._found.notes(_OTHERS)
        yield from (Note(_NO_FILE, path) for path in self._missing)


_OWN_KEYS: Final = {"_Username", "_Created", "_Group"}


def _first(rows: Iterator[Row]) -> list[Row]:
    return [row for row, _ in zip(rows, range(1), strict=False)]


def _time_us(text: object, file: Path) -> int:
    """Return the time that a row has, microseconds since 1970; one without a zone is in UTC."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        raise SourceError(f"a row of {file} has no time: {str(text)[:40]!r}.") from None
    known = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = known - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds
