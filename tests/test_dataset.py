from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runlake import schema
from runlake.dataset import Dataset, input_rows
from runlake.errors import InvalidInputError
from runlake.storage.state import FACT_KINDS

if TYPE_CHECKING:
    from runlake.lake import Lake

pytestmark = pytest.mark.filesystems("local", "memory", "s3")

parts = st.text(st.sampled_from("a@%40"), min_size=1, max_size=6)
inputs = st.tuples(parts, parts, st.none() | parts)

_COLUMNS = "name, digest, source_type, source, context"
_INPUTS = f"SELECT {_COLUMNS} FROM inputs ORDER BY ALL"


class Source:
    """A source as MLflow's data sets have one: it says what it is by methods."""

    def to_json(self) -> str:
        """Return what it is."""
        return '{"url": "https://example.org/a.csv"}'

    def _get_source_type(self) -> str:
        return "http"


def said(dataset: object, context: str | None = None) -> list[object]:
    """Return what a row says of a data set, after checking its frame."""
    ((run_id, kind, _, num, text),) = input_rows("run", dataset, context)
    assert (run_id, kind, num) == ("run", schema.INPUT, None)
    assert text is not None
    return list(json.loads(text).values())


@given(first=inputs, second=inputs)
def test_keys_of_two_inputs_are_equal_only_where_the_inputs_are(
    first: tuple[str, str, str | None], second: tuple[str, str, str | None]
) -> None:
    assume(first != second)
    keys = [
        input_rows("run", Dataset(name=name, digest=digest), context)[0][2]
        for name, digest, context in (first, second)
    ]
    assert keys[0] != keys[1]


def test_key_of_a_plain_input_is_its_parts() -> None:
    digits = Dataset(name="digits", digest="1797")
    assert input_rows("run", digits, None)[0][2] == "digits@1797"
    assert input_rows("run", digits, "training")[0][2] == "digits@1797@training"


@pytest.mark.parametrize(
    ("dataset", "source_type", "source"),
    [
        (Dataset(name="a", digest="b"), None, None),
        (Dataset(name="a", digest="b", source="s3://x", source_type="s3"), "s3", "s3://x"),
        (SimpleNamespace(name="a", digest="b"), None, None),
        (SimpleNamespace(name="a", digest="b", source=Path("a.csv")), None, "a.csv"),
        (
            SimpleNamespace(name="a", digest="b", source=Source()),
            "http",
            '{"url": "https://example.org/a.csv"}',
        ),
        (
            SimpleNamespace(name="a", digest="b", source=Source(), source_type="mine"),
            "mine",
            '{"url": "https://example.org/a.csv"}',
        ),
    ],
)
def test_data_sets_of_any_make_are_known_by_what_they_have(
    dataset: object, source_type: str | None, source: str | None
) -> None:
    assert said(dataset) == ["a", "b", source_type, source, None]
    assert said(dataset, "training") == ["a", "b", source_type, source, "training"]


