from __future__ import annotations

import math
import random
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runlake
from runlake import schema
from runlake.errors import InvalidInputError, NotFoundError, StorageError
from runlake.query import Query
from runlake.query import history as module
from runlake.query.curves import Curves
from runlake.query.history import CurveSearch, history, read_keys
from runlake.storage import layout, manifest
from runlake.storage.manifest import Manifest
from tests.query.splits import START_US, Row, begun, metric, put_split

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runlake.lake import Lake

COLUMNS = ["run_id", "run_name", "key", "x", "step", "timestamp", "value"]
X = {"step": pl.Int64, "time": pl.Datetime("us", "UTC"), "relative": pl.Float64, "b": pl.Float64}
RUNS = ["r1", "r2", "r3"]

# To open a database takes longer than to ask; what is kept is kept by the names of files.
_shared = Curves()
_values = st.sampled_from([0.0, 1.0, 2.5, -3.0, math.nan, math.inf, -math.inf])
_points = st.lists(
    st.builds(
        metric,
        st.sampled_from(RUNS),
        st.sampled_from(["a", "b", "b/c"]),
        st.integers(-3, 6),
        _values,
        time=st.integers(START_US - 2, START_US + 4),
    ),
    max_size=60,
)
_xs = st.sampled_from(list(X))


class Place(NamedTuple):
    """A point as an answer has it: which curve, and where on it."""

    run_id: str
    key: str
    x: float
    step: int
    time: int
    value: float | str


class Scene:
    """A snapshot of a lake, and what reads its curves."""

    def __init__(self, folder: Path, rows: Sequence[Row], seed: int = 0) -> None:
        """Write the rows, dealt out by the seed."""
        chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self.storage = put_split(folder / "lake", rows, chance)
        self.query = Query(self.storage.read()[1])
        self.curves = _shared

    def ask(
        self,
        keys: object = "*",
        **options: Any,  # noqa: ANN401 - what is asked, also what may not be
    ) -> pl.DataFrame:
        """Ask for curves."""
        wanted = CurveSearch(keys=read_keys(keys), **options)
        return history(self.query, self.curves, wanted)


@pytest.fixture
def scene(tmp_path: Path) -> Callable[..., Scene]:
    """Make a scene of rows."""
    return lambda *rows: Scene(tmp_path, [*begun("r1", name="one"), *rows])


def curve(key: str, values: Sequence[float], *, run_id: str = "r1", start: int = 0) -> list[Row]:
    """Return points one step and one second apart."""
    return [
        metric(run_id, key, start + step, value, time=START_US + (start + step) * 1_000_000)
        for step, value in enumerate(values)
    ]


def number(value: float) -> tuple[bool, float]:
    """Return what orders values: NaN before all numbers."""
    return (False, 0.0) if math.isnan(value) else (True, value)


def places(frame: pl.DataFrame) -> list[Place]:
    """Return an answer as plain rows; NaN as a text, which equals itself."""
    since = pl.col("timestamp").dt.epoch("us")
    x = since if frame.schema["x"] == pl.Datetime("us", "UTC") else pl.col("x")
    rows = frame.select("run_id", "key", x.alias("x"), "step", since.alias("time"), "value").rows()
    return [Place(run, key, x, step, time, show(value)) for run, key, x, step, time, value in rows]


def show(value: float) -> float | str:
    """Return a value that equals itself."""
    return "nan" if math.isnan(value) else value


