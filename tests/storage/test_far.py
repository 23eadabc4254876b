"""What questions to a far lake cost: requests, and the seconds that a store of 50 ms takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from runlake import ids, schema
from runlake.storage import footers, reader, segments
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.storage.state import State, fact_schema, summary_schema
from runlake.testing import CountingFilesystem, SlowFilesystem, open_lake
from tests.storage.curves import encoded
from tests.storage.lakes import START_US, named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runlake.lake import Lake
    from runlake.storage.filesystem import Filesystem

SEGMENTS: Final = 500
RUNS: Final = 200  # of each segment
KEYS: Final = ("loss", "acc", "time")
LATENCY_S: Final = 0.05
QUESTION: Final = "metrics.acc > 0.5 and params.depth = '3' and attributes.status = 'FINISHED'"
ORDER: Final = ["metrics.loss ASC"]


def put_sweep(fs: Filesystem, number: int) -> list[str]:
    """Write what one process leaves behind that ended 200 runs; return their ids."""
    run_ids = [f"{number:016x}{place:016x}" for place in range(RUNS)]
    draw = np.random.default_rng(number)
    values = draw.uniform(size=RUNS * len(KEYS))
    facts: list[tuple[str, str, list[float | None], list[str | None]]] = [
        (schema.RUN, schema.RUN_START, [float(START_US)] * RUNS, [None] * RUNS),
        (schema.STATUS, "", [float(START_US)] * RUNS, [schema.FINISHED] * RUNS),
        (schema.PARAM, "depth", [3.0] * RUNS, ["3"] * RUNS),
        (schema.PARAM, "lr", [None] * RUNS, [f"{value:.6f}" for value in values[:RUNS]]),
    ]
    said: dict[str, Any] = {
        "run_id": run_ids * len(facts),
        "kind": [kind for kind, _, _, _ in facts for _ in run_ids],
        "key": [key for _, key, _, _ in facts for _ in run_ids],
        "clock": [START_US] * RUNS * len(facts),
        "seq": list(range(RUNS * len(facts))),
        "num": [value for _, _, numbers, _ in facts for value in numbers],
        "str": [value for _, _, _, texts in facts for value in texts],
    }
    counted: dict[str, Any] = {
        "run_id": [run_id for run_id in run_ids for _ in KEYS],
        "key": list(KEYS) * RUNS,
    }
    for field in summary_schema():
        if field.name not in counted:
            is_value = field.name in {"sum", "last", "first", "min", "max"}
            counted[field.name] = values if is_value else np.full(len(values), 1)
    rows = pa.Table.from_pylist(
        [
            {
                "run_id": run_id,
                "kind": schema.METRIC,
                "key": key,
                "step": 1,
                "timestamp": START_US,
                "num": 0.5,
                "str": None,
            }
            for run_id in run_ids
            for key in KEYS
        ],
        schema=segments.segment_schema(),
    )
    state = State(
        pa.Table.from_pydict(said, schema=fact_schema()),
        pa.Table.from_pydict(counted, schema=summary_schema()),
    )
    name = named(number, 0, rows.num_rows - 1)
    fs.put(name.key, encoded(name.writer, 0, rows, state))
    return run_ids


@pytest.fixture(scope="module")
def sweep() -> Iterator[MemoryFilesystem]:
    """A lake of 100,000 runs in 500 live segments."""
    memory = MemoryFilesystem(f"test-{ids.new_nonce()}")
    with open_lake(memory) as lake:
        lake.create_experiment("made up")
    for number in range(SEGMENTS):
        put_sweep(memory, number)
    yield memory
    memory.delete_many([entry.key for entry in memory.list("")])


def test_search_over_500_segments_costs_two_listings_a_gather_and_later_two_listings(
    sweep: MemoryFilesystem, tmp_path: Path
) -> None:
    slow = SlowFilesystem(sweep, latency_s=LATENCY_S)
    slow.url = "far://sweep"  # in memory, all tests would share one cache
    counting = CountingFilesystem(slow)
    lake = open_lake(counting, refresh_s=3600.0, cache=str(tmp_path), compact="off")
    found = lake.search_runs(QUESTION, order_by=ORDER, limit=20)
    assert found.height == 20
    # The lake's id, the event of the experiment, and each live segment.
    assert counting.requests == {"LIST": 2, "GET": 1 + 1 + SEGMENTS}
    assert [call.verb for call in counting.calls if call.verb != "now_us"] == [
        "get", "list", "list", "get_ranges",
    ]  # fmt: skip
    assert slow.waited_s <= 2.0
    counting.reset()
    slow.waited_s = 0.0
    lake.refresh()
    assert lake.search_runs(QUESTION, order_by=ORDER, limit=20).equals(found)
    assert counting.requests == {"LIST": 2}
    assert slow.waited_s == pytest.approx(2 * LATENCY_S)
    # Another process finds in the cache what the first one has fetched.
    counting.reset()
    other = open_lake(counting, refresh_s=3600.0, cache=str(tmp_path), compact="off")
    assert other.search_runs(QUESTION, order_by=ORDER, limit=20).equals(found)
    assert counting.requests == {"LIST": 2, "GET": 1}


def test_long_footers_are_asked_for_at_once_after_a_few_have_told_how_long_they_are(
    sweep: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_WHOLE_BYTES", 0)
    monkeypatch.setattr(segments, "TAIL_BYTES", 1024)
    slow = SlowFilesystem(sweep)
    slow.url = "far://sweep-of-long-footers"
    counting = CountingFilesystem(slow)
    lake = open_lake(counting, refresh_s=3600.0, cache="", compact="off")
    assert lake.search_runs(QUESTION, order_by=ORDER, limit=20).height == 20
    asked_twice = counting.requests["GET"] - (1 + 1 + SEGMENTS)
    assert 16 <= asked_twice <= 32
    gathers = [call for call in counting.calls if call.verb == "get_ranges"]
    assert len(gathers) == 3  # those that tell, these again, all others


def test_a_few_long_footers_do_not_make_all_others_dear() -> None:
    few, most, many = [400_000], [90_000] * 12, [90_000] * 12 + [3_000_000]
    assert footers.reach_of(few, 16) == segments.TAIL_BYTES
    assert 90_000 <= footers.reach_of(most, 16) <= 95_000
    assert footers.reach_of(many, 16) == footers.reach_of(most, 16)
    assert footers.reach_of([], 16) == segments.TAIL_BYTES


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """The folder of a lake with one run of 600,000 points, in five row groups."""
    steps, draw = np.arange(100_000), np.random.default_rng(0)
    values = {key: draw.normal(size=len(steps)) for key in (*KEYS, "lr", "grad", "f1")}
    with (
        open_lake(LocalFilesystem(tmp_path / "lake")) as lake,
        lake.start_run(run_id="r", run_name="large") as run,
    ):
        run.log_history({"step": steps, **values})
    return tmp_path / "lake"


def test_one_curve_of_a_large_run_costs_one_more_request_and_later_two_listings(
    large: Path, tmp_path: Path
) -> None:
    slow = SlowFilesystem(LocalFilesystem(large), latency_s=LATENCY_S)
    counting = CountingFilesystem(slow)
    objects = [entry for entry in counting.list("log/") if "_lake" not in entry.key]
    assert max(entry.size_bytes for entry in objects) > 4_000_000
    # The lake's id, the footers, and one stretch of row groups.
    for requests in ({"LIST": 2, "GET": 1 + len(objects) + 1}, {"LIST": 2, "GET": 1}):
        counting.reset()
        slow.waited_s = 0.0
        lake = open_lake(counting, refresh_s=3600.0, cache=str(tmp_path / "far"))
        curve = lake.history("acc", runs=["r"], max_points=500)
        assert curve.height > 100
        assert counting.requests == requests
        assert slow.waited_s < 6 * LATENCY_S
        counting.reset()
        lake.refresh()
        assert lake.history("acc", runs=["r"], max_points=500).equals(curve)
        assert counting.requests == {"LIST": 2}


def test_answers_out_of_row_groups_are_those_of_a_local_lake(large: Path, tmp_path: Path) -> None:
    slow = SlowFilesystem(LocalFilesystem(large))
    here = open_lake(LocalFilesystem(large))
    questions: list[Callable[[Lake], pl.DataFrame]] = [
        lambda lake: lake.history("acc", runs=["r"], max_points=500),
        lambda lake: lake.history("acc", start=50_000),
        lambda lake: lake.leaderboard("time", value=77),
        lambda lake: lake.scan("metrics").filter(pl.col("key") == "time").collect(),
    ]
    for ask in questions:
        cache = tmp_path / ids.new_nonce()
        assert ask(open_lake(slow, cache=str(cache))).equals(ask(here))
        assert list(cache.rglob("*.part"))


def test_curve_of_one_run_among_500_segments_costs_nothing_beyond_a_search(
    sweep: MemoryFilesystem,
) -> None:
    counting = CountingFilesystem(SlowFilesystem(sweep))
    lake = open_lake(counting, refresh_s=3600.0)
    lake.search_runs(QUESTION, limit=1)
    counting.reset()
    curve = lake.history("loss", runs=[f"{7:016x}{3:016x}"])
    assert curve["value"].to_list() == [0.5]
    assert counting.total == 0
