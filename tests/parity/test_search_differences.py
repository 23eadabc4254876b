"""Every row of docs/guides/mlflow-differences.md, asked of a real MLflow and of a lake."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

import runlake
from runlake import active
from runlake.errors import InvalidInputError, NotFoundError
from tests.meta.tree import ROOT
from tests.parity.twins import START_MS, Twin, put_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from runlake.lake import Lake
    from tests.parity.twins import RunTwins

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # MLflow's use of SQLAlchemy.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]

PAGE: Final = (ROOT / "docs/guides/mlflow-differences.md").read_text("utf-8")
REFUSED: Final = "refused"


class Row(NamedTuple):
    """One row of a table: what is asked, and what both answer."""

    asked: str
    mlflow: str
    runlake: str


def rows_of(section: str, first: str) -> list[Row]:
    """Return the rows of the table of a section whose first column has this head."""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    found = []
    for table in re.findall(rf"\| {first} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text):
        for line in table.splitlines():
            asked, *cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            asked = re.sub(r"^(`+) ?(.*?) ?\1$", r"\2", asked)
            answers = cells[:2] if len(cells) == 3 else [REFUSED, cells[0]]
            found.append(Row(asked, *answers))
    return found


FILTERS = [
    *rows_of("Answered otherwise", "Filter"),
    *rows_of("Refused by MLflow, answered here", "Filter"),
]
ORDERS = [
    *rows_of("Answered otherwise", "Order"),
    *rows_of("Refused by MLflow, answered here", "Order"),
]
EXPERIMENTS = rows_of("Experiments", "Filter")


class Both(NamedTuple):
    """The page's runs in both."""

    store: SqlAlchemyStore
    experiment_id: str
    lake: Lake


