"""The same runs and experiments in a real MLflow store and in a lake.

MLflow's is the SQLAlchemy store over SQLite, which its users have by default. The runs are
drawn with a fixed seed, ids and times included, so that every session asks of the same.
"""

from __future__ import annotations

import math
import random
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Self
from unittest import mock

from runlake import clock, run_plan
from runlake.dataset import Dataset
from runlake.query import Query
from runlake.query.search import search_experiments
from tests.query.builders import lake_event, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from runlake.lake import Lake

RUN_COUNT: Final = 240
START_MS: Final = 1_700_000_000_000
VIEWS: Final = ("ACTIVE_ONLY", "DELETED_ONLY", "ALL")
# What the two stores keep alike; infinities are told apart only here.
NUMBERS: Final = (0.5, 0.5, -1.0, 0.0, -0.0, 1e-7, 1e300, math.inf, -math.inf, math.nan, 3.0, 0.3)
TEXTS: Final = (
    "rbf", "RBF", "linear", "it's", 'say "hi"', "100%", "a_b", "axb", "C:\\dir", "ключ", "größe",
    "日本", "two\nlines", " padded ", "Ünder", "rbf2", "-", "🙂 ok",
)  # fmt: skip
METRICS: Final = (
    "acc", "val/acc", "a b", "f1-score", "größe", "loss.min", "top", "top.max", "x:y", "1st",
)  # fmt: skip
TEXT_PARAMS: Final = ("kernel", "a b", "größe", "depth/x")
NUMBER_PARAMS: Final = ("lr", "C")
TAGS: Final = ("team", "a b", "mlflow.note.content", "größe", "x-y")
USERS: Final = ("ann", "Bob", "bob")
STATUSES: Final = ("RUNNING", "FINISHED", "FAILED", "KILLED")
DATASETS: Final = ("digits", "Digits", "wine")
DIGESTS: Final = ("d1", "d2")
CONTEXTS: Final = (None, "train", "eval")
HOMES: Final = ("one", "two", "gone")


@dataclass(slots=True)
class Twin:
    """One run, as both are told of it. Times are milliseconds."""

    run_id: str
    home: str
    name: str
    user: str
    start: int
    status: str
    end: int | None
    is_deleted: bool
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[tuple[str, float, int, int]] = field(default_factory=list)
    inputs: list[tuple[str, str, str | None]] = field(default_factory=list)


def draw_runs(number: int, *, seed: int = 3117) -> list[Twin]:
    """Draw runs: equal starts, missing keys, odd texts, several points of one metric."""
    dice = random.Random(seed)  # noqa: S311 - a test's data
    return [_draw_run(dice) for _ in range(number)]


def _draw_run(dice: random.Random) -> Twin:
    start = START_MS + 1000 * dice.randrange(40)
    status = dice.choice(STATUSES)
    run = Twin(
        run_id=uuid.UUID(int=dice.getrandbits(128), version=4).hex,
        home=dice.choice(HOMES),
        name=f"{dice.choice(TEXTS).strip()} {dice.randrange(20)}",
        user=dice.choice(USERS),
        start=start,
        status=status,
        end=None if status == "RUNNING" else start + 500 * dice.randrange(5),
        is_deleted=dice.random() < 0.05,
    )
    for key in dice.sample(TEXT_PARAMS, dice.randint(0, len(TEXT_PARAMS))):
        run.params[key] = dice.choice(TEXTS)
    for key in dice.sample(NUMBER_PARAMS, dice.randint(0, len(NUMBER_PARAMS))):
        run.params[key] = dice.choice(["0.1", "1e-1", "10", "9", "nan", "none", "-3", "1e400"])
    for key in dice.sample(TAGS, dice.randint(0, len(TAGS))):
        run.tags[key] = dice.choice([*TEXTS, ""])
    for key in dice.sample(METRICS, dice.randint(0, len(METRICS))):
        # Which of two points of one step and time is the last is settled by their values; with
        # a NaN among them the two differ.
        times = dice.sample(range(6), dice.randint(1, 4))
        for time in times:
            value, step = dice.choice(NUMBERS), dice.choice([0, 0, 1, 5, -2])
            run.points.append((key, value, start + time, step))
            if dice.random() < 0.2 and not math.isnan(value):
                run.points.append((key, dice.choice([-5.0, 5.0]), start + time, step))
    for name in dice.sample(DATASETS, dice.choice([0, 0, 1, 2])):
        run.inputs.append((name, dice.choice(DIGESTS), dice.choice(CONTEXTS)))
    return run


