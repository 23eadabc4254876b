"""Runs of TensorBoard come whole, from whatever forms their summaries have."""

from __future__ import annotations

import contextlib
import json
import math
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import ids
from runlake.errors import NotFoundError
from runlake.importers import import_from
from runlake.importers.source import SourceError
from runlake.importers.tensorboard import open_source
from runlake.importers.tfevents import EventFile, masked_crc
from runlake.lake import open_lake
from tests.importers.made import whole
from tests.importers.wired import event, event_file, field, plugin, single, tensor, varint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.importers.source import SourceRun
    from runlake.lake import Lake

# Made by tensorboardX 2.6; the names of the files are made up.
_REAL = Path(__file__).parent / "data" / "tensorboard"
_FLOAT, _DOUBLE, _STRING, _INT64 = 1, 2, 7, 9
_PNG = b"\x89PNG..."


@pytest.fixture
def lake() -> Iterator[Lake]:
    """An empty lake."""
    with open_lake(f"memory://{ids.new_nonce()}/lake", refresh=0) as opened:
        yield opened


def _write(folder: Path, *events: bytes, name: str = "events.out.tfevents.1.host") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(event_file(events))
    return folder / name


def _only(folder: Path) -> SourceRun:
    (run,) = map(whole, open_source(str(folder)).runs())
    return run


def _points(run: SourceRun) -> list[tuple[str, int, float]]:
    rows = [row for table in run.points() for row in table.to_pylist()]
    return [(row["key"], row["step"], row["value"]) for row in rows]


def _scalar(step: int, value: float, tag: str = "loss") -> bytes:
    return event(step, field(1, tag) + single(2, value), time_s=1.7e9 + step)


def test_runs_that_tensorboard_shows_come_whole(lake: Lake) -> None:
    report = import_from("tensorboard", str(_REAL), lake, experiment="digits")
    assert (report.problems, report.brought, report.checked) == ([], 3, 3)
    rows = {row["run_name"]: row for row in lake.sql("SELECT * FROM runs").iter_rows(named=True)}
    assert sorted(rows) == ["seed-1", "seed-1/hp", "seed-2"]
    assert rows["seed-1/hp"]["parent_run_id"] == rows["seed-1"]["run_id"]
    assert rows["seed-1/hp"]["params"] == {"lr": "0.1", "bs": "32.0", "act": "relu", "flag": "True"}
    assert rows["seed-1"]["start_time"].isoformat().startswith("2023-11-14T22:13:20.5")
    query = "SELECT step, value FROM metrics WHERE run_id = $1 AND key = $2 ORDER BY step"
    loss = lake.sql(query, [rows["seed-2"]["run_id"], "loss"]).rows()
    # TensorBoard keeps floats of 32 bits.
    assert loss == [(step, float(np.float32(1 / (step + 1)))) for step in range(4)]
    odd = lake.sql(query, [rows["seed-1"]["run_id"], "odd"]).rows()
    assert (odd[0][0], math.isnan(odd[0][1]), odd[1]) == (-1, True, (0, math.inf))


def test_images_histograms_and_texts_come_with_their_steps(lake: Lake) -> None:
    import_from("tensorboard", str(_REAL), lake)
    assert lake.sql("SELECT media, key, step FROM media").rows() == [("image", "picture/a", 2)]
    (histogram,) = lake.sql("SELECT value FROM events WHERE kind = 'histogram'").to_series()
    said = json.loads(histogram)
    assert (said["edges"], said["counts"], said["step"]) == ([0, 2, 4, 8], [2, 2, 4], 1)
    paths = lake.sql("SELECT path FROM artifacts")["path"].to_list()
    assert "tensorboard/values.jsonl" in paths


def test_second_import_brings_nothing_and_a_run_that_grew_its_new_points(
    lake: Lake, tmp_path: Path
) -> None:
    _write(tmp_path / "a", *(_scalar(step, 1.0) for step in range(3)))
    first = import_from("tensorboard", str(tmp_path), lake)
    again = import_from("tensorboard", str(tmp_path), lake)
    assert (first.points, again.unread, again.points) == (3, 1, 0)
    _write(tmp_path / "a", *(_scalar(step, 1.0) for step in range(5)))
    grown = import_from("tensorboard", str(tmp_path), lake)
    assert (grown.grown, grown.points, grown.problems) == (1, 2, [])
    assert lake.sql("SELECT count(*) FROM metrics").item() == 5


