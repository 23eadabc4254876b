"""How does MLflow's own client do on a lake, beside its SQLite store?

Both are used through `mlflow.MlflowClient`, unchanged, with the same calls and values in the
same process. Calls that log return from a lake when the rows are in the journal, and from
SQLite when the row is committed; a run that is ended is in the store, in both.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks import data, lakes, parallel
from benchmarks.harness import AT_MOST, Figure, scratch, shown_rounds, spread
from benchmarks.rivals import mlflow as sqlite
from benchmarks.tasks import FILTER, LIMIT, ORDER, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.harness import Options

_KEY: Final = data.keys(1)[0]
_WIDTH: Final = 20
_BATCH: Final = 1_000
_LAKE: Final = "runlake"
_SQLITE: Final = "mlflow"
_BEGAN_MS: Final = 1_750_000_000_000


class _Store(NamedTuple):
    """One store, as MLflow's client knows it."""

    who: str
    uri: str
    client: Any

    @classmethod
    def of(cls, who: str, folder: Path) -> _Store:
        """Open a store in a folder; nothing is read yet."""
        from mlflow import MlflowClient  # noqa: PLC0415 - after the environment is set

        uri = _uri(who, folder)
        return cls(who, uri, MlflowClient(uri, uri))


def _uri(who: str, folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db" if who == _SQLITE else f"runlake://{folder}/lake"


def measure(options: Options) -> list[Figure]:
    """Return each figure of both; a lake's bound is to be no worse than SQLite."""
    os.environ.update(
        MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", MLFLOW_LOGGING_LEVEL="ERROR"
    )
    asked = (_logging, _searching, _reading, parallel.measure)
    figures: list[Figure] = []
    # MLflow takes seconds to make a database; in the small one will do.
    for together in (asked,) if options.quick else zip(asked, strict=True):
        with scratch() as folder:
            os.chdir(folder)  # MLflow makes folders where it stands
            for questions in together:
                figures += questions(folder, options)
            os.chdir("/")
    return figures


def pair(what: str, unit: str, found: dict[str, tuple[float, str]], sense: str) -> list[Figure]:
    """Return one figure of each store, the lake's bound by SQLite's."""
    theirs = found[_SQLITE][0]
    return [
        Figure(what, value, unit, who, theirs if who == _LAKE else None, sense, note)
        for who, (value, note) in found.items()
    ]


# Logging.


def _logging(folder: Path, options: Options) -> list[Figure]:
    """Time calls that log, one store after the other."""
    import mlflow  # noqa: PLC0415 - after the environment is set

    stores = [_Store.of(who, folder) for who in (_SQLITE, _LAKE)]
    figures = []
    calls: list[tuple[str, Callable[[_Store, Options], list[float]], str]] = [
        ("log_metric", _log_metric, "us"),
        (f"log_batch of {_BATCH:,} metrics", _log_batch, "ms"),
        (f"create and finish a run of {_WIDTH} params and {_WIDTH} metrics", _whole_run, "ms"),
    ]
    for what, call, unit in calls:
        found = {}
        for store in stores:
            spans = spread(call(store, options))
            note = (
                f"MLflow {mlflow.__version__}; p99 {spans.p99:.4g}, greatest {spans.greatest:.4g}"
            )
            found[store.who] = (spans.p50, note)
        figures += pair(f"{what}, p50", unit, found, AT_MOST)
    return figures


def _timed(call: Callable[[int], object], count: int, factor: float) -> list[float]:
    """Time calls, each by itself, after a few that do not count."""
    for number in range(3):
        call(-1 - number)
    spans = []
    for number in range(count):
        began = time.perf_counter()
        call(number)
        spans.append((time.perf_counter() - began) * factor)
    return spans


def _log_metric(store: _Store, options: Options) -> list[float]:
    run_id = store.client.create_run("0").info.run_id
    values = data.curve(100, seed=1).tolist()

    def call(step: int) -> None:
        store.client.log_metric(run_id, _KEY, values[step % 100], _BEGAN_MS + step, step)

    return _timed(call, options.size(1_000, quick=5), 1e6)


def _log_batch(store: _Store, options: Options) -> list[float]:
    from mlflow.entities import Metric  # noqa: PLC0415 - after the environment is set

    run_id = store.client.create_run("0").info.run_id
    values = data.curve(_BATCH, seed=2).tolist()

    def call(number: int) -> None:
        first = number * _BATCH
        metrics = [
            Metric(_KEY, value, _BEGAN_MS + step, step) for step, value in enumerate(values, first)
        ]
        store.client.log_batch(run_id, metrics)

    return _timed(call, options.size(20, quick=1), 1e3)


def _whole_run(store: _Store, options: Options) -> list[float]:
    from mlflow.entities import Metric, Param  # noqa: PLC0415 - after the environment is set

    rows, params = data.rows(_WIDTH, seed=3), data.params(_WIDTH, seed=3)
    given = [Param(key, str(value)) for key, value in params.items()]

    def call(number: int) -> None:
        run_id = store.client.create_run("0", run_name=f"run-{number}").info.run_id
        metrics = [
            Metric(key, value, _BEGAN_MS, 0) for key, value in rows[number % len(rows)].items()
        ]
        store.client.log_batch(run_id, metrics, given)
        store.client.set_terminated(run_id)

    return _timed(call, options.size(100, quick=2), 1e3)


# Asking.


def _searching(folder: Path, options: Options) -> list[Figure]:
    """Search stores that hold the same runs: the best few, and all of them."""
    figures = []
    for name in ("runs100",) if options.quick else ("runs1k", "runs10k"):
        made = lakes.made(name, options.lakes)
        home = folder / name
        shutil.copytree(made.folder, home / "lake")
        tracker = sqlite.Adapter(home)
        tracker.fill(made.shape.sweep)
        size = f"{made.shape.runs:,} runs"
        found: dict[str, list[tuple[float, str]]] = {}
        answers = set()
        for store in (_Store.of(_SQLITE, home), _Store.of(_LAKE, home)):
            among = [each.experiment_id for each in store.client.search_experiments()]
            best = partial(
                store.client.search_runs, among, FILTER, order_by=list(ORDER), max_results=LIMIT
            )
            answers.add(fingerprint([run.info.run_name for run in best()]))
            few = _rounds(best, options.size(11, quick=1))
            every = _rounds(partial(_all_runs, store, among), 1, warm_up=0)  # MLflow takes long
            found[store.who] = [
                (statistics.median(few), shown_rounds(few)),
                (statistics.median(every), shown_rounds(every)),
            ]
        assert len(answers) == 1, "the two found other runs"
        for place, what in enumerate((f"the best {LIMIT}", "all, page by page")):
            of_both = {who: values[place] for who, values in found.items()}
            figures += pair(f"search_runs over {size}: {what}", "ms", of_both, AT_MOST)
    return figures


def _all_runs(store: _Store, among: list[str]) -> int:
    """Read all runs whole; return how many."""
    count, token = 0, None
    while True:
        page = store.client.search_runs(among, max_results=1_000, page_token=token)
        count, token = count + len(page), page.token
        if not token:
            return count


def _rounds(call: Callable[[], object], count: int, *, warm_up: int = 1) -> list[float]:
    """Time calls in milliseconds, after some that do not count."""
    for _ in range(warm_up):
        call()
    gc.collect()
    spans = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        spans.append((time.perf_counter() - began) * 1e3)
    return spans


def _reading(folder: Path, options: Options) -> list[Figure]:
    """Read one long history, written by batches through the client."""
    from mlflow.entities import Metric  # noqa: PLC0415 - after the environment is set

    points = options.size(100_000, quick=100)
    values = data.curve(points, seed=5).tolist()
    found = {}
    for store in (_Store.of(_SQLITE, folder), _Store.of(_LAKE, folder)):
        run_id = store.client.create_run("0").info.run_id
        for first in range(0, points, _BATCH):
            metrics = [
                Metric(_KEY, value, _BEGAN_MS + step, step)
                for step, value in enumerate(values[first : first + _BATCH], first)
            ]
            store.client.log_batch(run_id, metrics)
        read = store.client.get_metric_history(run_id, _KEY)
        assert [metric.value for metric in read] == values
        spans = _rounds(
            partial(store.client.get_metric_history, run_id, _KEY), options.size(5, quick=1)
        )
        found[store.who] = (statistics.median(spans), shown_rounds(spans))
    return pair(f"get_metric_history of {points:,} points", "ms", found, AT_MOST)
