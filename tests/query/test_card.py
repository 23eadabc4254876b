"""What a run looks like in a notebook."""

from __future__ import annotations

import copy
import math
import pickle
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runlake
from runlake import Lake
from runlake.query.card import card, sparkline
from runlake.query.entities import RunData, RunInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INFO = RunInfo(
    run_id="r1",
    run_name="<b>bold & tall</b>",
    experiment_id="0",
    status="FINISHED",
    is_stale=False,
    start_time=1_750_000_000_000,
    end_time=1_750_000_090_000,
    artifact_uri="",
    lifecycle_stage="active",
    user_id=None,
    source_name=None,
    parent_run_id=None,
)
curves = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats()), max_size=30)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with runlake.open(tmp_path / "lake") as opened:
        yield opened


def shown(element: str) -> str:
    """Return the text of a well-formed element."""
    return " ".join(ET.fromstring(element.replace("<br>", "<br/>")).itertext())  # noqa: S314 - our own


def test_text_of_a_run_is_escaped_and_long_text_cut() -> None:
    data = RunData(params={"<i>": "x" * 500, "b": '"&'}, metrics={"<u>": math.nan}, tags={})
    made = card(INFO, data, {})
    text = shown(made)
    assert "<b>bold & tall</b>" in text
    assert "FINISHED, 2025-06-15 15:06:40 UTC, 0:01:30" in text
    assert "x" * 79 + "…" in text
    assert "x" * 80 not in text
    assert "nan" in text


def test_of_many_params_and_metrics_the_first_are_shown_and_the_others_counted() -> None:
    many = {f"k{number:03}": "1" for number in range(100)}
    metrics = {"system/cpu": 1.0, **{f"m{number:03}": 0.5 for number in range(100)}}
    text = shown(card(INFO, RunData(params=many, metrics=metrics, tags={}), {}))
    assert "… and 88 more params" in text
    assert "… and 89 more metrics" in text
    assert "system/cpu" not in text


@given(curve=curves)
def test_any_curve_is_a_line_within_its_edges(curve: list[tuple[int, float]]) -> None:
    made = sparkline(sorted(curve, key=lambda point: point[0]))
    if not made:
        assert sum(math.isfinite(value) for _, value in curve) < 2
        return
    lines = [line.get("points", "").split() for line in ET.fromstring(made)]  # noqa: S314 - our own
    points = [tuple(map(float, point.split(","))) for line in lines for point in line]
    assert all(len(line) >= 2 for line in lines)
    assert all(0 <= x <= 120 and 0 <= y <= 20 for x, y in points)


def test_a_line_rises_to_the_right_and_breaks_where_no_number_is() -> None:
    made = sparkline([(0, 0.0), (1, 5.0), (2, math.nan), (3, 10.0)])
    assert 'points="2.0,18.0 40.7,10.0"' in made
    assert 'points="118.0,2.0 118.0,2.0"' in made


def test_a_run_of_a_lake_shows_its_curves(lake: Lake) -> None:
    with lake.start_run("svm") as run:
        run.log_params({"lr": 0.1})
        for step in range(500):
            run.log({"loss": 1 / (step + 1), "a[b]*": float(step)}, step=step)
        live = run._repr_html_()
    assert live.count("<svg") == 2
    assert "RUNNING" in shown(live)
    record = lake.get_run(run.run_id)
    assert record._repr_html_().count("<svg") == 2
    text = shown(record._repr_html_())
    assert "svm FINISHED" in text
    assert "lr 0.1" in text
    assert "loss 0.002 0.002 1" in text


def test_a_run_whose_lake_is_gone_is_shown_without_curves(lake: Lake, tmp_path: Path) -> None:
    with lake.start_run("svm") as run:
        run.log({"loss": 1.0}, step=0)
        run.log({"loss": 2.0}, step=1)
    lake.flush()
    record = lake.get_run(run.run_id)
    lake.refresh()
    (tmp_path / "lake").rename(tmp_path / "away")
    (tmp_path / "lake").write_text("no lake")
    looks = [one._repr_html_() for one in (record, run)]
    (tmp_path / "lake").unlink()
    (tmp_path / "away").rename(tmp_path / "lake")
    assert ["svm" in shown(look) for look in looks] == [True, True]
    assert ["<svg" in look for look in looks] == [False, False]


def test_a_record_is_copied_and_pickled_without_its_lake(lake: Lake) -> None:
    with lake.start_run() as run:
        run.log({"loss": 1.0})
    record = lake.get_run(run.run_id)
    for again in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):  # noqa: S301 - our own
        assert again == record
        assert again.curves is None
        assert "<table>" in again._repr_html_()
