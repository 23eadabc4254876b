"""Whatever a source says comes whole, once, and looks as if it had been logged here."""

from __future__ import annotations

import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runlake
from runlake import ids
from runlake.errors import InvalidInputError, StateError
from runlake.importers import bring_runs, import_from
from runlake.importers.facts import ids_of
from runlake.importers.homes import EXPERIMENT_TAG
from runlake.importers.source import Note, SourceEvent, SourceInput
from runlake.lake import open_lake
from runlake.settings import Settings
from runlake.storage.fs import open_filesystem
from runlake.testing import CrashAt, SimulatedCrash
from runlake.testing import open_lake as open_over
from runlake.writing import bulk, histograms
from tests.importers.made import Made, MadeSource, counted, everything, points_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runlake.importers.source import SourceRun
    from runlake.lake import Lake

_T = 1_700_000_000_000_000
_keys = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=8)
_texts = st.text(st.characters(categories=("L", "N", "P", "S", "Z", "Cc")), max_size=20)
_points = st.lists(
    st.tuples(
        st.sampled_from(["loss", "val/acc", "ü"]),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(_T, _T + 50),
        st.floats(width=64),
    ),
    max_size=30,
)
_runs = st.lists(
    st.builds(
        Made,
        id=st.uuids().map(lambda uuid: uuid.hex),
        points=_points,
        params=st.dictionaries(_keys, _texts | st.floats(allow_nan=False) | st.integers()),
        tags=st.dictionaries(_keys, _texts),
        files=st.dictionaries(st.sampled_from(["a.txt", "b/c.bin"]), st.binary(max_size=50)),
        name=st.none() | _keys,
        experiment=st.sampled_from(["one", "two"]),
        status=st.sampled_from(["FINISHED", "FAILED", "KILLED", "RUNNING", "SCHEDULED"]),
        is_deleted=st.booleans(),
    ),
    min_size=2,
    max_size=6,
    unique_by=lambda run: run.id,
)


def _memory() -> Lake:
    return open_lake(f"memory://{ids.new_nonce()}/lake", refresh=0)


