from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import ids, schema
from runlake.errors import InvalidInputError, NotFoundError, StateError, StorageError
from runlake.settings import Settings
from runlake.storage import layout, manifests, names
from runlake.storage.engine import Storage
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.storage.names import Claim
from runlake.testing.filesystems import Call, SimulatedCrash, SlowFilesystem, Wrapper
from runlake.upkeep.compact import Compactor
from runlake.upkeep.copies import passage as passage_module
from runlake.upkeep.copies.copying import Copied, Place, copy, copy_lake
from runlake.upkeep.purge import purge, purge_experiment
from runlake.upkeep.vacuum import vacuum
from runlake.upkeep.work import Limits
from tests.storage.curves import put_columns
from tests.storage.lakes import EXPERIMENT
from tests.upkeep import bounded_copy
from tests.upkeep.instants import DieBehind, Interrupt, calls_of, writes_of
from tests.upkeep.made import (
    LAKE,
    Held,
    MadeWriter,
    Row,
    cuts,
    held,
    make_lake,
    point,
    said,
    writers,
)
from tests.upkeep.peak import BESIDE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runlake.storage.filesystem import Filesystem

T = TypeVar("T")
SOURCE: Final = LAKE
TARGET: Final = "f" * 32
FULL: Final = Limits(is_full=True)


def target_lake(fs: Filesystem) -> None:
    """Make the lake that is copied into."""
    fs.put(layout.LAKE_FILE, b'{"format":1,"lake":"' + TARGET.encode() + b'"}')


class Two:
    """Two lakes, of which the first holds something."""

    def __init__(self) -> None:
        """Make them."""
        nonce = ids.new_nonce()
        self.source = MemoryFilesystem(f"test-{nonce}/source")
        self.target = MemoryFilesystem(f"test-{nonce}/target")
        make_lake(self.source)
        target_lake(self.target)

    def forth(self, **options: Any) -> Copied:  # noqa: ANN401 - those of `copy`
        """Copy from the first to the second."""
        return copied(self.source, self.target, SOURCE, TARGET, **options)

    def back(self, **options: Any) -> Copied:  # noqa: ANN401 - those of `copy`
        """Copy from the second to the first."""
        return copied(self.target, self.source, TARGET, SOURCE, **options)

    def clear(self) -> None:
        """Take both away."""
        for fs in (self.source, self.target):
            fs.delete_many([entry.key for entry in fs.list("")])


def copied(
    source: Filesystem,
    target: Filesystem,
    one: str,
    other: str,
    **options: Any,  # noqa: ANN401 - those of `copy`
) -> Copied:
    """Copy, waiting for nobody."""
    target.conditional_create = True
    return copy(Place(source, one), Place(target, other), sleep=lambda _: None, **options)


@pytest.fixture
def two() -> Iterator[Two]:
    yield (made := Two())
    made.clear()


def compact(fs: Filesystem, lake: str, experiment: str = EXPERIMENT) -> None:
    """Compact one experiment as far as it goes."""
    fs.conditional_create = True
    Compactor(fs, lake=lake, limits=FULL, sleep=lambda _: None).compact(experiment)


def tidy(fs: Filesystem, lake: str) -> None:
    """Take away at once whatever may go."""
    vacuum(fs, lake=lake, grace_s=0, is_dry_run=False)


def of_runs(fs: Filesystem, lake: str, experiment: str = EXPERIMENT) -> Held:
    """Return what a lake holds of runs, and of the writers that wrote them."""
    found = held(fs, experiment, lake=lake)
    for row in [row for row in found.rows if row[2] == ""]:
        del found.rows[row]
    ours = {row[0] for row in found.rows} | {key[0] for key in found.facts if key[1]}
    for writer in [writer for writer in found.writers if writer not in ours]:
        del found.writers[writer]
    for key in [key for key in found.facts if not key[1] and key[0] not in ours]:
        del found.facts[key]
    return found


def put_whole(fs: Filesystem, writer: MadeWriter, *, size: int = 4) -> None:
    """Put all rows of a writer in segments of some rows each."""
    count = len(writer.rows)
    for first in range(0, count, size):
        writer.put(fs, first, min(count, first + size) - 1)


