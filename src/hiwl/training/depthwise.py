"""Depthwise convolutions of maps smaller than their kernel, whose gradients take a CPU far longer than they need.

The last blocks of an EfficientNet see 64 pixels as maps of 4 by 4 and 2 by 2, where oneDNN's gradient by the kernel is
slow. A convolution of so small a map is one matrix for each channel, and the gradient by those matrices is one batched
product. It pays where a training has one core to itself, as in studies; benchmarks/bench_train.py measures it on all.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, one_hot, pad


def quicken_gradients(network: nn.Module) -> None:
    """Let a network's depthwise convolutions take their gradients on small maps that way; answers stay the same."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and _is_plain_depthwise(layer):
            layer.__class__ = _Depthwise


def _is_plain_depthwise(layer: nn.Conv2d) -> bool:
    depthwise = layer.groups == layer.in_channels == layer.out_channels
    size = layer.kernel_size[0]
    same = layer.kernel_size == (size, size) and size % 2 == 1 and layer.padding == (size // 2, size // 2)
    plain = layer.stride == (1, 1) and layer.dilation == (1, 1) and layer.bias is None and layer.padding_mode == "zeros"
    return type(layer) is nn.Conv2d and depthwise and plain and same


class _Depthwise(nn.Conv2d):
    def forward(self, maps: Tensor) -> Tensor:
        small = max(maps.shape[-2:]) < self.kernel_size[0]
        if small and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
            convolved: Tensor = _OnSmallMaps.apply(maps, self.weight)  # type: ignore[no-untyped-call]
            return convolved
        return super().forward(maps)


class _OnSmallMaps(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, maps: Tensor, kernels: Tensor) -> Tensor:
        context.save_for_backward(maps, kernels)
        return conv2d(maps, kernels, padding=kernels.shape[-1] // 2, groups=len(kernels))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        maps, kernels = context.saved_tensors
        count, channels, height, width = maps.shape
        size = kernels.shape[-1]
        by_maps = conv2d(gradient, kernels.flip(2, 3), padding=size // 2, groups=channels)
        # (channels, pixels of the map, pixels of the answer): the gradient by each channel's matrix
        by_matrix = torch.bmm(
            maps.permute(1, 2, 3, 0).reshape(channels, -1, count),
            gradient.permute(1, 0, 2, 3).reshape(channels, count, -1),
        )
        by_shift = by_matrix.reshape(channels, -1) @ _shifts(height, width).to(kernels.dtype)
        down, right = size // 2 - (height - 1), size // 2 - (width - 1)  # a kernel reaches further than a map, or less
        by_kernels = pad(by_shift.reshape(channels, 1, 2 * height - 1, 2 * width - 1), (right, right, down, down))
        return by_maps, by_kernels


@lru_cache
def _shifts(height: int, width: int) -> Tensor:
    """(pixels of the map x pixels of the answer, shifts) 1 for the shift from one to the other, row by row, else 0."""
    rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    down, right = rows[:, None] - rows + height - 1, columns[:, None] - columns + width - 1
    shifts: Tensor = one_hot((down * (2 * width - 1) + right).reshape(-1), (2 * height - 1) * (2 * width - 1)).float()
    return shifts
