from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import ids
from runlake.errors import FormatError, StorageError
from runlake.settings import Settings
from runlake.storage import layout, manifest, points, ranges, reader, segments
from runlake.storage.engine import Storage
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.manifest import Manifest
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.storage.snapshot import SnapshotExpiredError
from runlake.storage.tables import point_rows_schema
from runlake.testing import Call, CountingFilesystem, SlowFilesystem, Wrapper
from tests.storage.curves import Event, WriterLog, all_points, points_in, put_columns
from tests.storage.lakes import named, put, writer_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.tables import SnapshotTables

T = TypeVar("T")
KEYS = tuple("abcdef")
POINTS = 20_000  # of each key, in row groups of which two hold one key
GROUP_ROWS = 1 << 14

_runs = st.sampled_from(["run-a", "run-b", "run-c"])
_keys = st.sampled_from(["loss", "acc", "val/loss"])
_events = st.builds(Event, _runs, st.none() | _keys)
_wanted_runs = st.none() | st.sets(st.sampled_from(["run-a", "run-b", "run-c", "absent"]))
_wanted_keys = st.none() | st.sets(st.sampled_from(["loss", "acc", "val/loss", "absent"]))


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountingFilesystem:
    """A far store with a lake; it counts its requests."""
    monkeypatch.setattr(segments, "_GROUP_ROWS", GROUP_ROWS)
    counting = CountingFilesystem(SlowFilesystem(LocalFilesystem(tmp_path / "store")))
    opened(counting, tmp_path).ensure_lake()
    counting.reset()
    return counting


def opened(fs: Filesystem, folder: Path, **knobs: int) -> Storage:
    """Return storage as another process would open it."""
    return Storage(fs, Settings(cache=str(folder / "cache"), **knobs))  # type: ignore[arg-type]


def read(fs: Filesystem, folder: Path, **knobs: int) -> SnapshotTables:
    return opened(fs, folder, **knobs).read()[1]


# --- the same points as a full read ---


@st.composite
def writer_logs(draw: st.DrawFn) -> list[WriterLog]:
    logs = []
    for number in range(1, draw(st.integers(1, 3)) + 1):
        lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
        count = sum(lengths)
        events = draw(st.lists(_events, min_size=count, max_size=count))
        logs.append(WriterLog(number, events, lengths))
    return logs


@pytest.mark.parametrize("is_far", [True, False])
@settings(deadline=None, max_examples=40)
@given(
    logs=writer_logs(),
    asked=st.lists(st.tuples(_wanted_runs, _wanted_keys), min_size=1, max_size=3),
    rows_in_group=st.integers(1, 6),
    gap=st.sampled_from([0, 1 << 20]),
    vague=st.sampled_from([-1, 300, 1 << 20]),
    watermark=st.integers(-1, 12),
)
def test_selection_holds_the_points_of_a_full_read(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    is_far: bool,
    logs: list[WriterLog],
    asked: list[tuple[set[str] | None, set[str] | None]],
    rows_in_group: int,
    gap: int,
    vague: int,
    watermark: int,
) -> None:
    memory = MemoryFilesystem(f"test-{ids.new_nonce()}")
    fs = SlowFilesystem(memory)
    folder = tmp_path_factory.mktemp("points")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "_GROUP_ROWS", rows_in_group)
        patch.setattr(ranges, "_GAP_BYTES", gap)
        patch.setattr(ranges, "PIECE_BYTES", 100)
        patch.setattr(points, "_VAGUE_BYTES", vague)
        if is_far:  # so that the smallest object is read as large ones are
            for module in (points, reader):
                patch.setattr(module, "_WHOLE_BYTES", 0)
            patch.setattr(segments, "TAIL_BYTES", 64)
        storage = opened(fs, folder)
        storage.ensure_lake()
        for log in logs:
            log.put(fs)
        seen = Manifest(lake=storage.require_lake(), number=1, consumed={writer_id(1): watermark})
        fs.put(layout.manifest(1), manifest.encode(seen))
        tables = storage.read()[1]
        wanted = asked * 2  # again from the cache
        found = [points_in(tables.select_points(*each), *each) for each in wanted]
        assert found == [all_points(tables, *each) for each in wanted]
    memory.delete_many([entry.key for entry in memory.list("")])