def life_of(run_id: str, number: int = 0) -> list[Row]:
    """Return what a run says of itself."""
    return [
        said(run_id, schema.RUN, schema.RUN_START, at=number),
        said(run_id, schema.PARAM, "lr", "0.1", at=number + 1),
        said(run_id, schema.STATUS, "", schema.RUNNING, at=number + 2),
        *(point(run_id, "loss", step, float(step)) for step in range(3)),
        said(run_id, schema.NOTE, "words", "some", at=number + 3),
    ]


CLOSE: Final = said("", schema.CLOSE, at=99)
FIRST: Final = MadeWriter(1, [*life_of("run-a"), *life_of("run-b"), CLOSE])
SECOND: Final = MadeWriter(2, [*life_of("run-b"), *life_of("run-c")])


@settings(max_examples=30, deadline=None)
@given(data=st.data(), made=writers())
def test_what_is_copied_is_equal_however_both_lakes_are_compacted(
    data: st.DataObject, made: list[MadeWriter]
) -> None:
    draw: Any = data.draw
    two = Two()
    for writer in made:
        first = 0
        for last in cuts(draw, len(writer.rows)):
            writer.put(two.source, first, last)
            first = last + 1
            if data.draw(st.booleans()):
                compact(two.source, SOURCE)
            if data.draw(st.integers(0, 3)) == 0:
                two.forth()
            if data.draw(st.integers(0, 3)) == 0:
                compact(two.target, TARGET)
    two.forth()
    assert of_runs(two.target, TARGET) == of_runs(two.source, SOURCE)
    again = two.forth()
    assert (again.commits, again.rows, again.runs) == (0, 0, 0)
    two.clear()


def test_a_lake_is_copied_with_little_memory_and_far_away(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passage_module, "PARCEL_ROWS", 1)
    monkeypatch.setattr("runlake.upkeep.copies.parcel._LEAST_BYTES", 1)
    for number in range(1, 6):
        runs = [*life_of("run-a"), *life_of(f"run-{number}"), CLOSE]
        put_whole(two.source, MadeWriter(number, runs), size=3)
        if number % 2:
            compact(two.source, SOURCE)
    far_source, far_target = SlowFilesystem(two.source), SlowFilesystem(two.target)
    done = copied(far_source, far_target, SOURCE, TARGET, limits=Limits(budget_bytes=1))
    assert (done.runs, done.commits) == (6, 6)
    assert of_runs(two.target, TARGET) == of_runs(two.source, SOURCE)


@final
class Silent(Wrapper):
    """A store that lists and does not hand out files."""

    def around(self, call: Call, action: Callable[[], T]) -> T:
        """Do it, or fail as a store does that does not answer."""
        if call.verb == "download":
            message = "no answer"
            raise StorageError(message, url=self.url)
        return action()


def test_a_store_that_does_not_answer_is_not_taken_for_a_damaged_lake(two: Two) -> None:
    put_whole(two.source, FIRST)
    compact(two.source, SOURCE)
    with pytest.raises(StorageError, match="no answer"):
        copied(Silent(two.source), two.target, SOURCE, TARGET)
    assert two.forth().runs > 0


def test_twice_is_once(two: Two) -> None:
    put_whole(two.source, FIRST)
    put_whole(two.source, SECOND)
    done = two.forth()
    assert (done.runs, done.skipped, done.commits) == (3, 0, 1)
    assert done.rows == len(FIRST.rows) - 1 + len(SECOND.rows)
    objects = {entry.key for entry in two.target.list("")}
    again = two.forth()
    assert (again.runs, again.skipped, again.commits) == (0, 3, 0)
    assert {entry.key for entry in two.target.list("")} == objects


def test_some_runs_come_whole_and_no_others(two: Two) -> None:
    put_whole(two.source, FIRST)
    put_whole(two.source, SECOND)
    elsewhere = MadeWriter(3, life_of("run-b"), "elsewhere")
    put_whole(two.source, elsewhere)
    done = two.forth(run_ids=["run-b"])
    for experiment in (EXPERIMENT, "elsewhere"):
        wanted = {row for row in of_runs(two.source, SOURCE, experiment).rows if row[2] == "run-b"}
        assert of_runs(two.target, TARGET, experiment).rows.keys() == wanted
    newest = manifests.newest(two.target, lake=TARGET)
    assert newest.copied.keys() == {"run-b"}
    assert set(newest.copied["run-b"]) == {FIRST.writer, SECOND.writer, elsewhere.writer}
    assert newest.consumed == {}
    assert done.problems == ()


