from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import pyarrow.parquet as pq
import pytest

from runlake import ids, schema
from runlake.errors import InvalidInputError, NotFoundError, StateError
from runlake.storage import layout, manifests, segments
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.testing.filesystems import Call, SimulatedCrash, Wrapper
from runlake.upkeep import removal as removal_module
from runlake.upkeep.checks import findings
from runlake.upkeep.checks.verify import verify
from runlake.upkeep.purge import NAME, OBJECT, PROJECTION, QUARANTINE, WRITER, Purged, purge
from runlake.upkeep.purge import purge_experiment as purge_experiment_
from runlake.upkeep.vacuum import vacuum
from runlake.upkeep.work import Limits
from tests.storage.curves import put_columns
from tests.storage.lakes import EXPERIMENT
from tests.upkeep import bounded_purge
from tests.upkeep.instants import DieBehind, Interrupt, calls_of, writes_of
from tests.upkeep.made import (
    LAKE,
    Held,
    MadeWriter,
    Row,
    compactor,
    expected,
    held,
    make_lake,
    point,
    said,
)
from tests.upkeep.peak import BESIDE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runlake.storage.filesystem import Filesystem

T = TypeVar("T")
GONE: Final = "run-gone"
MARK: Final = "the secret words"
OTHER: Final = "elsewhere"
FULL: Final = Limits(is_full=True)
OTHERS: Final = ("compact", "vacuum", "purge", "all")


def life_of(run_id: str, text: str) -> list[Row]:
    """Return what a run says of itself."""
    return [
        said(run_id, schema.RUN, schema.RUN_START, at=0),
        said(run_id, schema.PARAM, "words", text, at=1),
        said(run_id, schema.NOTE, "words", text, at=2),
        *(point(run_id, "loss", step, float(step)) for step in range(4)),
        said(run_id, schema.STATUS, "", schema.RUNNING, at=7),
    ]


def writer_of(number: int, *runs: str, closes: bool, experiment: str = EXPERIMENT) -> MadeWriter:
    """Return a writer that carries some runs, one after another."""
    rows = [row for run in runs for row in life_of(run, MARK if run == GONE else "free words")]
    end = [said("", schema.CLOSE, at=len(rows))] if closes else []
    return MadeWriter(number, [*rows, *end], experiment)


# Runs before and behind the one that goes, in writers that carry it alone and with others.
MADE: Final = (
    writer_of(1, "run-a", GONE, closes=True),
    writer_of(2, "run-z", closes=True),
    writer_of(3, GONE, "run-b", closes=True),
    writer_of(4, GONE, closes=True, experiment=OTHER),
    # It says nothing of the run that a state would repeat.
    MadeWriter(5, [said(GONE, schema.NOTE, "late", MARK, at=3), said("", schema.CLOSE, at=4)]),
)


def put_whole(fs: Filesystem, writer: MadeWriter, *, size: int = 5) -> None:
    """Put all rows of a writer in segments of some rows each."""
    count = len(writer.rows)
    for first in range(0, count, size):
        writer.put(fs, first, min(count, first + size) - 1)


def without(run_id: str, *made: tuple[MadeWriter, int]) -> Held:
    """Return what a lake should hold of writers, one run aside."""
    found = expected(made)
    for rows in list(found.rows):
        if rows[2] == run_id:
            del found.rows[rows]
    for kept in (found.facts, found.summaries):
        for key in [key for key in kept if key[1] == run_id]:
            del kept[key]
    return found


def traces(fs: Filesystem, *needles: str) -> set[str]:
    """Return the objects in which a text stands, as it is or in rows, states and footers."""
    return {
        entry.key
        for entry in fs.list("")
        if any(needle in read(fs.get(entry.key), entry.key) for needle in needles)
    }


# Those who die at any request leave a lake of which nearly all is as it was before.
@lru_cache(maxsize=2000)
def read(data: bytes, key: str) -> str:
    """Return everything that an object says, as text."""
    return "".join(_texts(data, key))


