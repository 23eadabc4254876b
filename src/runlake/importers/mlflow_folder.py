"""A folder `mlruns` as MLflow's file store writes it, read without MLflow.

    <experiment>/meta.yaml, tags/<key>, datasets/<id>/meta.yaml
    <experiment>/<run>/meta.yaml, params/<key>, tags/<key>, metrics/<key>, inputs/<id>/meta.yaml
    <experiment>/<run>/artifacts/...
    .trash/<experiment>/...
    models/<name>/meta.yaml, tags/<key>, aliases/<alias>, version-<n>/meta.yaml

A line of a metric is `<ms> <value> <step>`, of old ones without the step, of new ones with name
and digest of a data set behind it. Nothing is held of a run but what is asked for.
"""

from __future__ import annotations

import hashlib
import os
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from runlake import schema
from runlake._lazy import need
from runlake.importers.mlflow_logged import folder_logged
from runlake.importers.mlflow_models import folder_models
from runlake.importers.mlflow_source import MlflowSource
from runlake.importers.mlflow_words import (
    NO_DATA_SET,
    PARENT,
    USER,
    Steps,
    input_of,
    millis,
)
from runlake.importers.source import (
    PIECE_ROWS,
    Note,
    SourceError,
    SourceExperiment,
    SourceFile,
    SourceRun,
    point_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from runlake.importers.mlflow_logged import Logged
    from runlake.importers.mlflow_models import SourceModel
    from runlake.importers.source import SourceInput
    from runlake.logged_models import MeasuredModel

_META: Final = "meta.yaml"
_TRASH: Final = ".trash"
_RESERVED: Final = frozenset({"tags", "datasets", "traces", "models"})
_DEFAULT: Final = "0"
# The numbers that MLflow's files have for a run's status.
_STATUSES: Final = {
    1: schema.RUNNING,
    2: schema.SCHEDULED,
    3: schema.FINISHED,
    4: schema.FAILED,
    5: schema.KILLED,
}


class MlflowFolder(MlflowSource):
    """The runs of one folder."""

    def __init__(self, root: Path, *, experiment: str | None = None, models: bool = True) -> None:
        """Read nothing yet.

        Args:
            root: the folder with the experiments.
            experiment: only this one, by name or id.
            models: whether registered models come too.
        """
        self.root = root.resolve()
        super().__init__(str(self.root), experiment=experiment, models=models)

    def count(self) -> int:
        """Return how many runs there are."""
        return sum(1 for _, folder in self._experiments() for _ in _runs(folder))

    def experiments(self) -> Iterator[SourceExperiment]:
        """Yield all experiments; a default one that is as MLflow made it only with runs."""
        for experiment, folder in self._experiments():
            if experiment.source_id != _DEFAULT or any(_runs(folder)):
                yield experiment

    def runs(self) -> Iterator[SourceRun]:
        """Yield all runs, by experiment and id."""
        for experiment, folder in self._experiments():
            logged = folder_logged(folder)
            seen: set[str] = set()
            for run in _runs(folder):
                found = self._run(experiment, run, logged)
                seen.add(found.source_id)
                yield found
            self.orphans += logged.without(experiment, seen)

    def registered(self) -> Iterator[SourceModel]:
        """Yield the registered models."""
        return folder_models(self.root / "models")

    def _experiments(self) -> Iterator[tuple[SourceExperiment, Path]]:
        for parent in (self.root, self.root / _TRASH):
            if not parent.is_dir():
                continue
            for folder in sorted(parent.iterdir()):
                # Registered models lie beside experiments, and have no meta.yaml of their own.
                if not (folder / _META).is_file() or folder.name == "models":
                    continue
                experiment = _experiment(folder)
                if self._only in {None, experiment.name, experiment.source_id}:
                    yield experiment, folder

    def _run(self, experiment: SourceExperiment, folder: Path, logged: Logged) -> SourceRun:
        meta = read_yaml(folder / _META)
        tags = dict(_texts(folder / "tags"))
        status = meta.get("status", 1)
        notes = _RunNotes(meta)
        run_id = str(meta.get("run_id") or meta.get("run_uuid") or folder.name)
        inputs, model_inputs = _inputs(folder, notes)
        measured = logged.measured.get(run_id, [])
        return SourceRun(
            source_id=run_id,
            experiment=experiment,
            name=meta.get("run_name") or tags.get("mlflow.runName") or meta.get("name") or None,
            status=_STATUSES.get(status, str(status)),
            start_us=millis(meta.get("start_time")),
            end_us=millis(meta.get("end_time")),
            user=meta.get("user_id") or tags.get(USER) or None,
            parent_id=tags.get(PARENT) or None,
            is_deleted=meta.get("lifecycle_stage", schema.ACTIVE) == schema.DELETED,
            params=dict(_texts(folder / "params")),
            tags=tags,
            inputs=inputs,
            models=logged.made.get(run_id, []),
            outputs=_outputs(folder),
            model_inputs=model_inputs,
            measured=measured,
            points=lambda: _points(folder / "metrics", notes, measured),
            artifacts=lambda: chain(_artifacts(folder, meta, notes), logged.files(run_id)),
            notes=lambda: notes.found,
            version=_version(folder, logged.made.get(run_id), measured),
        )


class _RunNotes:
    """What of one run does not come as it is, as it is found out."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta
        self.found: list[Note] = []


def read_yaml(file: Path) -> dict[str, Any]:
    """Read one of MLflow's small files.

    Raises:
        SourceError: it is not what it should be.
        MissingDependencyError: PyYAML is not installed.
    """
    yaml = need("yaml", extra="mlflow")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        found = yaml.load(file.read_text("utf-8"), Loader=loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SourceError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise SourceError(f"{file} is empty, or holds no fields.")
    return found


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files below a folder with their paths in it, sorted."""
    return _files(folder)


def texts_below(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what MLflow keeps as files: the key is the path, the value the content."""
    return _texts(folder)


def _experiment(folder: Path) -> SourceExperiment:
    meta = read_yaml(folder / _META)
    return SourceExperiment(
        name=str(meta["name"]),
        source_id=str(meta.get("experiment_id", folder.name)),
        tags=dict(_texts(folder / "tags")),
        is_deleted=meta.get("lifecycle_stage") == schema.DELETED,
        created_us=millis(meta.get("creation_time")),
    )


def _runs(folder: Path) -> Iterator[Path]:
    for run in sorted(folder.iterdir()):
        if run.name not in _RESERVED and (run / _META).is_file():
            yield run


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files below a folder with their paths in it, sorted."""
    if folder.is_dir():
        for here, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                file = Path(here) / name
                yield file.relative_to(folder).as_posix(), file


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for key, file in _files(folder):
        try:
            # Line ends are kept as they are.
            yield key, file.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{file} cannot be read: {error}") from error


def _points(
    folder: Path, notes: _RunNotes, measured: Sequence[MeasuredModel]
) -> Iterator[pa.Table]:
    steps = Steps()
    # These data sets are kept with the model that the points were measured of.
    with_data = -sum(each.dataset is not None for each in measured)
    for key, file in _files(folder):
        with file.open("rb") as lines:
            while piece := list(islice(lines, PIECE_ROWS)):
                points = [point for line in piece if (point := _point(line, file, steps))]
                with_data += sum(point[3] for point in points)
                yield point_table(
                    [key] * len(points),
                    [step for _, _, step, _ in points],
                    [time_us for time_us, _, _, _ in points],
                    [value for _, value, _, _ in points],
                )
    notes.found += steps.notes()
    if with_data > 0:
        notes.found.append(Note(NO_DATA_SET, count=with_data))


def _point(line: bytes, file: Path, steps: Steps) -> tuple[int, float, int, bool] | None:
    """Return time, value and step of a line, and whether it names a data set."""
    parts = line.split()
    if not parts:
        return None
    try:
        step = steps.whole(parts[2]) if len(parts) > 2 else 0  # noqa: PLR2004 - old lines have none
        return int(parts[0]) * 1000, float(parts[1]), step, len(parts) > 3  # noqa: PLR2004 - as the module says
    except (ValueError, IndexError) as error:
        raise SourceError(f"{file}: {line[:80]!r} is no point of a metric.") from error


def _outputs(folder: Path) -> dict[str, int]:
    """Return the steps at which a run made logged models, by their ids."""
    found = {}
    root = folder / "outputs"
    for each in sorted(root.iterdir()) if root.is_dir() else ():
        found[each.name] = int(read_yaml(each / _META).get("step") or 0)
    return found


def _inputs(folder: Path, notes: _RunNotes) -> tuple[list[SourceInput], list[str]]:
    """Return the data sets that a run read, and the logged models."""
    found: list[SourceInput] = []
    models: list[str] = []
    inputs = folder / "inputs"
    for each in sorted(inputs.iterdir()) if inputs.is_dir() else ():
        meta = read_yaml(each / _META)
        if "MODEL" in str(meta.get("source_type")):
            models.append(str(meta.get("source_id")))
            continue
        about = folder.parent / "datasets" / str(meta.get("source_id")) / _META
        if not about.is_file():
            notes.found.append(Note("data set left out: its description is not there", str(about)))
            continue
        tags = {str(key): str(value) for key, value in (meta.get("tags") or {}).items()}
        found.append(input_of(read_yaml(about), tags))
    return found, models


def _artifacts(folder: Path, meta: dict[str, Any], notes: _RunNotes) -> Iterator[SourceFile]:
    """Yield the files in the run's own folder, and those where it says that they are."""
    own = folder / "artifacts"
    seen = set()
    for path, file in _files(own):
        seen.add(path)
        yield SourceFile.local(path, file)
    said = str(meta.get("artifact_uri") or "")
    if said.startswith("file:") or "://" not in said:
        place = Path(unquote(urlsplit(said).path) if said.startswith("file:") else said)
        if said and place.is_dir() and place.resolve() != own.resolve():
            for path, file in _files(place):
                if path not in seen:
                    yield SourceFile.local(path, file)
        return
    from_store = need("runlake.importers.mlflow_client").files_at
    try:
        yield from from_store(said)
    except SourceError as error:
        notes.found.append(Note("artifacts left out: they lie elsewhere", f"{said}: {error}"))


def _version(folder: Path, *logged: object) -> str:
    """Return a digest of the names, sizes and times of all files of a run, and of its models."""
    total = hashlib.blake2b(repr(logged).encode(), digest_size=16)
    for path, file in _files(folder):
        facts = file.stat()
        total.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return total.hexdigest()
