from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runlake.storage.layout import TableName
from runlake.storage.manifest import TableFile
from runlake.storage.table_files import FACTS, METRICS
from runlake.upkeep.tiers import SETTLED_BYTES, _settled, due, sources

_KIB = 1 << 10


def file(number: int, *, size: int, least: str = "a", greatest: str = "z") -> TableFile:
    """Return the entry of a file; its name is its number, bounds and size."""
    nonce = f"{abs(hash((number, size, least, greatest))) % 2**64:016x}"
    path = TableName("metrics", "exp", number, nonce).key
    return TableFile(path, size, 1, "exp", least, greatest)


def chosen(files: list[TableFile], *, is_full: bool = False, **limits: int) -> list[int]:
    """Return the commits whose files are to be merged."""
    most_runs, most_bytes = limits.get("most_runs", 99), limits.get("most_bytes")
    found = due(METRICS, files, most_runs=most_runs, most_bytes=most_bytes, is_full=is_full)
    return [run.number for run in found]


def test_files_of_about_one_size_are_due_once_there_are_enough() -> None:
    few = [file(number, size=200 * _KIB) for number in range(1, METRICS.fan)]
    assert chosen(few) == []
    assert chosen([*few, file(50, size=900_000 * _KIB)]) == []
    assert sorted(chosen([*few, file(50, size=300 * _KIB)])) == [*range(1, METRICS.fan), 50]


def test_smaller_files_go_along() -> None:
    files = [file(number, size=2000 * _KIB) for number in range(1, METRICS.fan + 1)]
    assert chosen([*files, file(99, size=1)])[0] == 99


def test_files_of_one_commit_count_as_one() -> None:
    files = [file(1, size=100 * _KIB, least=f"{part:02d}") for part in range(20)]
    assert chosen(files) == []


def test_large_files_that_overlap_no_other_are_left_alone() -> None:
    files = [
        file(number, size=SETTLED_BYTES, least=f"run-{number:02d}", greatest=f"run-{number:02d}z")
        for number in range(20)
    ]
    assert chosen(files) == []
    assert chosen(files, is_full=True) == []
    both = [*files, file(70, size=_KIB, least="run-03", greatest="run-04")]
    assert sorted(chosen(both, is_full=True)) == [3, 4, 70]


def test_files_of_facts_are_read_each_by_itself_and_count_less() -> None:
    files = [
        file(number, size=SETTLED_BYTES - 1, least=f"{part:02d}")
        for number in (1, 2)
        for part in range(12)
    ]
    runs = due(FACTS, files, most_runs=4, is_full=True)
    assert [len(run.files) for run in runs] == [12, 12]
    assert [len(run.files) for run in sources(FACTS, runs)] == [1] * 24
    assert sources(METRICS, runs) == list(runs)
    assert due(FACTS, files, most_runs=3, is_full=True) == ()


def test_a_full_merge_takes_whatever_is_not_settled() -> None:
    files = [file(1, size=_KIB), file(2, size=10_000 * _KIB)]
    assert chosen(files) == []
    assert chosen(files, is_full=True) == [1, 2]
    assert chosen(files[:1], is_full=True) == []


def test_a_merge_keeps_its_limits() -> None:
    files = [file(number, size=200 * _KIB) for number in range(1, 13)]
    assert len(chosen(files, most_runs=5)) == 5
    assert len(chosen(files, most_bytes=500 * _KIB)) == 2
    assert chosen(files, most_bytes=300 * _KIB) == []


_bounds = st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(1, 3), st.booleans())


@given(drawn=st.lists(_bounds, max_size=12, unique=True))
def test_a_file_is_settled_if_it_is_large_and_meets_no_file_of_another_commit(
    drawn: list[tuple[int, int, int, bool]],
) -> None:
    files = [
        file(
            number,
            size=SETTLED_BYTES if large else 5,
            least=str(least),
            greatest=str(least + reach),
        )
        for least, reach, number, large in drawn
        if least + reach < 10
    ]
    numbers = {each.path: int(each.path.split("/")[-1].split("-")[0]) for each in files}
    expected = {
        one.path
        for one in files
        if one.size_bytes >= SETTLED_BYTES
        and not any(
            numbers[one.path] != numbers[other.path]
            and one.min_run <= other.max_run
            and other.min_run <= one.max_run
            for other in files
        )
    }
    assert _settled(files) == expected
