"""From a picture to the central pixels that are packed and answered: the same for `pack` and for every answer."""

import gzip
import io
import math
import warnings
from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field, model_validator

from hiwl.core.errors import HiwlError
from hiwl.core.section import Section

Pixels = npt.NDArray[np.uint8]
Triple = tuple[float, float, float]
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 4096 * 4096  # checked on the header, before anything is decoded
FITS, GZIP = b"SIMPLE  =", b"\x1f\x8b"
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"RIFF", FITS, GZIP)  # how a picture's file begins
FORMATS = "JPEG, PNG, TIFF, WebP or FITS"


class Stretch(Section):
    """How a FITS picture becomes one of colours: Lupton et al. 2004, in `astropy`'s words.

    The defaults give SDSS's cut-outs in nanomaggies a pixel the look of SDSS's colour pictures.
    """

    bands: tuple[int, int, int] = (3, 2, 1)
    """Which planes, counted from 1, become red, green, blue. A picture of one plane becomes grey."""
    scales: Triple = (1.22, 1.42, 2.15)
    """What red, green and blue are multiplied with first; the one plane of a grey picture, with their mean."""
    minimum: float = 0.0
    stretch: float = Field(1.02, gt=0)
    q: float = Field(6.65, gt=0)


class PackParams(Section):
    """Section `pack`: what is kept of a picture."""

    crop: int = Field(gt=0)
    """Side of the central square that is kept, in pixels of the survey's pictures (the paper: 256)."""
    side: int = Field(gt=0)
    """Side of the square as packed, in pixels; smaller than `crop` by area averaging."""
    small: Literal["scale", "pad"] = "scale"
    """A picture smaller than `crop` is enlarged until it is as large, or gets a black margin."""
    fits: Stretch = Stretch()

    @model_validator(mode="after")
    def _side_within_crop(self) -> Self:
        if self.side > self.crop:
            raise ValueError(f"side ({self.side}) must not exceed crop ({self.crop})")
        return self


class Decoded(NamedTuple):
    """A picture as it is packed."""

    pixels: Pixels
    """(side, side, 3)."""
    warning: str
    """What was done to it beyond cropping and averaging; mostly empty."""


class BadImageError(HiwlError):
    """A picture that cannot be used; the message says why and holds nothing of the picture."""


def decode(content: bytes, params: PackParams, scale: float = 1.0) -> Decoded:
    """The central `params.crop` pixels in square of a picture's file, at `params.side`.

    Where the picture shows its galaxy smaller than the survey's pictures do, `scale` says how many times: so much less
    is kept, and enlarged. Smaller sizes come from averaging over areas (Pillow's box filter), never from a smaller
    crop. 16 bits are cut to 8; grey and palettes become colours; what is transparent becomes black, as the sky is.

    Raises:
        BadImageError: empty, too large, of another format, truncated, or of floating-point values that are no FITS.
    """
    if not content:
        raise BadImageError("empty")
    if len(content) > MAX_BYTES:
        raise BadImageError(f"{len(content)} bytes; at most {MAX_BYTES} are taken")
    if content.startswith((FITS, GZIP)):
        return _central(Image.fromarray(_stretched(content, params.fits)), params, scale)
    try:
        picture = Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "TIFF", "WEBP"))
    except Image.DecompressionBombError:
        raise BadImageError(f"too many pixels; at most {MAX_PIXELS} in all are taken") from None
    except Exception:  # whatever a decoder stumbles over, it is the picture that is bad
        raise BadImageError(f"not a {FORMATS} that can be read") from None
    _check_size(*picture.size)
    if picture.mode == "F" or (picture.mode == "I" and picture.format == "TIFF"):
        raise BadImageError("a TIFF of physical values: a picture of 8 or 16 bits, or a FITS file, is needed")
    return _central(_in_colours(picture), params, scale)


