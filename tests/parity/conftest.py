"""A real MLflow store and a lake that hold the same, made once a session."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from runlake.lake import open_lake
from tests.parity.twins import (
    RUN_COUNT,
    ExperimentTwins,
    RunTwins,
    draw_experiments,
    draw_runs,
    fill_lake,
    fill_store,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where MLflow's database is."""
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


@pytest.fixture(scope="session")
def store(database: Path) -> Iterator[SqlAlchemyStore]:
    """A store of MLflow's, which tells nobody that it is used, and does not talk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("DO_NOT_TRACK", "true")
        patch.setenv("MLFLOW_LOGGING_LEVEL", "ERROR")
        import sqlalchemy  # noqa: PLC0415 - takes seconds
        from mlflow.store.tracking.sqlalchemy_store import (  # noqa: PLC0415 - takes seconds
            SqlAlchemyStore,
        )

        store = SqlAlchemyStore(f"sqlite:///{database}", str(database.parent / "artifacts"))
        # What MLflow writes need not outlive a power cut: that is half of the time.
        sqlalchemy.event.listen(
            store.engine,
            "checkout",
            lambda connection, *_: connection.execute("PRAGMA synchronous = OFF"),
        )
        yield store
        store.engine.dispose()


@pytest.fixture(scope="session")
def runs(store: SqlAlchemyStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunTwins]:
    """Hundreds of runs in both."""
    drawn = draw_runs(RUN_COUNT)
    store_homes = fill_store(store, drawn)
    folder = tmp_path_factory.mktemp("parity")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNLAKE_PROVENANCE", "off")  # the store has no tags but these runs' own
        with open_lake(str(folder / "written")) as lake:
            lake_homes = fill_lake(lake, drawn)
            lake.flush()
            # Some runs are open, and stay so in a copy whatever becomes of them here.
            shutil.copytree(folder / "written", folder / "lake")
    with open_lake(str(folder / "lake"), read_only=True) as copy:
        yield RunTwins(
            drawn, store=store, store_homes=store_homes, lake=copy, lake_homes=lake_homes
        )


@pytest.fixture(scope="session")
def experiments(runs: RunTwins, database: Path) -> ExperimentTwins:
    """Dozens of experiments in both, beside those of the runs."""
    return ExperimentTwins.fill(runs, database, draw_experiments(40))
