from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

import runlake
from benchmarks import lakes
from benchmarks.data import STRANGE, Sweep
from benchmarks.lakes import Shape
from runlake.storage import segments
from runlake.storage.layout import parse_segment
from runlake.writing import writer

if TYPE_CHECKING:
    from pathlib import Path

SMALL = Sweep(runs=7, params=4, metrics=3)
SHAPES = {
    "one point each": Shape(sweep=SMALL, experiments=2, runs_per_writer=3),
    "curves and a long run": Shape(
        sweep=dataclasses.replace(SMALL, points=50), runs_per_writer=3, long_points=400
    ),
    "seeds": Shape(sweep=dataclasses.replace(SMALL, seeds=3)),
    "strange keys": Shape(sweep=dataclasses.replace(SMALL, strange_keys=9)),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_lake_of_a_shape_is_sound_and_holds_what_the_sweep_says(
    shape: Shape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So few rows a segment that a run is cut, which else takes a quarter of a million.
    monkeypatch.setattr(lakes, "MAX_SEGMENT_ROWS", 100)
    made = lakes.write(tmp_path / "lake", shape)
    with runlake.open(made.folder, read_only=True) as lake:
        report = lake.maintain.verify()
        assert (report.findings, report.row_count) == ((), made.rows)
        assert lake.sql("SELECT count(*) FROM runs").item() == shape.runs
        for number in range(shape.runs):
            is_long = number == shape.sweep.runs
            values = shape.sweep.values_of(number, points=shape.long_points if is_long else None)
            keys, run_id = shape.sweep.metrics_of(number), made.run_id(number)
            found = lake.get_run(run_id).data
            assert found.params == {k: str(v) for k, v in shape.sweep.params_of(number).items()}
            assert found.metrics == dict(zip(keys, values[-1].tolist(), strict=True))
            curve = lake.sql(
                "SELECT step, value FROM metrics WHERE run_id = ? AND key = ? ORDER BY step",
                [run_id, keys[0]],
            )
            assert curve.rows() == list(enumerate(values[:, 0].tolist()))
            least = lake.sql(
                "SELECT count, min, mean FROM metric_summary WHERE run_id = ? AND key = ?",
                [run_id, keys[0]],
            )
            column = values[:, 0]
            assert least.row(0) == (len(column), column.min(), pytest.approx(column.mean()))


def test_lake_is_written_the_same_again_by_many_processes(tmp_path: Path) -> None:
    shape = Shape(sweep=Sweep(runs=9, params=2, metrics=1), runs_per_writer=1, experiments=2)
    assert lakes.write(tmp_path / "a", shape).segments == 10
    lakes.write(tmp_path / "b", shape)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_two_shapes_share_neither_lake_nor_writer_nor_run() -> None:
    one, other = Shape(sweep=Sweep(runs=1)), Shape(sweep=Sweep(runs=2))
    assert lakes.run_id(one, 0) != lakes.run_id(other, 0)


def test_states_of_generated_writers_stay_about_the_limit_of_real_ones(tmp_path: Path) -> None:
    shape = Shape(sweep=Sweep(runs=300))
    lakes.write(tmp_path / "lake", shape)
    files = sorted((tmp_path / "lake").rglob("log/*/*.parquet"))
    names = [parse_segment(str(file.relative_to(tmp_path / "lake"))) for file in files]
    assert None not in names
    sizes = [
        len(segments.read_footer(file.read_bytes(), key="").state.encode()[0]) for file in files
    ]
    assert 0.9 < max(sizes) / writer.STATE_LIMIT_BYTES < 1.1


def test_lake_by_name_is_written_once(tmp_path: Path) -> None:
    made = lakes.made("runs100", tmp_path)
    before = contents(tmp_path)
    assert lakes.made("runs100", tmp_path) == made
    assert contents(tmp_path) == before
    assert made.shape.runs == 100


def test_seeds_of_a_config_share_all_params_but_the_seed() -> None:
    sweep = Sweep(runs=6, seeds=3)
    first, second, other = (sweep.params_of(number) for number in (0, 1, 3))
    assert (first.pop("seed"), second.pop("seed"), other.pop("seed")) == (0, 1, 0)
    assert first == second != other


def test_strange_keys_are_spread_over_the_runs() -> None:
    sweep = Sweep(runs=50, strange_keys=20)
    found = [
        {key for key in sweep.params_of(number) if key.startswith("strange/")}
        for number in range(50)
    ]
    assert {len(keys) for keys in found} == {STRANGE}
    assert len(set().union(*found)) == 20