def test_some_experiments_come_and_no_others(two: Two) -> None:
    put_whole(two.source, FIRST)
    put_whole(two.source, MadeWriter(3, life_of("run-d"), "elsewhere"))
    two.forth(experiment_ids=["elsewhere"])
    assert manifests.newest(two.target, lake=TARGET).copied.keys() == {"run-d"}


def test_what_the_source_does_not_hold_is_named_and_nothing_is_done(two: Two) -> None:
    put_whole(two.source, FIRST)
    with pytest.raises(NotFoundError, match="run-x"):
        two.forth(run_ids=["run-a", "run-x"])
    with pytest.raises(NotFoundError, match="nowhere"):
        two.forth(experiment_ids=["nowhere"])
    with pytest.raises(InvalidInputError, match="not both"):
        two.forth(run_ids=["run-a"], experiment_ids=[EXPERIMENT])
    assert two.target.list(layout.TABLES) == []


def test_a_lake_is_not_copied_into_itself_nor_where_two_could_win(two: Two) -> None:
    with pytest.raises(StateError, match="same lake"):
        copied(two.source, two.target, SOURCE, SOURCE)
    two.target.conditional_create = False
    with pytest.raises(StateError, match="alone=True"):
        copy(Place(two.source, SOURCE), Place(two.target, TARGET))


def test_a_run_that_goes_on_comes_again_whole_and_never_shrinks(two: Two) -> None:
    writer = MadeWriter(1, [*life_of("run-a"), *life_of("run-b", 50), CLOSE])
    count = len(writer.rows)
    earlier = MemoryFilesystem(f"test-{ids.new_nonce()}/earlier")
    make_lake(earlier)
    for last in (2, 5):
        writer.put(two.source, 0, last)
        writer.put(earlier, 0, last)
        two.forth()
        compact(two.target, TARGET)
        assert of_runs(two.target, TARGET) == of_runs(two.source, SOURCE)
    writer.put(two.source, 0, count - 1)
    two.forth()
    assert of_runs(two.target, TARGET) == of_runs(two.source, SOURCE)
    late = copied(earlier, two.target, SOURCE, TARGET)  # a lake that knows less
    assert late.commits == 0
    assert of_runs(two.target, TARGET) == of_runs(two.source, SOURCE)
    earlier.delete_many([entry.key for entry in earlier.list("")])


def test_both_lakes_are_written_and_copied_both_ways_without_loss(two: Two) -> None:
    here = MadeWriter(1, [*life_of("run-a"), *life_of("run-a", 50), CLOSE])
    there = MadeWriter(2, [*life_of("run-a", 70), *life_of("run-c", 80), CLOSE])
    for last in range(2, len(here.rows), 3):
        here.put(two.source, 0, last)
        two.forth()
        there.put(two.target, 0, last - 1)
        if last % 2:
            compact(two.target, TARGET)
        two.back()
        if not last % 2:
            compact(two.source, SOURCE)
        two.forth()
        assert of_runs(two.target, TARGET).rows == of_runs(two.source, SOURCE).rows
        assert of_runs(two.target, TARGET).facts == of_runs(two.source, SOURCE).facts
    assert here.writer not in manifests.newest(two.source, lake=SOURCE).copied.get("run-a", {})
    assert there.writer not in manifests.newest(two.target, lake=TARGET).copied.get("run-a", {})


@pytest.mark.parametrize("compacted", [False, True], ids=["live", "compacted"])
def test_runs_that_ended_do_not_come_again_with_the_next_run_of_their_process(
    two: Two, *, compacted: bool
) -> None:
    rows = [*life_of("run-a"), *life_of("run-b", 20), *life_of("run-c", 40), CLOSE]
    writer = MadeWriter(1, rows)
    ends = [6, 13, 20, 21]
    came = []
    for first, last in zip([0, 7, 14, 21], ends, strict=True):
        writer.put(two.source, first, last)
        if compacted:
            compact(two.source, SOURCE)
        done = two.forth()
        came.append((done.runs, done.rows))
        assert of_runs(two.target, TARGET) == of_runs(two.source, SOURCE)
        assert two.forth().commits == 0
    assert came == [(1, 7), (1, 7), (1, 7), (0, 0)]
    lasts = manifests.newest(two.target, lake=TARGET).copied
    assert lasts == {run_id: {writer.writer: 21} for run_id in ("run-a", "run-b", "run-c")}


