"""Images: whatever people have, as the bytes of a PNG or of the file that they gave.

Arrays become PNG by themselves; Pillow is needed for other formats only. What an array's numbers
mean is never guessed: floats are 0 to 1, whole numbers 0 to 255, anything else is refused.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runlake import arguments, given
from runlake._lazy import lazy, need
from runlake.artifacts.media import IMAGE, Medium
from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_CHANNELS: Final = {1: 0, 3: 2, 4: 6}  # PNG's colour type of each
_LIGHTEST: Final = 255
_LEVEL: Final = 4  # of zlib: half the time of 6, and a few per cent more bytes
# JPEG's marks of a frame, for each way of coding; C4, C8 and CC are tables.
_FRAMES: Final = frozenset(range(0xFFC0, 0xFFD0)) - {0xFFC4, 0xFFC8, 0xFFCC}
_PLAIN_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_CLEAR_MODES: Final = {"PA": "RGBA", "RGBa": "RGBA"}  # they say how opaque a pixel is
_NUMBER_MODES: Final = frozenset({"I", "F"})  # any number: a range must be checked
_SHAPES: Final = "HxW, HxWx1 (grey), HxWx3 (RGB) or HxWx4 (RGBA)"


def picture(image: object, suffix: str = "") -> Medium:
    """Return an image as a file.

    Args:
        image: a PIL image, an array, or the path or the bytes of a PNG, JPEG, GIF or WebP,
            which are kept as they are.
        suffix: of the file, as `.jpg`; empty means PNG, or what the bytes are.

    Returns:
        The image, with `width` and `height` in pixels where they are known.

    Raises:
        InvalidInputError: it is no image, or its numbers are out of range.
        MissingDependencyError: the format needs Pillow, which is not installed.
    """
    if callable(getattr(image, "to_pil", None)):
        image = image.to_pil()  # type: ignore[attr-defined] # MLflow's Image
    if isinstance(image, (str, os.PathLike)):
        image = _read(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _given(bytes(image), suffix)
    if hasattr(image, "mode") and callable(getattr(image, "save", None)):
        if image.mode in _NUMBER_MODES:
            return from_array(np.asarray(image), suffix)
        return _saved(image, suffix)
    pixels = given.array(image)
    if pixels is None:
        raise InvalidInputError(
            f"an image is a PIL image, an array, or the path or bytes of one, got "
            f"{arguments.kind(image)}."
        )
    return from_array(pixels, suffix)


def from_array(pixels: NDArray[Any], suffix: str = "") -> Medium:
    """Return an array as an image file.

    Args:
        pixels: shape HxW, HxWx1 (grey), HxWx3 (RGB) or HxWx4 (RGBA); bool, whole numbers
            from 0 to 255, or floats from 0 to 1.
        suffix: of the file; empty means `.png`.

    Raises:
        InvalidInputError: the shape, the type or the range is another.
        MissingDependencyError: the format needs Pillow, which is not installed.
    """
    levels = _levels(pixels)
    if suffix not in {"", ".png"}:
        flat = levels[:, :, 0] if levels.shape[2] == 1 else levels
        return _saved(need("PIL.Image", extra="media").fromarray(flat), suffix)
    height, width, _ = levels.shape
    return Medium(IMAGE, png(levels), ".png", {"width": width, "height": height})


def png(levels: NDArray[np.uint8]) -> bytes:
    """Return levels as a PNG file.

    Each row is written as it is, or as its difference to the left or to the row above,
    whichever is nearest to zero.

    Args:
        levels: shape (height, width, 1, 3 or 4).

    Source:
        W3C, "Portable Network Graphics (PNG) Specification", sections 9 and 11.
    """
    height, width, channels = levels.shape
    rows = levels.reshape(height, width * channels)
    left, above = rows.copy(), rows.copy()
    left[:, channels:] -= rows[:, :-channels]
    above[1:] -= rows[:-1]
    ways = (rows, left, above)
    sizes = [np.abs(way.view(np.int8).astype(np.int16)).sum(axis=1) for way in ways]
    best = np.argmin(sizes, axis=0).astype(np.uint8)
    lines = np.empty((height, 1 + width * channels), np.uint8)
    lines[:, 0] = best
    for way, filtered in enumerate(ways):
        lines[best == way, 1:] = filtered[best == way]
    header = struct.pack(">IIBBBBB", width, height, 8, _CHANNELS[channels], 0, 0, 0)
    body = zlib.compress(lines.tobytes(), _LEVEL)
    chunks = (b"IHDR", header), (b"IDAT", body), (b"IEND", b"")
    return _PNG + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _levels(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return pixels as whole numbers from 0 to 255, shape (height, width, channels)."""
    shape = pixels.shape
    cube = pixels[:, :, None] if pixels.ndim == 2 else pixels  # noqa: PLR2004 - HxW
    if cube.ndim != 3 or cube.shape[2] not in _CHANNELS or 0 in shape:  # noqa: PLR2004 - HxWxC
        hint = ""
        if pixels.ndim == 3 and shape[0] in _CHANNELS:  # noqa: PLR2004 - CxHxW
            hint = " If it is CxHxW, as torch's are, turn it: image.transpose(1, 2, 0)."
        raise InvalidInputError(f"an image has the shape {_SHAPES}, got {shape}.{hint}")
    kind = cube.dtype.kind
    if kind == "b":
        return cube.astype(np.uint8) * np.uint8(_LIGHTEST)
    if kind not in "uif":
        raise InvalidInputError(
            f"an image is of bool, whole numbers or floats, got an array of {cube.dtype}."
        )
    lightest = 1.0 if kind == "f" else _LIGHTEST
    low, high = cube.min(), cube.max()
    if not (low >= 0 and high <= lightest):
        what = "floats of an image are 0 to 1" if kind == "f" else "integers of one are 0 to 255"
        found = "NaN" if low != low else f"{low} to {high}"  # noqa: PLR0124 - NaN is not itself
        raise InvalidInputError(
            f"{what}, got {found} in an array of {cube.dtype}. Scale it first, as in "
            "(image - image.min()) / (image.max() - image.min())."
        )
    if kind == "f":
        cube = np.rint(cube.astype(np.float32) * _LIGHTEST)
    return cube.astype(np.uint8)