def _texts(data: bytes, key: str) -> Iterator[str]:
    yield data.decode("utf-8", "replace")
    if not key.endswith(".parquet") or not data.startswith(b"PAR1"):
        return
    with pq.ParquetFile(io.BytesIO(data)) as opened:
        yield str(opened.read().to_pydict())
        yield str(opened.metadata.metadata)
    if key.startswith(layout.LOG):
        state = segments.read_footer(data, key=key).state
        yield str(state.facts.to_pydict())
        yield str(state.summaries.to_pydict())


def traces_of_run(fs: Filesystem) -> set[str]:
    """Return the objects that hold anything of the run, but for lists of what is hidden."""
    return {key for key in traces(fs, MARK, GONE) if layout.parse_manifest(key) is None}


class World:
    """A lake, half of it compacted, that can be had again."""

    def __init__(self) -> None:
        """Make it."""
        self.fs = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
        make_lake(self.fs)
        put_whole(self.fs, MADE[0])
        put_whole(self.fs, MADE[3])
        for experiment in (EXPERIMENT, OTHER):
            compactor(self.fs).compact(experiment)
        for writer in (MADE[1], MADE[2], MADE[4]):
            put_whole(self.fs, writer)
        for experiment in (EXPERIMENT, OTHER):
            for run in (GONE, "run-a"):
                text = MARK if run == GONE else "free words"
                self.fs.put(f"{layout.artifacts(experiment, run)}notes.txt", text.encode())
        lasts = [(writer, len(writer.rows) - 1) for writer in MADE]
        here = [each for each in lasts if each[0].experiment == EXPERIMENT]
        self.wanted = without(GONE, *here)
        self._objects = {entry.key: self.fs.get(entry.key) for entry in self.fs.list("")}

    def restore(self) -> None:
        """Bring the lake back to what it was."""
        self.fs.delete_many([entry.key for entry in self.fs.list("")])
        for key, data in self._objects.items():
            self.fs.put(key, data)

    def check(self, *, at: object = None) -> None:
        """Check that the run is gone, and nothing else."""
        assert traces_of_run(self.fs) == set(), at
        assert held(self.fs) == self.wanted, at
        rest = {entry.key for entry in self.fs.list("artifacts/")}
        assert rest == {f"{layout.artifacts(of, 'run-a')}notes.txt" for of in (EXPERIMENT, OTHER)}


@pytest.fixture
def world(scratch_in_memory: None) -> Iterator[World]:
    del scratch_in_memory
    yield (made := World())
    made.fs.delete_many([entry.key for entry in made.fs.list("")])


@pytest.fixture
def memory() -> Iterator[MemoryFilesystem]:
    opened = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    make_lake(opened)
    yield opened
    opened.delete_many([entry.key for entry in opened.list("")])


def purge_run(fs: Filesystem, *run_ids: str, limits: Limits | None = None) -> Purged:
    """Purge runs, waiting for nobody."""
    fs.conditional_create = True
    return purge(fs, lake=LAKE, run_ids=run_ids or [GONE], limits=limits, sleep=lambda _: None)


def purge_experiment(fs: Filesystem, experiment_id: str) -> Purged:
    """Purge an experiment, waiting for nobody."""
    fs.conditional_create = True
    return purge_experiment_(fs, lake=LAKE, experiment_id=experiment_id, sleep=lambda _: None)


def tidy(fs: Filesystem) -> None:
    """Take away at once whatever may go."""
    vacuum(fs, lake=LAKE, grace_s=0, is_dry_run=False)


def test_no_byte_of_a_run_is_left_in_any_object_and_all_else_stays(world: World) -> None:
    before = sum(entry.size_bytes for entry in world.fs.list(""))
    assert len(traces_of_run(world.fs)) > 10
    done = purge_run(world.fs)
    world.check()
    assert done.left == ()
    assert (done.run_ids, done.experiment_id, done.artifacts) == ((GONE,), None, 2)
    assert manifests.newest(world.fs, lake=LAKE).purged == {GONE}
    after = sum(entry.size_bytes for entry in world.fs.list(""))
    kept = sum(entry.size_bytes for entry in world.fs.list(layout.MANIFESTS))
    assert before - after == pytest.approx(done.freed_bytes, abs=kept)
    assert done.rows > 0


