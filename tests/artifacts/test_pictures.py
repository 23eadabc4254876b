"""Images: what goes in comes out, pixel by pixel, and what is no image is refused."""

from __future__ import annotations

import io
import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from runlake.artifacts.pictures import picture
from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: st.sampled_from([size, (*size, 1), (*size, 3), (*size, 4)])
)


class Tensor:
    """What torch's tensors can do, with gradients, on another device."""

    def __init__(self, values: NDArray[Any], *, is_bfloat: bool = False) -> None:
        """Hold values; NumPy has no bfloat16."""
        self.values = values
        self.is_bfloat = is_bfloat

    def detach(self) -> Tensor:
        """Be without gradients."""
        return self

    def cpu(self) -> Tensor:
        """Be in memory."""
        return self

    def float(self) -> Tensor:
        """Be of 32 bits."""
        return Tensor(self.values.astype(np.float32))

    def numpy(self) -> NDArray[Any]:
        """Turn into NumPy."""
        if self.is_bfloat:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values


def pixels(data: bytes) -> NDArray[Any]:
    """Return what Pillow reads."""
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        return np.asarray(opened)


def encoded(form: str) -> bytes:
    """Return an image of 7 x 5 as a file."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(file, format=form)
    return file.getvalue()


@given(image=SHAPES.flatmap(lambda shape: arrays.arrays(np.uint8, shape)))
def test_a_png_of_an_array_holds_its_pixels(image: NDArray[np.uint8]) -> None:
    medium = picture(image)
    found = pixels(medium.data)
    assert found.reshape(image.shape).tolist() == image.tolist()
    assert medium.details == {"width": image.shape[1], "height": image.shape[0]}


@given(
    image=SHAPES.flatmap(
        lambda shape: arrays.arrays(
            st.sampled_from([np.float16, np.float32, np.float64]),
            shape,
            elements=st.floats(0, 1, width=16),
        )
    )
)
def test_floats_from_0_to_1_become_the_nearest_of_256_levels(image: NDArray[Any]) -> None:
    found = pixels(picture(image).data).reshape(image.shape)
    assert np.abs(found / 255 - image.astype(np.float64)).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.uint16, np.int64])
def test_whole_numbers_of_any_width_are_levels(kind: type) -> None:
    image: NDArray[Any] = np.array([[0, 1], [99, 127]], kind)
    assert pixels(picture(image).data).tolist() == image.tolist()


def test_bools_are_black_and_white() -> None:
    assert pixels(picture(np.eye(2, dtype=bool)).data).tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize("is_bfloat", [False, True])
def test_a_tensor_is_an_array(is_bfloat: bool) -> None:  # noqa: FBT001 - a parameter of the test
    image = Tensor(np.full((2, 3), 1.0, np.float32), is_bfloat=is_bfloat)
    assert pixels(picture(image).data).tolist() == [[255] * 3] * 2


REFUSED: list[tuple[object, str]] = [
    (np.full((2, 2), 1.5), r"floats of an image are 0 to 1, got 1\.5 to 1\.5 in.*float64.*min"),
    (np.array([[-0.25, 1.0]]), r"got -0\.25 to 1\.0"),
    (np.array([[np.nan, 0.5]]), "got NaN"),
    (np.array([[0.0, np.inf]]), "got 0.0 to inf"),
    (np.array([[-1, 300]]), "integers of one are 0 to 255, got -1 to 300"),
    (np.zeros((3, 8, 8)), r"got \(3, 8, 8\).*transpose"),
    (np.zeros((8, 8, 2)), r"HxWx4 \(RGBA\), got \(8, 8, 2\)\.$"),
    (np.zeros(8), r"got \(8,\)"),
    (np.zeros((0, 8)), r"got \(0, 8\)"),
    (np.zeros((1, 8, 8, 3)), "got"),
    (np.array([["a"]]), "got an array of <U1"),
    (np.array([[1j]]), "complex128"),
    ([[0, 1]], "got a list"),
    (None, "got None"),
    (b"hello", "no PNG, JPEG"),
    ("no/such/file.png", "no image 'no/such/file.png' can be read"),
    ("x" * 5000, "can be read"),
]


@pytest.mark.parametrize(("image", "message"), REFUSED)
def test_what_is_no_image_is_refused_with_what_was_found(image: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        picture(image)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F"]
)
def test_a_pil_image_of_any_mode_becomes_a_png(mode: str) -> None:
    medium = picture(Image.new(mode, (7, 5)))
    assert (medium.suffix, medium.details) == (".png", {"width": 7, "height": 5})
    assert pixels(medium.data).shape[:2] == (5, 7)


def test_a_pil_image_of_numbers_is_held_to_their_range() -> None:
    with pytest.raises(InvalidInputError, match="got 300 to 300"):
        picture(Image.new("I", (7, 5), 300))


def test_mlflows_image_is_taken() -> None:
    image = SimpleNamespace(to_pil=lambda: Image.new("L", (7, 5)))
    assert picture(image).details == {"width": 7, "height": 5}


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".bmp", ".gif"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_the_suffix_says_the_format(suffix: str, shape: tuple[int, ...]) -> None:
    medium = picture(np.zeros(shape, np.uint8), suffix)
    with Image.open(io.BytesIO(medium.data)) as opened:
        assert opened.format is not None
        assert suffix in Image.registered_extensions()
        assert Image.registered_extensions()[suffix] == opened.format
        assert opened.size == (7, 5)


def test_a_format_that_cannot_hold_the_image_says_so() -> None:
    with pytest.raises(InvalidInputError, match=r"mode RGBA cannot be written as \.jpg.*convert"):
        picture(np.zeros((5, 7, 4)), ".jpg")
    with pytest.raises(InvalidInputError, match=r"no image format is called '\.docx'"):
        picture(np.zeros((5, 7)), ".docx")


@pytest.mark.parametrize(
    ("form", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("GIF", ".gif"), ("WEBP", ".webp")]
)
def test_a_file_is_kept_byte_by_byte_and_measured(form: str, suffix: str, tmp_path: Path) -> None:
    data = encoded(form)
    (tmp_path / "given").write_bytes(data)
    size = {} if form == "WEBP" else {"width": 7, "height": 5}
    for given_ in (data, bytearray(data), memoryview(data), tmp_path / "given"):
        medium = picture(given_)
        assert (medium.data, medium.suffix, medium.details) == (data, suffix, size)
    assert picture(str(tmp_path / "given"), suffix).data == data


def test_a_file_under_a_name_of_another_format_is_refused() -> None:
    assert picture(encoded("JPEG"), ".jpeg").suffix == ".jpg"
    with pytest.raises(InvalidInputError, match=r"is a \.jpg and cannot be kept as \.png"):
        picture(encoded("JPEG"), ".png")


@settings(max_examples=200)
@given(cut=st.integers(3, 400), form=st.sampled_from(["PNG", "JPEG", "GIF"]))
def test_a_header_that_is_cut_gives_no_size_and_no_crash(cut: int, form: str) -> None:
    data = encoded(form)[:cut]
    try:
        details = picture(data).details
    except InvalidInputError:
        return
    assert details in ({}, {"width": 7, "height": 5})


def test_a_jpeg_of_noise_does_not_run_for_ever() -> None:
    assert picture(b"\xff\xd8\xff" + struct.pack(">H", 0) * 1000).details in ({}, None)


@pytest.mark.parametrize("mode", ["PA", "RGBa"])
def test_an_image_that_is_clear_in_places_stays_so(mode: str) -> None:
    image = Image.new("RGBA", (1, 1), (255, 0, 0, 0)).convert(mode)
    found = Image.open(io.BytesIO(picture(image).data)).convert("RGBA")
    assert found.tobytes()[3] == 0


def test_an_image_of_a_mode_that_pillow_cannot_turn_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="of mode La cannot be written"):
        picture(Image.new("La", (2, 2)))
