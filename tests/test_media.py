"""Media of runs: kept on every store, found by key and step, tables of many runs as one frame."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from PIL import Image
from polars.testing import assert_frame_equal

import runlake
from runlake import active
from runlake.errors import FormatError, InvalidInputError, NotFoundError, StateError
from runlake.lake import open_lake
from runlake.storage import layout
from runlake.storage.localfs import LocalFilesystem
from runlake.testing import CountingFilesystem, SlowFilesystem
from runlake.testing import open_lake as open_over
from runlake.upkeep.compact import Compactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runlake.lake import Lake
    from runlake.run import Run

pytestmark = pytest.mark.filesystems("local", "memory", "s3")

CAT = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
VIEWS = ("media", "histograms")


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Lake]:
    """A lake in a folder."""
    with open_lake(tmp_path / "lake") as opened:
        yield opened


def log_all(run: Run, *, steps: range = range(3)) -> None:
    """Log one medium of every kind, images and tables at several steps."""
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2])
    for step in steps:
        run.log_image(CAT, key="train/cats", step=step, timestamp=1_700_000_000_000, caption="é")
        run.log_table({"truth": [0, 1], "said": [0.25, 0.5 + step]}, "predictions", step=step)
        run.log_histogram("weights", np.arange(8.0), bins=2, step=step)
    run.log_figure(figure, key="roc")
    run.log_audio(np.zeros(800), key="beep", rate=8000)
    run.log_html("<b>hi</b>", key="report")
    run.log_markdown("# hi", key="notes")
    run.log_image(CAT, "shown/cat.png")


def compact_all(lake: Lake) -> None:
    """End the writers of a lake, and compact every partition."""
    lake.close()
    keeper = Compactor(lake._storage.fs, lake=lake._storage.require_lake())
    for experiment_id in keeper.experiments():
        keeper.compact(experiment_id)


def test_media_of_every_kind_come_back_by_key_and_step(lake: Lake, tmp_path: Path) -> None:
    with lake.start_run() as run:
        log_all(run)
    found = lake.sql("SELECT key, step, media FROM media ORDER BY ALL")
    assert found.rows() == [
        ("beep", 0, "audio"),
        ("notes", 0, "markdown"),
        *(("predictions", step, "table") for step in range(3)),
        ("report", 0, "html"),
        ("roc", 0, "figure"),
        ("shown/cat.png", None, "image"),
        *(("train/cats", step, "image") for step in range(3)),
    ]
    cats = lake.sql(
        "SELECT path, media_type, size, details::JSON->>'caption' AS caption, "
        "details->'width' AS width FROM media WHERE key = 'train/cats' ORDER BY path"
    )
    assert cats.select("media_type", "caption", "width").unique().rows() == [
        ("image/png", "é", "7")
    ]
    file = lake.artifacts.download(run.run_id, cats["path"][-1], target=tmp_path / "down")
    assert file.stat().st_size == cats["size"][-1]
    with Image.open(file) as opened:
        assert np.asarray(opened).tolist() == CAT.tolist()


def test_views_of_media_are_the_same_live_compacted_pinned_and_lazy(lake: Lake) -> None:
    with lake.start_run("one", experiment="a") as run, lake.start_run("two", experiment="b") as two:
        log_all(run)
        log_all(two, steps=range(5, 6))

    def seen(asked: Any) -> list[pl.DataFrame]:  # noqa: ANN401 - a lake, or one at a snapshot
        frames = [asked.sql(f"FROM {view} ORDER BY ALL") for view in VIEWS]
        return [*frames, *(asked.scan(view).collect().sort(pl.all()) for view in VIEWS)]

    live = seen(lake)
    assert [frame.height for frame in live] == [18, 4, 18, 4]
    assert_frame_equal(live[0].sort(pl.all()), live[2])
    with lake.at(lake.snapshot) as then:
        compact_all(lake)
        lake.refresh()
        for one, other, pinned in zip(live, seen(lake), seen(then), strict=True):
            assert_frame_equal(one, other)
            assert_frame_equal(one, pinned)


def test_a_table_of_many_runs_is_one_frame(lake: Lake) -> None:
    ids = []
    for number in range(2):
        with lake.start_run(f"run-{number}", tags={"n": number}) as run:
            run.log_param("lr", number / 10)
            for step in (2, 0):
                run.log_table([{"step_": step, "said": "yes"}], "a b/answers.json", step=step)
            run.log_table({"said": ["no"], "sure": [0.5]}, "a b/answers.json")
            ids.append(run.run_id)
    found = lake.load_table(
        "a b/answers.json", run_ids=ids, extra_columns=["run_id", "params.lr", "tags.n"]
    )
    assert found.columns == ["said", "sure", "step_", "step", "run_id", "params.lr", "tags.n"]
    assert found["run_id"].to_list() == [ids[0]] * 3 + [ids[1]] * 3
    assert found["params.lr"].to_list() == ["0.0"] * 3 + ["0.1"] * 3
    assert found["step"].to_list() == [None, 0, 2] * 2
    assert found["said"].to_list() == ["no", "yes", "yes"] * 2
    assert found["sure"].to_list() == [0.5, None, None] * 2
    newest = lake.load_table("a b/answers.json", extra_columns=["run_id"])["run_id"].to_list()
    assert newest == [ids[1]] * 3 + [ids[0]] * 3
    with lake.at() as then:
        assert_frame_equal(then.load_table("a b/answers.json", run_ids=ids[:1]), found[:3, :4])


def test_a_table_costs_one_request_for_each_part(tmp_path: Path) -> None:
    counting = CountingFilesystem(SlowFilesystem(LocalFilesystem(tmp_path / "lake"), latency_s=0.0))
    with open_over(counting) as lake:
        with lake.start_run() as run:
            for step in range(40):
                run.log_table({"x": [step]}, "t", step=step)
        lake.sql("SELECT count(*) FROM media")
        counting.reset()
        assert lake.load_table("t")["x"].to_list() == list(range(40))
        assert counting.requests == {"GET": 40}


def test_names_of_extra_columns_that_the_table_has_are_numbered(local: Lake) -> None:
    with local.start_run() as run:
        run.log_table({"run_id": ["mine"], "status": [1]}, "t")
    found = local.load_table("t", extra_columns=["run_id", "status"])
    assert found.columns == ["run_id", "status", "run_id_1", "status_1"]
    assert found.row(0) == ("mine", 1, run.run_id, "FINISHED")


def test_tables_of_deleted_runs_come_when_named(local: Lake) -> None:
    with local.start_run() as run:
        run.log_table({"x": [1]}, "t")
    local.delete_run(run.run_id)
    assert local.load_table("t", run_ids=[run.run_id])["x"].to_list() == [1]
    with pytest.raises(NotFoundError, match="no table 't'"):
        local.load_table("t")


def test_what_load_table_cannot_do_is_said(local: Lake) -> None:
    with local.start_run() as run, local.start_run() as other:
        run.log_table({"x": [1]}, "predictions")
        other.log_table({"x": ["a"]}, "predictions")
    calls: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: local.load_table("prediction"), NotFoundError, "Did you mean 'predictions'"),
        (lambda: local.load_table("predictions", run_ids=["f" * 32]), NotFoundError, "no run"),
        (lambda: local.load_table("predictions", run_ids=[]), NotFoundError, "no table"),
        (
            lambda: local.load_table("predictions", run_ids=run.run_id),
            InvalidInputError,
            "write a list",
        ),
        (
            lambda: local.load_table("predictions", run_ids=[], experiment_names=["Default"]),
            InvalidInputError,
            "either runs or experiments",
        ),
        (lambda: local.load_table("predictions"), InvalidInputError, "run_ids="),
        (
            lambda: local.load_table(
                "predictions", run_ids=[run.run_id], extra_columns=["start_tim"]
            ),
            InvalidInputError,
            "Did you mean 'start_time'",
        ),
    ]
    for call, error, message in calls:
        with pytest.raises(error, match=message):
            call()


def test_a_part_that_is_damaged_or_gone_is_said(local: Lake) -> None:
    with local.start_run() as run:
        run.log_table({"x": [1]}, "t")
    path = local.sql("SELECT path FROM media")["path"].item()
    key = layout.artifacts(run.info.experiment_id, run.run_id) + path
    data = local._storage.fs.get(key)
    local._storage.fs.put(key, data[:-1] + b"x")
    with pytest.raises(FormatError, match="not what was logged"):
        local.load_table("t")
    local._storage.fs.delete_many([key])
    with pytest.raises(NotFoundError, match="was logged and is gone"):
        local.load_table("t")


RANK = """
import sys
import numpy as np
import runlake

