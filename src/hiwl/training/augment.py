"""Training transforms on whole batches of uint8 pictures, on the device that trains.

The paper's chain (centre crop, rotation, random resized crop, two flips, normalisation) is composed into one affine
sampling of each picture, followed by one multiply-add. Against the chain in torchvision with bilinear rotation the
drawn parameters have the same distribution and the pixels agree within 2/255 on average
(tests/training/test_augment.py).
"""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from hiwl.core.errors import HiwlError
from hiwl.model.preprocess import CUT, Preprocess
from hiwl.training.params import AugmentParams

TRIES = 10  # as torchvision's RandomResizedCrop: so many draws of a crop that fits, then the whole picture


class Draws(NamedTuple):
    """What was drawn for n pictures of `side` pixels: tensors of shape (n,)."""

    angle: Tensor
    """Degrees, counter-clockwise."""
    left: Tensor
    top: Tensor
    width: Tensor
    height: Tensor
    mirrored: Tensor
    flipped: Tensor

    @property
    def is_mirror(self) -> Tensor:
        """Whether a picture is seen in a mirror: by one flip, not by both, which are half a turn."""
        return self.mirrored ^ self.flipped

    def part(self, rows: slice) -> Self:
        """The draws for some of the pictures."""
        return type(self)(*(value[rows] for value in self))


def mirrored_order(params: AugmentParams, children: list[str]) -> list[int]:
    """For every child the index of the one that it is in a mirror; empty where all stay what they are.

    Raises:
        HiwlError: of two that turn into each other, one is not a child of this node.
    """
    other = params.mirrors | {value: name for name, value in params.mirrors.items()}
    here = [name for name in children if name in other]
    if lost := [name for name in here if other[name] not in children]:
        raise HiwlError(f"train.recipe.augment.mirrors: {other[lost[0]]} is not told apart where {lost[0]} is")
    return [children.index(other.get(name, name)) for name in children] if here else []


def draw(count: int, side: int, params: AugmentParams, generator: torch.Generator) -> Draws:
    """Draw the augmentation of `count` pictures of `side` x `side` pixels."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    angle = (2 * uniform(count) - 1) * params.rotation
    area = params.scale[0] + (params.scale[1] - params.scale[0]) * uniform(count, TRIES)
    low, high = math.log(params.ratio[0]), math.log(params.ratio[1])
    ratio = torch.exp(low + (high - low) * uniform(count, TRIES))
    width, height = (side * (area * ratio).sqrt()).round(), (side * (area / ratio).sqrt()).round()
    fits = (width <= side) & (height <= side)
    first = fits.int().argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    # A square picture's ratio is 1, so where no draw fits, torchvision takes the whole of it.
    width = torch.where(found, width.gather(1, first)[:, 0], float(side))
    height = torch.where(found, height.gather(1, first)[:, 0], float(side))
    top = (uniform(count) * (side - height + 1)).floor()
    left = (uniform(count) * (side - width + 1)).floor()
    return Draws(angle, left, top, width, height, uniform(count) < params.flip, uniform(count) < params.flip)


def augment(pictures: Tensor, draws: Draws, preprocess: Preprocess) -> Tensor:
    """Sample (n, side, side, 3) uint8 pictures once, as drawn: (n, 3, size, size) float32, normalised."""
    side, size = pictures.shape[1], preprocess.size
    if size < CUT * side:
        pictures = preprocess.centre(pictures)  # scaled as evaluation scales it; sampling alone would be coarser
    values = pictures.permute(0, 3, 1, 2).float()
    affine = _affine(draws, side)
    # To a GPU from pinned memory, so that nobody waits for the copy, and in double precision, which TF32 leaves alone.
    affine = affine.pin_memory().to(values.device, non_blocking=True) if values.is_cuda else affine.to(values)
    grid = affine_grid(affine, [len(values), 3, size, size], align_corners=False).to(values)
    sampled = grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return preprocess.normalise(sampled).contiguous(memory_format=torch.channels_last)


def _affine(draws: Draws, side: int) -> Tensor:
    """From a point of the output to the point of the picture that it shows: (n, 2, 3), both in [-1, 1].

    Backwards through the chain: flips, then the crop's scale and offset, then the rotation.
    """
    sx, sy = draws.width / side, draws.height / side
    cx, cy = (2 * draws.left + draws.width) / side - 1, (2 * draws.top + draws.height) / side - 1
    fx, fy = torch.where(draws.mirrored, -sx, sx), torch.where(draws.flipped, -sy, sy)
    angle = torch.deg2rad(draws.angle)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack(
        [
            torch.stack([cos * fx, -sin * fy, cos * cx - sin * cy], dim=1),
            torch.stack([sin * fx, cos * fy, sin * cx + cos * cy], dim=1),
        ],
        dim=1,
    )