def test_curve_is_the_same_on_each_store(filesystem: Filesystem, tmp_path: Path) -> None:
    put_columns(filesystem, 1, keys=KEYS, points=POINTS)
    put(filesystem, named(2, 0, 99))
    opened(filesystem, tmp_path).ensure_lake()
    wanted = (["run-1", "run-2"], ["c", "loss"])
    tables = read(filesystem, tmp_path)
    found = [points_in(tables.select_points(*wanted), *wanted) for _ in range(2)]
    assert len(found[0]) == POINTS + 100
    assert found == [all_points(tables, *wanted)] * 2


# --- requests ---


def size_of_parts(folder: Path) -> int:
    return sum(file.stat().st_size for file in (folder / "cache").rglob("*.part"))


def test_curve_of_small_objects_costs_no_request_after_a_search(
    far: CountingFilesystem, tmp_path: Path
) -> None:
    put(far, *(named(number, 0, 99) for number in range(1, 31)))
    tables = read(far, tmp_path)
    far.reset()
    found = tables.select_points(["run-7"], ["loss"])
    assert [file.writer for file in found.files] == [writer_id(7)]
    assert (found.rows, far.total) == (None, 0)


def test_curve_out_of_a_large_object_costs_one_request_and_then_none(
    far: CountingFilesystem, tmp_path: Path
) -> None:
    key = put_columns(far, 1, keys=KEYS, points=POINTS)
    size = far.list(key)[0].size_bytes
    far.reset()
    tables = read(far, tmp_path)
    assert far.requests == {"LIST": 2, "GET": 1 + 1}  # the lake's id, and a footer
    far.reset()
    found = tables.select_points(["run-1"], ["b"])
    assert found.files == ()
    assert found.rows is not None
    assert found.rows.schema == point_rows_schema()
    assert found.rows["step"].to_pylist() == list(range(POINTS))
    assert far.requests == {"GET": 1}
    far.reset()
    again = tables.select_points(["run-1"], ["b"])
    assert again.rows is not None
    assert again.rows.equals(found.rows)
    assert far.total == 0
    # Another process takes its snapshot, and nothing else.
    other = opened(far, tmp_path).read()[1].select_points(["run-1"], ["b"])
    assert other.rows is not None
    assert other.rows.equals(found.rows)
    assert far.requests == {"LIST": 2, "GET": 1}
    assert size_of_parts(tmp_path) < size / 2


def test_curves_of_many_large_objects_come_in_one_gather(
    far: CountingFilesystem, tmp_path: Path
) -> None:
    for number in range(1, 9):
        put_columns(far, number, keys=KEYS, points=POINTS)
    put(far, named(9, 0, 99))
    tables = read(far, tmp_path)
    far.reset()
    runs = [f"run-{number}" for number in range(1, 10)]
    found = tables.select_points(runs, ["b"])
    assert found.rows is not None
    assert found.rows.num_rows == 8 * POINTS
    assert far.requests == {"GET": 8}
    assert len(far.calls) == 1


def test_row_groups_of_many_objects_are_looked_through_before_their_numbers_come(
    far: CountingFilesystem, tmp_path: Path
) -> None:
    count, keys = 20, ("loss", "acc", "time", "lr", "grad", "f1")
    for number in range(1, count + 1):
        # By its least and greatest key, most of the row groups could hold the loss.
        put_columns(far, number, keys=keys, points=POINTS)
    size = sum(entry.size_bytes for entry in far.list("log/"))
    tables = read(far, tmp_path)
    far.reset()
    found = tables.select_points(None, ["loss"])
    assert found.files == ()
    assert found.rows is not None
    assert found.rows.num_rows == count * POINTS
    assert [call.verb for call in far.calls] == ["get_ranges", "get_ranges"]
    assert far.requests == {"GET": count + count}
    assert size_of_parts(tmp_path) < size / 2
    # What was learnt tells of another metric at once where it is.
    far.reset()
    assert len(points_in(tables.select_points(["run-3"], ["f1"]), None, None)) == POINTS
    assert far.requests == {"GET": 1}