def expected(rows: Sequence[Row], x: str) -> list[Place]:
    """Return what `history` must answer, by the plainest means."""
    logged = [row for row in rows if row.kind == schema.METRIC]
    guides: dict[str, dict[int, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in logged:
        if row.key == x and math.isfinite(row.num or 0.0):
            guides[row.run_id][row.step or 0].append((row.time, row.num or 0.0))
    found = []
    for row in logged:
        step, value = row.step or 0, row.num or 0.0
        before = [known for known in guides[row.run_id] if known <= step]
        if x == "step":
            at: float = step
        elif x == "time":
            at = row.time
        elif x == "relative":
            at = (row.time - START_US) / 1e6
        elif before:
            at = max(guides[row.run_id][max(before)])[1]
        else:
            continue
        found.append(Place(row.run_id, row.key, at, step, row.time, value))
    found.sort(key=lambda place: (*place[:-1], number(float(place.value))))
    return [place._replace(value=show(float(place.value))) for place in found]


@settings(max_examples=20)
@given(points=_points, seed=st.integers(0, 2**32), x=_xs)
def test_curves_are_all_points_in_order_however_they_were_dealt_out(
    points: list[Row], seed: int, x: str
) -> None:
    rows = [*(row for run_id in RUNS for row in begun(run_id)), *points]
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder), [*rows, metric("r4", "b", 0, 0.0)], seed)
        found = scene.ask(runs=RUNS, x=x)
        assert found.columns == COLUMNS
        assert found.schema["x"] == X[x]
        assert places(found) == expected(rows, x)
        assert scene.ask(runs=RUNS, x=x).equals(found)  # from memory this time


@settings(max_examples=20)
@given(
    points=_points, seed=st.integers(0, 2**32), x=_xs, bounds=st.tuples(*[st.integers(-4, 6)] * 2)
)
def test_range_of_x_holds_both_its_ends_and_the_points_between(
    points: list[Row], seed: int, x: str, bounds: tuple[int, int]
) -> None:
    low, high = sorted(bounds)
    rows = [*(row for run_id in RUNS for row in begun(run_id)), metric("r1", "b", 0, 0.0), *points]
    start: Any = low
    stop: Any = high
    if x == "time":
        low, high = START_US + low, START_US + high
        start, stop = (
            datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us) for us in (low, high)
        )
    elif x == "relative":
        start, stop = low / 1e6, high / 1e6
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder), rows, seed)
        wanted = expected(rows, x)
        ranges = [(start, stop), (None, stop), (start, None)]
        for first, last in ranges * 2:  # from files, then from memory
            found = places(scene.ask(runs=RUNS, x=x, start=first, stop=last))
            assert found == [
                place
                for place in wanted
                if (first is None or place.x >= (low if x == "time" else start))
                and (last is None or place.x <= (high if x == "time" else stop))
            ]
            if last is None:
                scene.ask(runs=RUNS, x=x)


@settings(max_examples=20)
@given(points=_points, seed=st.integers(0, 2**32), x=_xs, max_points=st.integers(4, 9))
def test_thinned_curves_are_rows_of_the_whole_ones_whatever_the_batches(
    points: list[Row], seed: int, x: str, max_points: int
) -> None:
    rows = [*(row for run_id in RUNS for row in begun(run_id)), metric("r1", "b", 0, 0.0), *points]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        scene = Scene(Path(folder), rows, seed)
        whole = places(scene.ask(runs=RUNS, x=x))
        thin = places(scene.ask(runs=RUNS, x=x, max_points=max_points))
        patch.setattr(module, "_BATCH_POINTS", 1)
        assert places(scene.ask(runs=RUNS, x=x, max_points=max_points)) == thin
    assert not Counter(thin) - Counter(whole)
    assert thin == sorted(thin, key=whole.index)
    for of in {place[:2] for place in whole}:
        long = [place for place in whole if place[:2] == of]
        short = [place for place in thin if place[:2] == of]
        assert len(short) <= max_points
        assert {long[0], long[-1]} <= set(short)
        numbers = [place.value for place in long if isinstance(place.value, float)]
        if numbers:
            assert {min(numbers), max(numbers)} <= {place.value for place in short}


def test_run_without_a_name_has_none_in_every_row(scene: Callable[..., Scene]) -> None:
    names = {"r1": "one", "r2": None, "r3": "a name that is too long to lie in a view itself"}
    rows = [row for run_id in ("r2", "r3") for row in begun(run_id, name=names[run_id])]
    points = [metric(run_id, key, step, 1.0) for run_id in RUNS for key in "ab" for step in (1, 2)]
    found = scene(*rows, *points).ask(runs=RUNS)
    assert found["run_id"].to_list() == [run_id for run_id in RUNS for _ in range(4)]
    assert found["run_name"].to_list() == [names[run_id] for run_id in RUNS for _ in range(4)]
    assert found["key"].to_list() == ["a", "a", "b", "b"] * 3


