"""Where runs and models of MLflow's clients keep their files.

A place in the lake is worked out when it is asked for, so that a lake may move, and serve directly
as well as behind a server. A place that somebody chose is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final, TypeAlias

from mlflow.utils.uri import append_to_uri_path, resolve_uri_if_local

from runlake.mlflow_plugin import uris
from runlake.mlflow_plugin.base import LakeStore
from runlake.mlflow_plugin.serving import artifact_destination
from runlake.query.homes import chosen_locations

if TYPE_CHECKING:
    from mlflow.entities import Experiment

    from runlake.query.engine import Query

# Given an experiment and a run, returns where the run's artifacts lie.
Locate: TypeAlias = Callable[[str, str], str]

# What MLflow's server gives as the root of artifacts where nobody chose one.
_UNCHOSEN_ROOTS: Final = frozenset({"./mlruns", "mlruns", "./mlartifacts"})
_PROXIES: Final = ("mlflow-artifacts:", "http:", "https:")


class PlaceStore(LakeStore):
    """What a tracking store's other parts ask about places."""

    if TYPE_CHECKING:
        # Of `runlake.mlflow_plugin.experiments.ExperimentStore`.
        def _experiment(self, experiment_id: str) -> Experiment: ...

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        """Read nothing yet.

        Args:
            store_uri: of the lake, as MLflow has it.
            artifact_uri: where experiments keep artifacts, a relative path as of now; None: in the
                lake.
        """
        if artifact_uri not in _UNCHOSEN_ROOTS:
            artifact_uri = resolve_uri_if_local(artifact_uri)
        super().__init__(store_uri, artifact_uri)

    def _locations(self, query: Query) -> Locate:
        """Return what tells where the artifacts of runs lie, by experiment and run.

        Args:
            query: the snapshot that the runs are of.
        """
        chosen = query.once("chosen locations", partial(chosen_locations, query.tables))
        return lambda home, run_id: self._run_place(home, run_id, chosen.get(home))

    def _run_artifact_uri(self, experiment: Experiment, run_id: str) -> str:
        """Return where the artifacts of a run lie.

        Args:
            experiment: of the run.
            run_id: the run.
        """
        home = experiment.experiment_id
        location = experiment.artifact_location
        chosen = None if location == self._experiment_location(home, None) else location
        return self._run_place(home, run_id, chosen)

    def _model_artifact_uri(self, experiment_id: str, home: str, model_id: str) -> str:
        """Return where the files of a logged model lie.

        Args:
            experiment_id: of the model.
            home: the run that made it, else its own id.
            model_id: the model.
        """
        location = self._experiment(experiment_id).artifact_location
        if location != self._experiment_location(experiment_id, None) or self._hands_elsewhere:
            return str(append_to_uri_path(location, "models", model_id, "artifacts"))
        below = () if home == model_id else (uris.MODELS_FOLDER, model_id)
        place = self._run_place(experiment_id, home, None)
        return "/".join([place, *below])

    # Inside.

    def _run_place(self, home: str, run_id: str, chosen: str | None) -> str:
        """Return where the artifacts of a run lie, in the location that somebody chose or not."""
        location = self._experiment_location(home, chosen)
        if chosen is None and not self._is_proxy:
            return f"{location}/{run_id}"
        return str(append_to_uri_path(location, run_id, "artifacts"))

    @cached_property
    def _lake_root(self) -> str:
        """Where artifacts in the lake lie."""
        return uris.artifact_uri(self.store_uri)

    @cached_property
    def _chosen_root(self) -> str | None:
        """Where new experiments keep artifacts if not in the lake, and nobody chose a place."""
        root = self.artifact_root or None
        return None if root in _UNCHOSEN_ROOTS or self._is_lake_root(root) else root

    @cached_property
    def _is_proxy(self) -> bool:
        """Whether artifacts go through a server, to whatever it hands them on to."""
        return (self._chosen_root or "").startswith(_PROXIES)

    @property
    def _hands_elsewhere(self) -> bool:
        """Whether this process is a server that hands artifacts on to another place than here."""
        destination = artifact_destination()
        return self._is_proxy and destination is not None and not self._is_lake_root(destination)

    def _is_lake_root(self, root: str | None) -> bool:
        return root is not None and root.rstrip("/") == self._lake_root

    def _new_place(self, experiment_id: str) -> str | None:
        """Return where a new experiment keeps artifacts for good; None: where it is worked out."""
        root = None if self._is_proxy else self._chosen_root
        return root and str(append_to_uri_path(root, experiment_id))

    def _experiment_location(self, experiment_id: str, chosen: str | None) -> str:
        """Return where the artifacts of an experiment lie."""
        if chosen is not None:
            return chosen
        if self._is_proxy:
            return str(append_to_uri_path(self._chosen_root, experiment_id))
        return f"{self._lake_root}/{experiment_id}"