def fill_store(store: SqlAlchemyStore, runs: Sequence[Twin]) -> dict[str, str]:
    """Load the runs into MLflow; return its ids of the experiments by name."""
    homes = {name: store.create_experiment(name) for name in HOMES}
    for run in runs:
        put_run(store, homes[run.home], run)
    store.delete_experiment(homes["gone"])
    return homes


def put_run(store: SqlAlchemyStore, experiment_id: str, run: Twin) -> None:
    """Load one run into MLflow."""
    from mlflow import entities  # noqa: PLC0415 - tests that need no MLflow do not load it

    tags = {"mlflow.user": run.user, **run.tags}
    with mock.patch("uuid.uuid4", return_value=uuid.UUID(run.run_id)):
        store.create_run(
            experiment_id,
            run.user,
            run.start,
            [entities.RunTag(key, value) for key, value in tags.items()],
            run.name,
        )
    store.log_batch(
        run.run_id,
        [entities.Metric(*point) for point in run.points],
        [entities.Param(key, value) for key, value in run.params.items()],
        [],
    )
    if run.inputs:
        store.log_inputs(run.run_id, [_dataset_input(*each) for each in run.inputs])
    if run.end is not None:
        status = entities.RunStatus.from_string(run.status)
        store.update_run_info(run.run_id, status, run.end, None)
    if run.is_deleted:
        store.delete_run(run.run_id)


def _dataset_input(name: str, digest: str, context: str | None) -> Any:  # noqa: ANN401 - MLflow's
    from mlflow import entities  # noqa: PLC0415 - as above

    tags = [] if context is None else [entities.InputTag("mlflow.data.context", context)]
    return entities.DatasetInput(entities.Dataset(name, digest, "local", "here"), tags)


def fill_lake(lake: Lake, runs: Sequence[Twin]) -> dict[str, str]:
    """Load the runs into a lake; return its ids of the experiments by name."""
    homes = {name: lake.create_experiment(name) for name in HOMES}
    for run in runs:
        with (
            mock.patch.object(clock, "now_us", return_value=run.start * 1000),
            mock.patch.object(run_plan, "user", return_value=run.user),
        ):
            live = lake.start_run(run.name, experiment_id=homes[run.home], run_id=run.run_id)
        live.log_batch(
            [(key, value, step, time) for key, value, time, step in run.points],
            run.params,
            run.tags,
        )
        for name, digest, context in run.inputs:
            live.log_input(Dataset(name=name, digest=digest), context)
        if run.end is not None:
            live.finish(run.status, end_time=run.end)
        if run.is_deleted:
            lake.delete_run(run.run_id)
    lake.delete_experiment(homes["gone"])
    return homes


class RunTwins:
    """Both, filled with the same runs. No dataclass: failures would show every run."""

    def __init__(
        self,
        runs: list[Twin],
        *,
        store: SqlAlchemyStore,
        store_homes: dict[str, str],
        lake: Lake,
        lake_homes: dict[str, str],
    ) -> None:
        """Keep both, and the ids of the experiments by name."""
        self.runs = runs
        self.store, self.store_homes = store, store_homes
        self.lake, self.lake_homes = lake, lake_homes

    def ask_mlflow(
        self, filter_string: str, order_by: Sequence[str] = (), view: str = "ACTIVE_ONLY"
    ) -> list[str]:
        """Return the ids that MLflow finds; the experiment `two` is left out."""
        found = self.store.search_runs(
            [self.store_homes["one"], self.store_homes["gone"]],
            filter_string,
            VIEWS.index(view) + 1,
            max_results=50_000,
            order_by=list(order_by),
        )
        return [run.info.run_id for run in found]

    def ask_lake(
        self, filter_string: str, order_by: Sequence[str] = (), view: str = "ACTIVE_ONLY"
    ) -> list[str]:
        """Return the ids that the lake finds; the experiment `two` is left out."""
        found = self.lake.search_runs(
            filter_string,
            experiment_ids=[self.lake_homes["one"], self.lake_homes["gone"]],
            run_view_type=view,
            order_by=order_by,
        )
        return found["run_id"].to_list()