def test_points_of_several_writers_at_one_step_all_show(scene: Callable[..., Scene]) -> None:
    twice = metric("r1", "loss", 3, 0.5)
    others = [metric("r1", "loss", 3, value) for value in (0.25, math.nan, -math.inf)]
    found = scene(twice, twice, *others).ask("loss")
    assert [show(value) for value in found["value"]] == ["nan", -math.inf, 0.25, 0.5, 0.5]
    assert found["run_name"].to_list() == ["one"] * 5


def test_curve_that_is_short_enough_comes_back_whole(scene: Callable[..., Scene]) -> None:
    made = scene(*[metric("r1", "loss", 3, 0.5)] * 4, *curve("long", [1.0, 9.0, -9.0, 2.0] * 12))
    found = made.ask("loss", max_points=4)
    assert found.equals(made.ask("loss"))
    assert made.ask("*", max_points=8)["key"].value_counts(sort=True)["count"].to_list() == [8, 4]


def test_points_of_equal_x_thin_to_four(scene: Callable[..., Scene]) -> None:
    points = [metric("r1", "loss", 0, value, time=START_US + n) for n, value in enumerate(range(9))]
    assert scene(*points).ask("loss", max_points=8)["value"].to_list() == [0.0, 8.0]


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("val/loss", ["val/loss"]),
        ("val/*", ["val/acc", "val/deep/er", "val/loss"]),
        ("*loss*", ["loss", "loss[0]", "val/loss"]),
        ("los?", ["loss"]),
        ("loss[0]", ["loss[0]"]),  # there is such a metric, so it is no pattern
        (["loss", "val/acc", "loss", "*acc"], ["loss", "val/acc"]),
        ([], []),
    ],
)
def test_patterns_name_all_keys_that_fit_and_keys_themselves(
    keys: object, found: list[str], scene: Callable[..., Scene]
) -> None:
    known = ["val/loss", "loss", "val/acc", "val/deep/er", "loss[0]", "loss0", "Loss"]
    known.remove("loss0")
    made = scene(*[metric("r1", key, 0, 1.0) for key in known])
    assert made.ask(keys)["key"].to_list() == found


def test_runs_come_as_asked_for_and_once(scene: Callable[..., Scene]) -> None:
    rows = [row for run_id in ("r2", "r3") for row in begun(run_id, time=START_US + 1)]
    points = [metric(run_id, "loss", 0, 1.0) for run_id in RUNS]
    made = scene(*rows, *points)
    assert made.ask("loss", runs=["r3", "r1", "r3"])["run_id"].to_list() == ["r3", "r1"]
    assert made.ask("loss")["run_id"].to_list() == ["r2", "r3", "r1"]  # the newest first
    frame = pl.DataFrame({"run_id": ["r1", "r2"], "rank": [1, 2]})
    for given_runs in (frame, frame.to_arrow(), frame.to_pandas()):
        assert made.ask("loss", runs=given_runs)["run_id"].to_list() == ["r1", "r2"]
    assert made.ask("loss", runs=[]).schema == made.ask("loss").schema


def test_deleted_run_shows_only_when_it_is_asked_for(scene: Callable[..., Scene]) -> None:
    gone = [*begun("r2"), metric("r2", "loss", 0, 2.0), Row("r2", schema.DELETE, "", START_US + 9)]
    made = scene(*gone, metric("r1", "loss", 0, 1.0))
    assert made.ask("loss")["run_id"].to_list() == ["r1"]
    assert made.ask("loss", runs=["r2"])["value"].to_list() == [2.0]