def test_object_of_which_most_is_wanted_comes_whole_as_a_file(
    far: CountingFilesystem, tmp_path: Path
) -> None:
    key = put_columns(far, 1, keys=KEYS, points=POINTS)
    tables = read(far, tmp_path)
    far.reset()
    (file,) = tables.select_points(["run-1"], None).files
    assert far.requests == {"GET": 1}
    assert Path(file.path).read_bytes() == far.get(key)
    far.reset()
    assert tables.select_points(["run-1"], ["b"]).files == (file,)
    assert tables.row_files("metrics") == (file,)
    assert far.total == 0


def test_large_object_comes_in_pieces_at_once(
    far: CountingFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "PIECE_BYTES", 1 << 20)
    key = put_columns(far, 1, keys=KEYS, points=POINTS)
    data = far.get(key)
    tables = read(far, tmp_path)
    far.reset()
    (file,) = tables.row_files("metrics")
    assert Path(file.path).read_bytes() == data
    assert far.requests == {"GET": -(-len(data) >> 20)}
    assert len(far.calls) == 1


def test_local_selection_names_the_objects_as_they_lie_and_asks_for_no_other(
    tmp_path: Path,
) -> None:
    local = LocalFilesystem(tmp_path / "lake")
    put(local, named(1, 0, 9), named(1, 10, 19), named(2, 0, 9))
    opened(local, tmp_path).ensure_lake()
    tables = read(local, tmp_path)
    local.delete_many([named(2, 0, 9).key])
    found = tables.select_points(["run-1"], ["loss"])
    paths = [str(local.local_file(named(1, *each).key)) for each in ((0, 9), (10, 19))]
    assert [file.path for file in found.files] == paths
    with pytest.raises(SnapshotExpiredError, match="Ask again"):
        tables.select_points(["run-2"], None)


# --- what is not as it should be ---


def test_object_that_is_gone_says_that_the_snapshot_expired(
    far: CountingFilesystem, tmp_path: Path
) -> None:
    key = put_columns(far, 1, keys=KEYS, points=POINTS)
    tables = read(far, tmp_path)
    far.delete_many([key])
    for ask in (
        lambda: tables.select_points(["run-1"], ["b"]),
        lambda: tables.row_files("metrics"),
    ):
        with pytest.raises(SnapshotExpiredError):
            ask()


@final
class Cutting(Wrapper):
    """Gives all but the last byte of what is asked for."""

    is_cutting = False

    def around(self, call: Call, action: Callable[[], T]) -> T:
        result = action()
        if self.is_cutting and isinstance(result, list) and call.verb == "get_ranges":
            result[:] = [data[:-1] for data in result]
        return result


def test_answer_that_is_cut_short_is_refused_and_not_kept(
    far: CountingFilesystem, tmp_path: Path
) -> None:
    put_columns(far, 1, keys=KEYS, points=POINTS)
    cutting = Cutting(far)
    tables = read(cutting, tmp_path)
    cutting.is_cutting = True
    for ask in (
        lambda: tables.select_points(["run-1"], ["b"]),
        lambda: tables.row_files("metrics"),
    ):
        with pytest.raises(StorageError, match="cut short"):
            ask()
    cutting.is_cutting = False
    assert len(points_in(tables.select_points(["run-1"], ["b"]), None, None)) == POINTS


