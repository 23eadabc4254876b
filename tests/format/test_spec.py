"""The specification says what the code does: its tables, constants, vectors and SQL."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runlake import ids, logged_models, schema
from runlake.artifacts import paths
from runlake.dataset import Dataset, input_rows
from runlake.settings import Settings
from runlake.storage import (
    layout,
    manifest,
    model_claims,
    names,
    segments,
    snapshot,
    state,
    table_files,
)
from runlake.storage.engine import Storage
from runlake.storage.localfs import LocalFilesystem
from runlake.upkeep import GRACE_S, ripe, table_writer, vacuum
from runlake.writing import columns, drain, journal, lanes, pages, records, writer
from tests.format import spec
from tests.format.make_golden import LAKE, age
from tests.meta.tree import sources

if TYPE_CHECKING:
    from pathlib import Path

TABLES: Final = spec.tables()
ROWS_OF_VECTOR: Final = "digest-rows"
# Constant of the specification to the code's.
CONSTANTS: Final[dict[str, float]] = {
    "seal size": writer.SEAL_BYTES,
    "seal uploads": writer.SEAL_UPLOADS,
    "rows of a segment": writer.MAX_SEGMENT_ROWS,
    "rows of a segment of columns": columns.SEGMENT_ROWS,
    "superseded names stay": writer.SUPERSEDED_S,
    "heartbeat": Settings().heartbeat_s,
    "stale after": Settings().stale_s,
    "state limit": writer.STATE_LIMIT_BYTES,
    "metric keys of a writer": writer.MAX_KEYS,
    "points of a writer": journal.MAX_POINTS,
    "merged at close below": writer.SMALL_BYTES,
    "merged segment": writer._MERGED_BYTES,
    "listings again": snapshot.LISTINGS_AGAIN,
    "key limit": schema.KEY_LIMIT_CHARS,
    "name limit": schema.NAME_LIMIT_CHARS,
    "text limit": schema.TEXT_LIMIT_BYTES,
    "artifact path limit": paths.PATH_BYTES,
    "artifact name limit": paths.PART_BYTES,
    "local first upload": lanes.LOCAL.first_s,
    "local share of age": lanes.LOCAL.share_of_age,
    "local longest wait": lanes.LOCAL.longest_s,
    "far first upload": lanes.FAR.first_s,
    "far share of age": lanes.FAR.share_of_age,
    "far longest wait": lanes.FAR.longest_s,
    "soon": drain.SOON_S,
}
KINDS: Final = {
    value
    for name, value in vars(schema).items()
    if isinstance(value, str)
    and name.isupper()
    and value == name.lower()
    and name not in {"ACTIVE", "DELETED", "MODEL_ERASED"}
}


def column(table: str, place: int = 0) -> list[str]:
    """Return one column of a table of the specification."""
    return [row[place] for row in TABLES[table]]


def pattern(compiled: re.Pattern[str]) -> str:
    """Return a pattern without the names of its groups."""
    return re.sub(r"\?P<\w+>", "", compiled.pattern)


def test_key_patterns_are_those_of_the_layout() -> None:
    patterns = dict(zip(column("keys"), column("keys", 1), strict=True))
    assert patterns == {
        "segment": pattern(layout._SEGMENT),
        "manifest": pattern(layout._MANIFEST),
        "claim": pattern(layout._CLAIM),
        "claim of a model": pattern(layout._MODEL_CLAIM),
        "claim of a version": pattern(layout._VERSION_CLAIM),
        "table file": pattern(layout._TABLE_FILE),
    }


@pytest.mark.parametrize(
    ("table", "claim"),
    [("model-claim", model_claims.ModelClaim), ("version-claim", model_claims.VersionClaim)],
)
def test_fields_of_claims_of_models_are_the_codes(table: str, claim: type[Any]) -> None:
    assert column(table) == ["format", *(field.name for field in fields(claim))]


def test_names_hash_to_the_vectors() -> None:
    assert TABLES["names"] == [
        [name, ids.name_hash(name), ids.derived_experiment_id(name)] for name in column("names")
    ]


def test_ids_are_the_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: bytes(range(size)))
    moment = 1_767_225_600_000_000
    made = {"run": ids.new_run_id(moment), "writer": ids.new_writer_id(moment)}
    assert dict(zip(column("ids"), column("ids", 1), strict=True)) == made


def test_columns_of_a_segment_are_the_schemas() -> None:
    assert [(row[0], row[1]) for row in TABLES["columns"]] == list(schema.SEGMENT_COLUMNS)


def test_encodings_are_those_of_a_written_segment() -> None:
    found = pq.read_metadata(next(LAKE.glob("log/experiment_id=0/*")))
    group = found.row_group(0)
    for place, (name, said) in enumerate(zip(column("columns"), column("columns", 2), strict=True)):
        chunk = group.column(place)
        wanted = {"dictionary": "RLE_DICTIONARY", "plain": "PLAIN"}.get(said, said)
        assert chunk.path_in_schema == name
        assert wanted in chunk.encodings
        assert (wanted == "RLE_DICTIONARY") == chunk.has_dictionary_page
        assert chunk.compression == "ZSTD"


def test_kinds_are_the_schemas() -> None:
    assert set(column("kinds")) == KINDS


@pytest.mark.parametrize("row", TABLES["kinds"], ids=column("kinds"))
def test_rule_of_a_kind_is_the_states(row: list[str]) -> None:
    kind, rule = row[0], row[5]
    if kind in state.FACT_KINDS:
        assert state.earliest_stands(kind, "any") == rule.startswith("earliest")
    assert not state.earliest_stands(schema.RUN, schema.RUN_NAME)


def test_attributes_of_a_run_are_the_schemas() -> None:
    known = {value for name, value in vars(schema).items() if name.startswith("RUN_")}
    assert set(column("attributes")) == known


def test_statuses_are_the_schemas() -> None:
    assert tuple(column("statuses")) == schema.STATUSES
    assert {row[0] for row in TABLES["statuses"] if row[1].startswith("open")} == schema.OPEN


def test_footer_keys_are_those_of_a_written_segment() -> None:
    found = pq.read_metadata(next(LAKE.glob("log/experiment_id=0/*"))).metadata
    assert {key.encode() for key in column("footer-keys")} == set(found or {})


def test_header_fields_are_the_codes() -> None:
    assert column("header") == [field.name for field in fields(segments.Header)]


@pytest.mark.parametrize(
    ("table", "known"),
    [("facts", state.FACT_COLUMNS), ("summaries", state.SUMMARY_COLUMNS)],
    ids=["facts", "summaries"],
)
def test_columns_of_the_state_are_the_codes(table: str, known: tuple[tuple[str, str], ...]) -> None:
    assert [(row[0], row[1]) for row in TABLES[table]] == list(known)


def test_tables_are_the_codes() -> None:
    assert [(row[0], row[2].replace("`", ""), int(row[3])) for row in TABLES["tables"]] == [
        (table.name, ", ".join(table.order), table.group_rows)
        for table in table_files.TABLES.values()
    ]


@pytest.mark.parametrize("name", ["metrics", "events", "writers"])
def test_columns_of_a_table_are_the_codes(name: str) -> None:
    said = [tuple(row[:3]) for row in TABLES[f"columns-{name}"]]
    assert said == list(table_files.TABLES[name].columns)


@pytest.mark.parametrize("name", ["facts", "summaries"])
def test_columns_of_a_tables_state_are_those_of_the_state(name: str) -> None:
    encodings = {"VARCHAR": "dictionary", "BIGINT": "DELTA_BINARY_PACKED"}
    columns = table_files.TABLES[name].columns
    assert [each.name for each in columns] == ["writer", *column(name)]
    for each in columns:
        assert each.encoding == encodings.get(each.type, "BYTE_STREAM_SPLIT")


def test_numbers_about_tables_in_the_text_are_the_codes() -> None:
    text = " ".join(spec.text().split())
    for words in (
        f"of {table_files.METRICS.group_rows // table_writer.LONG_SHARE:,} rows or more",
        f"its `str` has {table_writer.GROUP_TEXT_BYTES:,} bytes",
        f"both have less than {table_writer.FEW_ROWS:,} rows",
        f"once it has {table_writer.FILE_BYTES:,} bytes",
        f"at {table_writer.MOST_FILE_BYTES:,} bytes anywhere",
        f"until it is {ripe.QUIET_S} s old",
        f"unless it has {ripe.SEALED_BYTES:,} bytes",
        f"The *grace* is {GRACE_S:,.0f} s",
        f"if {vacuum.KEPT_MANIFESTS} are newer",
    ):
        assert words in text


def test_fields_of_json_objects_are_the_codes() -> None:
    file = manifest.TableFile("p", 1, 1, "e", "a", "b")
    written = json.loads(manifest.encode(manifest.Manifest(lake="x", tables={"runs": (file,)})))
    claim = names.Claim(name="n", experiment_id="e", time_us=1, user="u", tags={}, nonce="x")
    assert column("manifest") == list(written)
    assert column("table-file") == list(written["tables"]["runs"][0])
    header = table_files.TableHeader(lake="l", table="t", experiment_id="e", n=1, commit="c")
    assert column("table-header") == list(json.loads(header.encode()))
    assert column("claim") == list(json.loads(names.encode(claim)))
    (read,) = input_rows("run", Dataset(name="n", digest="d"), None, tags={"a": "b"})
    assert column("input") == list(json.loads(str(read[4])))
    new = logged_models.NewModel(model_id="m-1", name="n", params={"p": "1"})
    made, stands, param = logged_models.creation_rows(new)
    assert column("model") == list(json.loads(str(made[4])))
    assert list(json.loads(str(stands[4]))) == ["status", "message"]
    assert param[2] == "m-1/p"
    point = logged_models.MeasuredModel(
        model_id="m-1", key="k", value=1.0, step=0, time_us=1, dataset=("d", "e")
    )
    (measured,) = logged_models.metric_rows("run", [point])
    said = [field for row in column("model-metric") for field in row.split("`, `")]
    assert said == list(json.loads(str(measured[4])))


def test_fields_of_the_lake_file_are_the_codes(tmp_path: Path) -> None:
    Storage(LocalFilesystem(tmp_path / "lake"), Settings()).ensure_lake()
    written = json.loads((tmp_path / "lake" / layout.LAKE_FILE).read_text())
    assert column("lake-file") == list(written)


def test_constants_are_the_codes() -> None:
    assert {row[0]: float(row[1]) for row in TABLES["constants"]} == CONSTANTS


def test_numbers_in_the_text_are_the_constants() -> None:
    text = spec.text()
    for words in (
        f"{writer.SEAL_BYTES:,}\n   bytes, or after {writer.SEAL_UPLOADS} uploads",
        f"at most {writer.MAX_SEGMENT_ROWS:,} rows",
        f"below {writer.SMALL_BYTES:,} bytes",
        f"up to {writer._MERGED_BYTES:,} bytes and {writer.MAX_SEGMENT_ROWS:,} rows",
        f"exceeds {writer.STATE_LIMIT_BYTES:,} bytes",
        f"Keys are 1 to {schema.KEY_LIMIT_CHARS} printable characters",
        f"registered models are 1 to {schema.NAME_LIMIT_CHARS} printable characters",
        f"at most {schema.TEXT_LIMIT_BYTES:,} bytes",
        f"up to {snapshot.LISTINGS_AGAIN}\n   times",
        f"pages of {pages.PAGE_BYTES:,} bytes",
        f"A point is {records.RECORD_BYTES} bytes",
    ):
        assert words in text


def test_digest_is_the_vector() -> None:
    def read(text: str, kind: str) -> Any:  # noqa: ANN401 - a cell of any type
        if text == "null":
            return None
        return float(text) if kind == "DOUBLE" else text if kind == "VARCHAR" else int(text)

    rows = [
        {
            name: read(cell, kind)
            for (name, kind), cell in zip(schema.SEGMENT_COLUMNS, row, strict=True)
        }
        for row in TABLES[ROWS_OF_VECTOR]
    ]
    table = pa.Table.from_pylist(rows, schema=segments.segment_schema())
    assert f"have the digest `{segments.digest(table)}`" in spec.text()


def test_sections_that_the_code_names_are_there() -> None:
    headings = set(re.findall(r"^#+ (.+)$", spec.text(), flags=re.MULTILINE))
    reference = re.compile(r"docs/spec/v1\.md`?,\s+\"([^\"]+)\"")
    named = {
        " ".join(section.split())
        for file in sources()
        for section in reference.findall(file.read_text("utf-8"))
    }
    assert named
    assert named - headings == set()


def test_statements_give_the_results_printed_below_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = tmp_path / "lake"
    shutil.copytree(LAKE, lake)
    age(lake)
    monkeypatch.chdir(lake)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for statement in spec.statements():
            if statement.result is None:
                spec.run_blocks(connection, [statement.sql])
            else:
                assert spec.shown(connection, statement.sql) == statement.result


def test_listing_and_files_of_the_example_are_the_lakes() -> None:
    text = spec.text()
    objects = sorted(file for file in LAKE.rglob("*.*") if file.is_file())
    listing = [f"{file.stat().st_size:6d} {file.relative_to(LAKE).as_posix()}" for file in objects]
    assert "```text\n" + "\n".join(listing) + "\n```" in text
    assert (LAKE / layout.LAKE_FILE).read_text() in text
    newest = max(LAKE.glob("log/experiment_id=0/01KDVDMW000000000000000004.*"))
    metadata = pq.read_metadata(newest).metadata or {}
    header = json.loads(metadata[schema.FOOTER_KEY])
    assert json.dumps(header, indent=2) in text
