"""The same runs and experiments in a real MLflow and in a lake, the same questions, one answer."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runlake.errors import InvalidInputError
from tests.parity import filters, twins

if TYPE_CHECKING:
    from tests.parity.twins import ExperimentTwins, RunTwins

RUN_IDS = tuple(run.run_id for run in twins.draw_runs(twins.RUN_COUNT))[:12]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # MLflow's use of SQLAlchemy.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]
quietly = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=150
)


@quietly
@given(
    filter_string=filters.run_filters(RUN_IDS),
    order_by=filters.run_orders(),
    view=st.sampled_from(twins.VIEWS),
)
def test_mlflows_filters_and_orders_find_the_same_runs_in_the_same_order(
    runs: RunTwins, filter_string: str, order_by: list[str], view: str
) -> None:
    expected = runs.ask_mlflow(filter_string, order_by, view)
    assert runs.ask_lake(filter_string, order_by, view) == expected


@quietly
@given(
    filter_string=filters.experiment_filters(),
    order_by=filters.experiment_orders(),
    view=st.sampled_from(twins.VIEWS),
)
def test_mlflows_filters_and_orders_find_the_same_experiments_in_the_same_order(
    experiments: ExperimentTwins, filter_string: str, order_by: list[str], view: str
) -> None:
    expected = experiments.ask_mlflow(filter_string, order_by, view)
    assert experiments.ask_lake(filter_string, order_by, view) == expected


@settings(quietly, max_examples=300)
@given(text=filters.near_filters())
def test_what_mlflow_refuses_is_refused_unless_the_page_of_differences_says_otherwise(
    runs: RunTwins, text: str
) -> None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - takes seconds

    expected = found = error = None
    with suppress(MlflowException):
        expected = runs.ask_mlflow(text)
    try:
        found = runs.ask_lake(text)
    except InvalidInputError as raised:
        error = str(raised)
    if expected is None:
        assert found is None or filters.is_beyond(text)
    elif error is not None:
        # One AND too few or too many, of which MLflow thinks nothing.
        assert re.search(
            "expected AND, OR or the end|expected a field.*found ('AND'|the end)", error
        )
    else:
        assert found == expected