def test_files_are_written_again_a_few_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal_module, "COMMIT_BYTES", 1)
    purge_run(world.fs, limits=Limits(budget_bytes=1))
    world.check()


def test_a_lake_that_is_compacted_to_the_last_segment_loses_the_run_as_well(world: World) -> None:
    for experiment in (EXPERIMENT, OTHER):
        compactor(world.fs, limits=FULL).compact(experiment)
    tidy(world.fs)
    purge_run(world.fs)
    world.check()


def test_a_second_purge_finds_nothing_to_do(world: World) -> None:
    purge_run(world.fs)
    objects = {entry.key for entry in world.fs.list("")}
    again = purge_run(world.fs)
    assert (again.deleted_bytes, again.written_bytes, again.rows, again.left) == (0, 0, 0, ())
    assert {entry.key for entry in world.fs.list("")} == objects


def test_an_unknown_run_is_named_and_nothing_is_done(world: World) -> None:
    before = {entry.key for entry in world.fs.list("")}
    with pytest.raises(NotFoundError, match="run-nobody"):
        purge_run(world.fs, GONE, "run-nobody")
    assert {entry.key for entry in world.fs.list("")} == before


def test_a_run_whose_id_is_an_experiments_too_is_refused(world: World) -> None:
    MadeWriter(8, life_of(OTHER, "words")).put(world.fs, 0, 3)
    with pytest.raises(InvalidInputError, match=OTHER):
        purge_run(world.fs, OTHER)
    with pytest.raises(InvalidInputError, match=OTHER):
        purge_experiment(world.fs, OTHER)


def test_a_store_without_conditional_create_is_refused_unless_alone(world: World) -> None:
    world.fs.conditional_create = False
    with pytest.raises(StateError, match="alone=True"):
        purge(world.fs, lake=LAKE, run_ids=[GONE])
    purge(world.fs, lake=LAKE, run_ids=[GONE], is_alone=True)
    world.check()


def test_files_of_a_purged_run_are_a_fault_until_it_is_purged_again(world: World) -> None:
    purge_run(world.fs)
    before = verify(world.fs).findings
    place = layout.artifacts(EXPERIMENT, GONE)
    world.fs.put(f"{place}late.txt", MARK.encode())
    (fault,) = set(verify(world.fs).findings) - {*before}
    assert (fault.key, fault.kind, fault.is_fault) == (place, findings.PURGED, True)
    assert f"runlake purge {GONE}" in fault.detail
    purge_run(world.fs)
    assert verify(world.fs).findings == before


def test_what_is_uploaded_late_stays_out_for_ever(world: World) -> None:
    late = {entry.key: world.fs.get(entry.key) for entry in world.fs.list(layout.LOG)}
    purge_run(world.fs)
    for key, data in late.items():
        world.fs.put(key, data)
    rows = [*life_of(GONE, MARK), *life_of("run-c", "free words")]
    newcomer = MadeWriter(9, [*rows, said("", schema.CLOSE, at=20)])
    put_whole(world.fs, newcomer)
    compactor(world.fs).compact(EXPERIMENT)
    tidy(world.fs)
    assert traces_of_run(world.fs) == set()
    here = [(of, len(of.rows) - 1) for of in (*MADE, newcomer) if of.experiment == EXPERIMENT]
    assert held(world.fs) == without(GONE, *here)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_whoever_dies_at_any_instant_has_done_no_harm_and_the_next_one_finishes(
    world: World,
) -> None:
    is_hidden = False
    for at in writes_of(purge_run, world.fs):
        world.restore()
        with pytest.raises(SimulatedCrash):
            purge_run(DieBehind(world.fs, write=at))
        purged = manifests.newest(world.fs, lake=LAKE).purged
        assert purged == {GONE} or not is_hidden  # once early enough, hidden for ever
        is_hidden = bool(purged)
        if is_hidden:
            assert {row for row in held(world.fs).rows if row[2] != GONE} == set(
                world.wanted.rows
            ), at
        purge_run(world.fs)
        world.check(at=at)
    assert is_hidden


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("others", OTHERS)
def test_others_at_any_request_of_a_purge_bring_nothing_back(world: World, others: str) -> None:
    def work() -> None:
        if others in {"compact", "all"}:
            compactor(world.fs, limits=FULL).compact(EXPERIMENT)
        if others in {"purge", "all"}:
            purge_run(world.fs)
        if others in {"vacuum", "all"}:
            tidy(world.fs)

    # The first three share all requests out among them.
    one_in = 6 if others == "all" else 3
    for at in calls_of(purge_run, world.fs, one_in=one_in, lane=OTHERS.index(others)):
        world.restore()
        done = purge_run(Interrupt(world.fs, at=at, others=work))
        assert done.left == (), at
        world.check(at=at)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_purge_at_any_request_of_a_compactor_is_not_undone(world: World) -> None:
    def compact(fs: Filesystem) -> None:
        fs.conditional_create = True
        compactor(fs, limits=FULL).compact(EXPERIMENT)

    for at in calls_of(compact, world.fs, one_in=3):
        world.restore()
        compact(Interrupt(world.fs, at=at, others=lambda: purge_run(world.fs)))
        tidy(world.fs)
        world.check(at=at)


