"""Messages come out as they went in, and what is no message is refused."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.importers.wire import Message, WireError
from tests.importers.wired import field, varint

_fields = st.lists(
    st.tuples(
        st.integers(1, 2**20),
        st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.binary(max_size=300),
    ),
    max_size=12,
)


@given(_fields)
def test_messages_of_random_fields_come_out_as_they_went_in(
    given_fields: list[tuple[int, float | bytes]],
) -> None:
    read = Message(b"".join(field(number, value) for number, value in given_fields))
    last = dict(given_fields)
    for number, value in last.items():
        assert number in read
        if isinstance(value, int):
            assert read.whole(number) == value
        elif isinstance(value, float):
            assert read.double(number) == value
        else:
            assert read.raw(number) == value


@given(st.binary(max_size=60))
def test_random_bytes_are_a_message_or_refused(data: bytes) -> None:
    with contextlib.suppress(WireError):
        read = Message(data)
        for number in range(1, 20):
            with contextlib.suppress(WireError):
                read.doubles(number)
            read.wholes(number)


@pytest.mark.parametrize("number", [0, 1, -1, 63, -64, 2**63 - 1, -(2**63)])
def test_zigzag_numbers_keep_their_sign(number: int) -> None:
    coded = (number << 1) ^ (number >> 63)
    assert Message(varint(8) + varint(coded)).zigzag(1) == number


def test_packed_numbers_are_read_as_repeated_ones_are() -> None:
    packed = Message(field(1, struct.pack("<2d", 1.5, -2.0)) + field(2, varint(3) + varint(-4)))
    loose = Message(field(1, 1.5) + field(1, -2.0) + field(2, 3) + field(2, -4))
    assert packed.doubles(1) == loose.doubles(1) == [1.5, -2.0]
    assert packed.wholes(2) == loose.wholes(2) == [3, -4]


@pytest.mark.parametrize(
    "data", [b"\x08", b"\x0a\x05ab", b"\x0b", b"\x08" + b"\xff" * 11, b"\x00\x00", b"\x09ab"]
)
def test_what_ends_too_early_or_is_of_no_kind_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        Message(data)
