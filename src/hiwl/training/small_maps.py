"""Convolutions of small maps, whose gradients oneDNN takes far longer over than a CPU needs.

The last blocks of an EfficientNet see 64 pixels as maps of 4 by 4 and 2 by 2. There the gradient of a pointwise
convolution is two products of matrices. A depthwise one, of a map smaller than its kernel, is one matrix for each
channel, and the gradient by all of them a sum of outer products. What that gains, benchmarks/bench_train.py measures.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, one_hot, pad

SMALL = 4
"""Sides of the maps up to which pointwise convolutions take their gradients so."""


def quicken_gradients(network: nn.Module) -> None:
    """Let a network's convolutions take their gradients on small maps that way; answers stay the same."""
    for layer in network.modules():
        if type(layer) is not nn.Conv2d or not _is_plain(layer):
            continue
        if layer.kernel_size == (1, 1) and layer.groups == 1:
            layer.__class__ = _Pointwise
        elif layer.groups == layer.in_channels == layer.out_channels:
            layer.__class__ = _Depthwise


def _is_plain(layer: nn.Conv2d) -> bool:
    size = layer.kernel_size[0]
    same = layer.kernel_size == (size, size) and size % 2 == 1 and layer.padding == (size // 2, size // 2)
    return (
        same
        and layer.stride == (1, 1)
        and layer.dilation == (1, 1)
        and layer.bias is None
        and layer.padding_mode == "zeros"
    )


class _Pointwise(nn.Conv2d):
    def forward(self, maps: Tensor) -> Tensor:
        if max(maps.shape[-2:]) <= SMALL and _takes_gradients():
            convolved: Tensor = _PointwiseOnSmallMaps.apply(maps, self.weight)  # type: ignore[no-untyped-call]
            return convolved
        return super().forward(maps)


class _Depthwise(nn.Conv2d):
    def forward(self, maps: Tensor) -> Tensor:
        if max(maps.shape[-2:]) < self.kernel_size[0] and _takes_gradients():
            convolved: Tensor = _DepthwiseOnSmallMaps.apply(maps, self.weight)  # type: ignore[no-untyped-call]
            return convolved
        return super().forward(maps)


def _takes_gradients() -> bool:
    return torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


class _PointwiseOnSmallMaps(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, maps: Tensor, kernels: Tensor) -> Tensor:
        context.save_for_backward(maps, kernels)
        return conv2d(maps, kernels)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        maps, kernels = context.saved_tensors
        by_pixels = gradient.permute(0, 2, 3, 1)
        by_maps = by_pixels @ kernels.flatten(1)
        by_kernels = by_pixels.flatten(0, 2).T @ maps.permute(0, 2, 3, 1).flatten(0, 2)
        return by_maps.permute(0, 3, 1, 2), by_kernels.reshape(kernels.shape)


class _DepthwiseOnSmallMaps(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, maps: Tensor, kernels: Tensor) -> Tensor:
        context.save_for_backward(maps, kernels)
        return conv2d(maps, kernels, padding=kernels.shape[-1] // 2, groups=len(kernels))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        maps, kernels = context.saved_tensors
        channels, height, width = maps.shape[1:]
        size = kernels.shape[-1]
        by_maps = conv2d(gradient, kernels.flip(2, 3), padding=size // 2, groups=channels)
        # (pixels of the map, pixels of the answer, channels): the gradient by each channel's matrix
        by_matrix = kernels.new_zeros(height * width, height * width, channels)
        by_pixels = maps.permute(0, 2, 3, 1).flatten(1, 2), gradient.permute(0, 2, 3, 1).flatten(1, 2)
        for map_, its_gradient in zip(*by_pixels, strict=True):
            by_matrix.addcmul_(map_[:, None], its_gradient[None])
        by_shift = _shifts(height, width).to(kernels.dtype).T @ by_matrix.flatten(0, 1)
        down, right = size // 2 - (height - 1), size // 2 - (width - 1)  # a kernel reaches further than a map, or less
        by_kernels = by_shift.T.reshape(channels, 1, 2 * height - 1, 2 * width - 1)
        return by_maps, pad(by_kernels, (right, right, down, down))


@lru_cache
def _shifts(height: int, width: int) -> Tensor:
    """(pixels of the map x pixels of the answer, shifts) 1 for the shift from one to the other, row by row, else 0."""
    rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    down, right = rows[:, None] - rows + height - 1, columns[:, None] - columns + width - 1
    shifts: Tensor = one_hot((down * (2 * width - 1) + right).reshape(-1), (2 * height - 1) * (2 * width - 1)).float()
    return shifts
