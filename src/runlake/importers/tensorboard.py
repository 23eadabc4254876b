"""Runs of TensorBoard: a tree of folders, each with event files.

As in TensorBoard itself, each folder that holds event files is a run, named by its path. A run
in a folder below another run's folder is nested in it, as those are that `add_hparams` and
`add_scalars` make. All points are kept, also those that a run logged once more after a restart.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runlake import schema
from runlake.artifacts import media
from runlake.errors import NotFoundError
from runlake.importers import histories
from runlake.importers import tb_values as tb
from runlake.importers.source import (
    Note,
    Source,
    SourceError,
    SourceEvent,
    SourceExperiment,
    SourceFile,
    SourceRun,
)
from runlake.importers.tfevents import EventFile
from runlake.importers.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

_MARK: Final = "tfevents"
_OTHERS: Final = "tensorboard/values.jsonl"
_STATUSES: Final = {1: schema.FINISHED, 2: schema.FAILED, 3: schema.RUNNING}
_SUFFIXES: Final = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"RIFF": ".wav",
}
_CUT: Final = "the last record of the file was cut off; it is left out"
_CLOSED: Final = "sums of histograms are left out, and their open ends closed at least and greatest"
_NO_STATUS: Final = "TensorBoard keeps no status: the run is FINISHED"


def open_source(source: str, *, experiment: str | None = None) -> Source:
    """Open a tree of event files.

    Args:
        source: a folder, as given to `tensorboard --logdir`, or one event file.
        experiment: the experiment of all runs; None takes the folder's name.

    Returns:
        The source; close it.

    Raises:
        NotFoundError: there is nothing.
        SourceError: there is no event file in it.
    """
    root = Path(source)
    if not root.exists():
        raise NotFoundError(f"there is no {source!r}. Give the folder that TensorBoard shows.")
    folders: dict[Path, list[Path]] = {}
    if root.is_file():
        folders[root.parent] = [root]
    else:
        for folder, _, names in os.walk(root):
            files = [Path(folder, name) for name in sorted(names) if _MARK in name]
            if files:
                folders[Path(folder)] = files
    if not folders or (root.is_file() and _MARK not in root.name):
        message = f"{source!r} holds no event file of TensorBoard ('events.out.tfevents.*')."
        raise SourceError(message)
    return EventTree(root, folders, experiment)


class EventTree(Source):
    """The runs below a folder."""

    kind = "tensorboard"

    def __init__(self, root: Path, folders: dict[Path, list[Path]], experiment: str | None) -> None:
        """See `open_source`."""
        self.name = str(root)
        self._root = root if root.is_dir() else root.parent
        self._folders = folders
        self._experiment = experiment or self._root.resolve().name or "tensorboard"

    def count(self) -> int:
        """Return how many runs there are."""
        return len(self._folders)

    def runs(self) -> Iterator[SourceRun]:
        """Yield the runs by path; one that holds another comes first."""
        for folder, files in sorted(self._folders.items()):
            above = next((one for one in folder.parents if one in self._folders), None)
            parent = None if above is None else self._id(above)
            path = folder.relative_to(self._root).as_posix()
            name = self._root.resolve().name if path == "." else path
            sketch = SourceRun(
                source_id=self._id(folder),
                experiment=SourceExperiment(self._experiment),
                name=name,
                parent_id=parent,
                version=histories.version_of(files),
            )
            yield replace(sketch, read=partial(_read, files, sketch))

    def _id(self, folder: Path) -> str:
        # A file's name has the second, the host and the process that made it.
        path = folder.relative_to(self._root).as_posix()
        return f"{path}:{self._folders[folder][0].name}"


def _read(files: Sequence[Path], sketch: SourceRun) -> SourceRun:
    return _EventRun(files).run(sketch)


class _EventRun:
    """One folder of event files, surveyed when it is asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [EventFile(path) for path in paths]
        self._params: dict[str, object] = {}
        self._tags: dict[str, str] = {}
        self._status: str | None = None
        self._start_us: int | None = None
        self._end_us: int | None = None
        self._counts: Counter[str] = Counter()
        self._rounded: Counter[str] = Counter()
        self._passed_over: Counter[str] = Counter()
        for file in self._files:
            self._survey(file)
        self._cut = [file.path for file in self._files if file.cut_at is not None]

    def _survey(self, file: EventFile) -> None:
        plugins: dict[str, str] = {}
        for event, time_us in tb.times(file.events()):
            self._see(time_us)
            for number, what in tb.PASSED_OVER.items():
                if number in event:
                    self._passed_over[what] += 1
            try:
                for value in tb.values_of(event, time_us, plugins):
                    self._take(value)
            except WireError as error:
                raise SourceError(f"{file.path} is damaged: {error}") from error

    def _see(self, time_us: int) -> None:
        self._start_us = time_us if self._start_us is None else min(self._start_us, time_us)
        self._end_us = time_us if self._end_us is None else max(self._end_us, time_us)

    def _take(self, value: tb.Value) -> None:
        if value.description:
            self._tags[f"tensorboard.description/{value.tag}"] = value.description
        if value.kind == tb.HPARAMS:
            found = tb.session(value)
            self._params.update(found.params)
            if found.status is not None:
                self._status = _STATUSES.get(found.status, self._status)
            for moment in (found.start_us, found.end_us):
                if moment is not None:
                    self._see(moment)
            return
        number = tb.number(value) if value.kind == tb.SCALAR else None
        if number is None:
            self._counts[self._kind(value)] += 1
        elif not number[1]:
            self._rounded[value.tag] += 1

    def _kind(self, value: tb.Value) -> str:
        """Return where a value goes: what cannot go to its own place goes to the rest."""
        is_odd = (
            (value.kind == tb.SCALAR and tb.number(value) is None)
            or (value.kind == tb.HISTOGRAM and tb.histogram_text(value) is None)
            or (value.kind == tb.IMAGE and not tb.pictures(value))
            or (value.kind == tb.AUDIO and not tb.sounds(value))
        )
        return tb.OTHER if is_odd or value.kind == tb.TEXT else value.kind

    def run(self, sketch: SourceRun) -> SourceRun:
        """Return it as the importer takes it."""
        return replace(
            sketch,
            status=self._status or schema.FINISHED,
            start_us=self._start_us,
            end_us=self._end_us,
            params=self._params,
            tags=self._tags,
            points=self._points,
            artifacts=self._artifacts,
            events=self._events,
            notes=self._notes,
        )

    def _points(self) -> Iterator[pa.Table]:
        pieces = histories.Pieces()
        for value in tb.all_values(self._files):
            number = tb.number(value) if value.kind == tb.SCALAR else None
            if number is not None:
                pieces.add(value.tag, value.step, value.time_us, number[0])
                yield from pieces.full()
        yield from pieces.rest()

    def _events(self) -> Iterator[SourceEvent]:
        if not self._counts[tb.HISTOGRAM]:
            return
        for value in tb.all_values(self._files):
            text = tb.histogram_text(value) if value.kind == tb.HISTOGRAM else None
            if text is not None:
                yield SourceEvent(schema.HISTOGRAM, value.tag, None, text, value.time_us)

    def _artifacts(self) -> Iterator[SourceFile]:
        if self._counts[tb.IMAGE] or self._counts[tb.AUDIO]:
            for value in tb.all_values(self._files):
                if value.kind == tb.IMAGE:
                    yield from _shown(value, "image", "images", tb.pictures(value))
                elif value.kind == tb.AUDIO:
                    yield from _shown(value, "audio", "audio", tb.sounds(value))
        if self._counts[tb.OTHER]:
            yield SourceFile(_OTHERS, self._write_others)

    def _write_others(self, folder: Path) -> Path:
        file = folder / "values.jsonl"
        with file.open("w", encoding="utf-8", newline="\n") as lines:
            for value in tb.all_values(self._files):
                if value.kind != tb.HPARAMS and self._kind(value) == tb.OTHER:
                    lines.write(json.dumps(tb.as_json(value), ensure_ascii=False) + "\n")
        return file

    def _notes(self) -> Iterator[Note]:
        if self._status is None:
            yield Note(_NO_STATUS)
        for path in self._cut:
            yield Note(_CUT, path.name)
        if self._counts[tb.OTHER]:
            yield Note(histories.OTHER_VALUES.format(_OTHERS), count=self._counts[tb.OTHER])
        if self._counts[tb.HISTOGRAM]:
            yield Note(_CLOSED, count=self._counts[tb.HISTOGRAM])
        for key, count in self._rounded.items():
            yield Note(histories.ROUNDED, key, count)
        for what, count in self._passed_over.items():
            yield Note(f"{what} are left out", count=count)


def _shown(value: tb.Value, kind: str, folder: str, files: list[bytes]) -> Iterator[SourceFile]:
    """Yield the files of one value of a medium."""
    for index, data in enumerate(files):
        suffix = next((end for head, end in _SUFFIXES.items() if data.startswith(head)), ".bin")
        name = f"{media.step_text(value.step)}-{value.time_us}-{index}{suffix}"
        about: dict[str, object] = {
            "media": kind,
            "key": value.tag,
            "step": value.step,
            "time_us": value.time_us,
        }
        path = f"{folder}/{media.folder_of(value.tag)}/{name}"
        yield SourceFile(path, partial(_written, data, name), len(data), "", about)


def _written(data: bytes, name: str, folder: Path) -> Path:
    file = folder / name
    file.write_bytes(data)
    return file