@given(made=_runs)
@settings(
    max_examples=3,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_random_runs_come_out_as_they_went_in_and_only_once(
    made: list[Made], tmp_path: Path
) -> None:
    with _memory() as lake:
        report = bring_runs(MadeSource(made, tmp_path), lake)
        assert report.problems == []
        assert (report.brought, report.checked) == (len(made), len(made))
        for run in made:
            record = lake.get_run(run.id)
            assert points_in(lake, run.id) == counted(run.points)
            assert record.data.params == {key: str(value) for key, value in run.params.items()}
            assert record.data.tags == run.tags
            assert record.info.status == run.status
            assert record.info.lifecycle_stage == ("deleted" if run.is_deleted else "active")
            assert record.info.start_time == _T // 1000
        before = everything(lake)
        again = bring_runs(MadeSource(made, tmp_path), lake)
        assert (again.already, again.points, again.problems) == (len(made), 0, [])
        assert everything(lake) == before


def _full(number: int, points: int = 5) -> Made:
    return Made(
        id=f"run {number}",
        name=f"name {number}",
        points=[("loss", step, _T + step, 1 / (step + number + 1)) for step in range(points)],
        params={"lr": 0.1, "seed": number},
        tags={"team": "vision"},
        files={"a.txt": b"same", f"{number}/b.bin": bytes([number] * 20)},
        inputs=[SourceInput("train", "d1", context="training", schema="{}")],
        events=[
            SourceEvent(
                "histogram",
                "grad",
                None,
                histograms.text_of("grad", None, bins=2, edges=[0, 1, 2], counts=[1, 2], step=3),
                _T + 5,
            )
        ],
        parent="run 0" if number else None,
    )


def test_import_is_whole_on_each_store_and_the_lake_is_sound(lake: Lake, tmp_path: Path) -> None:
    made = [_full(number) for number in range(3)]
    report = bring_runs(MadeSource(made, tmp_path), lake)
    assert report.is_exact
    assert (report.artifacts, report.artifact_bytes) == (6, 3 * 24)
    child = ids_of("made", "run 1")
    record = lake.get_run(child)
    assert record.info.parent_run_id == ids_of("made", "run 0")
    assert record.info.user_id == "ada"
    assert record.info.end_time == 1_700_000_100_000
    assert record.data.params == {"lr": "0.1", "seed": "1"}
    assert lake.artifacts.download(child, "1/b.bin").read_bytes() == bytes([1] * 20)
    found = lake.sql("SELECT key, step, counts FROM histograms WHERE run_id = ?", [child])
    assert found.rows() == [("grad", 3, [1.0, 2.0])]
    experiment = lake.get_experiment(record.info.experiment_id)
    assert experiment.tags == {"of": "test", EXPERIMENT_TAG: "7"}
    assert lake.maintain.verify(artifacts=True).is_sound


def test_run_that_has_grown_gets_only_what_is_new(tmp_path: Path) -> None:
    made = _full(1)
    with _memory() as lake:
        bring_runs(MadeSource([made], tmp_path), lake)
        run_id = ids_of("made", made.id)
        # In between, at the end, and one as often as it is there already.
        made.points.insert(2, ("loss", 7, _T, math.nan))
        made.points += [("acc", 0, _T, 1.0), made.points[0]]
        made.tags = {"team": "audio"}
        made.params["new"] = 3
        made.status = "FAILED"
        made.files["a.txt"] = b"other"
        report = bring_runs(MadeSource([made], tmp_path), lake)
        assert (report.problems, report.grown, report.points, report.artifacts) == ([], 1, 3, 1)
        assert points_in(lake, run_id) == counted(made.points)
        record = lake.get_run(run_id)
        assert record.info.status == "FAILED"
        assert record.data.tags["team"] == "audio"
        assert record.data.params["new"] == "3"
        assert lake.artifacts.download(run_id, "a.txt").read_bytes() == b"other"
        assert lake.sql("FROM histograms").height == 1


def test_what_somebody_changed_in_the_lake_stays_when_the_run_comes_again(tmp_path: Path) -> None:
    made = _full(1)
    with _memory() as lake:
        bring_runs(MadeSource([made], tmp_path), lake)
        run_id = ids_of("made", made.id)
        with lake.start_run(run_id=run_id) as run:
            run.set_tag("team", "ours")
            run.log_metric("mine", 1.0)
            run.log_metric("loss", 7.0, step=1000)
        made.points.append(("loss", 99, _T, 0.0))
        report = bring_runs(MadeSource([made], tmp_path), lake)
        assert (report.points, report.problems) == (1, [])
        assert [loss.count for loss in report.losses] == [1]  # a point that only the lake has
        assert lake.get_run(run_id).data.tags["team"] == "ours"
        assert points_in(lake, run_id).total() == len(made.points) + 2


def test_run_that_was_logged_here_as_well_is_not_doubled(tmp_path: Path) -> None:
    made = Made(id="0" * 31 + "a", points=[("loss", step, _T, float(step)) for step in range(4)])
    with _memory() as lake:
        with lake.start_run(run_id=made.id, experiment="made") as run:
            for key, step, at, value in made.points[:2]:
                run.log_metric(key, value, step=step, timestamp=at / 1000)
        report = bring_runs(MadeSource([made], tmp_path), lake)
        assert report.points == 2
        assert points_in(lake, made.id) == counted(made.points)


def test_version_that_is_known_spares_reading(tmp_path: Path) -> None:
    made = _full(1)
    made.version = "1"
    with _memory() as lake:
        bring_runs(MadeSource([made], tmp_path), lake)
        source = MadeSource([made], tmp_path)
        report = bring_runs(source, lake)
        assert (report.already, report.unread) == (1, 1)
        assert source.read == 0
        made.version = "2"
        assert bring_runs(source, lake).already == 1
        assert source.read == 1


class _Waiting(MadeSource):
    """A source that waits, when all was read and nothing written, until others are as far."""

    def __init__(self, runs: list[Made], folder: Path, gate: threading.Barrier) -> None:
        """Hold them."""
        super().__init__(runs, folder)
        self._gate = gate

    def runs(self) -> Iterator[SourceRun]:
        yield from super().runs()
        self._gate.wait(20)


@pytest.mark.parametrize("is_grown", [False, True])
def test_the_same_source_imported_twice_at_once_comes_once(
    tmp_path: Path, *, is_grown: bool
) -> None:
    made = [_full(number) for number in range(5)]
    url = f"memory://{ids.new_nonce()}/lake"
    with open_lake(url, refresh=0) as one, open_lake(url, refresh=0) as other:
        if is_grown:
            bring_runs(MadeSource(made, tmp_path), one)
            for run in made:
                run.points.append(("loss", 50, _T + 50, 0.5))
                run.files["c.txt"] = b"more"
        gate = threading.Barrier(2)
        with ThreadPoolExecutor() as pool:
            first, second = pool.map(
                lambda lake: bring_runs(_Waiting(made, tmp_path, gate), lake), (one, other)
            )
        assert (first.problems, second.problems) == ([], [])
        for run in made:
            assert points_in(one, ids_of("made", run.id)) == counted(run.points)
        assert one.sql("FROM histograms").height == len(made)
        with open_lake(f"memory://{ids.new_nonce()}/lake", refresh=0) as alone:
            bring_runs(MadeSource(made, tmp_path), alone)
            assert everything(one) == everything(alone)


def test_runs_that_somebody_else_brought_meanwhile_do_not_come_again(tmp_path: Path) -> None:
    made = [_full(number) for number in range(3)]
    url = f"memory://{ids.new_nonce()}/lake"

    class Overtaken(MadeSource):
        def runs(self) -> Iterator[SourceRun]:
            yield from super().runs()
            # Of one of them somebody brings more: it has grown in between.
            grown = replace(made[2], points=[*made[2].points, ("loss", 50, _T, 0.5)])
            with open_lake(url, refresh=0) as other:
                bring_runs(MadeSource([made[0], grown], tmp_path), other)

    with open_lake(url, refresh=0) as lake:
        report = bring_runs(Overtaken(made, tmp_path), lake)
        assert (report.problems, report.brought, report.already) == ([], 1, 1)
        totals = [points_in(lake, ids_of("made", run.id)).total() for run in made]
        assert totals == [5, 5, 6]


def test_artifacts_that_stayed_away_come_when_they_are_asked_for(tmp_path: Path) -> None:
    made = _full(1)
    made.version = "1"
    with _memory() as lake:
        assert bring_runs(MadeSource([made], tmp_path), lake, artifacts=False).artifacts == 0
        assert lake.sql("FROM artifacts").is_empty()
        report = bring_runs(MadeSource([made], tmp_path), lake)
        assert (report.artifacts, report.points, report.problems) == (2, 0, [])


def test_what_does_not_fit_is_named_and_the_rest_comes(tmp_path: Path) -> None:
    made = _full(1)
    made.points += [("x" * 251, 0, _T, 1.0), ("x" * 251, 1, _T, 2.0), ("a\nb", 0, _T, 1.0)]
    made.params |= {"y" * 300: 1, "api_key": "secret", "big": "z" * (2 << 20)}
    made.files["../out.txt"] = b"no"
    made.notes.append(Note("colour of the curve", "loss"))
    with _memory() as lake:
        report = bring_runs(MadeSource([made], tmp_path), lake)
        assert report.problems == []
        assert not report.is_exact
        counts = {loss.what.partition(":")[0]: loss.count for loss in report.losses}
        assert counts["colour of the curve"] == 1
        assert counts["artifact left out"] == 1
        assert counts["param redacted"] == 1
        assert sum(loss.count for loss in report.losses if "metric" in loss.what) == 3
        assert sum(loss.count for loss in report.losses if "param left out" in loss.what) == 2
        assert lake.get_run(ids_of("made", made.id)).data.params["lr"] == "0.1"
        json.dumps(report.as_dict())


def test_one_run_that_cannot_be_read_keeps_none_of_the_others(tmp_path: Path) -> None:
    made = [_full(0), _full(1), _full(2)]
    made[1].status = "ASLEEP"
    with _memory() as lake:
        report = bring_runs(MadeSource(made, tmp_path), lake)
        assert (report.brought, report.failed) == (2, 1)
        assert "ASLEEP" in report.problems[0]


def test_difference_between_source_and_lake_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = bulk.BulkWriter.put

    def loses_one(self: bulk.BulkWriter, rows: object, points: object = (), **more: bool) -> None:
        cut = [(run_id, table.slice(1)) for run_id, table in points]  # type: ignore[attr-defined]
        kept(self, rows, cut, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(bulk.BulkWriter, "put", loses_one)
    with _memory() as lake:
        report = bring_runs(MadeSource([_full(1)], tmp_path), lake)
        assert report.problems == ["run run 1: metric 'loss' has 5 points in the source, 4 here."]
        assert not report.is_sound


def test_import_that_dies_at_any_call_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that small runs go in groups of two, and the large one has segments of its own.
    monkeypatch.setattr("runlake.importers.bring.GROUP_RUNS", 2)
    monkeypatch.setattr("runlake.importers.bring.GROUP_ROWS", 8)
    monkeypatch.setattr("runlake.importers.bring.SEGMENT_ROWS", 4)
    made = [_full(0, 2), _full(1, 2), _full(2, 18), _full(3, 1)]
    with _memory() as whole:
        bring_runs(MadeSource(made, tmp_path), whole)
        wanted = everything(whole)
    settled = Settings(name_timeout_s=0.2, close_timeout_s=0.2)
    # A look at the log in the background would die in a thread of its own.
    monkeypatch.setenv("RUNLAKE_COMPACT", "off")
    at, is_over = 4, False
    while not is_over:
        inner = open_filesystem(f"memory://{ids.new_nonce()}", storage_options={}, settings=settled)
        lake = open_over(CrashAt(inner, at=at, with_effect=at % 2 == 0), refresh_s=0.0)
        try:
            bring_runs(MadeSource(made, tmp_path), lake)
            is_over = True
        except (SimulatedCrash, runlake.RunlakeError):
            pass
        lake._drain.abandon_in_child()
        with open_over(inner, refresh_s=0.0) as after:
            report = bring_runs(MadeSource(made, tmp_path), after)
            assert report.problems == [], at
            assert everything(after) == wanted, at
        at += 23


def test_read_only_lake_refuses_runs(tmp_path: Path) -> None:
    url = str(tmp_path / "lake")
    with open_lake(url) as lake:
        lake.start_run().finish()
    with open_lake(url, read_only=True) as lake, pytest.raises(StateError, match="read-only"):
        bring_runs(MadeSource([_full(1)], tmp_path), lake)


def test_unknown_kinds_and_options_are_told(tmp_path: Path) -> None:
    with _memory() as lake:
        with pytest.raises(InvalidInputError, match="no importer 'comet'; there are mlflow"):
            import_from("comet", str(tmp_path), lake)
        with pytest.raises(InvalidInputError, match="no option 'colour'"):
            import_from("mlflow", str(tmp_path), lake, colour="red")
