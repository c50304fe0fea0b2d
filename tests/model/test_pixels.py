import gzip
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hiwl.model.pixels import MAX_BYTES, BadImageError, PackParams, Pixels, central, decode
from hiwl.survey.sources import Simulated
from pictures import bomb, encode, fits, noise, png


def cut(content: bytes, crop: int, side: int, small: str = "scale") -> Pixels:
    return decode(content, PackParams.parse({"crop": crop, "side": side, "small": small})).pixels


def test_the_centre_is_cropped_exactly() -> None:
    picture = noise(30, 41)
    assert np.array_equal(cut(encode(picture), 20, 20), picture[5:25, 10:30])


def test_smaller_sizes_average_over_areas() -> None:
    picture = noise(64, 64)
    wanted = picture.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(cut(encode(picture), 64, 16) - wanted).max() <= 1  # Pillow rounds once in each direction


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.integers(1, 30))
def test_any_picture_gives_the_asked_shape(h: int, w: int, crop: int, size: int) -> None:
    found = cut(encode(noise(h, w)), max(crop, size), size)
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8


def test_grey_and_transparent_pictures_count_as_rgb() -> None:
    grey = noise(10, 10)[..., 0]
    assert np.array_equal(cut(encode(grey), 10, 10), np.dstack([grey] * 3))
    palette = io.BytesIO()
    Image.fromarray(grey).convert("P").save(palette, "PNG")
    assert np.array_equal(cut(palette.getvalue(), 10, 10), np.dstack([grey] * 3))
    alpha = np.full((10, 10), 255, np.uint8)
    alpha[:5] = 0
    wanted = noise(10, 10)
    wanted[:5] = 0
    assert np.array_equal(cut(encode(np.dstack([noise(10, 10), alpha])), 10, 10), wanted)


def test_sixteen_bits_a_band_are_cut_to_eight() -> None:
    values = np.arange(400, dtype=np.uint16).reshape(20, 20) * 160
    wanted = (values >> 8).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(cut(encode(values, kind), 20, 20), np.dstack([wanted] * 3))
    rows = b"".join(bytes(1) + bytes(range(120)) for _ in range(20))
    assert cut(png(20, bits=16, rows=rows), 20, 20)[0, 1].tolist() == [6, 8, 10]


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG"])
def test_other_formats_give_the_same_pixels(kind: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(noise(20, 20)).save(stream, kind, lossless=True)
    assert np.array_equal(cut(stream.getvalue(), 20, 20), noise(20, 20))


def test_a_picture_that_is_too_small_is_enlarged_or_gets_a_margin() -> None:
    picture = noise(10, 14)
    params = PackParams(crop=20, side=10)
    assert np.array_equal(decode(encode(picture), params).pixels, picture[:, 2:12])
    assert decode(encode(picture), params).warning == "14 x 10 pixels, smaller than 20 x 20: enlarged"
    padded = cut(encode(picture), 20, 20, "pad")
    assert np.array_equal(padded[5:15, 3:17], picture)
    assert not padded[:5].any() and not padded[:, :3].any()
    assert decode(encode(noise(20, 20)), params).warning == ""


def test_a_fits_picture_of_three_bands_or_one_looks_as_sdss_shows_it() -> None:
    from hiwl.survey.sources import simulated

    rng = simulated.galaxy_generator(Simulated(galaxies=1, seed=1, volunteers=40), 1)
    light = simulated.draw_light(simulated.draw_galaxy(rng), rng)
    wanted = simulated.stretch(light).astype(int)
    crop = min(light.shape[1:])
    found = cut(fits(light[::-1, ::-1]), crop, crop).astype(int)  # bands from blue to red, rows from below
    bright = wanted.min(axis=2) > 50  # of the faintest, noise below zero is treated otherwise
    assert bright.sum() > 50 and np.abs(found - wanted)[bright].max() <= 3
    grey = cut(fits(light[1]), crop, crop)
    assert np.array_equal(grey[..., 0], grey[..., 2]) and np.ptp(grey) > 50
    assert np.array_equal(cut(gzip.compress(fits(light[1])), crop, crop), grey)


def test_a_fits_file_without_a_usable_picture_is_told_so() -> None:
    for content, said in (
        (fits(np.zeros((2, 9, 9))), r"2 planes; pack\.fits\.bands asks for \(3, 2, 1\)"),
        (fits(None), "without a picture"),
        (gzip.compress(fits(np.zeros((300, 500, 500), np.uint8)), 1), "at most 16777216"),
        (fits(np.zeros((3, 99, 99)))[:4000], "truncated"),
        (b"\x1f\x8b not gzip", "truncated or damaged"),
        (encode(np.zeros((9, 9), np.float32), "TIFF"), "physical values"),
    ):
        with pytest.raises(BadImageError, match=said):
            cut(content, 9, 9)
    blank = fits(np.full((9, 9), np.nan))
    assert not cut(blank, 9, 9).any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"hello", "not a JPEG, PNG, TIFF, WebP or FITS"),
        (encode(noise(20, 20), "GIF"), "not a JPEG, PNG, TIFF, WebP or FITS"),
        (encode(noise(64, 64), "JPEG")[:900], "truncated"),
        (encode(noise(64, 64))[:900], "truncated"),
        (bomb(), "pixels"),
        (b"\xff\xd8\xff" + b"0" * MAX_BYTES, "bytes; at most"),
    ],
)
def test_a_bad_picture_is_told_so(content: bytes, said: str) -> None:
    with pytest.raises(BadImageError, match=said):
        cut(content, 20, 20)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    for start in (b"", b"\xff\xd8\xff\xe0", encode(noise(20, 20))[:40], b"II*\0", b"RIFF", b"SIMPLE  =", b"\x1f\x8b"):
        with pytest.raises(BadImageError):
            cut(start + content, 20, 20)


def test_an_array_is_cropped_and_averaged_as_its_file_is() -> None:
    picture, params = noise(50, 44), PackParams(crop=40, side=20)
    assert np.array_equal(central(picture, params).pixels, decode(encode(picture), params).pixels)
    for bad, said in ((picture[..., 0], "expected"), (picture.astype(float), "float64"), (picture[:0], "44 x 0")):
        with pytest.raises(BadImageError, match=said):
            central(bad, params)
