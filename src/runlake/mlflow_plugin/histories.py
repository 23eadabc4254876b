"""Every point of metrics, as MLflow asks for them.

Points come as columns and are put in order as columns; only what is returned becomes MLflow's
entities. Points that agree in step, time and value are one, as in MLflow's own stores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow.entities import Metric
from mlflow.entities.metric import MetricWithRunId
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.search_utils import SearchUtils

from runlake._lazy import lazy
from runlake.mlflow_plugin import asked
from runlake.mlflow_plugin.base import LakeStore
from runlake.mlflow_plugin.errors import translated
from runlake.questions import ask, read_points

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from runlake.query.engine import Query
else:
    np = lazy("numpy")


class _History(NamedTuple):
    """Points of one metric of one run; times in milliseconds since 1970."""

    steps: NDArray[np.int64]
    times: NDArray[np.int64]
    values: NDArray[np.float64]

    def take(self, rows: Any) -> _History:  # noqa: ANN401 - whatever NumPy takes
        return _History(self.steps[rows], self.times[rows], self.values[rows])

    def ordered(self, *, by_step: bool) -> _History:
        """Return the points by step or by time, each once; NaN sorts as 0, as MLflow's do."""
        is_nan = np.isnan(self.values)
        numbers = np.where(is_nan, 0.0, self.values)
        first = [self.times, self.steps] if by_step else [self.steps, self.times]
        order = np.lexsort([is_nan, numbers, *first])
        found, is_nan = self.take(order), is_nan[order]
        is_new = np.ones(len(order), bool)
        is_new[1:] = (
            (np.diff(found.steps) != 0)
            | (np.diff(found.times) != 0)
            | (is_nan[1:] != is_nan[:-1])
            | ((found.values[1:] != found.values[:-1]) & ~is_nan[1:])
        )
        return found if is_new.all() else found.take(is_new)

    def metrics(self, key: str) -> list[Metric]:
        """Return the points as MLflow's entities."""
        values = asked.shown(self.values)
        columns = (column.tolist() for column in (values, self.times, self.steps))
        return [Metric(key, *point) for point in zip(*columns, strict=True)]

    def of_run(self, key: str, run_id: str) -> list[MetricWithRunId]:
        """Return the points as MLflow's entities that name their run."""
        return [MetricWithRunId(metric, run_id) for metric in self.metrics(key)]