def test_checksum_is_that_of_the_published_example() -> None:
    # "123456789" has the CRC-32C E3069283, here masked as TensorFlow does.
    crc = 0xE3069283
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_file_that_is_cut_anywhere_ends_before_the_cut_and_says_so(tmp_path: Path) -> None:
    file = _write(tmp_path, *(_scalar(step, 1.0) for step in range(3)))
    whole = file.read_bytes()
    record = len(whole) // 3
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        read = EventFile(file)
        assert len(list(read.events())) == cut // record
        assert (read.cut_at is None) == (cut % record == 0)
    file.write_bytes(whole + b"\0" * 40)
    read = EventFile(file)
    assert (len(list(read.events())), read.cut_at) == (3, len(whole))


def test_cut_record_of_a_live_writer_is_named_in_the_report(lake: Lake, tmp_path: Path) -> None:
    file = _write(tmp_path, _scalar(0, 1.0), _scalar(1, 2.0))
    file.write_bytes(file.read_bytes()[:-3])
    report = import_from("tensorboard", str(tmp_path), lake)
    assert (report.points, report.problems) == (1, [])
    assert any("cut off" in loss.what for loss in report.losses)


def test_damage_before_the_end_is_an_error_and_other_runs_come(lake: Lake, tmp_path: Path) -> None:
    _write(tmp_path / "good", _scalar(0, 1.0))
    file = _write(tmp_path / "bad", *(_scalar(step, 1.0) for step in range(3)))
    whole = file.read_bytes()
    for place in range(len(whole) * 2 // 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(SourceError, match="is damaged"):
            list(EventFile(file).events())
    report = import_from("tensorboard", str(tmp_path), lake)
    assert (report.brought, report.failed) == (1, 1)
    assert "is damaged" in report.problems[0]


def test_scalars_that_are_tensors_are_points(tmp_path: Path) -> None:
    meta = plugin("scalars")
    values = [
        field(1, "a") + tensor(_FLOAT, [], single(5, 0.5)) + meta,
        field(1, "b") + tensor(_DOUBLE, [], field(4, struct.pack("<d", 0.1))) + meta,
        field(1, "c") + tensor(_INT64, [], field(10, varint(-7))) + meta,
        field(1, "d") + tensor(_DOUBLE, [1], field(6, struct.pack("<d", 0.2))),
    ]
    # The plugin stands with the first value of a tag only.
    second = field(1, "a") + tensor(_FLOAT, [], field(5, struct.pack("<f", 0.25)))
    _write(tmp_path, event(0, *values), event(1, second))
    run = _only(tmp_path)
    assert _points(run) == [
        ("a", 0, 0.5),
        ("b", 0, 0.1),
        ("c", 0, -7.0),
        ("d", 0, 0.2),
        ("a", 1, 0.25),
    ]


def test_whole_numbers_that_no_float_holds_are_named(tmp_path: Path) -> None:
    big = field(1, "n") + tensor(_INT64, [], field(10, 2**60 + 1)) + plugin("scalars")
    _write(tmp_path, event(0, big))
    assert [note.about for note in _only(tmp_path).notes() if "rounded" in note.what] == ["n"]


def test_histograms_of_both_forms_come_as_events(tmp_path: Path) -> None:
    doubles = struct.pack("<9d", 0, 1, 3, 1, 2, 4, 2, 4, 5)
    new = field(1, "new") + tensor(_DOUBLE, [3, 3], field(4, doubles)) + plugin("histograms")
    limits, counts = struct.pack("<3d", 1, 2, math.inf), struct.pack("<3d", 3, 4, 5)
    old = field(1, "old") + field(
        5, field(1, 0.0) + field(2, 9.0) + field(3, 12.0) + field(6, limits) + field(7, counts)
    )
    uneven = struct.pack("<6d", 0, 1, 3, 5, 6, 4)
    odd = field(1, "odd") + tensor(_DOUBLE, [2, 3], field(4, uneven)) + plugin("histograms")
    _write(tmp_path, event(4, new, old, odd))
    run = _only(tmp_path)
    said = {one.key: json.loads(one.text or "") for one in run.events()}
    assert (said["new"]["edges"], said["new"]["counts"]) == ([0, 1, 2, 4], [3, 4, 5])
    assert (said["old"]["edges"], said["old"]["counts"]) == ([0, 1, 2, 9], [3, 4, 5])
    (others,) = run.artifacts()
    assert json.loads(others.fetch(tmp_path).read_text())["values"] == [0, 1, 3, 5, 6, 4]


def test_images_and_sounds_of_tensors_are_files(tmp_path: Path) -> None:
    def texts(*parts: bytes) -> bytes:
        return b"".join(field(8, part) for part in parts)

    pictures = tensor(_STRING, [4], texts(b"4", b"4", _PNG, _PNG + b"2")) + plugin("images")
    sounds = tensor(_STRING, [1, 2], texts(b"RIFF..", b"label")) + plugin("audio")
    _write(tmp_path, event(3, field(1, "p") + pictures, field(1, "s") + sounds))
    files = list(_only(tmp_path).artifacts())
    assert [file.fetch(tmp_path).read_bytes() for file in files] == [_PNG, _PNG + b"2", b"RIFF.."]
    assert [Path(file.path).suffix for file in files] == [".png", ".png", ".wav"]
    assert len({file.path for file in files}) == 3
    assert all((file.about or {})["step"] == 3 for file in files)


@given(
    plugin_name=st.sampled_from(
        ["scalars", "histograms", "images", "audio", "text", "hparams", ""]
    ),
    kind=st.sampled_from([_FLOAT, _DOUBLE, _STRING, _INT64, 4, 19, 99]),
    shape=st.lists(st.integers(0, 4), max_size=3),
    fields=st.lists(st.tuples(st.integers(4, 11), st.binary(max_size=24)), max_size=3),
    where=st.sampled_from([4, 5, 6, 8]),
)
@settings(max_examples=60)
def test_values_of_any_content_are_read_or_refused_as_damaged(
    plugin_name: str, kind: int, shape: list[int], fields: list[tuple[int, bytes]], where: int
) -> None:
    content = b"".join(field(number, data) for number, data in fields)
    value = tensor(kind, shape, content) if where == 8 else field(where, content)
    with TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, event(1, field(1, "t") + value + plugin(plugin_name, content)))
        with contextlib.suppress(SourceError):
            run = _only(folder)
            list(run.points())
            list(run.events())
            for number, file in enumerate(run.artifacts()):
                (folder / str(number)).mkdir()
                file.fetch(folder / str(number))
            list(run.notes())


