"""Ids: their layout, their order, and the hashes that a lake's layout is built on."""

from __future__ import annotations

import re
import uuid

from hypothesis import given
from hypothesis import strategies as st

from runlake import ids

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

milliseconds = st.integers(0, 2**48 - 1)


@given(time_ms=milliseconds, rest_us=st.integers(0, 999))
def test_run_id_is_a_uuid_of_version_7_that_holds_its_millisecond(
    time_ms: int, rest_us: int
) -> None:
    run_id = ids.new_run_id(time_ms * 1000 + rest_us)
    parsed = uuid.UUID(hex=run_id)
    assert re.fullmatch("[0-9a-f]{32}", run_id)
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == time_ms


@given(time_ms=milliseconds)
def test_writer_id_is_a_ulid_that_holds_its_millisecond(time_ms: int) -> None:
    writer = ids.new_writer_id(time_ms * 1000)
    value = 0
    for character in writer:
        value = value * 32 + CROCKFORD.index(character)
    assert len(writer) == 26
    assert value >> 80 == time_ms


@given(times=st.lists(milliseconds, min_size=2, max_size=2, unique=True))
def test_ids_made_later_sort_later(times: list[int]) -> None:
    earlier, later = sorted(times)
    assert ids.new_run_id(earlier * 1000) < ids.new_run_id(later * 1000)
    assert ids.new_writer_id(earlier * 1000) < ids.new_writer_id(later * 1000)


def test_ids_made_at_one_instant_differ() -> None:
    assert len({ids.new_run_id(0) for _ in range(1000)}) == 1000
    assert len({ids.new_writer_id(0) for _ in range(1000)}) == 1000
    assert len({ids.random_experiment_id() for _ in range(1000)}) == 1000


def test_name_hash_is_the_same_for_ever() -> None:
    assert ids.name_hash("digits") == "jbx4jo4rh7k5rjkro55ukjiqur7tznal"
    assert ids.name_hash("größe/模型") == "fd6yg2rw34us7hpjypsjirr6frzc34qk"


def test_experiment_id_of_a_names_first_owner_is_the_same_everywhere() -> None:
    assert ids.derived_experiment_id("Default") == "0"
    assert ids.derived_experiment_id("digits") == "jbx4jo4rh7k5rjkro55u"


@given(name=st.text())
def test_derived_and_random_experiment_ids_look_alike(name: str) -> None:
    derived = ids.derived_experiment_id(name)
    assert derived == "0" or re.fullmatch("[a-z2-7]{20}", derived)
    assert re.fullmatch("[a-z2-7]{20}", ids.random_experiment_id())


def test_nonce_and_lake_id_are_lower_case_hex() -> None:
    assert re.fullmatch("[0-9a-f]{16}", ids.new_nonce())
    assert re.fullmatch("[0-9a-f]{32}", ids.new_lake_id())
    assert ids.new_nonce() != ids.new_nonce()


def test_jitter_stays_below_one() -> None:
    drawn = [ids.jitter() for _ in range(1000)]
    assert 0 <= min(drawn) < max(drawn) < 1
