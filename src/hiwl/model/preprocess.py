"""What a model is shown in evaluation: the centre of a packed picture, normalised, turned or mirrored."""

from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hiwl.model.pixels import Pixels

Pictures = TypeVar("Pictures", Tensor, Pixels)


CUT = 0.85
"""From this share of the packed side upwards the centre is cut out; for a smaller input the whole is scaled down."""


class Preprocess(NamedTuple):
    """From packed pictures to a model's input."""

    size: int
    """Side of the input, in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Of each band, of values in [0, 1]."""

    def __call__(self, pictures: Tensor) -> Tensor:
        """What is shown of (n, side, side, 3) uint8 pictures: (n, 3, size, size), normalised."""
        values = self.centre(pictures).permute(0, 3, 1, 2).float()
        return self.normalise(values).contiguous(memory_format=torch.channels_last)

    def centre(self, pictures: Pictures) -> Pictures:
        """The central (n, size, size, 3) of (n, side, side, 3); the whole, scaled, where that would lose much of it."""
        if self.size < CUT * pictures.shape[1]:
            return _scaled(pictures, self.size)
        start = (pictures.shape[1] - self.size) // 2
        return pictures[:, start : start + self.size, start : start + self.size]

    def normalise(self, values: Tensor) -> Tensor:
        """Normalise (n, 3, h, w) of values in [0, 255], in place."""
        scale, shift = _factors(self, values.device)
        return values.mul_(scale).add_(shift)


def _scaled(pictures: Pictures, size: int) -> Pictures:
    values = torch.as_tensor(pictures).permute(0, 3, 1, 2).float()
    smaller = interpolate(values, (size, size), mode="bilinear", antialias=True).round().to(torch.uint8)
    found = smaller.permute(0, 2, 3, 1).contiguous()
    return found if isinstance(pictures, Tensor) else found.numpy()


def shown(size: int, side: int) -> float:
    """Share of a packed picture's `side` that an input of `size` pixels shows."""
    return size / side if size >= CUT * side else 1.0


def view(pictures: Pixels, number: int) -> Pixels:
    """One of the eight symmetries of the square of (n, side, side, 3) pictures; 0 leaves them as they are."""
    turned = np.rot90(pictures, number % 4, (1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if is_mirror(number) else turned)


def is_mirror(number: int) -> bool:
    """Whether that :func:`view` is a reflection."""
    return number >= 4


@cache  # made on the host each time, they would have it wait for a GPU
@torch.inference_mode(False)  # whoever asks first: others may want gradients
def _factors(of: Preprocess, device: torch.device) -> tuple[Tensor, Tensor]:
    scale = torch.tensor([1 / (255 * s) for s in of.std], device=device)
    shift = torch.tensor([-m / s for m, s in zip(of.mean, of.std, strict=True)], device=device)
    return scale.view(3, 1, 1), shift.view(3, 1, 1)
