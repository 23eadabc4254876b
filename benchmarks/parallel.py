"""Many processes that log through MLflow's client at once; part of `bench_mlflow`.

All are forks of one process that has imported MLflow, are let go together, and open the store
themselves. What the store then holds is counted.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from benchmarks.harness import AT_LEAST, AT_MOST, Figure, shown_rounds

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

    from benchmarks.harness import Options

_STEPS: Final = 50
_WIDTH: Final = 10
_SINGLE: Final = 50
_PATIENCE_S: Final = 300
_POINTS: Final = _STEPS * _WIDTH + _SINGLE
_BEGAN_MS: Final = 1_750_000_000_000


class Outcome(NamedTuple):
    """What became of all writers."""

    failed: int
    points: int
    seconds: float


def measure(folder: Path, options: Options) -> list[Figure]:
    """Return points a second of 8 and of 32 writers, and what 32 first writers come to."""
    figures: list[Figure] = []
    for writers, times in ((2, 1),) if options.quick else ((8, 3), (32, 1)):
        rates: dict[str, list[float]] = {}
        lost: dict[str, int] = {}
        for number in range(times):
            for who, uri in _uris(folder / f"{writers}-{number}"):
                _make(uri)
                outcome = race(uri, writers, is_open=True)
                rates.setdefault(who, []).append(outcome.points / outcome.seconds)
                lost[who] = max(lost.get(who, 0), outcome.failed)
        what = f"{writers} writers, {_POINTS} points each"
        theirs = statistics.median(rates["mlflow"])
        for who, found in rates.items():
            note = f"{shown_rounds(found)}; {lost[who]} processes failed"
            bound = theirs if who == "runlake" else None
            figures.append(
                Figure(what, statistics.median(found), "points/s", who, bound, AT_LEAST, note)
            )
    writers = options.size(32, quick=2)
    stores = _uris(folder / "first")
    for who, uri in stores[-1:] if options.quick else stores:
        outcome = race(uri, writers, is_open=False)
        missing = writers * _POINTS - outcome.points
        bound = 0.0 if who == "runlake" else None
        what = f"{writers} writers on an empty store"
        note = f"{missing:,} of {writers * _POINTS:,} points are missing"
        figures.append(Figure(f"{what}, failed", outcome.failed, "", who, bound, AT_MOST, note))
    return figures


def _uris(folder: Path) -> list[tuple[str, str]]:
    folder.mkdir()
    return [("mlflow", f"sqlite:///{folder}/mlflow.db"), ("runlake", f"runlake://{folder}/lake")]


def _make(uri: str) -> None:
    """Make a store, in a process of its own as this one is to be forked."""
    process = multiprocessing.get_context("fork").Process(target=_create, args=(uri,))
    process.start()
    process.join()


def _create(uri: str) -> None:
    _client(uri).search_experiments()


def _client(uri: str) -> Any:  # noqa: ANN401 - MLflow's
    from mlflow import MlflowClient  # noqa: PLC0415 - after the environment is set

    return MlflowClient(uri, uri)


def race(uri: str, writers: int, *, is_open: bool) -> Outcome:
    """Let writers go together, wait for all, and count.

    Args:
        uri: of the store.
        writers: how many processes.
        is_open: they have opened the store before they are let go; else that is the first that
            they do.

    Returns:
        How many failed; the points that are found; seconds until the last has ended.
    """
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(writers + 1)
    processes = [
        context.Process(target=_write, args=(uri, number, barrier, is_open))
        for number in range(writers)
    ]
    for process in processes:
        process.start()
    barrier.wait(_PATIENCE_S)
    began = time.perf_counter()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - began
    failed = sum(process.exitcode != 0 for process in processes)
    points = 0
    # A database whose first writers were in each other's way may be one no more.
    with context.Pool(1) as pool, suppress(SQLAlchemyError):
        points = pool.apply(_count, (uri,))
    return Outcome(failed, points, seconds)


def _write(uri: str, writer: int, barrier: Barrier, is_open: bool) -> None:  # noqa: FBT001
    """Log one run, with what a training loop logs: batches of metrics, and single ones."""
    from mlflow.entities import Metric, Param  # noqa: PLC0415 - after the environment is set

    if uri.startswith("sqlite:"):  # what becomes of it is counted, and known
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    client = _client(uri) if is_open else None
    barrier.wait(_PATIENCE_S)
    client = client or _client(uri)
    run_id = client.create_run("0", run_name=f"writer-{writer}").info.run_id
    client.log_batch(run_id, params=[Param("writer", str(writer))])
    for step in range(_STEPS):
        metrics = [Metric(f"m{n}", step / (n + 1), _BEGAN_MS + step, step) for n in range(_WIDTH)]
        client.log_batch(run_id, metrics)
    for step in range(_SINGLE):
        client.log_metric(run_id, "single", step / 7, _BEGAN_MS + step, step)
    client.set_terminated(run_id)


def _count(uri: str) -> int:
    """Count the points of all runs that have ended."""
    client = _client(uri)
    runs = client.search_runs(["0"], "status = 'FINISHED'", max_results=1_000)
    return sum(
        len(client.get_metric_history(run.info.run_id, key))
        for run in runs
        for key in run.data.metrics
    )
