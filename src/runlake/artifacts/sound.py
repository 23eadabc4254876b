"""Sounds: samples as WAV, and files of sound as they are."""

from __future__ import annotations

import io
import operator
import os
import wave
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from runlake import arguments, given
from runlake._lazy import lazy
from runlake.artifacts.media import AUDIO, Medium
from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

_LOUDEST: Final = 32767
_RATES: Final = range(1, 1 << 22)
_STEREO: Final = 2
_BEGINNING_BYTES: Final = 16
_MAGIC: Final = ((b"fLaC", ".flac"), (b"OggS", ".ogg"), (b"ID3", ".mp3"))
_MPEG: Final = frozenset({b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"})


def sound(audio: object, suffix: str = "", *, rate: object = None) -> Medium:
    """Return a sound as a file.

    Args:
        audio: samples: floats from -1 to 1 or 16-bit whole numbers, shape (n,), (n, 1) or
            (n, 2); or the path or bytes of a WAV, FLAC, Ogg or MP3 file, kept as they are.
        suffix: of the file; empty means `.wav`, or what the bytes are.
        rate: samples per second; needed with samples.

    Returns:
        The sound, with `rate`, `channels` and `seconds` where they are known.

    Raises:
        InvalidInputError: it is none of these, or the samples are out of range.
    """
    if isinstance(audio, (str, os.PathLike)):
        return _of_file(Path(audio), suffix)
    if isinstance(audio, (bytes, bytearray, memoryview)):
        data = bytes(audio)
        found = _form(data, suffix)
        return Medium(AUDIO, data, suffix or found, _heard(io.BytesIO(data), found))
    samples = given.array(audio)
    if samples is None:
        raise InvalidInputError(
            "a sound is an array of samples, or the path or bytes of a file, got "
            f"{arguments.kind(audio)}."
        )
    if suffix not in {"", ".wav"}:
        raise InvalidInputError(f"samples are written as .wav, not as {suffix}.")
    try:
        per_second = operator.index(rate)  # type: ignore[arg-type]
    except TypeError:
        per_second = 0
    if per_second not in _RATES:
        raise InvalidInputError(f"rate is the number of samples per second, got {rate!r}.")
    levels = _levels(samples)
    count, channels = levels.shape
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(channels)
        written.setsampwidth(2)
        written.setframerate(per_second)
        written.writeframes(levels.astype("<i2").tobytes())
    details = {"rate": per_second, "channels": channels, "seconds": count / per_second}
    return Medium(AUDIO, file.getvalue(), ".wav", details)


def _levels(samples: NDArray[Any]) -> NDArray[np.int16]:
    """Return samples as 16-bit numbers, shape (n, channels)."""
    shape = samples.shape
    table = samples[:, None] if samples.ndim == 1 else samples
    if table.ndim != 2 or not 1 <= table.shape[1] <= _STEREO or not table.shape[0]:  # noqa: PLR2004 - n x channels
        hint = ""
        if samples.ndim == 2 and shape[0] in {1, _STEREO}:  # noqa: PLR2004 - as above
            hint = " Channels come last: samples.T."
        raise InvalidInputError(
            f"samples have the shape (n,), (n, 1) or (n, 2), got {shape}.{hint}"
        )
    if table.dtype == np.int16:
        return table
    if table.dtype.kind != "f":
        raise InvalidInputError(
            f"samples are floats from -1 to 1 or int16, got an array of {table.dtype}."
        )
    low, high = table.min(), table.max()
    if not (low >= -1 and high <= 1):
        found = "NaN" if low != low else f"{low} to {high}"  # noqa: PLR0124 - NaN is not itself
        raise InvalidInputError(
            f"floats of a sound are -1 to 1, got {found}. Scale it: audio / abs(audio).max()."
        )
    return np.rint(table.astype(np.float64) * _LOUDEST).astype(np.int16)


def _of_file(path: Path, suffix: str) -> Medium:
    """Return a local file, which may be long, by how it begins."""
    try:
        with path.open("rb") as opened:
            found = _form(opened.read(_BEGINNING_BYTES), suffix)
            opened.seek(0)
            details = _heard(opened, found)
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        message = f"no sound {str(path)[:200]!r} can be read: {error}"
        raise InvalidInputError(message) from error
    return Medium(AUDIO, b"", suffix or found, details, path)


def _form(data: bytes, suffix: str) -> str:
    """Return the suffix for a file that begins so, once it is clear what it is."""
    found = ".wav" if data.startswith(b"RIFF") and data[8:12] == b"WAVE" else None
    for magic, name in _MAGIC:
        if data.startswith(magic):
            found = name
    if data[:2] in _MPEG:
        found = ".mp3"
    if found is None:
        raise InvalidInputError("these bytes are no WAV, FLAC, Ogg or MP3 file.")
    if suffix and suffix != found and {suffix, found} != {".ogg", ".opus"}:
        raise InvalidInputError(f"the sound is a {found} and cannot be kept as {suffix}.")
    return found


def _heard(file: IO[bytes], suffix: str) -> dict[str, object]:
    """Return what the header of a WAV says; Python reads whole numbers only."""
    if suffix != ".wav":
        return {}
    try:
        with wave.open(file) as read:
            rate = read.getframerate()
            return {
                "rate": rate,
                "channels": read.getnchannels(),
                "seconds": read.getnframes() / rate,
            }
    except (wave.Error, EOFError, ZeroDivisionError):
        return {}