def _saved(image: Any, suffix: str) -> Medium:  # noqa: ANN401 - Pillow is optional
    """Return a PIL image as a file of the format that the suffix names."""
    formats = need("PIL.Image", extra="media").registered_extensions()
    suffix = suffix or ".png"
    if suffix not in formats:
        raise InvalidInputError(
            f"no image format is called {suffix!r}; write .png, or another that Pillow knows."
        )
    file = io.BytesIO()
    try:
        if suffix == ".png" and image.mode not in _PLAIN_MODES:
            image = image.convert(_CLEAR_MODES.get(image.mode, "RGB"))
        image.save(file, format=formats[suffix])
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInputError(
            f"an image of mode {image.mode} cannot be written as {suffix}: {error}. Convert it "
            "(image.convert('RGB')), or write .png."
        ) from error
    width, height = image.size
    return Medium(IMAGE, file.getvalue(), suffix, {"width": width, "height": height})


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        message = f"no image {str(path)[:200]!r} can be read: {error}"
        raise InvalidInputError(message) from error


def _given(data: bytes, suffix: str) -> Medium:
    """Return a file's bytes as they are, once it is clear what they are."""
    found = {
        data.startswith(_PNG): ".png",
        data.startswith(b"\xff\xd8\xff"): ".jpg",
        data.startswith((b"GIF87a", b"GIF89a")): ".gif",
        data.startswith(b"RIFF") and data[8:12] == b"WEBP": ".webp",
    }.get(True)
    if found is None:
        raise InvalidInputError("these bytes are no PNG, JPEG, GIF or WebP image.")
    if suffix and suffix.replace("jpeg", "jpg") != found:
        raise InvalidInputError(f"the image is a {found} and cannot be kept as {suffix}.")
    size = _size(data, found)
    details = {} if size is None else {"width": size[0], "height": size[1]}
    return Medium(IMAGE, data, found, details)


def _size(data: bytes, suffix: str) -> tuple[int, int] | None:
    """Return width and height as a file's header has them, None where it does not say."""
    try:
        if suffix == ".png":
            return struct.unpack_from(">II", data, 16)
        if suffix == ".gif":
            return struct.unpack_from("<HH", data, 6)
        if suffix == ".jpg":
            return next(_frames(data), None)
    except struct.error:
        pass
    return None


def _frames(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield width and height of the frames of a JPEG."""
    at = 2
    while at < len(data):
        mark, length = struct.unpack_from(">HH", data, at)
        if mark in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            yield width, height
        at += 2 + length
