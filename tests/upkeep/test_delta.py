from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, final

import deltalake
import polars as pl
import pytest
from deltalake.exceptions import CommitFailedError
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import ids
from runlake.errors import FormatError, InvalidInputError, StateError, StorageError
from runlake.lake import open_lake
from runlake.storage import layout, manifests
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.testing.filesystems import (
    Call,
    CountingFilesystem,
    FaultyFilesystem,
    SimulatedCrash,
    Wrapper,
)
from runlake.upkeep import delta
from runlake.upkeep.compact import Compactor
from runlake.upkeep.delta import PUBLISHED, publish, read_log, republish
from runlake.upkeep.tending import tend
from runlake.upkeep.vacuum import vacuum
from runlake.upkeep.work import Limits
from tests.storage.lakes import EXPERIMENT
from tests.upkeep.instants import DieBehind, writes_of
from tests.upkeep.made import (
    LAKE,
    MadeWriter,
    compactor,
    cuts,
    make_lake,
    point,
    said,
    table_rows,
    writers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runlake.storage.filesystem import Filesystem

T = TypeVar("T")
OTHER = "other"


@pytest.fixture
def memory() -> Iterator[MemoryFilesystem]:
    opened = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    make_lake(opened)
    yield opened
    opened.delete_many([entry.key for entry in opened.list("")])


@pytest.fixture
def local(tmp_path: Path) -> LocalFilesystem:
    opened = LocalFilesystem(tmp_path / "lake")
    make_lake(opened)
    return opened


def writer_of(number: int, experiment: str = EXPERIMENT) -> MadeWriter:
    """Return a writer of two runs, one of them with a param."""
    curve = [
        point(f"run-{experiment}-{number}", "loss", step, 1 / (1 + step)) for step in range(20)
    ]
    param = said(f"run-{experiment}-{number}", "param", "lr", "0.1", at=30)
    return MadeWriter(number, [*curve, param, said("", "close", at=31)], experiment)


def put_and_compact(fs: Filesystem, *numbers: int, experiment: str = EXPERIMENT) -> None:
    """Let writers put all their rows, and compact after each."""
    for number in numbers:
        writer_of(number, experiment).put(fs, 0, 21)
        compactor(fs).compact(experiment)


def assert_equal_to_manifest(fs: Filesystem) -> None:
    """Check I12: every published table names the files of the newest manifest."""
    newest = manifests.newest(fs, lake=LAKE)
    for table in PUBLISHED:
        log = read_log(fs, table)
        assert log.manifest == newest.number
        assert log.sizes == {file.path: file.size_bytes for file in newest.files(table)}


def versions(fs: Filesystem, table: str = "metrics") -> list[str]:
    """Return the names in a table's log."""
    prefix = f"tables/{table}/_delta_log/"
    return [entry.key.removeprefix(prefix) for entry in fs.list(prefix)]


def actions(fs: Filesystem, version: int, table: str = "metrics") -> dict[str, list[Any]]:
    """Return the actions of one version, by kind."""
    found: dict[str, list[Any]] = {}
    for line in fs.get(f"tables/{table}/_delta_log/{version:020d}.json").splitlines():
        for kind, action in json.loads(line).items():
            found.setdefault(kind, []).append(action)
    return found


def folder_of(fs: LocalFilesystem, table: str) -> str:
    """Return where an engine finds a table."""
    return str(fs.local_file(f"tables/{table}/_delta_log/x").parents[1])


def rows_in(fs: Filesystem, table: str) -> list[tuple[Any, ...]]:
    """Return the rows of the compacted files, read file by file, times as numbers."""
    found = [
        (*(repr(row[column.name]) for column in PUBLISHED[table].columns), experiment)
        for experiment in (EXPERIMENT, OTHER)
        for row in table_rows(fs, PUBLISHED[table], experiment)
    ]
    return sorted(found)


def plain(frame: pl.DataFrame, table: str) -> list[tuple[Any, ...]]:
    """Return the rows of a frame in the same way."""
    names = [column.name for column in PUBLISHED[table].columns]
    if "timestamp" in names:
        frame = frame.with_columns(pl.col("timestamp").dt.epoch("us"))
    found = [
        (*map(repr, row[:-1]), row[-1]) for row in frame.select(*names, "experiment_id").rows()
    ]
    return sorted(found)


@pytest.mark.parametrize("table", list(PUBLISHED))
def test_deltalake_and_polars_read_what_is_compacted(local: LocalFilesystem, table: str) -> None:
    put_and_compact(local, 1, 2)
    publish(local, lake=LAKE)
    put_and_compact(local, 3, 4, experiment=OTHER)
    publish(local, lake=LAKE)
    expected = rows_in(local, table)
    assert len(expected) > 3
    folder = folder_of(local, table)
    opened = deltalake.DeltaTable(folder)
    assert opened.version() == 1
    query = deltalake.QueryBuilder().register("t", opened).execute("SELECT * FROM t")
    assert plain(pl.DataFrame(query.read_all()), table) == expected
    assert plain(pl.read_delta(folder), table) == expected


def test_an_engine_skips_files_and_loses_no_row(local: LocalFilesystem) -> None:
    put_and_compact(local, 1, 2, 3)
    put_and_compact(local, 4, experiment=OTHER)
    publish(local, lake=LAKE)
    metrics, events = (pl.scan_delta(folder_of(local, table)) for table in ("metrics", "events"))
    for run in (f"run-{EXPERIMENT}-1", f"run-{OTHER}-4"):
        assert metrics.filter(pl.col("run_id") == run).collect().height == 20
        assert events.filter(pl.col("run_id") == run).collect().height == 1
    assert metrics.filter(pl.col("experiment_id") == OTHER).collect().height == 20
    assert events.filter(pl.col("run_id") == "").collect().height == 4


def test_an_engine_that_would_write_is_refused(local: LocalFilesystem) -> None:
    put_and_compact(local, 1)
    publish(local, lake=LAKE)
    folder = folder_of(local, "metrics")
    for deed in (
        lambda: deltalake.DeltaTable(folder).delete("step < 10"),
        deltalake.DeltaTable(folder).optimize.compact,
        lambda: deltalake.write_deltalake(folder, pl.read_delta(folder), mode="append"),
    ):
        with pytest.raises(CommitFailedError, match=delta.FEATURE):
            deed()
    assert_equal_to_manifest(local)


def test_publishing_again_changes_nothing_and_costs_four_requests_a_table(
    memory: MemoryFilesystem,
) -> None:
    put_and_compact(memory, 1)
    done = publish(memory, lake=LAKE)
    assert [each.added for each in done] == [1, 1, 1, 1]
    before = memory.list("")
    counting = CountingFilesystem(memory)
    again = publish(counting, lake=LAKE, tables=["metrics"])
    assert counting.requests == {"LIST": 2, "GET": 2}
    assert [(each.version, each.added, each.removed) for each in again] == [(0, 0, 0)]
    publish(memory, lake=LAKE)
    assert memory.list("") == before


def test_each_version_says_only_what_has_changed(memory: MemoryFilesystem) -> None:
    put_and_compact(memory, 1)
    publish(memory, lake=LAKE)
    put_and_compact(memory, 2)
    second = publish(memory, lake=LAKE)[0]
    assert (second.version, second.files, second.added, second.removed) == (1, 2, 1, 0)
    first, then = (actions(memory, version) for version in (0, 1))
    assert first.keys() == {"commitInfo", "protocol", "metaData", "txn", "add"}
    assert then.keys() == {"commitInfo", "txn", "add"}
    (added,) = then["add"]
    assert added["partitionValues"] == {"experiment_id": EXPERIMENT}
    assert json.loads(added["stats"])["numRecords"] == 20


def test_what_is_merged_leaves_the_log_and_vacuum_then_harms_no_engine(
    local: LocalFilesystem,
) -> None:
    put_and_compact(local, 1, 2, 3)
    publish(local, lake=LAKE)
    old = read_log(local, "metrics").sizes
    compactor(local, limits=Limits(is_full=True)).compact(EXPERIMENT)
    done = publish(local, lake=LAKE)[0]
    assert (done.added, done.removed, done.files) == (1, 3, 1)
    gone = actions(local, 1)["remove"]
    commit_ms = manifests.newest(local, lake=LAKE).commit_us // 1000
    assert {each["deletionTimestamp"] for each in gone} == {commit_ms}
    assert {"tables/metrics/" + each["path"] for each in gone} == old.keys()
    swept = vacuum(local, lake=LAKE, grace_s=0, is_dry_run=False)
    assert old.keys() <= {each.key for each in swept.removed}
    assert pl.read_delta(folder_of(local, "metrics")).height == 60
    assert_equal_to_manifest(local)


def test_a_lake_that_was_never_compacted_is_published_empty(local: LocalFilesystem) -> None:
    assert [each.files for each in publish(local, lake=LAKE)] == [0, 0, 0, 0]
    frame = pl.read_delta(folder_of(local, "metrics"))
    assert frame.columns == [
        *("run_id", "key", "step", "timestamp", "value", "writer"),
        "experiment_id",
    ]
    assert frame.height == 0
    put_and_compact(local, 1)
    publish(local, lake=LAKE)
    assert pl.read_delta(folder_of(local, "metrics")).height == 20


def test_after_compaction_and_purge_an_engine_reads_what_sql_answers(tmp_path: Path) -> None:
    columns = ["run_id", "experiment_id", "key", "step", "value", "writer"]
    question = f"SELECT {', '.join(columns)} FROM metrics ORDER BY ALL"
    folder = str(tmp_path / "lake" / "tables" / "metrics")
    with open_lake(tmp_path / "lake") as lake:
        runs = []
        for number in range(3):
            with lake.start_run(experiment="published") as run:
                for step in range(10):
                    run.log({"loss": number / (1 + step)}, step=step)
            runs.append(run.info.run_id)
            lake.close()
            lake.maintain.compact()
            if number == 0:
                lake.maintain.publish()
            assert pl.read_delta(folder).select(columns).sort(columns).rows() == (
                lake.sql(question).rows()
            )
        lake.maintain.purge(runs[1])
        lake.maintain.publish()
        left = pl.read_delta(folder).select(columns).sort(columns)
        assert left.rows() == lake.sql(question).rows()
        assert set(left["run_id"]) == {runs[0], runs[2]}
        with pytest.raises(InvalidInputError, match="one format, 'delta', got 'iceberg'"):
            lake.maintain.publish(format="iceberg")


def test_vacuum_by_hand_takes_no_file_that_an_engine_is_told_of(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        fs = lake._storage.fs
        for _ in range(2):
            with lake.start_run(experiment="published") as run:
                run.log({"loss": 1.0})
            lake.close()
            (experiment_id,) = {run.info.experiment_id}
            found = Compactor(fs, lake=lake._storage.require_lake(), limits=Limits(is_full=True))
            found.compact(experiment_id)
            if not versions(fs):
                lake.maintain.publish()
        lake.maintain.vacuum(dry_run=False, grace_s=0)
        assert pl.read_delta(tmp_path / "lake" / "tables" / "metrics").height == 2


def test_a_damaged_log_keeps_no_compaction_from_vacuuming(memory: MemoryFilesystem) -> None:
    put_and_compact(memory, 1)
    publish(memory, lake=LAKE)
    memory.put(f"tables/metrics/_delta_log/{0:020d}.json", b"{")
    writer_of(2).put(memory, 0, 21)
    done = tend(memory, compactor(memory), EXPERIMENT, lake=LAKE, grace_s=0)
    assert done.vacuumed is not None
    assert done.vacuumed.removed
    (problem,) = done.compacted.problems
    assert "no readable version of a Delta table" in problem


def test_only_tables_that_were_published_are_published_again(memory: MemoryFilesystem) -> None:
    put_and_compact(memory, 1)
    assert republish(memory, lake=LAKE) == []
    assert versions(memory) == []
    publish(memory, lake=LAKE, tables=["metrics"])
    put_and_compact(memory, 2)
    assert [each.table for each in republish(memory, lake=LAKE)] == ["metrics"]
    assert len(versions(memory)) == 2
    assert versions(memory, "events") == []


@final
class Meanwhile(Wrapper):
    """Does something once, just before the first object is put if absent."""

    def __init__(self, inner: Filesystem, deed: Callable[[], object]) -> None:
        """Wrap `inner`."""
        super().__init__(inner)
        self._deeds = [deed]

    def around(self, call: Call, action: Callable[[], T]) -> T:
        """Do it, after the deed."""
        if call.verb == "put_absent" and self._deeds:
            self._deeds.pop()()
        return action()


def test_who_is_overtaken_by_one_that_knows_more_adds_nothing(memory: MemoryFilesystem) -> None:
    put_and_compact(memory, 1)
    publish(memory, lake=LAKE)
    put_and_compact(memory, 2)

    def overtake() -> None:
        compactor(memory, limits=Limits(is_full=True)).compact(EXPERIMENT)
        publish(memory, lake=LAKE, tables=["metrics"])

    (done,) = publish(Meanwhile(memory, overtake), lake=LAKE, tables=["metrics"])
    assert (done.version, done.added) == (1, 0)
    publish(memory, lake=LAKE)
    assert_equal_to_manifest(memory)


def test_who_is_overtaken_by_one_that_knows_less_goes_on_from_there(
    memory: MemoryFilesystem,
) -> None:
    put_and_compact(memory, 1)
    late = Meanwhile(memory, lambda: publish(stale, lake=LAKE, tables=["metrics"]))
    stale = _AsBefore(memory)
    put_and_compact(memory, 2)
    compactor(memory, limits=Limits(is_full=True)).compact(EXPERIMENT)
    (done,) = publish(late, lake=LAKE, tables=["metrics"])
    assert (done.version, done.added, done.removed) == (1, 1, 1)
    publish(memory, lake=LAKE)
    assert_equal_to_manifest(memory)


def test_who_is_shown_old_manifests_never_takes_the_log_back(memory: MemoryFilesystem) -> None:
    put_and_compact(memory, 1)
    stale = _AsBefore(memory)
    put_and_compact(memory, 2)
    publish(memory, lake=LAKE)
    (done,) = publish(stale, lake=LAKE, tables=["metrics"])
    assert (done.version, done.manifest, done.files, done.added) == (0, 2, 2, 0)
    assert_equal_to_manifest(memory)


@final
class _AsBefore(Wrapper):
    """Shows the manifests that were there when it was made, as one who stalls has seen them."""

    def __init__(self, inner: Filesystem) -> None:
        """Wrap `inner`."""
        super().__init__(inner)
        self._seen = inner.list(layout.MANIFESTS)

    def around(self, call: Call, action: Callable[[], T]) -> T:
        """Do it; listings of manifests are old."""
        found = action()
        if call == Call("list", (layout.MANIFESTS,)):
            return self._seen  # type: ignore[return-value]
        return found


def test_many_publishers_at_once_leave_one_log_that_equals_its_manifest(
    memory: MemoryFilesystem,
) -> None:
    put_and_compact(memory, 1)
    threads = [
        threading.Thread(target=publish, args=(memory,), kwargs={"lake": LAKE}) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    put_and_compact(memory, 2)
    for thread in threads:
        thread.join()
    publish(memory, lake=LAKE)
    for table in PUBLISHED:
        assert versions(memory, table) in (["0" * 20 + ".json"], [f"{n:020d}.json" for n in (0, 1)])
    assert_equal_to_manifest(memory)


class Step(NamedTuple):
    """A segment that comes, and what upkeep does then."""

    writer: MadeWriter
    first: int
    last: int
    upkeep: str


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Draw writers, their segments one after the other, and upkeep in between."""
    steps = []
    for writer in draw(writers()):
        first = 0
        for last in cuts(draw, len(writer.rows)):
            upkeep = draw(st.sampled_from(["nothing", "compact", "merge", "publish"]))
            steps.append(Step(writer, first, last, upkeep))
            first = last + 1
    return steps


@settings(max_examples=25)
@given(history=histories())
def test_whatever_was_compacted_the_log_equals_the_manifest(history: list[Step]) -> None:
    fs = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    make_lake(fs)
    for step in [*history, None]:
        if step is not None:
            step.writer.put(fs, step.first, step.last)
        if step is None or step.upkeep != "nothing":
            limits = Limits(is_full=step is not None and step.upkeep == "merge")
            compactor(fs, limits=limits).compact(EXPERIMENT)
        if step is None or step.upkeep == "publish":
            publish(fs, lake=LAKE)
            assert_equal_to_manifest(fs)
    fs.delete_many([entry.key for entry in fs.list("")])


def test_a_publisher_that_dies_anywhere_leaves_nothing_to_mend(memory: MemoryFilesystem) -> None:
    put_and_compact(memory, 1)
    tables = ["metrics", "facts"]
    for at in writes_of(lambda fs: publish(fs, lake=LAKE, tables=tables), memory):
        put_and_compact(memory, at + 1)
        with pytest.raises(SimulatedCrash):
            publish(DieBehind(memory, write=at), lake=LAKE, tables=tables)
        publish(memory, lake=LAKE)
        assert_equal_to_manifest(memory)


def test_a_lost_answer_is_no_second_version(memory: MemoryFilesystem) -> None:
    put_and_compact(memory, 1)
    faulty = FaultyFilesystem(memory, seed=1)

    def lose() -> None:
        faulty.after = 1.0

    with pytest.raises(StorageError):
        publish(Meanwhile(faulty, lose), lake=LAKE, tables=["metrics"])
    faulty.after = 0.0
    (done,) = publish(faulty, lake=LAKE, tables=["metrics"])
    assert (done.version, done.added) == (0, 0)


def test_a_commit_of_somebody_else_is_undone_by_the_next_version(memory: MemoryFilesystem) -> None:
    put_and_compact(memory, 1)
    publish(memory, lake=LAKE)
    foreign = {"path": "part-0.parquet", "partitionValues": {}, "size": 7}
    ours = actions(memory, 0)["add"][0]["path"]
    lines = [json.dumps({"add": foreign}), json.dumps({"remove": {"path": ours}})]
    memory.put(f"tables/metrics/_delta_log/{1:020d}.json", "\n".join(lines).encode())
    publish(memory, lake=LAKE)
    assert_equal_to_manifest(memory)
    assert [each["path"] for each in actions(memory, 2)["remove"]] == ["part-0.parquet"]


def test_columns_that_have_come_since_are_told_to_engines(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_and_compact(memory, 1)
    with monkeypatch.context() as before:
        before.setattr(delta, "_TYPES", {**delta._TYPES, "DOUBLE": "float"})
        publish(memory, lake=LAKE)
    put_and_compact(memory, 2)
    publish(memory, lake=LAKE)
    kinds = ['"type":"float"' in actions(memory, n)["metaData"][0]["schemaString"] for n in (0, 1)]
    assert kinds == [True, False]


@pytest.mark.parametrize(
    ("version", "content", "said_what"),
    [
        (0, b"{", "no readable version"),
        (0, b'{"add":{"path":"x"}}', "no readable version"),
        (2, b'{"add":{"path":"x","size":1}}', "is missing"),
        (1, b'{"metaData":{"id":"another"}}', "the log of another Delta table"),
    ],
)
def test_a_log_that_cannot_be_trusted_is_refused_with_what_to_do(
    memory: MemoryFilesystem, version: int, content: bytes, said_what: str
) -> None:
    put_and_compact(memory, 1)
    publish(memory, lake=LAKE)
    memory.put(f"tables/metrics/_delta_log/{version:020d}.json", content)
    put_and_compact(memory, 2)
    with pytest.raises(FormatError, match=said_what):
        publish(memory, lake=LAKE)
    memory.delete_many([entry.key for entry in memory.list("tables/metrics/_delta_log/")])
    publish(memory, lake=LAKE)
    assert_equal_to_manifest(memory)


def test_unknown_tables_and_unsafe_stores_are_refused(memory: MemoryFilesystem) -> None:
    with pytest.raises(InvalidInputError, match="no table 'runs' can be published; there are"):
        publish(memory, lake=LAKE, tables=["metrics", "runs"])
    memory.conditional_create = False
    with pytest.raises(StateError, match="runlake export"):
        publish(memory, lake=LAKE)
    assert memory.list(layout.TABLES) == []
    publish(memory, lake=LAKE, is_alone=True)
    assert_equal_to_manifest(memory)