def test_a_third_lake_gets_each_row_once_by_whichever_way(two: Two) -> None:
    third = MemoryFilesystem(f"test-{ids.new_nonce()}/third")
    third.put(layout.LAKE_FILE, b'{"format":1,"lake":"' + b"3" * 32 + b'"}')
    writer = MadeWriter(1, [*life_of("run-a"), *life_of("run-b", 50), CLOSE])
    writer.put(two.source, 0, 4)
    two.forth()
    writer.put(two.source, 0, len(writer.rows) - 1)
    copied(two.source, third, SOURCE, "3" * 32)
    copied(two.target, third, TARGET, "3" * 32)
    assert of_runs(third, "3" * 32) == of_runs(two.source, SOURCE)
    copied(third, two.target, "3" * 32, TARGET)
    assert of_runs(two.target, TARGET) == of_runs(two.source, SOURCE)
    third.delete_many([entry.key for entry in third.list("")])


def test_purged_runs_and_experiments_are_refused(two: Two) -> None:
    put_whole(two.source, FIRST)
    put_whole(two.source, MadeWriter(3, life_of("run-d"), "elsewhere"))
    two.forth()
    purge(two.target, lake=TARGET, run_ids=["run-a"], sleep=lambda _: None)
    purge_experiment(two.target, lake=TARGET, experiment_id="elsewhere", sleep=lambda _: None)
    two.source.put(
        MadeWriter(4, life_of("run-a", 30)).segment(0, 3).key,
        MadeWriter(4, life_of("run-a", 30)).encoded(MadeWriter(4, []).segment(0, 3)),
    )
    put_whole(two.source, MadeWriter(5, life_of("run-e"), "elsewhere"))
    done = two.forth()
    assert set(done.refused) == {"run-a", "elsewhere"}
    assert {row[2] for row in of_runs(two.target, TARGET).rows} == {"run-b"}
    assert of_runs(two.target, TARGET, "elsewhere").rows.total() == 0


def test_what_the_source_has_purged_does_not_come(two: Two) -> None:
    put_whole(two.source, FIRST)
    late = {entry.key: two.source.get(entry.key) for entry in two.source.list(layout.LOG)}
    purge(two.source, lake=SOURCE, run_ids=["run-a"], sleep=lambda _: None)
    for key, data in late.items():
        two.source.put(key, data)
    two.forth()
    assert {row[2] for row in of_runs(two.target, TARGET).rows} == {"run-b"}
    with pytest.raises(NotFoundError):
        two.forth(run_ids=["run-a"])


def test_rows_before_a_segment_that_cannot_be_read_come_and_it_is_named(two: Two) -> None:
    writer = MadeWriter(1, life_of("run-a"))
    writer.put(two.source, 0, 2)
    broken = writer.segment(3, 4)
    data = bytearray(writer.encoded(broken))
    data[40] ^= 0xFF
    two.source.put(broken.key, bytes(data))
    writer.put(two.source, 5, 6)
    put_whole(two.source, SECOND)
    done = two.forth()
    assert len(done.problems) == 1
    assert broken.key in done.problems[0]
    runs = [row[2] for row in of_runs(two.target, TARGET).rows]
    assert runs.count("run-a") == 3
    assert runs.count("run-c") == 7


# --- artifacts ---


def event(run_id: str, path: str, data: bytes, *, at: int) -> Row:
    """Return the event that says that a file was put."""
    about = {"sha256": hashlib.sha256(data).hexdigest(), "media_type": "text/plain"}
    return said(run_id, schema.ARTIFACT, path, json.dumps(about), at=at, num=float(len(data)))


def key_of(run_id: str, path: str) -> str:
    """Return where a file lies."""
    return layout.artifacts(EXPERIMENT, run_id) + path


