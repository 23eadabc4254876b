"""What runs read and made, as MLflow's clients see it: data sets and models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    RunInputs,
    RunOutputs,
)
from mlflow.entities.dataset_summary import _DatasetSummary
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from mlflow.utils.validation import _validate_dataset_inputs, _validate_run_id

from runlake import logged_models
from runlake.dataset import entity
from runlake.mlflow_plugin.base import LakeStore
from runlake.mlflow_plugin.errors import translated
from runlake.query import input_rows
from runlake.query.logged import read_linked
from runlake.questions import ask

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from runlake.mlflow_plugin.known import KnownRun
    from runlake.query.engine import Query
    from runlake.writing.events import Row

# As many summaries as MLflow's own store returns.
_MOST_SUMMARIES: Final = 1000
_SUMMARIES: Final = """
SELECT DISTINCT experiment_id, name, digest, context
FROM inside.input_rows
WHERE experiment_id IN (SELECT unnest(CAST($ids AS VARCHAR[])))
ORDER BY ALL
LIMIT $most
"""


class InputStore(LakeStore):
    """What MLflow calls of a tracking store about inputs and outputs of runs."""

    if TYPE_CHECKING:  # of the store's other parts

        def _experiment_ids(self, given: Iterable[object]) -> list[str]: ...
        def _writable(self, run_id: str) -> KnownRun: ...

    @translated
    def log_inputs(
        self,
        run_id: str,
        datasets: list[DatasetInput] | None = None,
        models: list[LoggedModelInput] | None = None,
    ) -> None:
        """Log that a run read data sets and models.

        As in MLflow's own store a data set that the run has already stays as it was said first.

        Args:
            run_id: the run.
            datasets: each with its tags.
            models: logged ones.

        Raises:
            MlflowException: the run is unknown or deleted, or an input breaks MLflow's limits.
            TypeError: `datasets` is no list.
        """
        _validate_run_id(run_id)
        given: Any = datasets
        if given is not None:
            if not isinstance(given, list):
                raise TypeError(f"Argument 'datasets' should be a list, got '{type(given)}'")
            _validate_dataset_inputs(given)
        run = self._writable(run_id)
        known: set[tuple[str, str]] = set()
        if datasets:
            found = ask(self.lake, lambda query: input_rows.read_inputs(query, [run_id]))
            known = {(each.name, each.digest) for each in found.get(run_id, ())}
        rows: list[Row] = []
        for each in datasets or ():
            name = each.dataset.name, each.dataset.digest
            if name not in known:
                known.add(name)
                rows += _rows_of(run_id, each)
        rows += logged_models.input_rows(run_id, [model.model_id for model in models or ()])
        if rows:
            run.events(rows)

    @translated
    def log_outputs(self, run_id: str, models: list[LoggedModelOutput]) -> None:
        """Log that a run made models.

        Args:
            run_id: the run.
            models: each with the step at which it was made.

        Raises:
            MlflowException: the run is unknown or deleted.
        """
        _validate_run_id(run_id)
        run = self._writable(run_id)
        rows = logged_models.output_rows(run_id, {model.model_id: model.step for model in models})
        if rows:
            run.events(rows)

    @translated
    def _search_datasets(self, experiment_ids: Sequence[str]) -> list[_DatasetSummary]:
        """Return the data sets that runs of some experiments read, each once."""
        homes = self._experiment_ids(experiment_ids)
        params: dict[str, Any] = {"ids": homes, "most": _MOST_SUMMARIES}
        found = ask(self.lake, lambda query: query.read(_SUMMARIES, params, needs=("input_rows",)))
        return [_DatasetSummary(**row) for row in found.to_pylist()]


def read_inputs(query: Query, run_ids: Collection[str]) -> dict[str, tuple[RunInputs, RunOutputs]]:
    """Return what runs read and made, as MLflow has it.

    Args:
        query: the snapshot.
        run_ids: the runs.

    Returns:
        By run; runs that neither read nor made anything are left out.

    Raises:
        FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
        StorageError: the store cannot be read.
    """
    datasets = input_rows.read_inputs(query, run_ids)
    linked = read_linked(query, run_ids)
    found: dict[str, tuple[RunInputs, RunOutputs]] = {}
    for run_id in datasets.keys() | linked.keys():
        models = linked.get(run_id)
        inputs = RunInputs(
            _once([_dataset_input(each) for each in datasets.get(run_id, ())]),
            [LoggedModelInput(model_id) for model_id in models.inputs] if models else [],
        )
        made = models.outputs if models else []
        outputs = RunOutputs([LoggedModelOutput(model_id, step) for model_id, step in made])
        found[run_id] = inputs, outputs
    return found


def _rows_of(run_id: str, given: DatasetInput) -> list[Row]:
    """Return the rows that say that a run read a data set."""
    tags = {tag.key: tag.value for tag in given.tags or ()}
    context = tags.pop(MLFLOW_DATASET_CONTEXT, None)
    return entity.input_rows(run_id, given.dataset, context, tags=tags)


def _dataset_input(found: input_rows.Input) -> DatasetInput:
    texts = dict(found.tags)
    if found.context is not None:
        texts[MLFLOW_DATASET_CONTEXT] = found.context
    tags = [InputTag(key, text) for key, text in sorted(texts.items())]  # as MLflow's database
    dataset = Dataset(
        name=found.name,
        digest=found.digest,
        source_type=found.source_type or "",
        source=found.source or "",
        schema=found.schema,
        profile=found.profile,
    )
    return DatasetInput(dataset=dataset, tags=tags)


def _once(inputs: list[DatasetInput]) -> list[DatasetInput]:
    """Return inputs with the first of several of one data set only, as MLflow keeps them."""
    first: dict[tuple[str, str], DatasetInput] = {}
    for each in inputs:
        first.setdefault((each.dataset.name, each.dataset.digest), each)
    return list(first.values())
