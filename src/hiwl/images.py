"""From a picture's bytes to the central pixels that models see: the same for `pack` and for the served model."""

import io
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from hiwl.errors import HiwlError

Pixels = npt.NDArray[np.uint8]
SUFFIXES = (".jpg", ".jpeg", ".png")
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
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise BadImageError(f"{width} x {height} pixels; at most {MAX_PIXELS} in all are taken")
    if min(width, height) < crop:
        raise BadImageError(f"{width} x {height} pixels; the central {crop} x {crop} are needed (pack.crop)")
    if picture.format == "PNG" and content[24] > 8:  # as its header says; Pillow would cut some to 8
        raise BadImageError(f"{content[24]} bits a band: pictures of 8 bits a band are needed")
    left, top = (width - crop) // 2, (height - crop) // 2
    try:
        centre = picture.convert("RGB").crop((left, top, left + crop, top + crop))
    except Exception:
        raise BadImageError("truncated or damaged") from None
    return np.asarray(centre.resize((size, size), Image.Resampling.BOX) if size != crop else centre)


def members(archive: Path) -> dict[int, str]:
    """GalaxyID to member name, of every picture in a zip archive.

    Raises:
        HiwlError: no zip archive, a picture whose name is no number, or two pictures of one galaxy.
    """
    found: dict[int, str] = {}
    try:
        with zipfile.ZipFile(archive) as file:
            names = file.namelist()
    except zipfile.BadZipFile:
        raise HiwlError(f"{archive}: no zip archive, or a truncated one") from None
    for name in names:
        path = PurePosixPath(name)
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if not path.stem.isdecimal():
            raise HiwlError(f"{archive}: {name}: pictures are named GalaxyID.jpg, with a whole number")
        if int(path.stem) in found:
            raise HiwlError(f"{archive}: galaxy {path.stem} has two pictures: {found[int(path.stem)]}, {name}")
        found[int(path.stem)] = name
    return found