def test_files_come_before_rows_and_are_what_their_events_say(two: Two) -> None:
    rows = [*life_of("run-a"), event("run-a", "a.txt", b"one", at=9)]
    writer = MadeWriter(1, [*rows, event("run-a", "a.txt", b"two", at=19), CLOSE])
    two.source.put(key_of("run-a", "a.txt"), b"one")
    two.source.put(key_of("run-a", "said/nowhere.bin"), b"by hand")
    writer.put(two.source, 0, len(rows) - 1)
    seen: list[bool] = []

    @final
    class Watching(Wrapper):
        def around(self, call: Call, action: Callable[[], T]) -> T:
            if call.verb == "put_absent" and layout.parse_manifest(call.keys[0]):
                seen.append(bool(self.inner.list("artifacts/")))
            return action()

    done = copied(two.source, Watching(two.target), SOURCE, TARGET)
    assert (done.artifacts, done.artifact_bytes, seen) == (2, 10, [True])
    assert two.target.get(key_of("run-a", "a.txt")) == b"one"
    two.source.put(key_of("run-a", "a.txt"), b"two")
    writer.put(two.source, 0, len(writer.rows) - 1)
    assert two.forth().artifacts == 1
    assert two.target.get(key_of("run-a", "a.txt")) == b"two"


def test_a_run_whose_file_is_not_what_its_event_says_stays_away_and_is_named(two: Two) -> None:
    writer = MadeWriter(1, [*life_of("run-a"), event("run-a", "a.txt", b"one", at=9), CLOSE])
    put_whole(two.source, writer)
    put_whole(two.source, SECOND)
    two.source.put(key_of("run-a", "a.txt"), b"damaged")
    done = two.forth()
    assert len(done.problems) == 1
    assert key_of("run-a", "a.txt") in done.problems[0]
    assert {row[2] for row in of_runs(two.target, TARGET).rows} == {"run-b", "run-c"}
    two.source.put(key_of("run-a", "a.txt"), b"one")
    done = two.forth()
    assert (done.problems, done.runs, done.artifacts) == ((), 1, 1)


def test_of_two_files_under_one_name_the_later_stands_in_both_lakes(two: Two) -> None:
    old = MadeWriter(1, [*life_of("run-a"), event("run-a", "a.txt", b"old", at=9)])
    put_whole(two.source, old)
    two.source.put(key_of("run-a", "a.txt"), b"old")
    two.forth()
    new = MadeWriter(2, [*life_of("run-a", 20), event("run-a", "a.txt", b"new", at=30)])
    put_whole(two.target, new)
    two.target.put(key_of("run-a", "a.txt"), b"new")
    more = MadeWriter(3, life_of("run-a", 40))
    put_whole(two.source, more)  # so that the run goes again
    assert two.forth().artifacts == 0
    assert two.target.get(key_of("run-a", "a.txt")) == b"new"
    assert two.back().artifacts == 1
    assert two.source.get(key_of("run-a", "a.txt")) == b"new"


def test_a_file_deleted_in_one_lake_goes_in_the_other_and_never_comes_back(two: Two) -> None:
    put_whole(
        two.source, MadeWriter(1, [*life_of("run-a"), event("run-a", "a.txt", b"one", at=9), CLOSE])
    )
    two.source.put(key_of("run-a", "a.txt"), b"one")
    two.forth()
    gone = said("run-a", schema.ARTIFACT, "a.txt", None, at=50)
    put_whole(two.target, MadeWriter(2, [*life_of("run-a", 40), gone, CLOSE]))
    two.target.delete_many([key_of("run-a", "a.txt")])
    more = MadeWriter(3, [*life_of("run-a", 60), CLOSE])
    put_whole(two.source, more)  # so that the run goes again
    assert two.forth().artifacts == 0
    assert two.target.list("artifacts/") == []
    two.back()
    assert two.source.list("artifacts/") == []


# --- experiments ---


def speaker(number: int, *rows: Row) -> MadeWriter:
    """Return a writer that speaks of experiments."""
    return MadeWriter(number, [*rows, CLOSE], schema.RESERVED_PARTITION)


def claim(fs: Filesystem, name: str, experiment_id: str, *, number: int = 1) -> None:
    """Claim a name."""
    made = Claim(
        name=name,
        experiment_id=experiment_id,
        time_us=1,
        user="ada",
        nonce=ids.new_nonce(),
        number=number,
        tags={},
    )
    assert names.make_claim(fs, made)


