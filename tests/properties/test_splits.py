"""Every answer is the same however the rows were split into writers and segments.

A world is a seed: runs of two experiments, with everything that can be said of them. The same
rows are dealt out several times, to other writers, cut elsewhere, with tails that were uploaded
again and segments that were merged; and every question is asked of each lake.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from typing import TYPE_CHECKING, Any, Final

import pytest

import runlake
from runlake import schema
from runlake.query.views import VIEWS
from tests.query.splits import START_US, Row, begun, put_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import polars as pl

    from runlake.lake import Lake

Answers = dict[str, list[str]]

# Sums of these are exact, in any order.
VALUES: Final = (0.0, 0.5, 1.0, -2.25, 1024.0, math.nan, math.inf)
KEYS: Final = ("loss", "val/acc", "epoch")
AXES: Final = ("step", "time", "relative", "epoch")
# Who wrote a row, and that a writer ended, is what a split changes.
ROWS: Final = {
    "metrics": "SELECT * EXCLUDE (writer) FROM metrics",
    "events": "SELECT * EXCLUDE (writer) FROM events WHERE kind <> 'close'",
}
FILTERS: Final = (
    "metrics.loss > 0 and params.p0 = '1'",
    "metrics.loss.min < 1 or tags.t1 LIKE 'v%'",
    "attributes.status = 'FINISHED' and not params.p1 > 2",
)


class World:
    """The rows of some runs."""

    def __init__(self, seed: int) -> None:
        """Draw them."""
        self.chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self.now_us = START_US
        self.homes = {f"r{number}": self.chance.choice("AB") for number in range(6)}
        self.rows: list[Row] = []
        open_runs = list(self.homes)
        for run_id in open_runs:
            self.rows += begun(run_id, time=self.now(), name=f"name of {run_id}")
        for key in KEYS:  # what is asked for must be there
            self.rows.append(Row("r0", schema.METRIC, key, self.now(), 1.0, None, 0))
        self.say("r0", schema.PARAM, "p0", 1.0, "1")
        for _ in range(self.chance.randint(20, 200)):
            run_id = self.chance.choice(open_runs)
            weights = [weight for weight, _ in _DEEDS]
            [(_, deed)] = self.chance.choices(_DEEDS, weights)
            deed(self, run_id)
        for run_id in open_runs:
            if self.chance.random() < 0.8:
                self.say(run_id, schema.STATUS, "", float(self.now()), schema.FINISHED)

    def now(self) -> int:
        """Return a later time: of two facts said at once, the writers' ids decide."""
        self.now_us += 1 + self.chance.randrange(1000)
        return self.now_us

    def say(
        self, run_id: str, kind: str, key: str, num: float | None = None, text: str | None = None
    ) -> None:
        """Take an event in."""
        self.rows.append(Row(run_id, kind, key, self.now(), num, text))

    def log(self, run_id: str) -> None:
        """Log a few points, of any steps and times."""
        for _ in range(self.chance.choice([1, 1, 20])):
            key, value = self.chance.choice(KEYS), self.chance.choice(VALUES)
            time, step = START_US + self.chance.randrange(50), self.chance.randrange(-2, 12)
            self.rows.append(Row(run_id, schema.METRIC, key, time, value, None, step))

    def say_param(self, run_id: str) -> None:
        """Say a param; the earliest stands."""
        number = self.chance.randrange(4)
        self.say(run_id, schema.PARAM, f"p{self.chance.randrange(3)}", float(number), str(number))

    def say_tag(self, run_id: str) -> None:
        """Set a tag or take it away; the latest stands."""
        text = self.chance.choice(["v1", "v2", None])
        self.say(run_id, schema.TAG, f"t{self.chance.randrange(3)}", None, text)

    def say_input(self, run_id: str) -> None:
        """Say that a data set was used."""
        name, digest = self.chance.choice("xy"), str(self.chance.randrange(2))
        about = {"name": name, "digest": digest, "source_type": "file", "source": "s"}
        text = json.dumps(about | {"context": self.chance.choice(["train", ""])})
        self.say(run_id, schema.INPUT, f"{name}@{digest}", None, text)

    def say_artifact(self, run_id: str) -> None:
        """Say that a file was put."""
        text = json.dumps({"sha256": str(self.chance.random()), "media_type": "text/plain"})
        self.say(run_id, schema.ARTIFACT, self.chance.choice(["a.txt", "b/c.txt"]), 12.0, text)

    def rename(self, run_id: str) -> None:
        """Give another name."""
        self.say(run_id, schema.RUN, schema.RUN_NAME, None, f"name {self.chance.randrange(9)}")

    def delete(self, run_id: str) -> None:
        """Delete a run, or restore it."""
        self.say(run_id, self.chance.choice([schema.DELETE, schema.RESTORE]), "")

    def say_unknown(self, run_id: str) -> None:
        """Say what no version knows yet."""
        self.say(run_id, "rumour", "key", 1.5, "text")


