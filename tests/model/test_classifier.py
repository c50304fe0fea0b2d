import numpy as np
import pytest
import torch
from torch import nn

from hiwl.model.classifier import average, predict
from hiwl.model.preprocess import Preprocess

SIDE = 16
SEEN = Preprocess(SIDE, (0.046, 0.041, 0.030), (0.090, 0.075, 0.065))


@pytest.fixture
def model() -> nn.Module:
    """One that sees which way up a picture is."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 4))


def answers(model: nn.Module, pictures: torch.Tensor, views: int, temperature: float = 1) -> np.ndarray:
    rows = torch.arange(len(pictures))
    return average(predict(model, pictures, rows, SEEN, torch.device("cpu"), range(views)), temperature)


def test_the_mean_over_eight_views_is_the_same_for_all_eight_symmetries(model: nn.Module) -> None:
    pictures = torch.randint(256, (5, SIDE, SIDE, 3), dtype=torch.uint8)
    upright = answers(model, pictures, views=8)
    assert upright.sum(axis=1) == pytest.approx(np.ones(5))
    for turns in range(4):
        for seen in (pictures.rot90(turns, (1, 2)), pictures.rot90(turns, (1, 2)).flip(2)):
            assert answers(model, seen, views=8) == pytest.approx(upright, abs=1e-6)
    assert answers(model, pictures.rot90(1, (1, 2)), views=1) != pytest.approx(
        answers(model, pictures, views=1), abs=1e-3
    )


def test_one_view_is_the_picture_as_it_is_and_temperature_softens(model: nn.Module) -> None:
    pictures = torch.randint(256, (5, SIDE, SIDE, 3), dtype=torch.uint8)
    alone = predict(model, pictures, torch.arange(5), SEEN, torch.device("cpu"))
    assert torch.equal(predict(model, pictures, torch.arange(5), SEEN, torch.device("cpu"), range(8))[0], alone[0])
    hot, cold = answers(model, pictures, 1, 10), answers(model, pictures, 1)
    assert (hot.max(axis=1) < cold.max(axis=1)).all()
    assert (hot.argmax(axis=1) == cold.argmax(axis=1)).all()