def test_experiments_come_with_their_names_and_what_was_said_of_them(two: Two) -> None:
    put_whole(two.source, FIRST)
    rows = [
        said(EXPERIMENT, schema.EXPERIMENT_CREATE, "draft", "{}", at=1),
        said(EXPERIMENT, schema.EXPERIMENT_TAG, "team", "vision", at=2),
        said(EXPERIMENT, schema.EXPERIMENT_RENAME, "final", at=3),
        said("another", schema.EXPERIMENT_CREATE, "unused", "{}", at=4),
    ]
    put_whole(two.source, speaker(7, *rows), size=2)
    claim(two.source, "draft", EXPERIMENT)
    claim(two.source, "final", EXPERIMENT)
    claim(two.source, "unused", "another")
    two.forth(experiment_ids=[EXPERIMENT])
    reserved = schema.RESERVED_PARTITION
    kept = {row for row in held(two.source, reserved, lake=SOURCE).rows if row[2] == EXPERIMENT}
    assert held(two.target, reserved, lake=TARGET).rows.keys() == kept
    found = names.read_claim(two.target, "final")
    assert found is not None
    assert (found.experiment_id, found.user) == (EXPERIMENT, "ada")
    assert names.read_claim(two.target, "draft") is None
    assert names.read_claim(two.target, "unused") is None
    two.forth()
    assert names.read_claim(two.target, "unused") is not None
    assert two.forth().commits == 0


@pytest.mark.parametrize("freed", ["no", "renamed", "purged"])
def test_a_name_that_another_experiment_has_stays_its_own_until_it_is_free(
    two: Two, freed: str
) -> None:
    create = schema.EXPERIMENT_CREATE
    put_whole(two.source, FIRST)
    put_whole(two.source, speaker(7, said(EXPERIMENT, create, "digits", "{}", at=1)))
    claim(two.source, "digits", EXPERIMENT)
    claim(two.target, "digits", "other")
    rows = [said("other", create, "digits", "{}", at=1)]
    if freed == "renamed":
        rows.append(said("other", schema.EXPERIMENT_RENAME, "numbers", at=2))
    put_whole(two.target, speaker(8, *rows))
    if freed == "purged":
        purge_experiment(two.target, lake=TARGET, experiment_id="other", sleep=lambda _: None)
    done = two.forth()
    found = names.read_claim(two.target, "digits")
    assert found is not None
    if freed == "no":
        assert (done.names, found.experiment_id, found.number) == (("digits",), "other", 1)
    else:
        assert (done.names, found.experiment_id, found.number) == ((), EXPERIMENT, 2)
    assert of_runs(two.target, TARGET).rows.total() == len(FIRST.rows) - 1


