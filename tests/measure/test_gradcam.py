"""Masks and Grad-CAM where the answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from hiwl.core.errors import HiwlError
from hiwl.measure.gradcam import LAYERS, Masks, galaxy_mask, grad_cam, share_on, summarise
from hiwl.model import backbones
from hiwl.model.pixels import Pixels


def disc(side: int, x: float, y: float, radius: float) -> Masks:
    rows, columns = np.mgrid[:side, :side] + 0.5
    inside: Masks = (columns - x) ** 2 + (rows - y) ** 2 < radius**2
    return inside


def sky(side: int) -> Pixels:
    return np.random.default_rng(1).normal(20, 2, (side, side, 3)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("side", [64, 65])
def test_the_mask_is_the_central_galaxy_without_its_neighbour(side: int) -> None:
    galaxy, neighbour = disc(side, side / 2, side / 2, 10), disc(side, 52, 12, 6)
    picture = sky(side)
    picture[galaxy | neighbour] = 150
    assert (galaxy_mask(picture) == galaxy).all()


def test_nothing_at_the_centre_gives_an_empty_mask_that_is_counted() -> None:
    picture = sky(64)
    picture[disc(64, 52, 12, 6)] = 150
    assert not galaxy_mask(picture).any()
    assert not galaxy_mask(np.zeros((64, 64, 3), np.uint8)).any()
    table = pd.DataFrame({"class": ["A", "A", "B"], "uniform": [0, 0.2, 0.2], "last": 0.5, "fine": [0.5, 0.5, np.nan]})
    found = summarise(table, ["A", "B"])
    assert found["no_galaxy_found"] == 1
    assert (found["last"]["maps_all_zero"], found["fine"]["maps_all_zero"]) == (0, 1)
    assert found["last"]["all"]["share"] == {"galaxies": 2, "mean": 0.5, "interval": [0.5, 0.5]}
    assert found["last"]["all"]["uniform"] == {"galaxies": 2, "mean": 0.2, "interval": [0.2, 0.2]}
    assert found["fine"]["B"]["share"] == {"galaxies": 0, "mean": None, "interval": None}


def test_a_uniform_maps_share_is_the_masks_share_of_the_area() -> None:
    masks = np.stack([disc(64, 32, 32, 10), disc(64, 20, 40, 15)])
    assert share_on(np.ones((2, 64, 64)), masks) == pytest.approx(masks.mean((1, 2)))
    assert share_on(masks.astype(np.float64), masks) == pytest.approx([1, 1])
    assert np.isnan(share_on(np.zeros((2, 64, 64)), masks)).all()


class Corner(nn.Module):
    """Lets the first channel of a map through in its upper left corner alone, the second in its lower right one."""

    def forward(self, cells: Tensor) -> Tensor:
        """(n, 2, side, side) to the same."""
        seen, half = torch.zeros_like(cells), cells.shape[-1] // 2
        seen[:, 0, :half, :half] = cells[:, 0, :half, :half]
        seen[:, 1, half:, half:] = cells[:, 1, half:, half:]
        return seen


def test_the_map_of_a_model_that_looks_at_one_corner_lies_there() -> None:
    look = nn.Conv2d(3, 2, 8, stride=8)
    nn.init.ones_(look.weight)
    head = nn.Linear(2, 2, bias=False)
    head.weight.data.copy_(torch.eye(2))
    model = nn.Sequential(look, Corner(), nn.AvgPool2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    maps, sides = grad_cam(model, torch.ones(3, 3, 64, 64), torch.tensor([0, 1, 0]))
    assert sides == {"last": 2, "fine": 8}
    upper_left = np.zeros((64, 64), bool)
    upper_left[:32, :32] = True
    shares = {layer: share_on(maps[layer].double().numpy(), np.stack([upper_left] * 3)) for layer in LAYERS}
    # The cells' corners are blurred by as much as half a cell where they are enlarged.
    assert (shares["fine"][[0, 2]] > 0.85).all()
    assert (shares["last"][[0, 2]] > 0.5).all()
    assert shares["fine"][1] < 0.01
    assert shares["last"][1] < 0.1
    assert not any(layer._forward_hooks for layer in model.modules())


def test_a_model_without_maps_is_refused() -> None:
    with pytest.raises(HiwlError, match="no layer with a map"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.ones(1, 3, 2, 2), torch.tensor([0]))


def test_maps_do_not_depend_on_who_else_is_in_the_batch() -> None:
    model = backbones.create("test_resnet", 3, "scratch", None).model
    pictures, targets = torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
    together, _ = grad_cam(model, pictures, targets)
    alone, _ = grad_cam(model, pictures[1:2], targets[1:2])
    for layer in LAYERS:
        torch.testing.assert_close(together[layer][1:2], alone[layer], rtol=1e-3, atol=1e-6)
