from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.errors import InvalidInputError
from runlake.registry import uris
from runlake.registry.uris import ModelUri, RunUri

names = st.text(st.characters(exclude_characters="/:", exclude_categories=["Cc", "Cs"]), min_size=1)


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("models:/digits/3", ModelUri("digits", version=3)),
        ("models:/digits@champion", ModelUri("digits", alias="champion")),
        ("models:/digits/production", ModelUri("digits", stage="Production")),
        ("models:/digits/None", ModelUri("digits", stage="None")),
        ("models:/digits/Latest", ModelUri("digits", is_latest=True)),
        ("models:/a b@c@champion", ModelUri("a b@c", alias="champion")),
        ("models:/a%40b@champion", ModelUri("a@b", alias="champion")),
        ("models:/100%/1", ModelUri("100%", version=1)),
    ],
)
def test_address_of_a_model_says_what_it_says(uri: str, wanted: ModelUri) -> None:
    assert uris.parse_model_uri(uri) == wanted


@pytest.mark.parametrize(
    "uri",
    [
        "models:/",
        "models:/digits",
        "models:digits/1",
        "models://host/digits/1",
        "models:/digits/1/2",
        "models:/digits@",
        "models:/@champion",
        "models:/digits/old",
        "runs:/1/model",
        "digits",
        "",
    ],
)
def test_what_is_no_address_of_a_model_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInputError):
        uris.parse_model_uri(uri)


@given(name=names, version=st.integers(0, 10**9))
def test_address_leads_to_what_it_was_made_of(name: str, version: int) -> None:
    assert uris.parse_model_uri(uris.model_uri(name)) == ModelUri(name, is_latest=True)
    assert uris.parse_model_uri(uris.model_uri(name, version=version)).version == version
    found = uris.parse_model_uri(uris.model_uri(name, alias="best"))
    assert found == ModelUri(name, alias="best")


def test_address_of_files_of_a_run_says_run_and_path() -> None:
    assert uris.parse_run_uri("runs:/abc/model/deep/") == RunUri("abc", "model/deep")
    assert uris.parse_run_uri("runs:/abc") == RunUri("abc", "")
    assert uris.run_uri("abc", "100%/x") == "runs:/abc/100%/x"
    for uri in ("runs:/", "runs:abc/x", "run:/abc", "models:/a/1"):
        with pytest.raises(InvalidInputError):
            uris.parse_run_uri(uri)