@pytest.fixture(scope="module")
def both(store: SqlAlchemyStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Run the page's block, and tell MLflow what the lake then holds."""
    block = re.search(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("differences"))
        exec(compile(block[1], "mlflow-differences.md", "exec"), names)  # noqa: S102 - our own page
        lake: Lake = names["lake"]
        experiment_id = store.create_experiment("differences")
        for place, run in enumerate(twins_of(lake)):
            # A second apart, so that no two begin in one of MLflow's milliseconds.
            run.start += 1000 * place
            put_run(store, experiment_id, run)
        yield Both(store, experiment_id, lake)
        lake.close()


def twins_of(lake: Lake) -> list[Twin]:
    """Read all runs of a lake, the first first."""
    found = []
    for row in lake.sql("FROM runs ORDER BY start_time").to_dicts():
        points = lake.sql(
            "SELECT key, value, epoch_ms(timestamp), step FROM metrics WHERE run_id = ?",
            [row["run_id"]],
        )
        inputs = lake.sql(
            "SELECT name, digest, context FROM inputs WHERE run_id = ?", [row["run_id"]]
        )
        found.append(
            Twin(
                run_id=row["run_id"],
                home=row["experiment_name"],
                name=row["run_name"],
                user=row["user_id"],
                start=START_MS,
                status=row["status"],
                end=START_MS,
                is_deleted=False,
                params=dict(row["params"]),
                tags=dict(row["tags"]),
                points=points.rows(),
                inputs=inputs.rows(),
            )
        )
    return found


def answer(ask: Callable[[], Sequence[str]], refusal: type[Exception]) -> str:
    """Return what a table says of an answer."""
    try:
        return ", ".join(ask()) or "none"
    except refusal:
        return REFUSED


def ask_mlflow(both: Both, filter_string: str, order_by: Sequence[str]) -> str:
    """Return MLflow's answer; without an order, by name."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - takes seconds

    def ask() -> list[str]:
        found = both.store.search_runs(
            [both.experiment_id], filter_string, 1, order_by=list(order_by or ["run_name"])
        )
        return [run.info.run_name for run in found]

    return answer(ask, MlflowException)


def ask_runlake(both: Both, filter_string: str, order_by: Sequence[str]) -> str:
    """Return the lake's answer; without an order, by name."""

    def ask() -> list[str]:
        found = both.lake.search_runs(filter_string, order_by=order_by or ["run_name"])
        return found["run_name"].to_list()

    return answer(ask, InvalidInputError)


def test_the_page_has_rows_to_ask() -> None:
    assert len(FILTERS) > 20
    assert len(ORDERS) > 4
    assert len(EXPERIMENTS) > 4


@pytest.mark.parametrize("row", FILTERS, ids=lambda row: row.asked)
def test_a_filter_is_answered_as_the_page_says(both: Both, row: Row) -> None:
    assert ask_mlflow(both, row.asked, []) == row.mlflow
    assert ask_runlake(both, row.asked, []) == row.runlake


@pytest.mark.parametrize("row", ORDERS, ids=lambda row: row.asked)
def test_an_order_is_answered_as_the_page_says(both: Both, row: Row) -> None:
    assert ask_mlflow(both, "", [row.asked]) == row.mlflow
    assert ask_runlake(both, "", [row.asked]) == row.runlake


@pytest.mark.parametrize("row", EXPERIMENTS, ids=lambda row: row.asked)
def test_a_filter_over_experiments_is_answered_as_the_page_says(both: Both, row: Row) -> None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - takes seconds

    def names(found: Sequence[Any]) -> list[str]:
        return [each.name for each in found]

    mlflow = answer(
        lambda: names(both.store.search_experiments(filter_string=row.asked)), MlflowException
    )
    assert mlflow == row.mlflow
    found = answer(lambda: names(both.lake.search_experiments(row.asked)), InvalidInputError)
    assert found == row.runlake


# What the page says of functions.


@pytest.fixture
def mlflow(runs: RunTwins, database: Path) -> Iterator[Any]:
    """MLflow's module on its store, and ours on the lake."""
    import mlflow  # noqa: PLC0415 - takes seconds

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    runlake.set_tracking_uri(runs.lake.url)
    yield mlflow
    active.forget()
    mlflow.set_tracking_uri(before)


def test_an_unknown_experiment_is_an_error(mlflow: Any) -> None:  # noqa: ANN401 - the module
    assert mlflow.search_runs(experiment_names=["nothing"], output_format="list") == []
    with pytest.raises(NotFoundError, match="nothing"):
        runlake.search_runs(experiment_names=["nothing"])


def test_all_experiments_are_the_deleted_ones_too(mlflow: Any, runs: RunTwins) -> None:  # noqa: ANN401 - the module
    gone = {run.run_id for run in runs.runs if run.home == "gone"}
    theirs = mlflow.search_runs(search_all_experiments=True, run_view_type=3, output_format="list")
    ours = runlake.search_runs(search_all_experiments=True, run_view_type=3, output_format="list")
    assert gone.isdisjoint(run.info.run_id for run in theirs)
    assert gone <= {run.info.run_id for run in ours}


def test_frames_have_the_same_columns_but_for_what_a_run_says_by_itself(
    mlflow: Any,  # noqa: ANN401 - the module
    runs: RunTwins,
) -> None:
    theirs = mlflow.search_runs([runs.store_homes["one"]])
    ours = runlake.search_runs([runs.lake_homes["one"]], output_format="pandas")
    only_theirs = {"tags.mlflow.runName", "tags.mlflow.user"}
    assert set(theirs.columns) - set(ours.columns) == only_theirs
    assert set(ours.columns) - set(theirs.columns) == {"run_name"}
    assert ours["run_id"].tolist() == theirs["run_id"].tolist()
    for key in ("params.kernel", "tags.team", "status"):
        assert [text or None for text in ours[key].tolist()] == [
            text or None for text in theirs[key].tolist()
        ]


def test_a_page_stays_right_while_runs_come(store: SqlAlchemyStore, tmp_path: Path) -> None:
    experiment_id = store.create_experiment("pages")

    def put(place: int) -> None:
        time = START_MS + place
        run = Twin(f"{place:032x}", "", f"run {place}", "ann", time, "RUNNING", None, False)  # noqa: FBT003
        put_run(store, experiment_id, run)
        with lake.start_run(f"run {place}"):
            pass

    with runlake.open(str(tmp_path / "lake")) as lake:
        for place in range(1, 5):
            put(place)
        first = store.search_runs([experiment_id], "", 1, max_results=2)
        ours = lake.search_runs(limit=2, output_format="list")
        assert [run.info.run_name for run in first] == ["run 4", "run 3"]
        assert [run.info.run_name for run in ours] == ["run 4", "run 3"]
        put(5)
        second = store.search_runs([experiment_id], "", 1, max_results=2, page_token=first.token)
        rest = lake.search_runs(limit=2, output_format="list", page_token=ours.token)
        assert [run.info.run_name for run in second] == ["run 3", "run 2"]
        assert [run.info.run_name for run in rest] == ["run 2", "run 1"]


def test_any_number_of_results_may_be_asked_for(runs: RunTwins) -> None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - takes seconds

    for number in (0, 50_001):
        with pytest.raises(MlflowException):
            runs.store.search_runs([runs.store_homes["one"]], "", 1, max_results=number)
    assert runs.lake.search_runs(limit=0).is_empty()
    assert runs.lake.search_runs(limit=50_001).height == runs.lake.search_runs().height > 0
