from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runlake import ids, schema
from runlake.errors import ConflictError, StorageError
from runlake.storage import segments
from runlake.storage.layout import parse_segment
from runlake.writing import writer as writer_module
from runlake.writing.writer import SEAL_UPLOADS, Writer, saved_state
from tests.writing.drains import memory_journal, new_writer, points, read_all, segment_keys

if TYPE_CHECKING:
    from runlake.settings import Settings
    from runlake.storage.engine import Storage
    from runlake.storage.segments import Footer
    from runlake.testing.filesystems import CountingFilesystem, FaultyFilesystem
    from tests.writing.conftest import FakeTime


def _begin(writer: Writer, run_id: str = "run") -> None:
    writer.journal.events([(run_id, schema.STATUS, "", 1.0, schema.RUNNING)])


def _log(writer: Writer, count: int, *, key: str = "loss", run_id: str = "run") -> None:
    [key_id] = writer.journal.key_ids(run_id, [key])
    for _ in range(count):
        step = writer.journal.position().points
        assert writer.journal.point(key_id, step, step, float(step))


def _spans(storage: Storage) -> list[tuple[int, int, bool]]:
    """Return first and last row of each segment, and whether it was merged."""
    names = [parse_segment(entry.key) for entry in storage.fs.list("log/")]
    return [(name.first, name.last, name.merged) for name in names if name is not None]


def _footers(storage: Storage) -> list[Footer]:
    found = [entry.key for entry in storage.fs.list("log/")]
    return [segments.read_footer(storage.fs.get(key), key=key) for key in found]


def test_upload_covers_the_one_before_until_the_tail_is_sealed(
    storage: Storage, time: FakeTime, settings: Settings
) -> None:
    writer = new_writer()
    for _ in range(3):
        _log(writer, 2)
        writer.upload(storage)
    assert _spans(storage) == [(0, 1, False), (0, 3, False), (0, 5, False)]
    assert writer.sealed.rows == 0
    assert writer.pending == 0
    time.now_s += 59
    writer.delete_superseded(storage)
    assert len(_spans(storage)) == 3
    time.now_s += 2
    writer.delete_superseded(storage)
    assert _spans(storage) == [(0, 5, False)]
    assert points(read_all(storage.fs, settings)) == [("loss", n, float(n)) for n in range(6)]


def test_upload_without_new_rows_asks_nothing_of_the_store(
    storage: Storage, counting: CountingFilesystem
) -> None:
    writer = new_writer()
    _log(writer, 5)
    writer.upload(storage)
    counting.reset()
    writer.upload(storage)
    writer.delete_superseded(storage)
    assert counting.total == 0


def test_upload_is_one_put(storage: Storage, counting: CountingFilesystem) -> None:
    writer = new_writer()
    for _ in range(4):
        _log(writer, 100)
        counting.reset()
        writer.upload(storage)
        assert counting.requests == {"PUT": 1}


def test_tail_is_sealed_after_so_many_uploads(storage: Storage) -> None:
    writer = new_writer()
    for _ in range(SEAL_UPLOADS):
        assert writer.sealed.rows == 0
        _log(writer, 1)
        writer.upload(storage)
    assert writer.sealed.rows == SEAL_UPLOADS
    _log(writer, 1)
    writer.upload(storage)
    assert _spans(storage)[-1] == (SEAL_UPLOADS, SEAL_UPLOADS, False)


