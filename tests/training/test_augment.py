import math

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from hiwl.core.errors import HiwlError
from hiwl.model.preprocess import Preprocess
from hiwl.training.augment import Draws, augment, draw, mirrored_order
from hiwl.training.params import AugmentParams

PAPER = AugmentParams(rotation=25, scale=(0.9, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)


def as_is(size: int) -> Preprocess:
    """Without normalisation."""
    return Preprocess(size, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))


def pictures(count: int, side: int) -> torch.Tensor:
    """Smooth bright blobs with noise, (n, side, side, 3) uint8: what a galaxy is to an interpolation."""
    rng = np.random.default_rng(side)
    y, x = np.mgrid[:side, :side] / side - 0.5
    made = []
    for _ in range(count):
        a, b, angle = rng.uniform(0.02, 0.15), rng.uniform(0.02, 0.15), rng.uniform(0, math.pi)
        u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        light = 220 * np.exp(-np.hypot(u / a, v / b))[..., None] * rng.uniform(0.5, 1, 3)
        made.append(np.clip(light + rng.normal(8, 4, (side, side, 3)), 0, 255))
    return torch.from_numpy(np.stack(made).astype(np.uint8))


def torchvision_chain(picture: torch.Tensor, draws: Draws, row: int, size: int) -> torch.Tensor:
    """The recipe's transforms one after the other, with the parameters of one row of `draws`."""
    image = picture.permute(2, 0, 1)
    image = tv.rotate(image, float(draws.angle[row]), InterpolationMode.BILINEAR)
    box = [int(value[row]) for value in (draws.top, draws.left, draws.height, draws.width)]
    image = tv.resized_crop(image, *box, size=[size, size], interpolation=InterpolationMode.BILINEAR)
    image = tv.horizontal_flip(image) if draws.mirrored[row] else image
    flipped: torch.Tensor = tv.vertical_flip(image) if draws.flipped[row] else image
    return flipped


@pytest.mark.parametrize(("side", "size"), [(256, 240), (96, 96), (64, 64)])
@pytest.mark.parametrize("rotation", [25.0, 180.0])
def test_one_sampling_agrees_with_the_torchvision_chain(side: int, size: int, rotation: float) -> None:
    batch = pictures(12, side)
    params = PAPER.model_copy(update={"rotation": rotation})
    draws = draw(len(batch), side, params, torch.Generator().manual_seed(5))
    assert draws.mirrored.any()
    assert draws.flipped.any()
    ours = augment(batch, draws, as_is(size))
    theirs = torch.stack([torchvision_chain(batch[row], draws, row, size) for row in range(len(batch))])
    assert (ours - theirs.float()).abs().mean().item() <= 2


def test_drawn_crops_are_distributed_as_torchvisions() -> None:
    side, count = 256, 4000
    draws = draw(count, side, PAPER, torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    blank = torch.zeros(1, side, side)
    theirs = np.array([RandomResizedCrop.get_params(blank, [0.9, 1.0], [3 / 4, 4 / 3]) for _ in range(count)])
    for ours, column in ((draws.top, 0), (draws.left, 1), (draws.height, 2), (draws.width, 3)):
        assert ks_2samp(ours.numpy(), theirs[:, column]).pvalue > 1e-3
    assert ks_2samp(draws.angle.numpy(), np.random.default_rng(0).uniform(-25, 25, count)).pvalue > 1e-3
    assert draws.mirrored.double().mean().item() == pytest.approx(0.5, abs=0.04)
    assert draws.flipped.double().mean().item() == pytest.approx(0.5, abs=0.04)


def test_evaluation_takes_the_central_pixels_and_normalises() -> None:
    batch = pictures(2, 64)
    preprocess = Preprocess(60, (0.046, 0.041, 0.030), (0.090, 0.075, 0.065))
    found = preprocess(batch)
    middle = batch[:, 2:62, 2:62].permute(0, 3, 1, 2).float() / 255
    wanted = tv.normalize(middle, list(preprocess.mean), list(preprocess.std))
    assert torch.allclose(found, wanted, atol=1e-4)


def test_nothing_drawn_is_the_evaluation_transform() -> None:
    batch = pictures(3, 64)
    still = AugmentParams(rotation=0, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0)
    draws = draw(3, 64, still, torch.Generator().manual_seed(1))
    assert torch.allclose(augment(batch, draws, as_is(64)), as_is(64)(batch), atol=0.02)


def test_the_same_seed_draws_the_same() -> None:
    first, second = (draw(9, 64, PAPER, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_winding_is_the_other_one_by_one_flip_and_itself_by_both() -> None:
    params = AugmentParams(flip=0.5, mirrors={"CW": "ACW"})
    assert mirrored_order(params, ["E", "CW", "ACW"]) == [0, 2, 1]
    assert mirrored_order(params, ["E", "spiral"]) == []
    with pytest.raises(HiwlError, match="ACW is not told apart where CW is"):
        mirrored_order(params, ["E", "CW"])
    draws = draw(200, 9, params, torch.Generator().manual_seed(0))
    shape = torch.zeros(200, 9, 9, 3, dtype=torch.uint8)
    shape[:, 1, 1:8], shape[:, 1:4, 1] = 255, 255  # an L, which half a turn leaves one
    seen = augment(shape, draws, as_is(9))
    whole = as_is(9)(shape[:1])[0]
    is_turned = [any(torch.allclose(one, whole.rot90(k, (1, 2)), atol=0.1) for k in (0, 2)) for one in seen]
    assert is_turned == (~draws.is_mirror).tolist()
    assert 60 < draws.is_mirror.sum() < 140


def test_a_much_smaller_input_is_learned_as_it_is_evaluated() -> None:
    pictures = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    preprocess = Preprocess(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    draws = draw(2, 64, AugmentParams(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(augment(pictures, draws, preprocess), preprocess(pictures))