@dataclass(frozen=True, slots=True)
class Folder:
    """One experiment, as both are told of it. Times are milliseconds."""

    name: str
    created: int
    updated: int
    is_deleted: bool
    tags: dict[str, str]


EXPERIMENT_TAGS: Final = ("team", "a b", "größe")


def draw_experiments(total: int, *, seed: int = 41) -> list[Folder]:
    """Draw experiments: equal times, odd names, missing tags."""
    dice = random.Random(seed)  # noqa: S311 - a test's data
    folders = []
    for number in range(total):
        created = START_MS + 1000 * dice.randrange(8)
        keys = dice.sample(EXPERIMENT_TAGS, dice.randint(0, len(EXPERIMENT_TAGS)))
        folders.append(
            Folder(
                name=f"{dice.choice(TEXTS).strip()} {number}",
                created=created,
                updated=created + 1000 * dice.randrange(4),
                is_deleted=dice.random() < 0.2,
                tags={key: dice.choice(TEXTS) for key in keys},
            )
        )
    return folders


class ExperimentTwins:
    """Both, filled with the same experiments under the same ids."""

    def __init__(self, folders: dict[str, Folder], *, store: SqlAlchemyStore, query: Query) -> None:
        """Keep both, and what the experiments are by id."""
        self.folders = folders
        self.store = store
        self.query = query

    @classmethod
    def fill(cls, runs: RunTwins, database: Path, folders: Sequence[Folder]) -> Self:
        """Load the experiments into MLflow, and under its ids into a snapshot of a lake."""
        store = runs.store
        held = {"0": "Default"} | {key: name for name, key in runs.store_homes.items()}
        known = {
            key: Folder(name, START_MS, START_MS, is_deleted=name == "gone", tags={})
            for key, name in held.items()
        }
        for folder in folders:
            tags = [_experiment_tag(*tag) for tag in folder.tags.items()]
            experiment_id = store.create_experiment(folder.name, tags=tags)
            known[experiment_id] = folder
            if folder.is_deleted:
                store.delete_experiment(experiment_id)
        # MLflow lets nobody choose the times.
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.executemany(
                "UPDATE experiments SET creation_time = ?, last_update_time = ? "
                "WHERE experiment_id = ?",
                [(folder.created, folder.updated, int(key)) for key, folder in known.items()],
            )
        query = Query(snapshot(lake_events=_lake_events(known)))
        return cls(known, store=store, query=query)

    def ask_mlflow(
        self, filter_string: str, order_by: Sequence[str] = (), view: str = "ACTIVE_ONLY"
    ) -> list[str]:
        """Return the ids that MLflow finds, of these; other tests may have made more."""
        found = self.store.search_experiments(
            VIEWS.index(view) + 1, 1000, filter_string, list(order_by)
        )
        return [each.experiment_id for each in found if each.experiment_id in self.folders]

    def ask_lake(
        self, filter_string: str, order_by: Sequence[str] = (), view: str = "ACTIVE_ONLY"
    ) -> list[str]:
        """Return the ids that the lake finds."""
        found = search_experiments(self.query, filter_string, order_by=order_by, view_type=view)
        return [each.experiment_id for each in found]


def _experiment_tag(key: str, value: str) -> Any:  # noqa: ANN401 - MLflow's
    from mlflow import entities  # noqa: PLC0415 - as above

    return entities.ExperimentTag(key, value)


def _lake_events(folders: dict[str, Folder]) -> Iterator[dict[str, Any]]:
    numbers = count()
    for key, folder in folders.items():
        created, updated = folder.created * 1000, folder.updated * 1000
        yield lake_event(key, "experiment_create", folder.name, clock=created, seq=next(numbers))
        for tag, value in folder.tags.items():
            yield lake_event(key, "experiment_tag", tag, value, clock=created, seq=next(numbers))
        kind = "experiment_delete" if folder.is_deleted else "experiment_restore"
        yield lake_event(key, kind, clock=updated, seq=next(numbers))
