"""Digests are of values, whatever holds them; and any other value gives another."""

from __future__ import annotations

import datetime as dt
import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.dataset import Dataset, content, files
from runlake.errors import InvalidInputError
from tests.meta.tree import run_python

if TYPE_CHECKING:
    from pathlib import Path

whole = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 300), max_size=12)
floats = st.lists(st.floats(width=64) | st.floats(width=16), max_size=12)
texts = st.lists(st.text(st.characters(codec="utf-8"), max_size=4), max_size=12)


def digest(data: object) -> str:
    """Return the digest of data."""
    return Dataset.of(data).digest


@given(numbers=whole)
def test_whole_numbers_of_any_width_have_one_digest(numbers: list[int]) -> None:
    wide = np.array(numbers, np.int64)
    expected = digest({"x": wide})
    for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "u8", ">i8"):
        narrow = wide.astype(kind)
        if (narrow == wide).all() and (narrow.astype(object) == wide.astype(object)).all():
            assert digest({"x": narrow}) == expected
    assert digest(pa.table({"x": pa.array(numbers, pa.int64())})) != expected


@given(numbers=floats)
def test_floats_of_any_width_have_one_digest(numbers: list[float]) -> None:
    wide = np.array(numbers, np.float64)
    for kind in ("f2", "f4"):
        with np.errstate(over="ignore"):
            narrow = wide.astype(kind)
        if np.array_equal(narrow, wide, equal_nan=True):
            assert digest({"x": narrow}) == digest({"x": wide})
    other_nan = np.where(np.isnan(wide), -np.nan, wide)
    assert digest({"x": other_nan}) == digest({"x": wide})


@given(rows=st.lists(st.tuples(st.integers(0, 9) | st.none(), st.text("ab", max_size=2))))
def test_tables_of_pandas_polars_and_arrow_have_one_digest(
    rows: list[tuple[int | None, str]],
) -> None:
    numbers, words = [row[0] for row in rows], [row[1] for row in rows]
    arrow = pa.table({"n": pa.array(numbers, pa.int8()), "t": pa.array(words, pa.string())})
    expected = digest(arrow)
    polars = pl.DataFrame(
        {"n": pl.Series(numbers, dtype=pl.Int64), "t": pl.Series(words, dtype=pl.Categorical)}
    )
    pandas = pd.DataFrame(
        {"n": pd.array(numbers, dtype="Int16"), "t": pd.Series(words, dtype="object")}
    )
    assert digest(polars) == expected
    if words:
        assert digest(pandas) == expected
    again = pd.DataFrame({"n": pd.array(numbers, dtype="Int64")})
    again["t"] = pd.Series(words, dtype="string")
    assert digest(again) == expected
    for size in (1, 2, 3):
        pieces = [arrow.slice(place, size) for place in range(0, len(rows), size)]
        assert digest(pa.concat_tables([arrow.slice(0, 0), *pieces])) == expected


NESTED: list[tuple[pa.DataType, list[Any]]] = [
    (pa.null(), [None, None]),
    (pa.bool_(), [True, None, False]),
    (pa.decimal128(10, 2), [Decimal("1.50"), None, Decimal("2.00")]),
    (pa.binary(), [b"a", None, b""]),
    (pa.date32(), [dt.date(2020, 1, 1), None]),
    (pa.timestamp("us"), [dt.datetime(2020, 1, 1, 5), None]),  # noqa: DTZ001 - has none
    (pa.timestamp("us", "UTC"), [dt.datetime(2020, 1, 1, 5, tzinfo=dt.UTC), None]),
    (pa.time64("us"), [dt.time(5, 6, 7), None]),
    (pa.duration("us"), [dt.timedelta(seconds=3), None]),
    (pa.list_(pa.int64()), [[1, 2], [], None, [None, 3]]),
    (pa.struct([("a", pa.int64()), ("b", pa.string())]), [{"a": 1, "b": None}, None]),
    (pa.map_(pa.string(), pa.int64()), [[("a", 1)], None, [], [("b", 2), ("c", None)]]),
    (pa.list_(pa.struct([("a", pa.list_(pa.string()))])), [[{"a": ["x"]}], [], None]),
]