def test_an_open_writer_is_named_and_its_bytes_go_after_its_end(world: World) -> None:
    writer = writer_of(9, GONE, "run-c", closes=True)
    count = len(writer.rows)
    writer.put(world.fs, 0, 3)
    writer.put(world.fs, 4, 9)
    tail = [writer.encoded(writer.segment(4, last)) for last in (9, 11)]
    done = purge_run(world.fs)
    assert done.left == ()  # its segments are taken; nothing tells that it lives
    world.fs.put(writer.segment(4, 11).key, tail[1])  # it goes on with its tail
    done = purge_run(world.fs)
    world.fs.put(writer.segment(4, 13).key, writer.encoded(writer.segment(4, 13)))
    done = purge_run(Interrupting(world.fs, writer, last=14))
    (left,) = done.left
    assert left.kind == WRITER
    assert writer.writer in left.place
    assert "host-9" in left.place
    assert not compactor(world.fs).look(EXPERIMENT).is_due
    writer.put(world.fs, 4, count - 1)
    assert compactor(world.fs).look(EXPERIMENT).is_due
    compactor(world.fs).compact(EXPERIMENT)
    assert not compactor(world.fs).look(EXPERIMENT).is_due
    tidy(world.fs)
    assert traces_of_run(world.fs) == set()
    here = [(of, len(of.rows) - 1) for of in (*MADE, writer) if of.experiment == EXPERIMENT]
    assert held(world.fs) == without(GONE, *here)


@final
class Interrupting(Wrapper):
    """Lets a writer put its tail again whenever something was deleted."""

    def __init__(self, inner: Filesystem, writer: MadeWriter, *, last: int) -> None:
        """Wrap `inner`."""
        super().__init__(inner)
        self._writer, self._last = writer, last

    def around(self, call: Call, action: Callable[[], T]) -> T:
        found = action()
        if call.verb == "delete_many":
            name = self._writer.segment(4, self._last)
            self.inner.put(name.key, self._writer.encoded(name))
        return found


