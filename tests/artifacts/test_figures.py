"""Figures: each format is what its suffix says."""

from __future__ import annotations

import json
import sys

import pytest
from matplotlib.figure import Figure
from plotly.graph_objects import Figure as PlotlyFigure

from runlake.artifacts.figures import drawn
from runlake.errors import InvalidInputError, MissingDependencyError


@pytest.fixture
def figure() -> Figure:
    """A figure with one line."""
    found = Figure(figsize=(2, 1), dpi=100)
    found.subplots().plot([1, 2, 3])
    return found


@pytest.fixture
def chart() -> PlotlyFigure:
    """A chart of Plotly."""
    return PlotlyFigure(data=[{"type": "scatter", "y": [1, 2, 3]}])


@pytest.mark.parametrize(
    ("suffix", "begins"),
    [("", b"\x89PNG"), (".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")],
)
def test_a_figure_of_matplotlib_is_written_as_its_suffix_says(
    figure: Figure, suffix: str, begins: bytes
) -> None:
    medium = drawn(figure, suffix)
    assert medium.data.startswith(begins)
    assert medium.suffix == (suffix or ".png")
    assert medium.details == ({"width": 200, "height": 100} if begins == b"\x89PNG" else {})


def test_axes_stand_for_their_figure_and_arguments_arrive(figure: Figure) -> None:
    assert drawn(figure.axes[0], "", save_kwargs={"dpi": 50}).details["width"] == 100
    assert drawn(figure, "", save_kwargs={"format": "svg"}).suffix == ".svg"


def test_what_matplotlib_refuses_is_said(figure: Figure) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot write the figure as '\.xyz'.*png"):
        drawn(figure, ".xyz")


def test_a_chart_of_plotly_is_a_page_or_json(chart: PlotlyFigure) -> None:
    page = drawn(chart, "")
    assert page.suffix == ".html"
    assert b"cdn.plot.ly" in page.data
    assert len(page.data) < 100_000
    alone = drawn(chart, ".html", save_kwargs={"include_plotlyjs": True})
    assert len(alone.data) > 1_000_000
    assert json.loads(drawn(chart, ".json").data)["data"][0]["y"] == [1, 2, 3]


def test_an_image_of_plotly_without_kaleido_says_what_to_install(
    chart: PlotlyFigure, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python's own way to have a module not found.
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(MissingDependencyError, match="pip install kaleido"):
        drawn(chart, ".png")


def test_what_is_no_figure_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"got a list.*log_html"):
        drawn([], ".png")


@pytest.mark.parametrize("suffix", [".html", ".json"])
def test_what_plotly_refuses_is_said(chart: PlotlyFigure, suffix: str) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot write the figure as .*nothing"):
        drawn(chart, suffix, save_kwargs={"nothing": 1})