_DEEDS: Final[list[tuple[int, Callable[[World, str], None]]]] = [
    (12, World.log),
    (4, World.say_param),
    (4, World.say_tag),
    (2, World.say_input),
    (2, World.say_artifact),
    (1, World.rename),
    (1, World.delete),
    (1, World.say_unknown),
]


def answers(lake: Lake, *, asked: random.Random | None = None) -> Answers:
    """Ask everything, or by chance a third of all."""
    keys, axes, filters, views = (
        listed if asked is None else asked.sample(listed, (len(listed) + 2) // 3)
        for listed in (KEYS, AXES, FILTERS, tuple(VIEWS))
    )
    runs = lake.search_runs(run_view_type="ALL", order_by=["attributes.start_time", "run_id"])
    found = {"search": shown(runs), "compare": shown(lake.compare(runs, show="all"))}
    for view in views:
        found[f"view {view}"] = shown(lake.sql(ROWS.get(view, f"FROM {view}") + " ORDER BY ALL"))
    for text in filters:
        found[f"filter {text}"] = shown(lake.search_runs(text, order_by=["metrics.loss DESC"]))
    found["experiments"] = [repr(each) for each in lake.search_experiments(view_type="ALL")]
    for key in keys:
        for value in ("best", "last", "min", "max", "mean", 3):
            board = lake.leaderboard(key, value=value, goal="min", top=None)
            found[f"board {key} {value}"] = shown(board)
        groups = lake.leaderboard(key, by="params.p0")
        found[f"groups {key}"] = shown(groups)
    for x in axes:
        for size in (None, 4, 7):
            curves = lake.history("*", runs=runs, x=x, max_points=size)
            found[f"history {x} {size}"] = shown(curves)
    return found


def shown(frame: pl.DataFrame) -> list[str]:
    """Return a frame as text, which equals itself also where it holds NaN."""
    return [repr(frame.schema), *map(repr, frame.rows())]


def lakes(
    world: World, folder: Path, seeds: Iterable[int], *, asked: Callable[[], random.Random | None]
) -> list[Answers]:
    """Write the same world in several ways, one after the other in the same place, and ask."""
    found = []
    for seed in seeds:
        shutil.rmtree(folder, ignore_errors=True)
        chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        put_split(folder, world.rows, chance, homes=world.homes)
        with runlake.open(folder, read_only=True, refresh=1e9) as lake:
            found.append(answers(lake, asked=asked()))
    return found


def check(seed: int, folder: Path, *, asked: Callable[[], random.Random | None]) -> None:
    """Hold the answers of several lakes against those of the first."""
    world = World(seed)
    first, *others = lakes(world, folder / "lake", range(seed, seed + 3), asked=asked)
    for other in others:
        for question, said in first.items():
            assert other[question] == said, question


@pytest.mark.parametrize("seed", range(3))
def test_answers_do_not_hang_on_how_rows_were_split(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path, asked=lambda: None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 108))
def test_answers_of_many_more_worlds_do_not_hang_on_it_either(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path, asked=lambda: random.Random(seed))  # noqa: S311 - repeatable on purpose


def test_history_of_all_runs_is_the_view_of_metrics(tmp_path: Path) -> None:
    world = World(7)
    put_split(tmp_path / "lake", world.rows, world.chance, homes=world.homes)
    with runlake.open(tmp_path / "lake", read_only=True) as lake:
        runs = lake.sql("SELECT run_id FROM runs")
        columns = ["run_id", "key", "step", "timestamp", "value"]
        curves: Any = lake.history("*", runs=runs).select(columns)
        metrics = lake.sql(f"SELECT {', '.join(columns)} FROM metrics")
        assert sorted(shown(curves)) == sorted(shown(metrics))
