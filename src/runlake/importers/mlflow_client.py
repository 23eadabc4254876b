"""Runs of a database or a tracking server, through MLflow's own client, page by page."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from runlake import schema
from runlake._lazy import need
from runlake.errors import RunlakeError
from runlake.importers.mlflow_logged import Logged, client_logged, has_logged
from runlake.importers.mlflow_models import client_models
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
    Note,
    SourceError,
    SourceExperiment,
    SourceFile,
    SourceRun,
    point_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from runlake.importers.mlflow_models import SourceModel
    from runlake.importers.source import SourceInput

_PAGE_RUNS: Final = 1000
_PAGE_POINTS: Final = 25_000  # what MLflow's server gives at once
_DEFAULT: Final = "0"
_ALL: Final = 3  # ViewType.ALL


class MlflowStore(MlflowSource):
    """The runs of one tracking URI."""

    def __init__(
        self,
        uri: str,
        *,
        experiment: str | None = None,
        registry: str | None = None,
        models: bool = True,
    ) -> None:
        """Connect; nothing is read yet.

        Args:
            uri: the tracking URI.
            experiment: only this one, by name or id.
            registry: URI of the registry; None: the same.
            models: whether registered models come too.

        Raises:
            SourceError: nobody answers there.
            MissingDependencyError: MLflow is not installed.
        """
        super().__init__(without_password(uri), experiment=experiment, models=models)
        self._client = client_of(uri, registry or uri)
        self._known: dict[str, SourceExperiment] | None = None
        with told(self.name):
            self._store = self._client._tracking_client.store  # noqa: SLF001 - pages of histories

    def count(self) -> int | None:
        """Return None: to count is to read."""
        return None

    def experiments(self) -> Iterator[SourceExperiment]:
        """Yield all experiments."""
        for experiment in self._experiments().values():
            if experiment.source_id != _DEFAULT:
                yield experiment

    def runs(self) -> Iterator[SourceRun]:
        """Yield all runs, by experiment, the oldest first."""
        with told(self.name):
            has_models = has_logged(self._client)
        for experiment_id, experiment in self._experiments().items():
            logged = Logged()
            if has_models:
                with told(self.name):
                    logged = client_logged(self._client, experiment_id)
            seen: set[str] = set()
            token = None
            while True:
                with told(self.name):
                    page = self._client.search_runs(
                        [experiment_id],
                        run_view_type=_ALL,
                        max_results=_PAGE_RUNS,
                        order_by=["attributes.start_time ASC"],
                        page_token=token,
                    )
                for run in page:
                    seen.add(run.info.run_id)
                    # Models that runs read are not among what a search gives.
                    yield self._run(experiment, self._whole(run) if has_models else run, logged)
                token = page.token
                if not token:
                    break
            self.orphans += logged.without(experiment, seen)

    def registered(self) -> Iterator[SourceModel]:
        """Yield the registered models."""
        with told(self.name):
            yield from client_models(self._client)

    def _experiments(self) -> dict[str, SourceExperiment]:
        if self._known is None:
            self._known = {}
            token = None
            while True:
                with told(self.name):
                    page = self._client.search_experiments(
                        view_type=_ALL, order_by=["creation_time ASC"], page_token=token
                    )
                for each in page:
                    if self._only in {None, each.name, each.experiment_id}:
                        self._known[each.experiment_id] = _experiment(each)
                token = page.token
                if not token:
                    break
        return self._known

    def _whole(self, run: Any) -> Any:  # noqa: ANN401 - MLflow's
        with told(self.name):
            return self._client.get_run(run.info.run_id)

    def _run(self, experiment: SourceExperiment, run: Any, logged: Logged) -> SourceRun:  # noqa: ANN401 - MLflow's
        info, tags = run.info, dict(run.data.tags)
        notes: list[Note] = []
        measured = logged.measured.get(info.run_id, [])
        inputs, outputs = getattr(run, "inputs", None), getattr(run, "outputs", None)
        made = getattr(outputs, "model_outputs", None) or ()
        read = getattr(inputs, "model_inputs", None) or ()
        return SourceRun(
            source_id=info.run_id,
            experiment=experiment,
            name=info.run_name or tags.get("mlflow.runName") or None,
            status=info.status,
            start_us=millis(info.start_time),
            end_us=millis(info.end_time),
            user=info.user_id or tags.get(USER) or None,
            parent_id=tags.get(PARENT) or None,
            is_deleted=info.lifecycle_stage == schema.DELETED,
            params=dict(run.data.params),
            tags=tags,
            inputs=list(_inputs(run)),
            models=logged.made.get(info.run_id, []),
            outputs={each.model_id: each.step for each in made},
            model_inputs=[each.model_id for each in read],
            measured=measured,
            points=lambda: self._points(info.run_id, sorted(run.data.metrics), notes),
            artifacts=lambda: chain(
                _artifacts(info.artifact_uri, self._client.tracking_uri, notes),
                logged.files(info.run_id),
            ),
            notes=lambda: notes,
        )

    def _points(self, run_id: str, keys: list[str], notes: list[Note]) -> Iterator[pa.Table]:
        steps = Steps()
        with_data = 0
        for key in keys:
            token = None
            while True:
                with told(self.name):
                    page = self._store.get_metric_history(
                        run_id, key, max_results=_PAGE_POINTS, page_token=token
                    )
                for each in page:
                    steps.meet(each.value)
                    with_data += bool(getattr(each, "dataset_name", None))
                yield point_table(
                    [key] * len(page),
                    [steps.cut(each.step) for each in page],
                    [each.timestamp * 1000 for each in page],
                    [float(each.value) for each in page],
                )
                token = page.token
                if not token:
                    break
        notes += steps.notes()
        if with_data:
            notes.append(Note(NO_DATA_SET, count=with_data))


def client_of(uri: str, registry: str | None = None) -> Any:  # noqa: ANN401 - MLflow's
    """Return MLflow's client of a tracking URI.

    Args:
        uri: the tracking URI.
        registry: that of the registry; None: the same.

    Raises:
        SourceError: MLflow knows no such address.
        MissingDependencyError: MLflow is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    tracking = need("mlflow.tracking", extra="mlflow")
    with told(without_password(uri)):
        return tracking.MlflowClient(tracking_uri=uri, registry_uri=registry or uri)