def test_a_run_that_goes_on_elsewhere_meanwhile_is_followed(world: World) -> None:
    third = writer_of(9, GONE, closes=True, experiment="third")

    def others() -> None:
        put_whole(world.fs, third)
        world.fs.put(f"{layout.artifacts('third', GONE)}notes.txt", MARK.encode())

    calls = calls_of(purge_run, world.fs)
    world.restore()
    done = purge_run(Interrupt(world.fs, at=len(calls) // 2, others=others))
    assert done.left == ()
    world.check()


def test_what_cannot_be_read_or_reached_is_named(world: World) -> None:
    name = MadeWriter(8, life_of(GONE, MARK)).segment(0, 3)
    world.fs.put(name.key, b"PAR1" + b"x" * 50)
    world.fs.put("quarantine/log/x.parquet", b"damaged")
    world.fs.put("tables/metrics/_delta_log/00000000000000000000.json", b"{}")
    done = purge_run(world.fs)
    kinds = {left.kind: left.place for left in done.left}
    assert kinds.keys() == {OBJECT, QUARANTINE, PROJECTION}
    assert kinds[OBJECT] == name.key


def lake_writer(number: int, rows: Sequence[Row]) -> MadeWriter:
    """Return a writer that speaks of experiments."""
    end = said("", schema.CLOSE, at=len(rows))
    return MadeWriter(number, [*rows, end], schema.RESERVED_PARTITION)


def test_an_experiment_goes_with_its_runs_and_what_was_said_of_it(world: World) -> None:
    claim = json.dumps({"name": MARK, "artifact_location": None, "tags": {}})
    rows = [
        said(OTHER, schema.EXPERIMENT_CREATE, MARK, claim, at=1),
        said(OTHER, schema.EXPERIMENT_TAG, "team", MARK, at=2),
        said(EXPERIMENT, schema.EXPERIMENT_CREATE, "kept", "{}", at=3),
    ]
    speaker = lake_writer(7, rows)
    put_whole(world.fs, speaker, size=2)
    only = writer_of(6, "run-only", closes=True, experiment=OTHER)
    put_whole(world.fs, only)
    done = purge_experiment(world.fs, OTHER)
    # GONE began in both at the same clock, and writer 1 is the first: it belongs to the other.
    assert (done.run_ids, done.experiment_id) == (("run-only",), OTHER)
    assert done.left == ()
    purged = manifests.newest(world.fs, lake=LAKE).purged
    assert purged == {"run-only", OTHER}
    assert traces(world.fs, "run-only") <= {each.key for each in world.fs.list(layout.MANIFESTS)}
    assert not [key for key in traces(world.fs, MARK) if schema.RESERVED_PARTITION in key]
    kept = held(world.fs, schema.RESERVED_PARTITION)
    assert {row[2] for row in kept.rows} == {EXPERIMENT, ""}
    last = len(MADE[3].rows) - 1
    left = set(expected([(MADE[3], last)]).rows)  # the close of the other has no run
    left |= {row for row in expected([(only, len(only.rows) - 1)]).rows if row[2] == ""}
    assert held(world.fs, OTHER).rows.keys() == left
    again = purge_experiment(world.fs, OTHER)
    assert (again.rows, again.deleted_bytes) == (0, 0)


def test_claims_of_a_purged_experiments_name_are_said_to_stay(world: World) -> None:
    claim = {
        "format": 1,
        "name": "other",
        "experiment_id": OTHER,
        "time_us": 1,
        "user": "ada",
        "artifact_location": None,
        "tags": {},
        "nonce": "n",
    }
    key = layout.claim(ids.name_hash("other"), 1)
    world.fs.put(key, json.dumps(claim).encode())
    put_whole(
        world.fs,
        lake_writer(7, [said(OTHER, schema.EXPERIMENT_CREATE, "other", "{}", at=1)]),
    )
    done = purge_experiment(world.fs, OTHER)
    assert [(left.kind, left.place) for left in done.left] == [(NAME, key)]
    assert world.fs.get(key)


def test_an_unknown_experiment_is_named_and_nothing_is_done(world: World) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        purge_experiment(world.fs, "nowhere")
    assert manifests.newest(world.fs, lake=LAKE).purged == set()


def test_memory_of_a_purge_stays_within_the_budget(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    fs = LocalFilesystem(root)
    make_lake(fs)
    keys = [f"key-{number}" for number in range(10)]
    put_whole(fs, writer_of(99, bounded_purge.SMALL_RUN, closes=True, experiment="small"))
    for number in range(6):
        put_columns(fs, number, keys=keys, points=20_000)
    for file in root.rglob("*.parquet"):
        os.utime(file, (0, 0))  # writers that are long gone
    compactor(fs, limits=FULL).compact(EXPERIMENT)
    budget = 64 << 20
    command = [sys.executable, "-m", "tests.upkeep.bounded_purge", str(root), str(budget)]
    project = Path(__file__).parents[2]
    ended = subprocess.run(command, check=True, capture_output=True, cwd=project)
    said_: dict[str, Any] = json.loads(ended.stdout)
    assert said_["rows"] >= 200_000
    assert said_["bytes"] < budget + BESIDE_BYTES