@pytest.mark.parametrize(
    ("dataset", "context", "message"),
    [
        ("digits", None, "'digits' cannot be read: FileNotFoundError.*runlake.Dataset"),
        (5, None, "got an int.*runlake.Dataset"),
        (None, None, "got None"),
        (SimpleNamespace(name="a"), None, "a name and a digest, got a SimpleNamespace"),
        (SimpleNamespace(name="a", digest=None), None, "the digest .* got None"),
        (SimpleNamespace(name=5, digest="b"), None, "the name .* got an int 5"),
        (Dataset(name="", digest="b"), None, "the name .* got a str ''"),
        (Dataset(name="a\n", digest="b"), None, "printable"),
        (Dataset(name="a", digest="b"), 5, "the context .* got an int"),
        (Dataset(name="a", digest="b"), "", "the context .* got a str ''"),
        (SimpleNamespace(name="a", digest="b", source=5), None, "the source .* got an int"),
        (
            SimpleNamespace(name="a", digest="b", source_type=5),
            None,
            "the source_type .* got an int",
        ),
        (Dataset(name="a" * 501, digest="b"), None, "1 to 500 printable"),
        (Dataset(name="a", digest="b", source="x" * (1 << 20)), None, "data set 'a' has"),
        (Dataset(name="a", digest="b", source="\ud800"), None, "not Unicode"),
    ],
)
def test_what_is_no_data_set_is_refused_with_what_is_wrong(
    dataset: object, context: object, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        input_rows("run", dataset, context)


def test_data_sets_of_runs_are_found_in_sql_the_latest_word_of_each(lake: Lake) -> None:
    with lake.start_run() as run:
        run.log_input(Dataset(name="digits", digest="1", source="old"), "training")
        run.log_input(Dataset(name="digits", digest="1", source="new"), "training")
        run.log_input(Dataset(name="digits", digest="1"), "validation")
        run.log_input(Dataset(name="größe @%", digest="2"))
    with lake.start_run(run_id=run.run_id) as again:
        again.log_input(Dataset(name="digits", digest="1", source="newest"), "training")
    assert lake.sql(_INPUTS).rows() == [
        ("digits", "1", None, "newest", "training"),
        ("digits", "1", None, None, "validation"),
        ("größe @%", "2", None, None, None),
    ]
    assert lake.sql("SELECT DISTINCT run_id FROM inputs").item() == run.run_id


def test_schema_and_profile_are_found_beside_what_footers_say(lake: Lake) -> None:
    table = pa.table({"x": [1.0, None], "y": ["a", "b"]})
    with lake.start_run() as run:
        run.log_input(table, "training")
        run.log_input(table, "validation")
        run.log_input(Dataset(name="old", digest="1", schema="as text", profile={"rows": 3}))
        run.log_input(Dataset(name="plain", digest="1"))
        run.log_input(Dataset(name="old", digest="1", schema="as another text"))
    digest = Dataset.of(table).digest
    rows = lake.sql("SELECT name, context, digest, schema, profile FROM inputs ORDER BY ALL").rows()
    schema_text = '[{"name":"x","type":"double"},{"name":"y","type":"string"}]'
    profile = f'{{"rows":2,"columns":2,"bytes":{table.nbytes},"nulls":{{"x":1}}}}'
    assert rows == [
        ("dataset", "training", digest, schema_text, profile),
        ("dataset", "validation", digest, schema_text, profile),
        ("old", None, "1", "as another text", None),
        ("plain", None, "1", None, None),
    ]
    for condition in (f"dataset.digest = '{digest}'", "dataset.context = 'validation'"):
        assert lake.search_runs(condition)["run_id"].to_list() == [run.run_id]
    assert lake.search_runs("dataset.name = 'nothing'").is_empty()
    lake.maintain.compact()
    again = "SELECT name, context, digest, schema, profile FROM inputs ORDER BY ALL"
    assert lake.sql(again).rows() == rows


def test_details_do_not_ride_in_footers() -> None:
    assert schema.DATASET not in FACT_KINDS
    assert schema.INPUT in FACT_KINDS


def test_data_sets_of_mlflow_are_kept_with_schema_and_profile(lake: Lake) -> None:
    class Theirs:
        name, digest = "theirs", "d1"
        source = Source()
        schema = object()
        profile: ClassVar = {"num_rows": object()}

        def to_dict(self) -> dict[str, str]:
            return {"schema": '{"mlflow_colspec": []}', "profile": '{"num_rows": 3}'}

    with lake.start_run() as run:
        run.log_input(Theirs(), context="eval")
    assert lake.sql("SELECT source_type, schema, profile FROM inputs").row(0) == (
        "http",
        '{"mlflow_colspec": []}',
        '{"num_rows": 3}',
    )


@pytest.mark.parametrize(
    ("detail", "message"),
    [
        ("x" * (1 << 24) + "x", "16,777,217 bytes, at most 16,777,216"),
        ("\ud800", "not Unicode"),
        ({"a": object()}, "JSON can hold"),
    ],
    ids=["long", "surrogate", "no JSON"],
)
def test_details_that_are_too_long_or_no_json_are_refused(detail: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        input_rows("run", Dataset(name="a", digest="1", profile=detail), None)


def test_a_computed_schema_that_is_too_long_is_cut_with_a_word() -> None:
    table = pa.table({f"a column with a long name {number}": [1] for number in range(5_000)})
    *_, text = input_rows("run", table, None)[1]
    said = json.loads(text or "")
    columns = json.loads(said["schema"])
    assert columns[-1] == {"left_out": 5_000 - len(columns) + 1}
    assert 2000 < len(columns) < 8000


def test_credentials_in_a_source_are_left_out() -> None:
    url = "https://me:hunter2@example.org/a.csv?sig=hunter2"
    for dataset in (Dataset(name="a", digest="1", source=url), Dataset.of(url, digest="1")):
        assert "hunter2" not in str(input_rows("run", dataset, None))