def test_purged_run_shows_nowhere_though_its_rows_are_there(scene: Callable[..., Scene]) -> None:
    made = scene(*begun("r2"), metric("r2", "loss", 0, 2.0), metric("r1", "loss", 0, 1.0))
    assert set(made.ask("loss")["run_id"]) == {"r1", "r2"}
    purge = Manifest(lake=made.storage.require_lake(), number=1, purged=frozenset({"r2"}))
    made.storage.fs.put(layout.manifest(1), manifest.encode(purge))
    made.query = Query(made.storage.read()[1])
    assert made.ask("loss")["run_id"].to_list() == ["r1"]
    with pytest.raises(NotFoundError, match="no run 'r2'"):
        made.ask("loss", runs=["r2"])


def test_metric_that_no_run_asked_for_has_gives_an_empty_frame(scene: Callable[..., Scene]) -> None:
    made = scene(metric("r1", "loss", 0, 1.0), metric("r1", "acc", 5, 1.0), *begun("r2"))
    for x, kind in {**X, "b": None, "acc": pl.Float64}.items():
        if kind is not None:
            for name, value in (("runs", ["r2"]), ("runs", []), ("experiment_ids", [])):
                found = made.ask("loss", x=x, max_points=4, **{name: value})
                assert found.height == 0
                assert found.schema == made.ask("loss", x=x).schema
                assert found.schema["x"] == kind


def test_lake_without_metrics_has_no_curves(scene: Callable[..., Scene]) -> None:
    made = scene()
    assert made.ask("*").height == 0
    with pytest.raises(NotFoundError, match="which holds 0 metrics"):
        made.ask("val/*")


