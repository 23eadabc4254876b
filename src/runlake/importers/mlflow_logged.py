"""Logged models of MLflow 3, from its client and from its folders, by the runs that made them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from runlake import schema
from runlake._lazy import need
from runlake.importers.mlflow_orphans import Orphan
from runlake.importers.mlflow_words import millis
from runlake.importers.source import SourceFile, SourceLogged
from runlake.logged_models import MeasuredModel, NewModel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from runlake.importers.source import SourceExperiment

FOLDER: Final = "_models"
"""Below a run lie so the files of logged models that it made."""
MAKER: Final = "import.source_run_id"
"""The tag of a logged model whose run is gone for good: that run's id."""
_STATUSES: Final = {
    1: schema.MODEL_PENDING,
    2: schema.MODEL_READY,
    3: schema.MODEL_FAILED,
    "PENDING": schema.MODEL_PENDING,
    "READY": schema.MODEL_READY,
    "FAILED": schema.MODEL_FAILED,
}
_PAGE: Final = 50
_ALL: Final = 3  # ViewType.ALL
_NOT_SERVED: Final = "ENDPOINT_NOT_FOUND"


@dataclass(slots=True)
class Logged:
    """The logged models of one experiment.

    Attributes:
        made: by the run that made them.
        measured: what was measured of models, by the run that did.
        places: where the files of each lie, by model.
        orphans: those that no run made.
        tracking_uri: of the store that says so, None of a folder.
    """

    made: dict[str, list[SourceLogged]] = field(default_factory=lambda: defaultdict(list))
    measured: dict[str, list[MeasuredModel]] = field(default_factory=lambda: defaultdict(list))
    places: dict[str, str] = field(default_factory=dict)
    orphans: list[SourceLogged] = field(default_factory=list)
    tracking_uri: str | None = None

    def files(self, run_id: str) -> Iterator[SourceFile]:
        """Yield the files of the models that a run made.

        Raises:
            SourceError: they cannot be listed.
        """
        for each in self.made.get(run_id, ()):
            model_id = each.model.model_id
            for file in self.files_of(model_id):
                yield file._replace(path=f"{FOLDER}/{model_id}/{file.path}")

    def files_of(self, model_id: str) -> Iterator[SourceFile]:
        """Yield the files of one model.

        Raises:
            SourceError: they cannot be listed.
        """
        place = self.places.get(model_id, "")
        root = _local(place)
        if root is None:
            files_at = need("runlake.importers.mlflow_client").files_at
            yield from files_at(place, self.tracking_uri)
            return
        for path, file in need("runlake.importers.mlflow_folder").files_below(root):
            yield SourceFile.local(path, file)

    def without(self, experiment: SourceExperiment, run_ids: Collection[str]) -> Iterator[Orphan]:
        """Yield the models that belong to none of the runs that there are.

        Args:
            experiment: where they lie.
            run_ids: all runs of it.
        """
        for run_id, models in self.made.items():
            for each in models if run_id not in run_ids else ():
                tags = {MAKER: run_id, **each.model.tags}
                alone = each._replace(model=replace(each.model, source_run_id=None, tags=tags))
                yield self._orphan(experiment, alone)
        for each in self.orphans:
            yield self._orphan(experiment, each)

    def _orphan(self, experiment: SourceExperiment, each: SourceLogged) -> Orphan:
        return Orphan(experiment, each, partial(self.files_of, each.model.model_id))

    def add(
        self, about: Mapping[str, Any], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Take in a model.

        Args:
            about: MLflow's fields of it.
            params: texts by key.
            tags: likewise.
        """
        run_id = str(about.get("source_run_id") or "")
        model = NewModel(
            model_id=str(about["model_id"]),
            name=str(about.get("name") or ""),
            source_run_id=run_id or None,
            model_type=about.get("model_type") or None,
            params=dict(params),
            tags=dict(tags),
            status=_STATUSES.get(about.get("status") or 1, schema.MODEL_PENDING),
            time_us=millis(about.get("creation_timestamp")),
        )
        updated = millis(about.get("last_updated_timestamp"))
        among = self.made[run_id] if run_id else self.orphans
        among.append(SourceLogged(model, updated, about.get("status_message")))
        self.places[model.model_id] = str(about.get("artifact_location") or "")


def has_logged(client: Any) -> bool:  # noqa: ANN401 - MLflow's
    """Tell whether any experiment of MLflow's client has a logged model.

    Args:
        client: MLflow's; one of before 3, or of a server of before 3, knows none.
    """
    token = None
    while hasattr(client, "search_logged_models"):
        page = client.search_experiments(view_type=_ALL, page_token=token)
        homes = [each.experiment_id for each in page]
        try:
            found = homes and client.search_logged_models(homes, max_results=1)
        except need("mlflow.exceptions").MlflowException as error:
            if error.error_code != _NOT_SERVED:
                raise
            return False
        if found:
            return True
        token = page.token
        if not token:
            break
    return False


def client_logged(client: Any, experiment_id: str) -> Logged:  # noqa: ANN401 - MLflow's
    """Return the logged models of an experiment, through MLflow's client.

    Args:
        client: MLflow's, of which `has_logged` is true.
        experiment_id: the experiment.
    """
    found = Logged(tracking_uri=str(client.tracking_uri))
    token = None
    while True:
        page = client.search_logged_models([experiment_id], max_results=_PAGE, page_token=token)
        for each in page:
            about = {
                **each.to_dictionary(),
                "status": str(getattr(each.status, "value", each.status)),
            }
            found.add(about, each.params, each.tags)
            for metric in each.metrics or ():
                run_id = metric.run_id or each.source_run_id
                point = _measured(
                    each.model_id,
                    metric.key,
                    (metric.timestamp, metric.value, metric.step),
                    (metric.dataset_name, metric.dataset_digest),
                )
                found.measured[str(run_id)].append(point)
        token = page.token
        if not token:
            return found


def folder_logged(experiment: Path) -> Logged:
    """Return the logged models of an experiment of MLflow's file store.

    Args:
        experiment: its folder.
    """
    words = need("runlake.importers.mlflow_folder")
    found = Logged()
    root = experiment / "models"
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not (folder / "meta.yaml").is_file():
            continue
        about = words.read_yaml(folder / "meta.yaml")
        if about.get("lifecycle_stage") == schema.DELETED:
            continue
        if (
            _local(str(about.get("artifact_location") or "")) is None
            and (folder / "artifacts").is_dir()
        ):
            about["artifact_location"] = str(folder / "artifacts")
        found.add(
            about,
            dict(words.texts_below(folder / "params")),
            dict(words.texts_below(folder / "tags")),
        )
        for key, text in words.texts_below(folder / "metrics"):
            for line in text.splitlines():
                time, value, step, run_id, *dataset = line.split(" ", 5)
                point = _measured(
                    str(about["model_id"]),
                    key,
                    (int(time), float(value), int(float(step))),
                    (dataset[0], dataset[1]) if len(dataset) == 2 else None,  # noqa: PLR2004 - a pair
                )
                found.measured[run_id].append(point)
    return found


def _measured(
    model_id: str,
    key: str,
    point: tuple[int, float, int],
    dataset: tuple[str | None, str | None] | None,
) -> MeasuredModel:
    time_ms, value, step = point
    name, digest = dataset or (None, None)
    return MeasuredModel(
        model_id=model_id,
        key=key,
        value=value,
        step=step,
        time_us=time_ms * 1000,
        dataset=None if name is None or digest is None else (name, digest),
    )


def _local(place: str) -> Path | None:
    """Return the folder that an artifact location is, None if it is none that is there."""
    if not place or ("://" in place and not place.startswith("file:")):
        return None
    found = Path(unquote(urlsplit(place).path) if place.startswith("file:") else place)
    return found if found.is_dir() else None
