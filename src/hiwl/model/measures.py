"""What is measured of packed pictures without a network: how bright, red, large and sharp the galaxy is."""

from functools import cache

import numpy as np

from hiwl.model.pixels import Pixels
from hiwl.model.tree import Floats, Ints

NAMES = ("brightness", "sky", "colour", "size", "sharpness")
IN_WORDS = {
    "brightness": "mean light above the sky, of 255",
    "sky": "median of the picture's rim, of 255",
    "colour": "red less blue, as a share of the light",
    "size": "radius that holds half of the light, as a share of the picture's side",
    "sharpness": "steps between neighbouring pixels of the galaxy, as a share of its light",
}
FAINT = 4  # of 255 above the sky: what is fainter is none of the galaxy's light


def measure(pictures: Pixels) -> dict[str, Floats]:
    """Of each of (n, side, side, 3) uint8 pictures: `NAMES`, explained in `IN_WORDS`; (n,) each.

    Of a picture without light above its sky, colour, size and sharpness are 0.
    """
    values = pictures.astype(np.float32)
    summed = values[..., 0] + values[..., 1] + values[..., 2]  # ten times as fast as NumPy's sum over so short an axis
    grey = summed / 3
    rim = np.concatenate([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    sky = np.median(rim, axis=1)
    light = grey - sky[:, None, None]
    light[light < FAINT] = 0
    total = light.sum(axis=(1, 2))
    order, radii = _from_the_centre(pictures.shape[1])
    grown = light.reshape(len(light), -1)[:, order].cumsum(axis=1)
    half = radii[(grown < total[:, None] / 2).sum(axis=1).clip(max=len(radii) - 1)]
    redder = ((values[..., 0] - values[..., 2]) / np.maximum(summed, 1) * light).sum(axis=(1, 2))
    steps = np.abs(np.diff(grey, axis=2)) * (light[:, :, 1:] > 0)
    has_light = total > 0
    return {
        "brightness": light.mean(axis=(1, 2)).astype(np.float64),
        "sky": sky.astype(np.float64),
        "colour": np.where(has_light, redder / np.maximum(total, 1), 0.0),
        "size": np.where(has_light, half / pictures.shape[1], 0.0),
        "sharpness": np.where(has_light, steps.sum(axis=(1, 2)) / np.maximum(total, 1), 0.0),
    }


@cache
def _from_the_centre(side: int) -> tuple[Ints, Floats]:
    """The pixels of a square by their distance from its centre, and these distances."""
    offsets = np.arange(side) - (side - 1) / 2
    distances = np.hypot(*np.meshgrid(offsets, offsets)).ravel()
    order = distances.argsort(kind="stable")
    return order, distances[order]
