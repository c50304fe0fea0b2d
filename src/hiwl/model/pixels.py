"""From a picture to the central pixels that are packed and answered: the same for `pack` and for every answer."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from hiwl.core.errors import HiwlError

Pixels = npt.NDArray[np.uint8]
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 4096 * 4096  # checked on the header, before anything is decoded


class BadImageError(HiwlError):
    """A picture that cannot be used; the message says why and holds nothing of the picture."""


def decode(content: bytes, crop: int, size: int) -> Pixels:
    """The central `crop` x `crop` pixels of a JPEG or PNG, at `size` x `size`: (size, size, 3) uint8.

    Smaller sizes come from averaging over areas (Pillow's box filter), never from a smaller crop.

    Raises:
        BadImageError: empty, too large, not JPEG or PNG, truncated, or smaller than `crop`.
    """
    if not content:
        raise BadImageError("empty")
    if len(content) > MAX_BYTES:
        raise BadImageError(f"{len(content)} bytes; at most {MAX_BYTES} are taken")
    try:
        picture = Image.open(io.BytesIO(content), formats=("JPEG", "PNG"))
    except Image.DecompressionBombError:
        raise BadImageError(f"too many pixels; at most {MAX_PIXELS} in all are taken") from None
    except Exception:  # whatever a decoder stumbles over, it is the picture that is bad
        raise BadImageError("neither a JPEG nor a PNG") from None
    _check_size(picture, crop)
    if picture.format == "PNG" and content[24] > 8:  # as its header says; Pillow would cut some to 8
        raise BadImageError(f"{content[24]} bits a band: pictures of 8 bits a band are needed")
    return _central(picture, crop, size)


def central(pixels: Pixels, crop: int, size: int) -> Pixels:
    """As :func:`decode`, of a (height, width, 3) uint8 array.

    Raises:
        BadImageError: another shape or type, or smaller than `crop`.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise BadImageError(f"expected (height, width, 3) uint8, found {pixels.shape} {pixels.dtype}")
    picture = Image.fromarray(pixels)
    _check_size(picture, crop)
    return _central(picture, crop, size)


def _check_size(picture: Image.Image, crop: int) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise BadImageError(f"{width} x {height} pixels; at most {MAX_PIXELS} in all are taken")
    if min(width, height) < crop:
        raise BadImageError(f"{width} x {height} pixels; the central {crop} x {crop} are needed (pack.crop)")


def _central(picture: Image.Image, crop: int, size: int) -> Pixels:
    width, height = picture.size
    left, top = (width - crop) // 2, (height - crop) // 2
    try:
        centre = picture.convert("RGB").crop((left, top, left + crop, top + crop))
    except Exception:
        raise BadImageError("truncated or damaged") from None
    return np.asarray(centre.resize((size, size), Image.Resampling.BOX) if size != crop else centre)
