from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.errors import FormatError, NewerFormatError
from runlake.storage import manifest
from runlake.storage.manifest import Manifest, TableFile

_words = st.text(max_size=12)
_counts = st.integers(0, 2**53)
_files = st.builds(
    TableFile,
    path=_words,
    size_bytes=_counts,
    rows=_counts,
    experiment_id=_words,
    min_run=_words,
    max_run=_words,
)
_manifests = st.builds(
    Manifest,
    lake=_words,
    number=st.integers(1, 10**12 - 1),
    nonce=_words,
    parent=st.none() | _words,
    commit_us=_counts,
    tables=st.dictionaries(_words, st.lists(_files, max_size=3).map(tuple), max_size=3),
    consumed=st.dictionaries(_words, _counts, max_size=3),
    consumed_cold=st.lists(_words, max_size=2).map(tuple),
    cold_hi=_words,
    purged=st.frozensets(_words, max_size=3),
    copied=st.dictionaries(_words, st.dictionaries(_words, _counts, max_size=2), max_size=2),
)


def decode(data: bytes, *, number: int = 1, lake: str = "ours") -> Manifest:
    return manifest.decode(data, number=number, key="manifests/1.json", lake=lake, url="s3://lake")


@given(wanted=_manifests)
def test_manifest_comes_back_from_its_bytes_unchanged(wanted: Manifest) -> None:
    assert decode(manifest.encode(wanted), number=wanted.number, lake=wanted.lake) == wanted


def test_manifest_has_the_fields_of_the_specification() -> None:
    fields = json.loads(manifest.encode(Manifest(lake="ours", number=1)))
    assert list(fields) == [
        "format",
        "lake",
        "n",
        "nonce",
        "parent",
        "commit_ts",
        "tables",
        "consumed",
        "consumed_cold",
        "cold_hi",
        "purged",
        "copied",
    ]


def test_manifest_of_a_newer_format_is_refused_with_the_way_out() -> None:
    data = json.dumps({"format": 2, "anything": "else"}).encode()
    with pytest.raises(NewerFormatError, match="pip install --upgrade runlake"):
        decode(data)


def test_manifest_of_another_lake_raises_an_alarm() -> None:
    data = manifest.encode(Manifest(lake="theirs", number=1))
    with pytest.raises(
        FormatError, match=r"ALARM: .* belongs to lake theirs, but this lake is ours"
    ):
        decode(data)


def test_manifest_under_another_number_is_refused() -> None:
    data = manifest.encode(Manifest(lake="ours", number=2))
    with pytest.raises(FormatError, match="says it is manifest 2, its name says 1"):
        decode(data)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff", b'{"format": 1}', b'{"format": "x"}', b'{"format": 0}']
)
def test_damaged_manifest_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(FormatError, match="s3://lake/manifests/1"):
        decode(data)


def test_only_a_writer_that_is_not_above_all_cold_ones_may_be_cold() -> None:
    found = Manifest(lake="ours", consumed={"B": 3}, consumed_cold=("cold",), cold_hi="C")
    assert [found.may_be_cold(writer) for writer in "ABCD"] == [True, False, True, False]
    assert not Manifest(lake="ours", consumed={"B": 3}).may_be_cold("A")
