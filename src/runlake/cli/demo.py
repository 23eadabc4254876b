"""`runlake demo`: train a dozen small models in several processes, then rank them.

The models are scikit-learn's, the data its 1797 handwritten digits, and every number is
measured while the models train: the demo is an ordinary use of the package.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from runlake import clock, ids
from runlake._lazy import lazy, need
from runlake.cli import _output
from runlake.cli._options import Options, shared_options
from runlake.cli._output import Column

if TYPE_CHECKING:
    import multiprocessing
    from collections.abc import Iterator, Mapping
    from concurrent import futures

    import rich.console as rich_console
    import rich.progress as rich_progress

    from runlake import lake as lakes
    from runlake import lake_parts
    from runlake.lake import Lake
    from runlake.query import leaderboard, statements
    from runlake.run import Run
else:
    futures = lazy("concurrent.futures")
    lakes = lazy("runlake.lake")
    lake_parts = lazy("runlake.lake_parts")
    leaderboard = lazy("runlake.query.leaderboard")
    multiprocessing = lazy("multiprocessing")
    rich_console = lazy("rich.console")
    rich_progress = lazy("rich.progress")
    statements = lazy("runlake.query.statements")

EXPERIMENT: Final = "digits"
METRIC: Final = "val/accuracy"
_PROCESSES: Final = 3
_TOP: Final = 10
_CLASSES: Final = tuple(range(10))
_SEEDS: Final = 1000
# Each process has one core's worth of work; more threads would only wait for each other.
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Training:
    """One model to train.

    Attributes:
        name: of its run.
        family: module and class, below `sklearn`.
        settings: of the model.
        epochs: how often it is measured.
        trees: trees that each epoch adds; 0 for a model that learns by passes over the data.
    """

    name: str
    family: tuple[str, str]
    settings: Mapping[str, object]
    epochs: int
    trees: int = 0


_LINEAR: Final = ("linear_model", "SGDClassifier")
_MLP: Final = ("neural_network", "MLPClassifier")
_FOREST: Final = ("ensemble", "RandomForestClassifier")
_BOOSTING: Final = ("ensemble", "GradientBoostingClassifier")
_BOOST: Final = {"max_depth": 3, "max_features": 8, "subsample": 0.5}

TRAININGS: Final = (
    *(
        Training(f"linear-{alpha:g}", _LINEAR, {"loss": "log_loss", "alpha": alpha}, 30)
        for alpha in (0.01, 0.001, 0.0001)
    ),
    *(
        Training(
            f"mlp-{width}", _MLP, {"hidden_layer_sizes": width, "learning_rate_init": 3e-3}, 30
        )
        for width in (16, 32, 64)
    ),
    *(
        Training(f"forest-{depth or 'deep'}", _FOREST, {"max_depth": depth}, 20, trees=5)
        for depth in (4, 8, None)
    ),
    *(
        Training(f"boosting-{rate:g}", _BOOSTING, _BOOST | {"learning_rate": rate}, 20, trees=2)
        for rate in (0.03, 0.1, 0.3)
    ),
)


@dataclass(frozen=True, slots=True)
class Trained:
    """What became of one training.

    Attributes:
        name: of its run.
        accuracy: the last one, on digits that the model has not seen.
        seconds: from the beginning of its run to the end.
    """

    name: str
    accuracy: float
    seconds: float


def train(url: str, *, plan: Training, seed: int) -> Trained:
    """Train one model and log what happens; called in a process of its own.

    Args:
        url: the lake; many processes write to it at once.
        plan: the model.
        seed: of the model; the split of the data is always the same.

    Returns:
        What became of it.
    """
    began = clock.monotonic_s()
    module, name = plan.family
    kind = getattr(need(f"sklearn.{module}", extra="demo"), name)
    digits = need("sklearn.datasets").load_digits(return_X_y=True)
    split = need("sklearn.model_selection").train_test_split
    parts = split(digits[0] / 16, digits[1], test_size=0.25, random_state=0, stratify=digits[1])
    settings = dict(plan.settings) | ({"warm_start": True} if plan.trees else {})
    model = kind(random_state=seed, **settings)
    with lakes.open_lake(url) as lake, lake.start_run(plan.name, experiment=EXPERIMENT) as run:
        run.log_params({"model": {"family": name, **plan.settings}, "seed": seed})
        run.set_tags({"data": "sklearn digits", "made by": "runlake demo"})
        accuracy = _fit(run, model, plan=plan, parts=parts)
        _log_confusion(run, model, parts)
    return Trained(plan.name, accuracy, clock.monotonic_s() - began)


def _fit(run: Run, model: Any, *, plan: Training, parts: list[Any]) -> float:  # noqa: ANN401 - scikit-learn has no types
    """Train epoch by epoch, log each, and return the last accuracy."""
    train_x, val_x, train_y, val_y = parts
    log_loss = need("sklearn.metrics").log_loss
    accuracy = 0.0
    for epoch in range(plan.epochs):
        if plan.trees:
            model.set_params(n_estimators=plan.trees * (epoch + 1)).fit(train_x, train_y)
        else:
            model.partial_fit(train_x, train_y, classes=_CLASSES)
        accuracy = model.score(val_x, val_y)
        losses = {
            "train/loss": log_loss(train_y, model.predict_proba(train_x), labels=_CLASSES),
            "val/loss": log_loss(val_y, model.predict_proba(val_x), labels=_CLASSES),
        }
        run.log({METRIC: accuracy, **losses}, step=epoch)
    return float(accuracy)


def _log_confusion(run: Run, model: Any, parts: list[Any]) -> None:  # noqa: ANN401 - scikit-learn has no types
    _, val_x, _, val_y = parts
    metrics = need("sklearn.metrics")
    guessed = model.predict(val_x)
    table = metrics.confusion_matrix(val_y, guessed)
    run.log_dict({"classes": _CLASSES, "rows_are": "true", "counts": table}, "confusion.json")
    run.log_text(metrics.classification_report(val_y, guessed), "report.txt")


@click.command("demo")
@shared_options
@click.pass_obj
def _demo(options: Options) -> None:
    """Train a dozen models on handwritten digits, in several processes, and rank them.

    It takes half a minute at most and needs scikit-learn: pip install 'runlake[demo]'. The runs
    stay in the lake; running it again adds more.
    """
    need("sklearn", extra="demo")
    with options.open(read_only=False) as lake:
        experiment_id = lake_parts.ensure_experiment(lake, EXPERIMENT)
        began = clock.monotonic_s()
        for number, trained in enumerate(_progress(_train_all(lake.settings.url)), start=1):
            _output.talk(
                f"{number:2}/{len(TRAININGS)}  {trained.name:<14} {METRIC} {trained.accuracy:.3f}"
                f"  {trained.seconds:4.1f} s"
            )
        seconds = clock.monotonic_s() - began
        lake.refresh()
        _finish(options, lake, experiment_id=experiment_id, seconds=seconds)


def _train_all(url: str) -> Iterator[Trained]:
    """Train every model, a few at a time, each as its own writer; in the order of their ends."""
    seed = int(ids.jitter() * _SEEDS)
    spawn = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(
        _PROCESSES, mp_context=spawn, initializer=_use_one_thread
    ) as pool:
        jobs: list[futures.Future[Trained]] = [
            pool.submit(train, url, plan=plan, seed=seed) for plan in TRAININGS
        ]
        try:
            for job in futures.as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _use_one_thread() -> None:
    os.environ.update(dict.fromkeys(_THREADS, "1"))


def _progress(trained: Iterator[Trained]) -> Iterator[Trained]:
    """Show in a terminal how far it is."""
    if not sys.stderr.isatty():
        yield from trained
        return
    with rich_progress.Progress(console=rich_console.Console(stderr=True), transient=True) as bar:
        yield from bar.track(trained, total=len(TRAININGS), description="training")


def _finish(options: Options, lake: Lake, *, experiment_id: str, seconds: float) -> None:
    """Show the leaderboard, how it is asked for, and what to try next."""
    statement = leaderboard.leaderboard_sql(METRIC, top=_TOP, experiment_ids=[experiment_id])
    board = lake.leaderboard(METRIC, top=_TOP, experiment_names=[EXPERIMENT])
    found = {
        "lake": lake.url,
        "experiment_id": experiment_id,
        "trained": len(TRAININGS),
        "seconds": round(seconds, 3),
        "leaderboard": board.to_dicts(),
        "sql": statement,
    }
    if _output.give(options, lake.settings, rows=lambda: found, table=board.to_arrow):
        return
    _output.talk(f"\nTrained {len(TRAININGS)} models in {seconds:.1f} s. The leaderboard:\n")
    shown = {"rank": "rank", "run_name": "run", "value": METRIC, "step": "step"}
    shown["run_id"] = "id"
    _output.print_table([Column(title, board[name].to_list()) for name, title in shown.items()])
    where = "" if options.url is None else f" --lake {shlex.quote(options.url)}"
    best, example = board["run_id"][0], shlex.quote(statements.POINTS_OF_METRICS)
    _output.talk(
        f"\nThe SQL that made it:\n\n{statement}\n\n"
        f"Everything lies in {lake.url}, as Parquet files. Go on with\n\n"
        f"  runlake ls{where}\n"
        f"  runlake show{where} {best}\n"
        f"  runlake sql{where} {example}"
    )


COMMANDS: Final[tuple[click.Command, ...]] = (_demo,)
