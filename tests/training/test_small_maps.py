"""Convolutions of small maps."""

import pytest
import timm
import torch
from torch import nn

from hiwl.training.small_maps import SMALL, quicken_gradients

MAPS = [(1, 1, 3), (2, 2, 3), (2, 2, 5), (4, 4, 5), (3, 4, 5), (4, 2, 7), (6, 6, 3)]


def pair(size: int, groups: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A convolution of six channels that is quickened, and the same as it was."""
    quick, plain = (nn.Conv2d(6, 6, size, padding=size // 2, groups=groups, bias=False).double() for _ in range(2))
    quick.load_state_dict(plain.state_dict())
    quicken_gradients(quick)
    assert type(quick) is not type(plain)
    return quick, plain


@pytest.mark.parametrize(
    "height, width, size, groups", [(*sizes, 6) for sizes in MAPS] + [(2, 2, 1, 1), (1, 4, 1, 1), (5, 4, 1, 1)]
)
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_same_answers_and_gradients(height: int, width: int, size: int, groups: int, form: torch.memory_format) -> None:
    maps, weights = (torch.randn(3, 6, height, width).double().to(memory_format=form) for _ in range(2))
    found = []
    for layer in pair(size, groups):
        given = maps.clone().requires_grad_()
        answer = layer.to(memory_format=form)(given)  # type: ignore[call-overload]
        (answer * weights).sum().backward()
        found.append((answer, given.grad, layer.weight.grad))
    torch.testing.assert_close(*found)
    is_small = max(height, width) < size or (size == 1 and max(height, width) <= SMALL)
    assert ("OnSmallMaps" in type(found[0][0].grad_fn).__name__) == is_small


def test_only_plain_layers() -> None:
    network = timm.create_model("tf_efficientnet_lite0", num_classes=3)
    quicken_gradients(network)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    depthwise, pointwise = (
        [one for one in layers if type(one).__name__ == kind] for kind in ("_Depthwise", "_Pointwise")
    )
    assert depthwise and all(layer.groups == layer.in_channels for layer in depthwise)
    assert pointwise and all(layer.groups == 1 and layer.kernel_size == (1, 1) for layer in pointwise)
    assert all(layer.stride == (1, 1) for layer in depthwise + pointwise)