@pytest.mark.parametrize(
    ("keys", "options", "error", "message"),
    [
        ("los", {}, NotFoundError, "no metric 'los' in lake .* Did you mean 'loss'"),
        ("vall/*", {}, NotFoundError, "no metric 'vall/\\*' .* Did you mean 'val/acc'"),
        (["loss", "lr"], {}, NotFoundError, "no metric 'lr'"),
        ("loss", {"x": "steps"}, NotFoundError, "no metric 'steps' .* Did you mean 'step'"),
        ("loss", {"runs": ["r1", "r9"]}, NotFoundError, "no run 'r9' in lake .* 1 run"),
        ("loss", {"runs": "r1"}, InvalidInputError, "runs are a list"),
        (3, {}, InvalidInputError, "keys are a text or a list of texts, got an int 3"),
        ([b"loss"], {}, InvalidInputError, "got a bytes b'loss'"),
        ("loss", {"x": None}, InvalidInputError, "x is 'step', 'time', 'relative' or"),
        (
            "loss",
            {"max_points": 3},
            InvalidInputError,
            "at least 4 .first, last, low, high., got 3",
        ),
        ("loss", {"max_points": True}, InvalidInputError, "got True"),
        ("loss", {"max_points": 9.5}, InvalidInputError, "got 9.5"),
        ("loss", {"start": 2, "stop": 1}, InvalidInputError, "start is 2 and stop is 1"),
        ("loss", {"start": 0.5}, InvalidInputError, "start is a 64-bit integer, got 0.5"),
        ("loss", {"stop": 2**63}, InvalidInputError, "stop is a 64-bit integer"),
        ("loss", {"x": "time", "start": "now"}, InvalidInputError, "an aware datetime or"),
        ("loss", {"x": "time", "stop": math.inf}, InvalidInputError, "an aware datetime or"),
        ("loss", {"x": "time", "stop": datetime(2025, 1, 1)}, InvalidInputError, "no time zone"),  # noqa: DTZ001
        ("loss", {"x": "relative", "stop": "1"}, InvalidInputError, "stop is a number, got '1'"),
        ("loss", {"x": "loss", "start": math.nan}, InvalidInputError, "start is a number, got nan"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_reason(
    keys: object,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    scene: Callable[..., Scene],
) -> None:
    made = scene(metric("r1", "loss", 0, 1.0), metric("r1", "val/acc", 0, 1.0))
    with pytest.raises(error, match=message):
        made.ask(keys, **options)


def test_times_may_be_datetimes_or_milliseconds(scene: Callable[..., Scene]) -> None:
    made = scene(*curve("loss", range(10)))
    start = datetime.fromtimestamp(START_US / 1e6 + 2, timezone(timedelta(hours=9)))
    for first in (start, START_US / 1000 + 2000, START_US // 1000 + 2000):
        found = made.ask("loss", x="time", start=first)
        assert found["value"].to_list() == list(range(2, 10))


# What was read is remembered.


def test_question_that_is_asked_again_opens_no_file(scene: Callable[..., Scene]) -> None:
    made = scene(*curve("loss", range(30)), *curve("acc", range(30)))
    made.curves = Curves()
    whole, part = made.ask("loss"), made.ask("loss", start=5, stop=9)
    for file in made.query.tables.row_files("metrics"):
        spoil(file.path)
    assert made.ask("loss").equals(whole)
    assert made.ask("loss", start=5, stop=9).equals(part)
    assert made.ask("loss", max_points=4).height == 2
    with pytest.raises(StorageError, match="cannot read a file of this snapshot"):
        made.ask("acc")


def test_run_that_went_on_costs_only_what_is_new(tmp_path: Path) -> None:
    with runlake.open(tmp_path / "lake", refresh=0) as lake:
        run = lake.start_run("r")
        run.log_history({"step": range(100), "loss": [1.0] * 100})
        run.flush()
        assert lake.history("loss").height == 100
        for file in lake._fresh().tables.row_files("metrics"):
            spoil(file.path)
        run.log({"loss": 2.0}, step=100)
        run.flush()
        assert lake.history("loss")["value"].to_list() == [1.0] * 100 + [2.0]


def test_memory_stays_within_its_bound(tmp_path: Path) -> None:
    rows = [row for key in "abcdefgh" for row in curve(key, range(100))]
    made = Scene(tmp_path, [*begun("r1"), *rows])
    whole = made.ask("*")
    made.curves = Curves(limit_bytes=20_000)
    assert made.ask("*").equals(whole)
    assert made.ask(list("abcdefgh")).equals(whole)
    assert 0 < made.curves.kept_bytes <= 20_000
    made.curves.clear()
    assert made.curves.kept_bytes == 0
    assert made.ask("*").equals(whole)


def test_files_out_of_range_are_not_read(tmp_path: Path) -> None:
    with runlake.open(tmp_path / "lake") as lake:
        for begin in (0, 1000):
            with lake.start_run(run_id="r") as run:
                steps = range(begin, begin + 1000)
                times = [datetime.fromtimestamp(step, UTC) for step in steps]
                run.log_history({"step": steps, "timestamp": times, "loss": [1.0] * 1000})
            lake.flush()
    with runlake.open(tmp_path / "lake") as lake:
        files = lake._fresh().tables.row_files("metrics")
        [late] = [file for file in files if greatest_step(file.path) == 1999]
        spoil(late.path)
        assert lake.history("loss", stop=999).height == 1000
        assert lake.history("loss", x="time", stop=999_000).height == 1000
        for options in ({"stop": 1000}, {"x": "time", "stop": 1_000_000}, {}):
            with pytest.raises(StorageError, match="cannot read a file"):
                lake.history("loss", **options)


def greatest_step(path: str) -> int:
    """Return the greatest step of a file, as its footer has it; -1 where there is none."""
    of_steps: Any = pq.read_metadata(path).row_group(0).column(3).statistics
    return -1 if of_steps is None or not of_steps.has_min_max else int(of_steps.max)


def spoil(path: str) -> None:
    """Damage all pages of a file, and leave its footer as it is."""
    file = Path(path)
    data = file.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    file.write_bytes(b"PAR1" + b"\xff" * (len(data) - footer - 4) + data[-footer:])


def test_folder_with_an_odd_name_is_no_pattern(tmp_path: Path) -> None:
    made = Scene(tmp_path / "o'dd [1] {x}", [*begun("r1"), *curve("loss", range(5))])
    assert made.ask("loss")["value"].to_list() == [0, 1, 2, 3, 4]


def test_rows_that_a_manifest_holds_already_are_passed_over(scene: Callable[..., Scene]) -> None:
    made = scene(*curve("loss", range(40)), *curve("acc", range(40)))
    files = list(made.query.tables.row_files("metrics"))
    longest = max(range(len(files)), key=lambda place: Path(files[place].path).stat().st_size)
    gone = pq.read_table(files[longest].path).slice(0, 9)
    files[longest] = replace(files[longest], skip_rows=9)
    whole = made.ask(["acc", "loss"])
    made.query = Query(replace(made.query.tables, points=tuple(files)))
    for _ in range(2):  # from files, then from memory
        found = made.ask(["acc", "loss"])
        skipped = Counter(
            (row["key"], row["step"]) for row in gone.to_pylist() if row["kind"] == schema.METRIC
        )
        assert Counter(whole.select("key", "step").rows()) - skipped == Counter(
            found.select("key", "step").rows()
        )


def test_file_that_is_gone_says_so_and_the_question_is_asked_again(
    scene: Callable[..., Scene],
) -> None:
    made = scene(*curve("loss", range(30)))
    files = made.query.tables.row_files("metrics")
    query = Query(replace(made.query.tables, points=files))  # chosen before they went
    for file in files:
        Path(file.path).unlink()
    with pytest.raises(FileNotFoundError, match="take a new snapshot"):
        history(query, made.curves, CurveSearch(keys=["loss"]))


# Of a lake.


def test_lake_gives_curves_of_all_that_was_logged(lake: Lake) -> None:
    with lake.start_run("a", experiment="one") as run:
        for step in range(5):
            run.log({"loss": 1.0 / (step + 1), "epoch": step // 2}, step=step)
    with lake.start_run("b", experiment="two") as other:
        other.log_metric("loss", 7.0, step=2)
    found = lake.history("loss")
    assert found["run_name"].to_list() == ["b"] + ["a"] * 5
    assert found["x"].to_list() == found["step"].to_list() == [2, 0, 1, 2, 3, 4]
    assert lake.history("loss", experiment_names=["two"])["value"].to_list() == [7.0]
    assert lake.history("loss", runs=[run])["run_id"].unique().to_list() == [run.run_id]
    board = lake.leaderboard("loss", top=1)
    assert lake.history("loss", runs=board)["run_name"].to_list() == ["b"]
    by_epoch = lake.history("loss", runs=[run.run_id], x="epoch", start=1)
    assert by_epoch["x"].to_list() == [1.0, 1.0, 2.0]
    with pytest.raises(InvalidInputError, match="either runs or experiment_names"):
        lake.history("loss", runs=[run], experiment_names=["one"])
    with pytest.raises(NotFoundError, match="no experiment 'three'"):
        lake.history("loss", experiment_names=["three"])


def test_threads_may_share_a_lake(tmp_path: Path) -> None:
    rows = [row for key in "abcdefgh" for row in curve(key, range(300))]
    made = Scene(tmp_path, [*begun("r1"), *rows])
    made.curves = Curves(limit_bytes=30_000)

    def ask(number: int) -> pl.DataFrame:
        return made.ask("abcdefgh"[number % 8], max_points=(None, 20)[number % 2])

    wanted = [ask(number) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(40)))
    assert all(one.equals(other) for one, other in zip(wanted, found, strict=True))


FORKING = """
import os, sys
import runlake

lake = runlake.open(sys.argv[1])
with lake.start_run(run_id="r") as run:
    run.log_history({"step": range(100), "loss": [1.0] * 100})
# Without Polars, which does not survive a fork.
lake._ask(lambda query: lake._curves.read(query.tables, {"r": 0}, ["loss"]))
if os.fork() == 0:
    assert lake.history("loss", max_points=4).height == 2
    sys.exit(7)  # as a program ends: everything is torn down
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
assert lake.history("loss", max_points=4).height == 2
"""


def test_forked_child_may_ask_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path / "lake")],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    # DuckDB says that the child did not tear down what was its parent's.
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