@contextmanager
def told(name: str) -> Iterator[None]:
    """Turn MLflow's errors, and those of what it stands on, into ours.

    Args:
        name: of the source, for the message.

    Yields:
        Nothing; the block follows.

    Raises:
        SourceError: whatever went wrong.
    """
    try:
        yield
    except RunlakeError:
        raise
    except Exception as error:
        message = f"MLflow cannot read {name}: {type(error).__name__}: {error}"
        raise SourceError(message) from error


def files_at(uri: str, tracking_uri: str | None = None) -> Iterator[SourceFile]:
    """Yield the files at one of MLflow's artifact URIs.

    Args:
        uri: of a run or a model.
        tracking_uri: of the store that says so: a server may hand files on under its own
            address. None: what MLflow takes by default.

    Raises:
        SourceError: they cannot be listed.
        MissingDependencyError: MLflow is not installed.
    """
    registry = need("mlflow.store.artifact.artifact_repository_registry", extra="mlflow")
    with told(uri):
        repository = registry.get_artifact_repository(uri, tracking_uri)
    waiting: list[str | None] = [None]
    while waiting:
        folder = waiting.pop()
        with told(uri):
            found = repository.list_artifacts(folder)
        for each in sorted(found, key=lambda info: info.path, reverse=True):
            if each.is_dir:
                waiting.append(each.path)
            else:
                yield SourceFile(each.path, _fetcher(repository, each.path, uri), each.file_size)


def without_password(uri: str) -> str:
    """Return an address without the password in it."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))


def _fetcher(repository: Any, path: str, uri: str) -> Callable[[Path], Path]:  # noqa: ANN401 - MLflow's
    def fetch(folder: Path) -> Path:
        with told(uri), _lock:
            return Path(repository.download_artifacts(path, dst_path=str(folder)))

    return fetch


def _artifacts(uri: str, tracking_uri: str, notes: list[Note]) -> Iterator[SourceFile]:
    try:
        yield from files_at(uri, tracking_uri)
    except SourceError as error:
        notes.append(Note("artifacts left out: they cannot be listed", f"{uri}: {error}"))


def _experiment(given: Any) -> SourceExperiment:  # noqa: ANN401 - MLflow's
    return SourceExperiment(
        name=given.name,
        source_id=given.experiment_id,
        tags=dict(given.tags),
        is_deleted=given.lifecycle_stage == schema.DELETED,
        created_us=millis(given.creation_time),
    )


def _inputs(run: Any) -> Iterator[SourceInput]:  # noqa: ANN401 - MLflow's
    inputs = getattr(run, "inputs", None)
    for each in getattr(inputs, "dataset_inputs", None) or ():
        tags = {tag.key: tag.value for tag in each.tags}
        yield input_of(dict(each.dataset), tags)


# MLflow's downloads show bars of their own, and share what they keep for them.
_lock = threading.Lock()
