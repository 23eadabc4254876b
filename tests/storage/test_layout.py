"""Where each thing lies: keys are pinned letter by letter, because lakes outlive versions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.ids import name_hash
from runlake.storage import layout
from runlake.storage.layout import SegmentName

WRITER = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
OTHER_WRITER = "01BX5ZZKBKACTAV9WEVGEMMVRZ"


@st.composite
def segment_names(draw: st.DrawFn, *, greatest: int = 10**15 - 1) -> SegmentName:
    """Draw any name that a writer may give."""
    last = draw(st.integers(0, greatest))
    return SegmentName(
        writer=draw(st.sampled_from([WRITER, OTHER_WRITER])),
        last=last,
        count=draw(st.integers(1, min(last + 1, 10**12 - 1))),
        merged=draw(st.booleans()),
        experiment_id=draw(st.sampled_from(["0", "_lake", "jbx4jo4rh7k5rjkro55u"])),
    )


# Few different names, so that pairs meet.
crowded = segment_names(greatest=5)


def test_segment_key_is_pinned() -> None:
    name = SegmentName(writer=WRITER, last=41, count=12, merged=False, experiment_id="0")
    assert name.key == (
        "log/experiment_id=0/01ARZ3NDEKTSV4RRFFQ69G5FAV.000000000000041-000000000012.parquet"
    )
    assert replace(name, merged=True, experiment_id="_lake").key == (
        "log/experiment_id=_lake/01ARZ3NDEKTSV4RRFFQ69G5FAV.000000000000041-000000000012.z.parquet"
    )


def test_every_other_key_is_pinned() -> None:
    assert layout.LAKE_FILE == "runlake.json"
    assert layout.LOG == "log/"
    assert layout.MANIFESTS == "manifests/"
    assert layout.TABLES == "tables/"
    assert layout.EXPERIMENT_NAMES == "names/experiments/"
    assert layout.partition("0") == "log/experiment_id=0/"
    assert layout.manifest(7) == "manifests/000000000007.json"
    assert layout.claims("h") == "names/experiments/h/"
    assert layout.claim("h", 1) == "names/experiments/h/000001.json"
    assert layout.probe("n") == "names/probes/n.json"
    assert layout.artifacts("0", "r") == "artifacts/0/r/"


def test_compacted_files_key_is_pinned() -> None:
    name = layout.TableName("metrics", "0", 7, "00ff00ff00ff00ff")
    assert name.key == "tables/metrics/experiment_id=0/000000000007-00ff00ff00ff00ff.parquet"
    assert layout.parse_table_file(name.key) == name


@given(name=segment_names())
def test_segment_name_survives_its_key(name: SegmentName) -> None:
    assert layout.parse_segment(name.key) == name
    assert name.first == name.last - name.count + 1 >= 0


@pytest.mark.parametrize(
    "key",
    [
        "",
        "runlake.json",
        "manifests/000000000007.json",
        f"log/experiment_id=0/{WRITER}.000000000000041-000000000000.parquet",
        f"log/experiment_id=0/{WRITER}.000000000000041-000000000043.parquet",
        f"log/experiment_id=0/{WRITER}.41-12.parquet",
        f"log/experiment_id=0/{WRITER}.000000000000041-000000000012.parquet.tmp",
        f"log/experiment_id=0/{WRITER}.000000000000041-000000000012.y.parquet",
        f"log/experiment_id=0/deeper/{WRITER}.000000000000041-000000000012.parquet",
        f"log/experiment_id=/{WRITER}.000000000000041-000000000012.parquet",
        f"log/experiment_id=0/{WRITER.lower()}.000000000000041-000000000012.parquet",
        f"deeper/log/experiment_id=0/{WRITER}.000000000000041-000000000012.parquet",
        f"log/experiment_id=0/{WRITER}.000000000000041-000000000012.parquet\n",
    ],
)
def test_foreign_keys_are_no_segments(key: str) -> None:
    assert layout.parse_segment(key) is None


def test_a_segment_may_hold_all_rows_from_the_first_on() -> None:
    key = f"log/experiment_id=0/{WRITER}.000000000000041-000000000042.parquet"
    name = layout.parse_segment(key)
    assert name is not None
    assert name.first == 0


@given(one=crowded, other=crowded)
def test_no_two_segments_cover_each_other(one: SegmentName, other: SegmentName) -> None:
    assert not (one.covers(other) and other.covers(one))
    assert not one.covers(one)


@given(one=crowded, other=crowded)
def test_a_segment_sorts_after_each_that_it_covers(one: SegmentName, other: SegmentName) -> None:
    if one.covers(other):
        assert one.key > other.key
        assert one > other


@given(one=crowded, other=crowded)
def test_a_segment_covers_what_holds_no_row_beside_its_own(
    one: SegmentName, other: SegmentName
) -> None:
    same_place = (one.writer, one.experiment_id) == (other.writer, other.experiment_id)
    rows, other_rows = (set(range(n.first, n.last + 1)) for n in (one, other))
    if not same_place:
        assert not one.covers(other)
    elif rows != other_rows:
        assert one.covers(other) == (other_rows < rows)
    else:
        assert one.covers(other) == (one.merged and not other.merged)


@given(one=crowded, two=crowded, three=crowded)
def test_covering_is_transitive(one: SegmentName, two: SegmentName, three: SegmentName) -> None:
    if one.covers(two) and two.covers(three):
        assert one.covers(three)


@given(names=st.lists(segment_names(), min_size=2, max_size=2))
def test_names_of_one_partition_sort_as_their_keys_do(names: list[SegmentName]) -> None:
    one, other = (replace(name, experiment_id="0") for name in names)
    assert (one < other) == (one.key < other.key)


@given(number=st.integers(0, 10**12 - 1))
def test_manifest_number_survives_its_key(number: int) -> None:
    assert layout.parse_manifest(layout.manifest(number)) == number


@given(number=st.integers(0, 10**6 - 1), name=st.text())
def test_claim_number_survives_its_key(number: int, name: str) -> None:
    assert layout.parse_claim(layout.claim(name_hash(name), number)) == number


@pytest.mark.parametrize("key", ["", "runlake.json", "manifests/7.json", "manifests/x.json"])
def test_foreign_keys_are_no_manifests_and_no_claims(key: str) -> None:
    assert layout.parse_manifest(key) is None
    assert layout.parse_claim(key) is None


def test_files_that_no_disk_holds_beside_others_are_found() -> None:
    keys = ["a/b", "a/b/c", "a/bb/c", "a/b/d/e", "x"]
    assert list(layout.files_above(keys)) == [("a/b/c", "a/b"), ("a/b/d/e", "a/b")]
    assert list(layout.folders_above("a/b/c")) == ["a", "a/b"]
    assert list(layout.files_above([])) == []
