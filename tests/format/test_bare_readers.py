"""A lake is read without runlake: by bare DuckDB and by bare Polars, as the specification says.

The readers are programs of their own, and importing runlake there fails.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest

from runlake.lake import open_lake
from runlake.query.engine import Query
from runlake.settings import Settings
from runlake.storage import layout, manifest, manifests
from runlake.storage.engine import Storage
from runlake.storage.localfs import LocalFilesystem
from runlake.upkeep import commit
from runlake.upkeep.compact import Compactor
from runlake.upkeep.work import Limits
from tests.format import spec
from tests.format.make_golden import LAKE, age
from tests.meta.tree import run_python
from tests.storage.lakes import named, put

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE: Final = Path(__file__).parent
READERS: Final = {
    "duckdb": (HERE / "bare_duckdb.py", spec.FILE),
    "polars": (HERE / "bare_polars.py",),
}
# A package named here cannot be imported: runlake, and Arrow's library, through which it reads.
BLOCKED: Final = """
import runpy, sys
sys.modules["runlake"] = sys.modules["pyarrow"] = None
reader, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_path(reader, run_name="__main__")
"""
# What runlake says to the same questions.
QUESTIONS: Final = {
    "metrics": "SELECT run_id, key, step, epoch_us(timestamp), value, writer FROM metrics",
    "summaries": """
        SELECT run_id, key, last, last_step, first, first_step, min, min_step, max, max_step,
            count, nan_count, mean
        FROM metric_summary
    """,
    "params": "SELECT run_id, key, value FROM params",
    "tags": "SELECT run_id, key, value FROM tags",
    "experiments": "SELECT experiment_id, name, lifecycle_stage FROM experiments",
    "runs": """
        SELECT run_id, experiment_id, run_name, status, is_stale, lifecycle_stage FROM runs
    """,
}

Answers = dict[str, list[str]]


def normal(name: str, rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return rows in an order of their own; means are compared with a tolerance."""
    plain = [list(row) for row in rows]
    if name == "summaries":
        for row in plain:
            row[-1] = None if row[-1] is None else f"{abs(row[-1]):.9g}"
    return sorted(json.dumps(row) for row in plain)


def read(reader: str, lake: Path, *, folder: Path) -> Answers:
    """Ask a bare reader."""
    program, *rest = READERS[reader]
    printed = run_python("-c", BLOCKED, program, lake, *rest, folder=folder)
    return {name: normal(name, rows) for name, rows in json.loads(printed).items()}


def expected(lake: Path) -> Answers:
    """Ask runlake."""
    _, tables = Storage(LocalFilesystem(lake), Settings()).read()
    query = Query(tables)
    try:
        return {
            name: normal(name, [list(row.values()) for row in query.sql(asked).to_pylist()])
            for name, asked in QUESTIONS.items()
        }
    finally:
        query.close()


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A copy of the golden lake, long at rest."""
    lake = tmp_path / "golden"
    shutil.copytree(LAKE, lake)
    age(lake)
    return lake


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """A lake that has just been written, and has no manifest."""
    folder = tmp_path / "fresh"
    with open_lake(folder) as lake:
        lake.create_experiment("digits", tags={"team": "vision"})
        with lake.start_run("first", experiment="digits", tags={"a": "1"}) as run:
            run.log_params({"lr": 0.1, "model": {"depth": 3}})
            run.log_history({"step": np.arange(500), "acc": np.linspace(0.0, 1.0, 500)})
            for step in range(50):
                run.log({"loss": 1.0 / (step + 1), "nan": float("nan")}, step=step)
            run.set_tag("a", "2")
            run.set_tag("b", "gone")
            run.delete_tag("b")
        with pytest.raises(ZeroDivisionError), lake.start_run("second"):
            raise ZeroDivisionError
        lake.delete_run(run.run_id)
        open_run = lake.start_run("still open")
        open_run.log_metric("loss", 0.5)
        lake.flush()
        yield folder
        open_run.finish()


@pytest.mark.parametrize("reader", READERS)
def test_bare_reader_gives_the_golden_lakes_answers(
    reader: str, golden: Path, tmp_path: Path
) -> None:
    wanted = expected(golden)
    assert all(wanted.values())
    assert read(reader, golden, folder=tmp_path) == wanted


@pytest.mark.parametrize("reader", READERS)
def test_bare_reader_gives_a_fresh_lakes_answers(reader: str, fresh: Path, tmp_path: Path) -> None:
    wanted = expected(fresh)
    assert all(wanted.values())
    assert read(reader, fresh, folder=tmp_path) == wanted


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("hot_writers", [0, commit.HOT_WRITERS])
def test_bare_reader_gives_a_compacted_lakes_answers(
    reader: str,
    hot_writers: int,
    golden: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = expected(golden)
    monkeypatch.setattr(commit, "HOT_WRITERS", hot_writers)
    fs = LocalFilesystem(golden)
    keeper = Compactor(fs, lake=golden_lake(golden), limits=Limits(budget_bytes=1))
    for experiment_id in keeper.experiments():
        keeper.compact(experiment_id)
    compacted = manifests.newest(fs, lake=golden_lake(golden))
    assert bool(compacted.consumed_cold) is (hot_writers == 0)
    assert expected(golden) == before
    assert read(reader, golden, folder=tmp_path) == before


@pytest.mark.parametrize("reader", READERS)
def test_bare_reader_takes_each_row_once_by_names_alone(
    reader: str, golden: Path, tmp_path: Path
) -> None:
    fs = LocalFilesystem(golden)
    # Covered, merged, overlapping, straddling a watermark, and behind a hole.
    put(fs, named(50, 0, 4), named(50, 0, 9), named(50, 5, 9), named(50, 8, 12))
    put(fs, named(51, 0, 3), named(51, 4, 7), named(51, 0, 7, merged=True))
    put(fs, named(52, 0, 9))
    put(fs, named(53, 0, 2), named(53, 5, 9))
    before = manifest.decode(
        fs.get(layout.manifest(1)), number=1, key="", lake=golden_lake(golden), url=""
    )
    after = manifest.Manifest(
        lake=before.lake,
        number=2,
        nonce="f" * 16,
        parent=before.nonce,
        commit_us=before.commit_us + 1,
        consumed={named(52, 0, 9).writer: 5},
    )
    fs.put(layout.manifest(2), manifest.encode(after))
    rows = [json.loads(row) for row in read(reader, golden, folder=tmp_path)["metrics"]]
    steps: dict[str, list[int]] = {}
    for _, key, step, _, _, writer in rows:
        if key == "loss" and int(writer[-2:]) >= 50:
            steps.setdefault(writer[-2:], []).append(step)
    assert {writer: sorted(found) for writer, found in steps.items()} == {
        "50": list(range(13)),
        "51": list(range(8)),
        "52": list(range(6, 10)),
        "53": list(range(3)),
    }


def golden_lake(lake: Path) -> str:
    """Return a lake's id."""
    found: str = json.loads((lake / layout.LAKE_FILE).read_text())["lake"]
    return found


def test_blocked_package_cannot_be_imported(tmp_path: Path) -> None:
    program = tmp_path / "imports.py"
    program.write_text("try:\n    import runlake\nexcept ImportError:\n    print('blocked')\n")
    assert run_python("-c", BLOCKED, program, folder=tmp_path) == "blocked\n"
    assert "runlake" in sys.modules