def test_damaged_row_group_is_told_and_not_kept(far: CountingFilesystem, tmp_path: Path) -> None:
    key = put_columns(far, 1, keys=KEYS, points=POINTS)
    data = bytearray(far.get(key))
    data[len(data) // 4] ^= 1
    far.put(key, bytes(data))
    tables = read(far, tmp_path)
    with pytest.raises(FormatError, match="runlake verify"):
        tables.select_points(["run-1"], ["b"])
    assert not list((tmp_path / "cache").rglob("*.part"))
    assert len(points_in(tables.select_points(["run-1"], ["f"]), None, None)) == POINTS


def spoil_every_entry(folder: Path) -> int:
    """Flip one bit in each file of a cache; return how many there are."""
    found = [file for file in folder.rglob("*") if file.is_file()]
    files = {file.stat().st_ino: file for file in found}.values()  # some have two names
    for file in files:
        data = bytearray(file.read_bytes())
        data[len(data) // 3] ^= 16
        file.write_bytes(data)
    return len(files)


def test_cache_that_was_damaged_throughout_gives_the_same_answers(
    far: CountingFilesystem, tmp_path: Path
) -> None:
    put_columns(far, 1, keys=KEYS, points=POINTS)
    put(far, *(named(number, 0, 99) for number in (2, 3)))
    wanted: list[tuple[list[str] | None, list[str] | None]] = [
        (["run-1"], ["b"]),
        (["run-2"], None),
        (["run-3"], ["loss"]),
    ]
    tables = read(far, tmp_path)
    expected = [points_in(tables.select_points(*each), *each) for each in wanted]
    assert spoil_every_entry(tmp_path / "cache") == 1 + 2 * 2 + 2  # tail, parts, whole objects
    tables = read(far, tmp_path)
    assert tables.problems == ()
    assert [points_in(tables.select_points(*each), *each) for each in wanted] == expected
    tables.row_files("metrics")
    spoil_every_entry(tmp_path / "cache")
    tables = read(far, tmp_path)
    assert [points_in(tables.select_points(*each), *each) for each in wanted] == expected


def test_cache_that_cannot_be_written_costs_requests_and_no_answer(
    far: CountingFilesystem, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_bytes(b"no folder")
    put_columns(far, 1, keys=KEYS, points=POINTS)
    put(far, named(2, 0, 99))
    tables = read(far, tmp_path)
    far.reset()
    both = ["run-1", "run-2"]
    found = tables.select_points(both, ["b", "loss"])
    assert found.files == ()
    assert len(points_in(found, None, None)) == POINTS + 100
    assert far.requests == {"GET": 1 + 1 + 1}  # a footer, a row group, a small object
    assert len(points_in(tables.select_points(both, None), None, None)) == 6 * POINTS + 100
    with pytest.raises(StorageError, match=r"RUNLAKE_CACHE=…"):
        tables.row_files("metrics")


def test_cache_that_is_too_small_for_the_files_says_so_and_curves_do_without(
    far: CountingFilesystem, tmp_path: Path
) -> None:
    put_columns(far, 1, keys=KEYS, points=POINTS)
    tables = read(far, tmp_path, cache_limit_bytes=1 << 18)
    with pytest.raises(StorageError, match="RUNLAKE_CACHE_LIMIT_BYTES="):
        tables.row_files("metrics")
    found = tables.select_points(["run-1"], None)
    assert found.files == ()
    assert len(points_in(found, None, None)) == len(KEYS) * POINTS


def test_purged_run_is_not_among_the_rows(far: CountingFilesystem, tmp_path: Path) -> None:
    put_columns(far, 1, keys=KEYS, points=POINTS)
    lake = opened(far, tmp_path).ensure_lake()
    made = Manifest(lake=lake, number=1, purged=frozenset({"run-1"}))
    far.put(layout.manifest(1), manifest.encode(made))
    found = read(far, tmp_path).select_points(None, ["b"])
    assert points_in(found, None, None) == []