def test_tail_is_sealed_when_its_segment_is_large(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = new_writer()
    _log(writer, 10)
    writer.upload(storage)
    assert writer.sealed.rows == 0
    monkeypatch.setattr(writer_module, "SEAL_BYTES", 1000)
    _log(writer, 1)
    writer.upload(storage)
    assert writer.sealed.rows == 11


def test_backlog_is_cut_into_segments_of_bounded_rows(
    storage: Storage, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_SEGMENT_ROWS", 10)
    writer = new_writer()
    for _ in range(5):
        _log(writer, 5)
        _begin(writer)
    writer.upload(storage)
    assert _spans(storage) == [(0, 9, False), (10, 19, False), (20, 29, False)]
    assert len(points(read_all(storage.fs, settings))) == 25


def test_states_in_footers_are_cumulative_and_count_every_row_once(storage: Storage) -> None:
    writer = new_writer()
    _begin(writer)
    for count in (3, 4, 5):
        _log(writer, count)
        writer.upload(storage, seal=True)
    counts = [footer.state.summaries["n"].to_pylist() for footer in _footers(storage)]
    assert counts == [[3], [7], [12]]
    assert [footer.state.facts["str"].to_pylist() for footer in _footers(storage)] == [
        [schema.RUNNING]
    ] * 3


def test_state_of_a_run_that_ended_rides_no_longer_than_needed(storage: Storage) -> None:
    writer = new_writer()
    _begin(writer, "a")
    _log(writer, 2, run_id="a")
    writer.journal.events([("a", schema.STATUS, "", 2.0, schema.FINISHED)])
    writer.upload(storage, seal=True)
    _begin(writer, "b")
    writer.upload(storage, seal=True)
    carried = [set(footer.state.facts["run_id"].to_pylist()) for footer in _footers(storage)]
    assert carried == [{"a"}, {"b"}]
    assert writer.ended_runs == {"a"}


def test_run_that_was_resumed_behind_the_cut_is_not_let_go(storage: Storage) -> None:
    writer = new_writer()
    _begin(writer)
    _log(writer, 2)
    writer.journal.events([("run", schema.STATUS, "", 2.0, schema.FINISHED)])
    cut = writer.journal.position()
    writer._put(storage, cut)
    _begin(writer)  # while the put is under way
    writer._seal(cut)
    assert writer.ended_runs == set()
    _log(writer, 3)
    writer.upload(storage)
    assert _footers(storage)[-1].state.summaries["n"].to_pylist() == [5]


@pytest.mark.parametrize("way", ["before", "after"])
def test_upload_that_fails_is_made_good_by_the_next_without_a_row_twice(
    storage: Storage, faulty: FaultyFilesystem, settings: Settings, time: FakeTime, way: str
) -> None:
    writer = new_writer()
    _log(writer, 3)
    setattr(faulty, way, 1.0)
    with pytest.raises(StorageError):
        writer.upload(storage)
    _log(writer, 2)
    with pytest.raises(StorageError):
        writer.upload(storage)
    setattr(faulty, way, 0.0)
    writer.upload(storage)
    assert points(read_all(faulty, settings)) == [("loss", n, float(n)) for n in range(5)]
    assert _footers(storage)[-1].state.summaries["n"].to_pylist() == [5]
    time.now_s += 61
    writer.delete_superseded(storage)
    assert _spans(storage) == [(0, 4, False)]


def test_delete_that_fails_is_tried_again_and_stops_nothing(
    storage: Storage, faulty: FaultyFilesystem, time: FakeTime
) -> None:
    writer = new_writer()
    for _ in range(2):
        _log(writer, 1)
        writer.upload(storage)
    time.now_s += 61
    faulty.is_down = True
    writer.delete_superseded(storage)
    faulty.is_down = False
    writer.delete_superseded(storage)
    assert _spans(storage) == [(0, 1, False)]


def test_other_rows_under_our_name_are_a_conflict_and_stay(storage: Storage) -> None:
    ours, twin = new_writer(), new_writer()
    twin.writer_id = ours.writer_id
    _log(ours, 3)
    _log(twin, 3, key="other")
    twin.upload(storage)
    with pytest.raises(ConflictError, match="same writer runs twice"):
        ours.upload(storage)
    # The same rows under another nonce are no conflict.
    again = new_writer()
    again.writer_id = ours.writer_id
    _log(again, 3, key="other")
    again.upload(storage)
    assert len(segment_keys(storage.fs)) == 1


def test_a_segment_that_was_refused_and_is_gone_since_is_put_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, twin = new_writer(), new_writer()
    twin.writer_id = ours.writer_id
    for writer in (ours, twin):
        _log(writer, 3)
    twin.upload(storage)
    get = storage.fs.get

    def get_behind_a_vacuum(key: str) -> bytes:
        storage.fs.delete_many([key])
        return get(key)

    with monkeypatch.context() as patch:
        patch.setattr(storage.fs, "get", get_behind_a_vacuum)
        ours.upload(storage)
    assert _spans(storage) == [(0, 2, False)]

    def refuse(*_: object) -> bool:
        return False

    with monkeypatch.context() as patch:
        patch.setattr(storage, "append", refuse)
        patch.setattr(storage.fs, "get", get_behind_a_vacuum)
        _log(ours, 1)
        with pytest.raises(StorageError, match="came and went"):
            ours.upload(storage)


def test_merge_joins_small_neighbours_into_one_with_the_join_of_their_states(
    storage: Storage, settings: Settings
) -> None:
    writer = new_writer()
    _begin(writer, "a")
    _log(writer, 2, run_id="a")
    writer.journal.events([("a", schema.STATUS, "", 2.0, schema.FINISHED)])
    writer.upload(storage, seal=True)
    _begin(writer)
    _log(writer, 3)
    writer.upload(storage, seal=True)
    before = read_all(storage.fs, settings)
    writer.merge(storage)
    assert _spans(storage) == [(0, 7, True)]
    assert read_all(storage.fs, settings) == before
    [footer] = _footers(storage)
    assert set(footer.state.summaries["n"].to_pylist()) == {2, 3}
    assert set(footer.state.facts["run_id"].to_pylist()) == {"a", "run"}


def test_merge_leaves_a_gap_where_a_segment_is_gone(storage: Storage) -> None:
    writer = new_writer()
    for _ in range(5):
        _log(writer, 2)
        writer.upload(storage, seal=True)
    [gone] = [entry.key for entry in storage.fs.list("log/") if ".000000000000003-" in entry.key]
    storage.fs.delete_many([gone])  # consumed and vacuumed
    writer.merge(storage)
    assert _spans(storage) == [(0, 1, False), (4, 9, True)]


def test_merge_leaves_alone_what_would_make_too_large_a_state(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "STATE_LIMIT_BYTES", 10)
    writer = new_writer()
    for _ in range(2):
        _log(writer, 2)
        writer.upload(storage, seal=True)
    writer.merge(storage)
    assert len(_spans(storage)) == 2


def test_writer_whose_facts_are_large_must_end(storage: Storage) -> None:
    writer = new_writer()
    _begin(writer)
    writer.upload(storage)
    assert not writer.must_end
    for number in range(400):
        text = "".join(ids.name_hash(f"{number} {place}") for place in range(20))
        writer.journal.events([("run", schema.TAG, f"t{number}", None, text)])
    writer.upload(storage)
    assert writer.must_end


def test_writer_with_many_keys_must_end(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_KEYS", 5)
    writer = new_writer()
    for number in range(6):
        _log(writer, 1, key=f"k{number}")
    writer.upload(storage)
    assert writer.must_end


def test_rows_moved_to_a_successor_keep_clock_and_values_and_leave_out_the_end(
    storage: Storage, settings: Settings
) -> None:
    old, fresh = new_writer(), new_writer()
    _begin(old)
    _log(old, 2)
    old.upload(storage, seal=True)
    _log(old, 3)
    old.journal.events([("run", schema.TAG, "t", None, "x")], clock_us=7)
    old.retire()
    assert old.move_unsealed(lambda: fresh) is fresh
    fresh.upload(storage)
    rows = read_all(storage.fs, settings)
    assert points(rows) == [("loss", n, float(n)) for n in range(5)]
    moved = [row for row in rows if row.writer == fresh.writer_id]
    assert schema.CLOSE not in {row.kind for row in moved}
    [footer] = [one for one in _footers(storage) if one.header.writer == fresh.writer_id]
    assert 7 in footer.state.facts["clock"].to_pylist()


def test_rows_that_the_successor_cannot_take_are_counted() -> None:
    old, fresh = new_writer(), new_writer(memory_journal(limit_bytes=1))
    count = 33_000
    [key_id] = old.journal.key_ids("run", ["loss"])
    assert old.journal.points([key_id] * count, [1.0] * count, 0, 0) == count
    old.move_unsealed(lambda: fresh)
    assert fresh.rows + fresh.refused == count
    assert fresh.refused > 0


def test_heartbeat_is_a_row_only_while_a_run_is_open(storage: Storage) -> None:
    writer = new_writer()
    writer.beat()
    assert writer.rows == 0
    _begin(writer)
    writer.upload(storage)
    writer.beat()
    assert writer.pending == 1


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"facts":1,"summaries":2}', b"\xff"])
def test_saved_state_that_is_damaged_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        saved_state(text)
