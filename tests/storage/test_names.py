from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runlake import ids
from runlake.errors import FormatError, NewerFormatError
from runlake.storage import layout, names
from runlake.storage.names import Claim

if TYPE_CHECKING:
    from runlake.storage.filesystem import Filesystem

KEY = layout.claim(ids.name_hash("digits"), 1)


def claim(**changes: object) -> Claim:
    made = Claim(
        name="digits",
        experiment_id="id-1",
        time_us=5,
        user="ada",
        tags={"team": "vision"},
        nonce=ids.new_nonce(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # fields by name


def test_claim_comes_back_as_it_was_made(filesystem: Filesystem) -> None:
    wanted = claim(artifact_location="s3://other/place", user="ada ü")
    assert names.make_claim(filesystem, wanted)
    assert names.read_claim(filesystem, "digits") == wanted


def test_name_that_was_never_claimed_has_no_claim(filesystem: Filesystem) -> None:
    assert names.read_claim(filesystem, "digits") is None


def test_claim_made_by_many_at_once_is_won_by_one(filesystem: Filesystem) -> None:
    claims = [claim(experiment_id=f"id-{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda one: names.make_claim(filesystem, one), claims))
    assert won.count(True) == 1
    assert names.read_claim(filesystem, "digits") == claims[won.index(True)]


def test_highest_claim_rules(filesystem: Filesystem) -> None:
    for number in (1, 2, 10):
        assert names.make_claim(filesystem, claim(number=number, experiment_id=f"id-{number}"))
    found = names.read_claim(filesystem, "digits")
    assert found is not None
    assert (found.number, found.experiment_id) == (10, "id-10")


def test_claim_of_another_name_under_this_hash_is_refused(filesystem: Filesystem) -> None:
    filesystem.put(KEY, names.encode(claim(name="letters")))
    with pytest.raises(FormatError, match="claims the name 'letters', expected 'digits'"):
        names.read_claim(filesystem, "digits")


def test_damaged_claim_is_refused_by_name(filesystem: Filesystem) -> None:
    filesystem.put(KEY, b'{"format": 1}')
    with pytest.raises(FormatError, match=KEY):
        names.read_claim(filesystem, "digits")


def test_claim_of_a_newer_format_is_refused_with_the_way_out(filesystem: Filesystem) -> None:
    filesystem.put(KEY, b'{"format": 99}')
    with pytest.raises(NewerFormatError, match="pip install --upgrade runlake"):
        names.read_claim(filesystem, "digits")