def test_files_of_a_folder_are_one_run_in_the_order_of_their_names(tmp_path: Path) -> None:
    _write(tmp_path, _scalar(5, 2.0), name="events.out.tfevents.2.host")
    _write(tmp_path, _scalar(0, 1.0), _scalar(5, 1.5), name="events.out.tfevents.1.host")
    assert _points(_only(tmp_path)) == [("loss", 0, 1.0), ("loss", 5, 1.5), ("loss", 5, 2.0)]


def test_ids_of_runs_stay_where_the_tree_is_moved(tmp_path: Path) -> None:
    _write(tmp_path / "here" / "a", _scalar(0, 1.0))
    (before,) = open_source(str(tmp_path / "here")).runs()
    (tmp_path / "here").rename(tmp_path / "there")
    (after,) = open_source(str(tmp_path / "there")).runs()
    assert before.source_id == after.source_id


def test_graphs_are_named_as_left_out(tmp_path: Path) -> None:
    _write(tmp_path, field(1, 1.7e9) + field(4, b"graph"), _scalar(0, 1.0))
    assert "graphs of a model are left out" in {note.what for note in _only(tmp_path).notes()}


def test_folder_without_event_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no event file"):
        open_source(str(tmp_path))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(SourceError, match="holds no event file"):
        open_source(str(tmp_path / "a.txt"))
    with pytest.raises(NotFoundError, match="there is no"):
        open_source(str(tmp_path / "gone"))