class HistoryStore(LakeStore):
    """The part of MLflow's tracking store that reads histories of metrics."""

    @translated
    def get_metric_history(
        self,
        run_id: str,
        metric_key: str,
        max_results: int | None = None,
        page_token: str | None = None,
    ) -> PagedList[Metric]:
        """Return the points of one metric of one run, by time, step and value.

        Args:
            run_id: the run; one that is unknown has no points.
            metric_key: the metric.
            max_results: greatest number of points; None: all.
            page_token: of the page before.

        Returns:
            One page, with the token of the next.

        Raises:
            MlflowException: the token is none; the store cannot be read.
        """
        start = SearchUtils.parse_start_offset_from_page_token(page_token)
        found = self._histories([run_id], metric_key)[run_id].ordered(by_step=False)
        end = len(found.steps) if max_results is None else start + max_results
        token = SearchUtils.create_page_token(end) if end < len(found.steps) else None
        return PagedList(found.take(slice(start, end)).metrics(metric_key), token)

    @translated
    def get_metric_history_bulk(
        self, run_ids: Sequence[str], metric_key: str, max_results: int
    ) -> list[MetricWithRunId]:
        """Return the points of one metric of several runs, by run id, time, step and value.

        Args:
            run_ids: the runs.
            metric_key: the metric.
            max_results: greatest number of points, of all runs together.

        Raises:
            MlflowException: the store cannot be read.
        """
        found: list[MetricWithRunId] = []
        histories = self._histories(run_ids, metric_key)
        for run_id in sorted(histories):
            left = max_results - len(found)
            if left <= 0:
                break
            ordered = histories[run_id].ordered(by_step=False)
            found += ordered.take(slice(left)).of_run(metric_key, run_id)
        return found

    @translated
    def get_metric_history_bulk_interval(  # noqa: PLR0917 - MLflow's
        self,
        run_ids: Sequence[str],
        metric_key: str,
        max_results: int,
        start_step: int | None,
        end_step: int | None,
    ) -> list[MetricWithRunId]:
        """Return points of one metric of several runs, spread evenly over each run's.

        Args:
            run_ids: the runs, in the order wanted.
            metric_key: the metric.
            max_results: greatest number of points of each run.
            start_step: least step wanted, None together with `end_step`.
            end_step: greatest step wanted.

        Returns:
            The points by step; the first and the last of each run are among them.

        Raises:
            MlflowException: one of the steps is missing; the store cannot be read.
        """
        if (start_step is None) != (end_step is None):
            raise MlflowException.invalid_parameter_value(
                "Both start_step and end_step must be specified together, "
                "or neither may be specified."
            )
        found: list[MetricWithRunId] = []
        histories = self._histories(run_ids, metric_key)
        for run_id in run_ids:
            history = histories[run_id]
            if start_step is not None and end_step is not None:
                is_within = (history.steps >= start_step) & (history.steps <= end_step)
                history = history.take(is_within)
            history = history.ordered(by_step=True)
            kept = _spread(len(history.steps), max(1, max_results))
            found += history.take(kept).of_run(metric_key, run_id)
        return found

    @translated
    def get_metric_history_bulk_interval_from_steps(
        self, run_id: str, metric_key: str, steps: Sequence[int], max_results: int
    ) -> list[MetricWithRunId]:
        """Return the points of one metric of one run at some steps.

        Args:
            run_id: the run.
            metric_key: the metric.
            steps: the steps.
            max_results: greatest number of points.

        Returns:
            The points by step, time and value.

        Raises:
            MlflowException: the store cannot be read.
        """
        history = self._histories([run_id], metric_key)[run_id]
        wanted = np.array(sorted({int(step) for step in steps}), np.int64)
        history = history.take(np.isin(history.steps, wanted)).ordered(by_step=True)
        return history.take(slice(max(0, max_results))).of_run(metric_key, run_id)

    @translated
    def get_max_step_for_metric(self, run_id: str, metric_key: str) -> int:
        """Return the greatest step of one metric of one run; 0 where there is none.

        Args:
            run_id: the run.
            metric_key: the metric.

        Raises:
            MlflowException: the store cannot be read.
        """
        steps = self._histories([run_id], metric_key)[run_id].steps
        return int(steps.max()) if len(steps) else 0

    def _histories(self, run_ids: Sequence[str], key: str) -> dict[str, _History]:
        """Return the points of one metric of some runs, in no order."""
        wanted = list(dict.fromkeys(run_ids))

        def answer(query: Query) -> dict[str, _History]:
            points = read_points(self.lake, query, run_ids=wanted, key=key)
            edges = np.searchsorted(points.curves, np.arange(len(wanted) + 1))
            whole = _History(points.steps, points.times // 1000, points.values)
            return {
                run_id: whole.take(slice(start, end))
                for run_id, start, end in zip(
                    wanted, edges[:-1].tolist(), edges[1:].tolist(), strict=True
                )
            }

        return ask(self.lake, answer)


def _spread(count: int, wanted: int) -> NDArray[np.int64]:
    """Return which of some points to keep: the first of each of so many parts, and the last.

    Args:
        count: how many points there are.
        wanted: greatest number to keep, at least 1.
    """
    if count <= wanted:
        return np.arange(count)
    size, longer = divmod(count, wanted)
    parts = np.arange(wanted)
    kept: NDArray[np.int64] = parts * size + np.minimum(parts, longer)
    kept[-1] = count - 1
    return kept
