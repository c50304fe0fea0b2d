import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hiwl.model.pixels import MAX_BYTES, BadImageError, central, decode
from pictures import bomb, encode, noise, png


def test_the_centre_is_cropped_exactly() -> None:
    picture = noise(30, 41)
    assert np.array_equal(decode(encode(picture), 20, 20), picture[5:25, 10:30])


def test_smaller_sizes_average_over_areas() -> None:
    picture = noise(64, 64)
    wanted = picture.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(decode(encode(picture), 64, 16) - wanted).max() <= 1  # Pillow rounds once in each direction


@given(st.integers(8, 40), st.integers(8, 40), st.integers(1, 8), st.integers(1, 8))
def test_any_picture_that_is_large_enough_gives_the_asked_shape(h: int, w: int, crop: int, size: int) -> None:
    found = decode(encode(noise(h, w)), max(crop, size), size)
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8


def test_grey_and_transparent_pictures_count_as_rgb() -> None:
    assert decode(encode(noise(10, 10)[..., 0]), 10, 10).shape == (10, 10, 3)
    rgba = np.dstack([noise(10, 10), np.full((10, 10), 255, np.uint8)])
    assert np.array_equal(decode(encode(rgba), 10, 10), noise(10, 10))


def test_sixteen_bits_a_band_are_refused_and_not_cut_off() -> None:
    grey = encode(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160)
    colour = png(20, bits=16, rows=b"".join(bytes(1) + bytes(range(120)) for _ in range(20)))
    assert Image.open(io.BytesIO(colour)).convert("RGB").size == (20, 20)
    for picture in (grey, colour):
        with pytest.raises(BadImageError, match="16 bits a band"):
            decode(picture, 20, 20)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"hello", "neither a JPEG nor a PNG"),
        (encode(noise(20, 20), "GIF"), "neither a JPEG nor a PNG"),
        (encode(noise(64, 64), "JPEG")[:900], "truncated"),
        (encode(noise(64, 64))[:900], "truncated"),
        (encode(noise(16, 64)), "central 20 x 20"),
        (bomb(), "pixels"),
        (b"\xff\xd8\xff" + b"0" * MAX_BYTES, "bytes; at most"),
    ],
)
def test_a_bad_picture_is_told_so(content: bytes, said: str) -> None:
    with pytest.raises(BadImageError, match=said):
        decode(content, 20, 20)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    for start in (b"", b"\xff\xd8\xff\xe0", encode(noise(20, 20))[:40]):
        with pytest.raises(BadImageError):
            decode(start + content, 20, 20)


def test_an_array_is_cropped_and_averaged_as_its_file_is() -> None:
    picture = noise(50, 44)
    assert np.array_equal(central(picture, 40, 20), decode(encode(picture), 40, 20))
    for bad, said in ((picture[..., 0], "expected"), (picture.astype(float), "float64"), (picture[:9], "central 40")):
        with pytest.raises(BadImageError, match=said):
            central(bad, 40, 20)