@pytest.mark.parametrize(("kind", "values"), NESTED, ids=lambda each: str(each)[:30])
def test_columns_of_any_type_have_a_digest_that_slices_and_chunks_do_not_change(
    kind: pa.DataType, values: list[Any]
) -> None:
    column = pa.array(values, kind)
    expected = digest(pa.table({"x": column}))
    for before in range(3):
        wider = pa.concat_arrays([pa.array(values[:before], kind), column, column])
        assert digest(pa.table({"x": wider.slice(min(before, len(values)), len(values))})) == (
            expected
        )
    pieces: Any = pa.chunked_array([column.slice(place, 1) for place in range(len(values))])
    assert digest(pa.table({"x": pieces})) == expected
    assert digest(pa.table({"x": column.slice(1)})) != expected
    if not pa.types.is_null(kind):
        nulls = pa.array([None] * len(values), kind)
        assert digest(pa.table({"x": nulls})) != expected


def test_how_a_column_is_stored_does_not_count() -> None:
    words = ["a", "b", None, "a"]
    same: list[Any] = [
        pa.array(words, pa.string()),
        pa.array(words, pa.large_string()),
        pa.array(words, pa.string_view()),
        pa.array(words).dictionary_encode(),
        pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3, 4], pa.int32()), pa.array(words)),
    ]
    assert len({digest(pa.table({"x": column})) for column in same}) == 1
    moments = [dt.datetime(2020, 1, 1, 5, 6, 7), None]  # noqa: DTZ001 - it has none
    times = [pa.array(moments, pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")]
    assert len({digest(pa.table({"x": column})) for column in times}) == 1
    lists = [[1, 2], [3, 4]]
    kinds = [
        pa.list_(pa.int8()),
        pa.large_list(pa.int64()),
        pa.list_(pa.int32(), 2),
        pa.list_view(pa.int16()),
    ]
    assert len({digest(pa.table({"x": pa.array(lists, kind)})) for kind in kinds}) == 1


@given(words=texts, place=st.integers(0, 11), other=st.text("xyz", min_size=1, max_size=2))
def test_any_other_value_gives_another_digest(words: list[str], place: int, other: str) -> None:
    table = pa.table({"x": pa.array(words, pa.string())})
    changed: list[str | None] = list(words)
    if place < len(words) and words[place] != other:
        changed[place] = other
        assert digest(pa.table({"x": pa.array(changed, pa.string())})) != digest(table)
        changed[place] = None
        assert digest(pa.table({"x": pa.array(changed, pa.string())})) != digest(table)
    assert digest(table.rename_columns(["y"])) != digest(table)
    longer = pa.array([*words, other], pa.string())
    assert digest(pa.table({"x": longer})) != digest(table)


def test_what_only_looks_alike_has_another_digest() -> None:
    alike: list[object] = [
        pa.table({"x": [1, 2]}),
        pa.table({"x": [1.0, 2.0]}),
        pa.table({"x": ["1", "2"]}),
        pa.table({"x": [2, 1]}),
        pa.table({"x": [1, 2], "y": [1, 2]}),
        pa.table({"x": pa.array([1.0, float("nan")])}),
        pa.table({"x": pa.array([1.0, None])}),
        pa.table({"x": ["ab", "c"]}),
        pa.table({"x": ["a", "bc"]}),
        pa.table({"x": pa.array([[1], [2]])}),
        pa.table({"x": pa.array([[1, 2], []])}),
        np.zeros((2, 3)),
        np.zeros((3, 2)),
        np.zeros(6),
        np.array(["a", "b"]),
        np.array([1 + 2j]),
        np.array([1, 2], "datetime64[us]"),
        pa.table({"x": pa.array([1], pa.timestamp("ns"))}),
        pa.table({"x": pa.array([0], pa.timestamp("ns"))}),
    ]
    assert len({digest(each) for each in alike}) == len(alike)


def test_a_digest_is_the_same_in_every_process_and_for_ever(tmp_path: Path) -> None:
    program = (
        "import polars, runlake\n"
        "frame = polars.DataFrame({'x': [1, 2, None], 'y': [0.5, 1.1, 2.0], 't': ['a', '', 'c']})\n"
        "print(runlake.Dataset.of(frame).digest, runlake.Dataset.of(frame['y'].to_numpy()).digest)"
    )
    printed = run_python("-c", program, folder=tmp_path).split()
    assert printed == [
        "573735e1fa742886c35d2ac40499bfaa",
        "2470f9c9807ded2f011f9218c7dca783",
    ]


def test_much_is_sampled_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "LIMIT_BYTES", 8 * 1024)
    numbers = np.arange(100_000)
    found = Dataset.of(numbers)
    assert found.profile == {
        "arrays": 1,
        "values": 100_000,
        "bytes": 800_000,
        "is_sampled": True,
    }
    for place in (0, 99_999):
        changed = numbers.copy()
        changed[place] += 1
        assert digest(changed) != found.digest
    table = pa.table({"x": pa.array(numbers), "t": pa.array(list(map(str, numbers)))})
    assert Dataset.of(table).profile == {
        "rows": 100_000,
        "columns": 2,
        "bytes": table.nbytes,
        "is_sampled": True,
    }
    assert digest(table.slice(1)) != digest(table)
    assert digest(pa.concat_tables([table.slice(0, 7), table.slice(7)])) == digest(table)


def test_frames_say_their_columns_and_targets() -> None:
    frame = pl.DataFrame({"x": [1.0, None], "y": [1, 2]})
    found = Dataset.of(frame, "digits", source="s3://b/digits", targets="y")
    assert (found.name, found.source, found.source_type) == ("digits", "s3://b/digits", "s3")
    assert found.schema == [{"name": "x", "type": "double"}, {"name": "y", "type": "int64"}]
    assert found.profile == {
        "rows": 2,
        "columns": 2,
        "bytes": frame.to_arrow().nbytes,
        "nulls": {"x": 1},
        "targets": ["y"],
    }
    with pytest.raises(InvalidInputError, match="no column 'z' to be a target; it has 'x', 'y'"):
        Dataset.of(frame, targets=["y", "z"])
    assert Dataset.of(frame, digest="v7").digest == "v7"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pl.LazyFrame({"x": [1]}), "LazyFrame holds no data yet"),
        (5, "made of a frame.*got an int"),
        ({}, "made of a frame.*got a dict"),
        ([], "made of a frame.*got a list"),
        ({"x": np.array([{"a": 1}, 5], object)}, "array 'x' holds object"),
        (pd.DataFrame({"x": [1, "a", object()]}), "cannot be read as a table"),
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), "cannot be read as a table.*x"),
        (pa.table({"x": pa.UnionArray.from_sparse(pa.array([0], "i1"), [pa.array([1])])}), "union"),
    ],
)
def test_what_has_no_digest_is_refused_with_what_to_do(data: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Dataset.of(data)


def test_series_batches_and_what_gives_arrow_are_data_sets() -> None:
    table = pa.table({"x": [1, 2]})
    assert digest(table.to_batches()[0]) == digest(table)
    assert digest(pl.Series("x", [1, 2])) == digest(table)
    assert digest(pd.Series([1, 2], name="x")) == digest(table)

    class Stream:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return table.__arrow_c_stream__(requested_schema)  # type: ignore[no-untyped-call]

    assert digest(Stream()) == digest(table)
    named = pl.DataFrame({"name": ["a"], "digest": ["b"]})
    assert digest(named) == digest(named.to_arrow())


# Files.


def test_a_file_has_the_beginning_of_its_sha256_wherever_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "größe 1.csv"
    file.write_bytes(b"a,b\n1,2\n")
    found = Dataset.of(file)
    assert found.digest == hashlib.sha256(b"a,b\n1,2\n").hexdigest()[:32]
    assert (found.name, found.source, found.source_type) == (file.name, str(file), "local")
    assert found.profile == {"files": 1, "bytes": 8}
    moved = file.rename(tmp_path / "other.csv")
    assert digest(str(moved)) == digest(f"file://{moved}") == found.digest


def test_a_folder_has_the_digest_of_its_files_and_their_paths(tmp_path: Path) -> None:
    for root in ("a", "b"):
        (tmp_path / root / "deep").mkdir(parents=True)
        (tmp_path / root / "deep" / "x.txt").write_text("x")
        (tmp_path / root / "y.txt").write_text("y")
    first = digest(tmp_path / "a")
    assert digest(tmp_path / "b") == first
    (tmp_path / "b" / "empty").mkdir()
    assert digest(tmp_path / "b") == first
    (tmp_path / "b" / "y.txt").rename(tmp_path / "b" / "z.txt")
    assert digest(tmp_path / "b") != first
    several = Dataset.of([tmp_path / "a" / "y.txt", tmp_path / "a" / "deep"], "both")
    assert (several.name, several.profile) == ("both", {"files": 2, "bytes": 2})
    assert digest([tmp_path / "a" / "deep", tmp_path / "a" / "y.txt"]) == several.digest


def test_a_parquet_file_says_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pl.DataFrame({"x": [1, 2, 3]}).write_parquet(file)
    found = Dataset.of(file, targets="x")
    assert found.schema == [{"name": "x", "type": "int64"}]
    assert isinstance(found.profile, dict)
    assert found.profile["rows"] == 3
    file.write_text("not Parquet at all")
    assert Dataset.of(file).schema is None


def test_large_files_are_sampled_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LIMIT_BYTES", 1 << 18)
    data = bytearray(1 << 20)
    file = tmp_path / "large"
    file.write_bytes(data)
    found = Dataset.of(file)
    assert found.profile == {"files": 1, "bytes": 1 << 20, "is_sampled": True}
    for place in (0, (1 << 20) - 1):
        data[place] = 1
        file.write_bytes(data)
        assert digest(file) != found.digest
        data[place] = 0
    file.write_bytes(data + b"\0")
    assert digest(file) != found.digest


def test_what_lies_elsewhere_is_known_by_what_the_store_says(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    root = f"/{tmp_path.name}"
    memory.pipe(f"{root}/a/x.csv", b"1")
    memory.pipe(f"{root}/a/y.csv", b"2")
    found = Dataset.of(f"memory:/{root}/a")
    assert (found.name, found.source_type) == ("a", "memory")
    assert found.profile == {"files": 2, "bytes": 2}
    assert digest(f"memory:/{root}/a") == found.digest
    memory.pipe(f"{root}/a/y.csv", b"3")
    assert digest(f"memory:/{root}/a") != found.digest
    memory.rm(root, recursive=True)


@pytest.mark.parametrize(
    "path", ["gone.csv", "memory://gone-for-ever/a", "nosuch://a/b", "s3x://gone"]
)
def test_files_that_are_not_there_are_refused_by_name(path: str) -> None:
    with pytest.raises(InvalidInputError, match=f"data set '{path}' cannot be read"):
        Dataset.of(path)


def test_a_store_that_wants_credentials_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    found = (
        "data set 's3://bucket/key' cannot be read: NoCredentialsError.*storage_options=.*digest"
    )
    with pytest.raises(InvalidInputError, match=found) as refused:
        Dataset.of("s3://bucket/key", storage_options={"skip_instance_cache": True})
    assert type(refused.value.__cause__).__name__ == "NoCredentialsError"


def test_no_password_of_a_url_is_in_the_message() -> None:
    with pytest.raises(InvalidInputError, match="cannot be read") as refused:
        Dataset.of("http://me:hunter2@127.0.0.1:1/a.csv?X-Amz-Signature=0123abcd")
    assert "hunter2" not in str(refused.value)
    assert "0123abcd" not in str(refused.value)