url, run_id, rank = sys.argv[1:]
with runlake.open(url) as lake, lake.start_run(run_id=run_id) as run:
    for step in range(3):
        run.log_table({"rank": [int(rank)]}, "t", step=step)
        run.log_image(np.zeros((2, 2)), key="cats", step=step)
"""


def test_many_ranks_at_once_lose_nothing(tmp_path: Path) -> None:
    url = str(tmp_path / "lake")
    with open_lake(url) as lake:
        run = lake.start_run()
        run.flush()
        ranks = [
            subprocess.Popen([sys.executable, "-c", RANK, url, run.run_id, str(number)])
            for number in range(2)
        ]
        threads = [
            threading.Thread(target=run.log_table, args=({"rank": [n]}, "t"), kwargs={"step": 0})
            for n in range(2, 6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [rank.wait() for rank in ranks] == [0, 0]
        run.finish()
        lake.refresh()
        rows = lake.load_table("t").sort("step", "rank").select("step", "rank").rows()
        images = lake.sql("SELECT count(*), count(DISTINCT path) FROM media WHERE key = 'cats'")
    assert rows == [*((0, rank) for rank in range(6)), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert images.row(0) == (6, 6)


REFUSED: list[tuple[Callable[[Run], object], str]] = [
    (lambda run: run.log_image(CAT), "log_image takes a path.*got neither"),
    (lambda run: run.log_image(CAT, "a.png", key="a"), "got both"),
    (lambda run: run.log_image(CAT, "../a.png"), "must lie below the run"),
    (lambda run: run.log_image(CAT, key=""), "empty"),
    (lambda run: run.log_image(CAT, key="a\nb"), "cannot be printed"),
    (lambda run: run.log_image(CAT, key="a", step=1.5), "a step is"),  # type: ignore[arg-type]
    (lambda run: run.log_image(CAT, key="a", timestamp="now"), "a timestamp is"),
    (lambda run: run.log_image(CAT, key="a", caption="\ud800"), "not Unicode"),
    (lambda run: run.log_image(CAT * 2.0, key="a"), "floats of an image are 0 to 1"),
    (lambda run: run.log_table({"a": [1]}, "/t"), "must lie below the run"),
    (lambda run: run.log_table({"a": [1]}, "t/"), "must lie below the run"),
    (lambda run: run.log_table({"a": [1, "x"]}, "t"), "one type"),
    (lambda run: run.log_audio(np.zeros(5), key="a"), "rate"),
    (lambda run: run.log_html(5, key="a"), "takes text, got an int"),
    (lambda run: run.log_markdown("\ud800", key="a"), "not Unicode"),
    (lambda run: run.log_text("\ud800", "a.txt"), "not Unicode"),
    (lambda run: run.log_figure(5, "a.png"), "a figure is one of"),
    (lambda run: run.log_histogram("w"), "got neither"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_wrong_input_is_refused_and_nothing_is_kept(
    local: Lake, call: Callable[[Run], object], message: str
) -> None:
    with local.start_run() as run:
        with pytest.raises(InvalidInputError, match=message):
            call(run)
        assert local.artifacts.list(run.run_id) == []
    kinds = "kind IN ('artifact', 'histogram')"
    assert local.sql(f"FROM events WHERE {kinds}").height == 0


def test_a_run_that_has_ended_takes_no_media(local: Lake) -> None:
    with local.start_run() as run:
        pass
    calls: list[Callable[[], object]] = [
        lambda: run.log_image(CAT, key="a"),
        lambda: run.log_table({"a": [1]}, "t"),
        lambda: run.log_histogram("w", [1]),
    ]
    for call in calls:
        with pytest.raises(StateError, match="has ended"):
            call()


def test_a_sound_from_a_file_is_sent_as_it_is(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "long.mp3"
    file.write_bytes(b"ID3" + bytes(3 << 20))
    with lake.start_run() as run:
        run.log_audio(file, key="speech", step=4, caption="hello")
        run.log_audio(str(file), "speech/first.mp3")
    found = lake.sql("SELECT key, step, size, media_type, path FROM media ORDER BY ALL")
    assert found.drop("path").rows() == [
        ("speech", 4, 3 + (3 << 20), "audio/mpeg"),
        ("speech/first.mp3", None, 3 + (3 << 20), "audio/mpeg"),
    ]
    for path in found["path"]:
        down = lake.artifacts.download(run.run_id, path, target=tmp_path / "down")
        assert down.read_bytes() == file.read_bytes()


def test_a_page_may_be_what_a_notebook_shows(local: Lake) -> None:
    class Shown:
        def _repr_html_(self) -> str:
            return "<i>shown</i>"

    with local.start_run() as run:
        run.log_html(Shown(), "page.html")
    assert local.artifacts.download(run.run_id, "page.html").read_text() == "<i>shown</i>"


def test_a_histogram_never_asks_the_store(tmp_path: Path) -> None:
    counting = CountingFilesystem(LocalFilesystem(tmp_path / "lake"))
    with open_over(counting) as lake:
        run = lake.start_run()
        run.flush()
        counting.reset()
        run.log_histogram("weights", np.arange(10.0), step=7)
        assert counting.requests == {}
        run.finish()
        found = lake.sql("SELECT step, len(edges), list_sum(counts), nan_count FROM histograms")
    assert found.row(0) == (7, 65, 10.0, 0)


def test_disabled_media_are_checked_and_go_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNLAKE_MODE", "disabled")
    with open_lake(tmp_path / "lake") as lake, lake.start_run() as run:
        log_all(run)
        with pytest.raises(InvalidInputError, match="an image"):
            run.log_image(5, key="a")
    assert not (tmp_path / "lake").exists()


def test_the_module_functions_take_mlflows_arguments(tmp_path: Path) -> None:
    active.forget()
    try:
        runlake.set_tracking_uri(str(tmp_path / "lake"))
        runlake.set_experiment("one")
        with runlake.start_run() as run:
            runlake.log_image(CAT, None, "cats", 3, 1_700_000_000_000)
            runlake.log_image(Image.fromarray(CAT), "cat.jpg")
            figure = Figure()
            runlake.log_figure(figure, "figure.png", save_kwargs={"dpi": 20})
            runlake.log_histogram("w", [1, 2], step=1)
            for _ in range(2):
                runlake.log_table({"question": "why", "answer": "so"}, "eval.json")
        runlake.set_experiment("two")
        with runlake.start_run() as other:
            runlake.log_table({"question": ["how"], "answer": ["thus"]}, "eval.json")
        assert runlake.load_table("eval.json")["question"].to_list() == ["how"]
        found = runlake.load_table("eval.json", [run.run_id, other.run_id], ["run_id"])
        assert found.rows() == [
            ("why", "so", run.run_id),
            ("why", "so", run.run_id),
            ("how", "thus", other.run_id),
        ]
        lake = runlake.open(runlake.get_tracking_uri())
        data = lake.artifacts.download(run.run_id, "cat.jpg").read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.format == "JPEG"
    finally:
        active.forget()


def test_media_in_a_lake_that_is_read_only_are_read(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake, lake.start_run() as run:
        log_all(run)
    with open_lake(tmp_path / "lake", read_only=True) as lake:
        assert lake.load_table("predictions").columns == ["truth", "said", "step"]


def test_a_file_that_was_deleted_is_no_medium_any_more(local: Lake) -> None:
    with local.start_run() as run:
        run.log_image(CAT, "a.png")
        run.log_image(CAT, "b.png")
    local.artifacts.delete(run.run_id, "a.png")
    assert local.sql("SELECT path FROM media")["path"].to_list() == ["b.png"]
    assert local.scan("media").collect()["path"].to_list() == ["b.png"]
