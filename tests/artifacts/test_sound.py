"""Sounds: samples come back as they were, to a bit of sixteen."""

from __future__ import annotations

import io
import wave
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runlake.artifacts.sound import sound
from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPES = st.integers(1, 50).flatmap(lambda n: st.sampled_from([(n,), (n, 1), (n, 2)]))


def heard(data: bytes) -> tuple[int, NDArray[np.int16]]:
    """Return rate and samples of a WAV."""
    with wave.open(io.BytesIO(data)) as read:
        frames = np.frombuffer(read.readframes(read.getnframes()), "<i2")
        return read.getframerate(), frames.reshape(-1, read.getnchannels())


@given(
    samples=SHAPES.flatmap(lambda shape: arrays.arrays(np.int16, shape)),
    rate=st.integers(1, 192_000),
)
def test_sixteen_bits_come_back_as_they_are(samples: NDArray[np.int16], rate: int) -> None:
    medium = sound(samples, rate=rate)
    found_rate, found = heard(medium.data)
    assert found_rate == rate
    assert found.tolist() == samples.reshape(len(samples), -1).tolist()
    channels = found.shape[1]
    assert medium.details == {"rate": rate, "channels": channels, "seconds": len(samples) / rate}


@given(
    samples=SHAPES.flatmap(
        lambda shape: arrays.arrays(np.float64, shape, elements=st.floats(-1, 1))
    )
)
def test_floats_come_back_to_half_a_level(samples: NDArray[Any]) -> None:
    _, found = heard(sound(samples, rate=8000).data)
    assert np.abs(found / 32767 - samples.reshape(len(samples), -1)).max() <= 0.51 / 32767


REFUSED: list[tuple[object, object, str]] = [
    (np.array([1.5, 0.0]), 8000, r"-1 to 1, got 0\.0 to 1\.5"),
    (np.array([np.nan]), 8000, "got NaN"),
    (np.array([1, 2], np.int32), 8000, "got an array of int32"),
    (np.zeros((2, 500)), 8000, r"samples\.T"),
    (np.zeros((5, 3)), 8000, r"got \(5, 3\)\.$"),
    (np.zeros(0), 8000, r"got \(0,\)"),
    (np.zeros(5), None, "rate is the number of samples per second, got None"),
    (np.zeros(5), 0, "got 0"),
    (np.zeros(5), 44.1, "got 44.1"),
    ([0.0], 8000, "got a list"),
    (b"hello", None, "no WAV"),
    ("no/such.wav", None, "no sound 'no/such.wav'"),
]


@pytest.mark.parametrize(("audio", "rate", "message"), REFUSED)
def test_what_is_no_sound_is_refused(audio: object, rate: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        sound(audio, rate=rate)


def test_samples_go_into_wav_only() -> None:
    with pytest.raises(InvalidInputError, match=r"written as \.wav, not as \.mp3"):
        sound(np.zeros(5), ".mp3", rate=8000)


def test_files_are_kept_and_a_wav_says_what_it_is(tmp_path: Path) -> None:
    data = sound(np.zeros((16, 2)), rate=8).data
    (tmp_path / "a.wav").write_bytes(data)
    medium = sound(tmp_path / "a.wav")
    assert (medium.data, medium.file) == (b"", tmp_path / "a.wav")
    assert sound(data).data == data
    assert sound(data).details == medium.details
    assert medium.details == {"rate": 8, "channels": 2, "seconds": 2.0}
    assert sound(data[:20]).details == {}


@pytest.mark.parametrize(
    ("data", "suffix"),
    [(b"fLaC...", ".flac"), (b"OggS...", ".ogg"), (b"ID3....", ".mp3"), (b"\xff\xfb..", ".mp3")],
)
def test_files_are_known_by_how_they_begin(data: bytes, suffix: str) -> None:
    assert sound(data).suffix == suffix
    with pytest.raises(InvalidInputError, match=r"cannot be kept as \.wav"):
        sound(data, ".wav")


def test_ogg_may_be_called_opus() -> None:
    assert sound(b"OggS", ".opus").suffix == ".opus"