def test_a_lake_is_made_where_there_is_none_and_not_for_a_copy_that_is_refused(two: Two) -> None:
    put_whole(two.source, FIRST)
    url = f"test-{ids.new_nonce()}/new"
    new = MemoryFilesystem(url)
    fields = {"format": 1, "lake": SOURCE, "conditional_create": True}
    two.source.put(layout.LAKE_FILE, json.dumps(fields).encode())
    source, target = Storage(two.source, Settings()), Storage(new, Settings())
    for runs, experiments in ((["nobody"], None), (None, ["nothing"]), (["run-a"], [EXPERIMENT])):
        with pytest.raises((NotFoundError, InvalidInputError)):
            copy_lake(source, target, run_ids=runs, experiment_ids=experiments)
        assert new.list("") == []
    copy_lake(source, target)
    lake = target.require_lake()
    assert lake != SOURCE
    assert of_runs(new, lake) == of_runs(two.source, SOURCE)
    new.delete_many([entry.key for entry in new.list("")])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory_of_a_copy_stays_within_the_budget(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    fs = LocalFilesystem(root)
    fields = {"format": 1, "lake": SOURCE, "conditional_create": True}
    fs.put(layout.LAKE_FILE, json.dumps(fields).encode())
    put_whole(fs, MadeWriter(99, [*life_of(bounded_copy.SMALL_RUN), CLOSE], "small"))
    keys = [f"key-{number}" for number in range(10)]
    for number in range(24):
        put_columns(fs, number, keys=keys, points=20_000)
        if number == 12:
            compact(fs, SOURCE)
    budget = 64 << 20
    command = [sys.executable, "-m", "tests.upkeep.bounded_copy"]
    command += [str(root), str(tmp_path / "copy"), str(budget)]
    project = Path(__file__).parents[2]
    ended = subprocess.run(command, check=True, capture_output=True, cwd=project)
    said_: dict[str, Any] = json.loads(ended.stdout)
    assert said_["rows"] == 4_800_000
    assert said_["bytes"] < budget + BESIDE_BYTES


# --- interrupted, and beside others ---


class Copying(Two):
    """Two lakes in which a run goes on that was copied before; they can be had again."""

    def __init__(self) -> None:
        """Make them."""
        super().__init__()
        rows = [*life_of("run-a"), event("run-a", "a.txt", b"one", at=9), *life_of("run-b", 20)]
        self.writer = MadeWriter(1, [*rows, CLOSE])
        self.writer.put(self.source, 0, 4)
        self.forth()
        compact(self.source, SOURCE)
        self.writer.put(self.source, 5, len(rows))
        self.source.put(key_of("run-a", "a.txt"), b"one")
        create = said(EXPERIMENT, schema.EXPERIMENT_CREATE, "digits", "{}", at=1)
        put_whole(self.source, speaker(7, create))
        claim(self.source, "digits", EXPERIMENT)
        own = MadeWriter(2, [*life_of("run-a", 40), CLOSE])
        put_whole(self.target, own)
        self.wanted = of_runs(self.source, SOURCE).rows + of_runs_by(self.target, own)
        self._objects = [
            (fs, {entry.key: fs.get(entry.key) for entry in fs.list("")})
            for fs in (self.source, self.target)
        ]

    def restore(self) -> None:
        """Bring both back to what they were."""
        for fs, objects in self._objects:
            fs.delete_many([entry.key for entry in fs.list("")])
            for key, data in objects.items():
                fs.put(key, data)

    def check(self, at: object) -> None:
        """Check that everything came, and nothing twice."""
        assert of_runs(self.target, TARGET).rows == self.wanted, at
        assert self.target.get(key_of("run-a", "a.txt")) == b"one"
        found = names.read_claim(self.target, "digits")
        assert found is not None
        assert found.experiment_id == EXPERIMENT


def of_runs_by(fs: Filesystem, writer: MadeWriter) -> Any:  # noqa: ANN401 - a counter of rows
    """Return the rows of runs that one writer wrote."""
    found = of_runs(fs, TARGET).rows
    return type(found)({row: count for row, count in found.items() if row[0] == writer.writer})


@pytest.fixture
def going(scratch_in_memory: None) -> Iterator[Copying]:
    del scratch_in_memory
    yield (made := Copying())
    made.clear()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_whoever_dies_at_any_instant_has_done_no_harm_and_the_next_one_finishes(
    going: Copying,
) -> None:
    writes = writes_of(lambda fs: copied(going.source, fs, SOURCE, TARGET), going.target)
    going.check("whole")
    for at in writes:
        going.restore()
        with pytest.raises(SimulatedCrash):
            copied(going.source, DieBehind(going.target, write=at), SOURCE, TARGET)
        assert of_runs(going.target, TARGET).rows <= going.wanted, at
        going.forth()
        going.check(at)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("others", ["compact", "copy", "all"])
def test_others_at_any_request_cost_work_only(going: Copying, others: str) -> None:
    def work() -> None:
        if others in {"compact", "all"}:
            compact(going.target, TARGET)
        if others in {"copy", "all"}:
            going.forth()
        if others == "all":
            tidy(going.target, TARGET)

    calls = calls_of(
        lambda fs: copied(going.source, fs, SOURCE, TARGET),
        going.target,
        one_in=2,
        lane=others == "copy",
    )
    for at in calls:
        going.restore()
        copied(going.source, Interrupt(going.target, at=at, others=work), SOURCE, TARGET)
        going.check(at)


def test_two_that_copy_a_new_run_at_once_bring_it_once(two: Two) -> None:
    put_whole(two.source, FIRST)
    for at in calls_of(lambda fs: copied(two.source, fs, SOURCE, TARGET), two.target):
        two.target.delete_many([entry.key for entry in two.target.list("")])
        target_lake(two.target)
        copied(two.source, Interrupt(two.target, at=at, others=two.forth), SOURCE, TARGET)
        assert of_runs(two.target, TARGET) == of_runs(two.source, SOURCE), at


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_source_that_changes_at_any_request_is_read_again(going: Copying) -> None:
    def work() -> None:
        compact(going.source, SOURCE)
        tidy(going.source, SOURCE)

    for at in calls_of(lambda fs: copied(fs, going.target, SOURCE, TARGET), going.source, one_in=2):
        going.restore()
        copied(Interrupt(going.source, at=at, others=work), going.target, SOURCE, TARGET)
        going.check(at)