def central(pixels: Pixels, params: PackParams, scale: float = 1.0) -> Decoded:
    """As :func:`decode`, of a (height, width, 3) uint8 array.

    Raises:
        BadImageError: another shape or type.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise BadImageError(f"expected (height, width, 3) uint8, found {pixels.shape} {pixels.dtype}")
    _check_size(pixels.shape[1], pixels.shape[0])
    return _central(Image.fromarray(pixels), params, scale)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadImageError(f"{width} x {height} pixels; at most {MAX_PIXELS} in all are taken")
    if min(width, height) < 1:
        raise BadImageError(f"{width} x {height} pixels")


def _in_colours(picture: Image.Image) -> Image.Image:
    try:
        if picture.mode.startswith("I"):  # 16 bits of grey
            grey = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
            return grey.convert("RGB")
        if picture.has_transparency_data:
            over = picture.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over).convert("RGB")
        return picture.convert("RGB")
    except Exception:
        raise BadImageError("truncated or damaged") from None


def area(content: bytes) -> int:
    """About how many pixels a picture's file holds, by its header; 0 where it has none."""
    if content.startswith(GZIP):
        return max(len(content), int.from_bytes(content[-4:], "little")) // 4  # its last bytes say how long it was
    if content.startswith(FITS):
        return len(content) // 4
    try:
        width, height = Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "TIFF", "WEBP")).size
    except Exception:  # what `decode` says of it counts
        return 0
    return width * height


def _central(picture: Image.Image, params: PackParams, scale: float) -> Decoded:
    (width, height), size, warning = picture.size, params.side, ""
    crop = max(1, round(params.crop / scale))
    if min(width, height) < crop:
        warning = f"{width} x {height} pixels, smaller than {crop} x {crop}: "
        if params.small == "pad":
            warning += "given a black margin"
            canvas = Image.new("RGB", (max(width, crop), max(height, crop)))
            canvas.paste(picture, ((canvas.width - width) // 2, (canvas.height - height) // 2))
            picture = canvas
        else:
            warning += "enlarged"
            crop = min(width, height)
        width, height = picture.size
    left, top = (width - crop) // 2, (height - crop) // 2
    centre = picture.crop((left, top, left + crop, top + crop))
    if size != crop:
        centre = centre.resize((size, size), Image.Resampling.BOX if size < crop else Image.Resampling.BICUBIC)
    return Decoded(np.asarray(centre), warning)


def _stretched(content: bytes, params: Stretch) -> Pixels:
    """(height, width, 3) of the first picture in a FITS file, its rows from the top."""
    from astropy.io import fits  # takes a while
    from astropy.io.fits.verify import VerifyWarning
    from astropy.visualization import make_lupton_rgb

    warnings.filterwarnings("ignore", category=VerifyWarning)  # the picture's row says what is wrong with it
    try:
        if content.startswith(GZIP):
            with gzip.open(io.BytesIO(content)) as packed:
                content = packed.read(4 * MAX_BYTES)
        with fits.open(io.BytesIO(content)) as units:
            shapes: list[tuple[int, ...]] = [unit.shape if unit.is_image else () for unit in units]
            number = next(number for number, shape in enumerate(shapes) if len(shape) in (2, 3) and 0 not in shape)
            _check_size(shapes[number][-1], math.prod(shapes[number][:-1]))
            planes = np.asarray(units[number].data, np.float32)
            if planes.ndim == 3 and planes.shape[2] <= 4 < planes.shape[0]:  # colours last, as pictures have them
                planes = np.moveaxis(planes, 2, 0)
            planes = planes.reshape(-1, *planes.shape[-2:])
    except BadImageError:
        raise
    except StopIteration:
        raise BadImageError("a FITS file without a picture of one plane or several") from None
    except Exception:
        raise BadImageError("a FITS file that is truncated or damaged") from None
    planes = np.nan_to_num(planes[:, ::-1], nan=0.0, posinf=0.0, neginf=0.0)
    if len(planes) == 1:
        colours = np.repeat(planes * np.mean(params.scales, dtype=np.float32), 3, axis=0)
    elif max(params.bands) <= len(planes) and min(params.bands) > 0:
        colours = planes[[band - 1 for band in params.bands]] * np.array(params.scales, np.float32)[:, None, None]
    else:
        raise BadImageError(f"a FITS picture of {len(planes)} planes; pack.fits.bands asks for {params.bands}")
    with np.errstate(all="ignore"):
        picture: Pixels = make_lupton_rgb(*colours, minimum=params.minimum, stretch=params.stretch, Q=params.q)
    return picture
