"""How long does a curve take, and how do 100 curves, as the lake grows?

The question stays and the lake grows: one run's metric of 100,000 points, and one metric of
100 runs with 10,000 points each, thinned to 500 points a curve with every spike kept. Growth
should be flat, because summaries tell which files to open. A lake of a billion points is asked
too where there is one: `python -m benchmarks.lakes points1b --into FOLDER`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import asking, data, far, lakes
from benchmarks.harness import Figure, run_task, scratch
from benchmarks.rivals import ASKABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.harness import Options
    from benchmarks.lakes import Made
    from runlake import Lake

_METRIC = data.keys(1)[0]
_MANY = 100
_KEPT = 500


def measure(options: Options) -> list[Figure]:
    """Return milliseconds by size, near and far, beside bare DuckDB and rivals."""
    figures = []
    names = ["points100k"] if options.quick else ["points1m", "points10m", "points100m"]
    names += [name for name in ("points1b",) if lakes.is_made(name, options.lakes)]
    for name in names:
        made = lakes.made(name, options.lakes)
        with asking.opened(made.folder) as lake:
            figures += _one_curve(lake, made, options)
            figures += _many_curves(lake, made, options)
    figures += _of_rivals(options)
    return figures + _far(lakes.made(names[-1], options.lakes))


def _one_curve(lake: Lake, made: Made, options: Options) -> list[Figure]:
    """Read the longest curve whole."""
    run, points = made.run_id(made.shape.sweep.runs), made.shape.long_points
    what = f"one curve of {points:,} points, {{}}, lake of {made.rows:,} rows"
    count = options.size(31, quick=3)
    assert lake.history(_METRIC, runs=[run]).height == points
    spans = asking.warm(lake, lambda lake: lake.history(_METRIC, runs=[run]), count=count)
    note = f"{made.segments} segments"
    figures = [asking.figure(what.format("warm"), spans, 15.0, note=note)]
    spans = asking.warm(
        lake, lambda lake: lake.history(_METRIC, runs=[run], max_points=_KEPT), count=count
    )
    figures.append(asking.figure(f"{what.format('warm')}, to {_KEPT}", spans, None, note=note))
    script = asking.script(made.folder, f"lake.history({_METRIC!r}, runs=[{run!r}])")
    spans = asking.cold(script, count=options.size(5, quick=1))
    return [*figures, asking.figure(what.format("cold process"), spans, None, note=note)]


def _many_curves(lake: Lake, made: Made, options: Options) -> list[Figure]:
    """Read one metric of 100 runs, thinned."""
    wanted = [made.run_id(number) for number in range(made.shape.sweep.runs)][:_MANY]
    points = made.shape.sweep.points
    what = f"{len(wanted)} curves of {points:,} points to {_KEPT} each, lake of {made.rows:,} rows"
    _check_spikes(lake, wanted)
    spans = asking.warm(
        lake,
        lambda lake: lake.history(_METRIC, runs=wanted, max_points=_KEPT),
        count=options.size(15, quick=2),
    )
    bound = 100.0 if len(wanted) == _MANY else None
    note = f"{made.segments} segments"
    bare = asking.warm(lake, lambda lake: _bare(lake, wanted), count=options.size(5, quick=1))
    return [
        asking.figure(what, spans, bound, note=note),
        asking.figure(what, bare, None, who="DuckDB", note="SQL that leaves min and max only"),
    ]


def _check_spikes(lake: Lake, wanted: Sequence[str]) -> None:
    """Check that thinned curves are short, and hold the extremes of the whole ones."""
    thin = lake.history(_METRIC, runs=wanted, max_points=_KEPT)
    marks = ", ".join("?" * len(wanted))
    whole = lake.sql(
        "SELECT run_id, min, max, first, last FROM metric_summary "  # noqa: S608 - only marks
        f"WHERE key = ? AND run_id IN ({marks})",
        [_METRIC, *wanted],
    )
    curves = {run_id: values for (run_id,), values in thin.group_by("run_id")}
    assert len(curves) == len(wanted)
    for run_id, *spots in whole.iter_rows():
        values = curves[run_id]["value"].to_list()
        assert len(values) <= _KEPT
        assert set(spots) <= set(values), f"{run_id} lost a spike"


def _bare(lake: Lake, wanted: Sequence[str]) -> None:
    """Let DuckDB do about the same over the view of all points."""
    marks = ", ".join("?" * len(wanted))
    lake.sql(
        "SELECT run_id, step // ? AS bucket, min(value), max(value) FROM metrics "  # noqa: S608 - as above
        f"WHERE key = ? AND run_id IN ({marks}) GROUP BY ALL",
        [max(1, 4 * 10_000 // _KEPT), _METRIC, *wanted],
    )


def _of_rivals(options: Options) -> list[Figure]:
    """Let rivals read one curve whole."""
    figures = []
    points = options.size(100_000, quick=1_000)
    what = f"one curve of {points:,} points, warm, nothing else in the store"
    for name in (rival for rival in options.against if rival in ASKABLE):
        with scratch() as folder:
            run_task(name, "fill", folder, options=options, runs=1, metrics=1, points=points)
            found = run_task(name, "history", folder, options=options, rounds=3)
        assert found["points"] == points
        figures.append(Figure(what, found["p50"], "ms", name, note="3 rounds"))
    if figures:
        shape = lakes.Shape(sweep=data.Sweep(runs=1, params=2, metrics=1, points=points))
        with scratch() as folder:
            made = lakes.write(folder / "lake", shape)
            with asking.opened(made.folder) as lake:
                run = made.run_id(0)
                spans = asking.warm(lake, lambda lake: lake.history(_METRIC, runs=[run]), count=11)
        figures.insert(0, asking.figure(what, spans, 15.0, note="1 run"))
    return figures


def _far(made: Made) -> list[Figure]:
    """Read one curve from a store far away, once cold and once from another process."""
    run = made.run_id(0)
    what = f"one curve of {made.shape.sweep.points:,} points, {{}}, 50 ms a request, waiting"
    with scratch() as folder:
        cold, _ = far.ask(made.folder, folder / "cache", "curve", run=run)
        again, _ = far.ask(made.folder, folder / "cache", "curve", run=run)
    note = "{0.requests} requests, {0.seconds:.2f} s from question to answer"
    return [
        Figure(what.format("cold"), cold.waited_s, "s", note=note.format(cold)),
        Figure(what.format("local cache"), again.waited_s, "s", note=note.format(again)),
    ]
