"""Depthwise convolutions of maps smaller than their kernel."""

import pytest
import timm
import torch
from torch import nn

from hiwl.training.depthwise import quicken_gradients


@pytest.mark.parametrize(
    "height, width, size", [(1, 1, 3), (2, 2, 3), (2, 2, 5), (4, 4, 5), (3, 4, 5), (4, 2, 7), (6, 6, 3)]
)
def test_same_answers_and_gradients(height: int, width: int, size: int) -> None:
    plain = nn.Conv2d(6, 6, size, padding=size // 2, groups=6, bias=False).double()
    quick = nn.Conv2d(6, 6, size, padding=size // 2, groups=6, bias=False).double()
    quick.load_state_dict(plain.state_dict())
    quicken_gradients(quick)
    maps = torch.randn(3, 6, height, width, dtype=torch.float64)
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    weights = torch.randn(3, 6, height, width, dtype=torch.float64)
    answers = quick(ours), plain(theirs)
    for answer in answers:
        (answer * weights).sum().backward()
    torch.testing.assert_close(answers[0], answers[1])
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(quick.weight.grad, plain.weight.grad)


def test_only_plain_depthwise_layers() -> None:
    network = timm.create_model("tf_efficientnet_lite0", num_classes=3)
    quicken_gradients(network)
    changed = [layer for layer in network.modules() if type(layer).__name__ == "_Depthwise"]
    assert changed and all(layer.groups == layer.in_channels and layer.stride == (1, 1) for layer in changed)
    strided = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)]
    assert not any(layer in changed for layer in strided)
