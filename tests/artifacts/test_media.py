"""Where media lie: any key has a folder that every store takes, and steps sort."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runlake.artifacts.media import IMAGE, TABLE, Medium, Spot, check_one, folder_of, step_text
from runlake.artifacts.paths import check_path
from runlake.errors import InvalidInputError
from runlake.storage.filesystem import check_key

STEPS = st.integers(-(2**63), 2**63 - 1)
KEYS = st.text(min_size=1, max_size=250).filter(str.isprintable)


@given(steps=st.lists(STEPS, min_size=2))
def test_texts_of_steps_sort_as_the_steps(steps: list[int]) -> None:
    assert [int(step) for step in sorted(steps)] == sorted(steps, key=step_text)


@given(key=KEYS)
@example(key="../../etc/passwd")
@example(key="/a//b/")
@example(key=".")
@example(key=".tmp-1/x")
@example(key='a\\b:c*d?e"f<g>h|i#j%k')
@example(key="漢" * 250)
@example(key="a/" * 125)
@example(key="%/" * 125)
@example(key="end. ")
def test_every_key_has_a_folder_that_every_store_takes(key: str) -> None:
    path = Spot(None, key, 5).path(Medium(IMAGE, b"x", ".png"))
    assert check_path(path) == path
    assert check_key(path) == path
    parts = PurePosixPath(path).parts
    assert parts[0] == "images"
    assert len(parts) >= 3
    assert all(len(part.encode()) <= 255 for part in parts)
    assert not any(part.startswith(".") or part.endswith((".", " ")) for part in parts[:-1])
    assert not set('\\:*?"<>|#') & set(path)


@pytest.mark.parametrize("key", ["samples", "train/loss", "é à", "a-b_c.d", "(x) [y] {z} =+@!"])
def test_a_plain_key_is_its_own_folder(key: str) -> None:
    assert folder_of(key) == key


@given(one=KEYS, other=KEYS)
@example(one="a/b", other="a%2Fb")
@example(one="漢" * 249, other="漢" * 250)
def test_two_keys_never_share_a_folder(one: str, other: str) -> None:
    assert (folder_of(one) == folder_of(other)) == (one == other)


@given(steps=st.lists(STEPS, min_size=2, max_size=5, unique=True))
@example(steps=[-11, -9_000_000_000_000_000_001])
def test_paths_of_a_key_sort_by_step_and_never_repeat(steps: list[int]) -> None:
    medium = Medium(IMAGE, b"x", ".png")
    paths = {Spot(None, "k", step).path(medium): step for step in [*steps, *steps]}
    assert len(paths) == 2 * len(steps)
    assert [paths[path] for path in sorted(paths)] == sorted([*steps, *steps])


def test_an_event_says_what_a_medium_is() -> None:
    spot = Spot(None, "a/b", 3, time_us=7, caption="é")
    assert spot.about(Medium(IMAGE, b"x", ".png", {"width": 1})) == {
        "media": "image",
        "key": "a/b",
        "step": 3,
        "time_us": 7,
        "caption": "é",
        "media_type": "image/png",
        "width": 1,
    }
    assert Spot("p/q.JPG", None, None).about(Medium(IMAGE, b"x", ".jpg")) == {
        "media": "image",
        "key": "p/q.JPG",
        "step": None,
        "media_type": "image/jpeg",
    }


def test_parts_of_a_table_lie_below_its_path() -> None:
    spot, medium = Spot("t.json", None, 4), Medium(TABLE, b"x", ".parquet")
    assert PurePosixPath(spot.path(medium)).parent == PurePosixPath("t.json")
    assert spot.path(medium) != spot.path(medium)
    assert spot.about(medium)["media_type"] == "application/vnd.apache.parquet"


@pytest.mark.parametrize(("path", "key", "found"), [(None, None, "neither"), ("a", "b", "both")])
def test_a_medium_has_a_path_or_a_key(path: str | None, key: str | None, found: str) -> None:
    with pytest.raises(InvalidInputError, match=f"log_x takes a path .* got {found}"):
        check_one("log_x", path, key)
