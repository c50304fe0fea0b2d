from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hiwl.model.classifier import Node, average

SIDE = 16
DESCRIPTION = {"input": SIDE, "mean": [0.046, 0.041, 0.030], "std": [0.090, 0.075, 0.065], "children": ["x"] * 4}


@pytest.fixture
def model() -> Node:
    """One that sees which way up a picture is."""
    torch.manual_seed(0)
    node = Node(DESCRIPTION, Path("none"), torch.device("cpu"))
    node.__dict__["model"] = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 4))
    return node


def answers(model: Node, pictures: torch.Tensor, views: int, temperature: float = 1) -> np.ndarray:
    return average(model.ask(pictures, np.arange(len(pictures)), range(views)).logits, temperature)


def test_the_mean_over_eight_views_is_the_same_for_all_eight_symmetries(model: Node) -> None:
    pictures = torch.randint(256, (5, SIDE, SIDE, 3), dtype=torch.uint8)
    upright = answers(model, pictures, views=8)
    assert upright.sum(axis=1) == pytest.approx(np.ones(5))
    for turns in range(4):
        for seen in (pictures.rot90(turns, (1, 2)), pictures.rot90(turns, (1, 2)).flip(2)):
            assert answers(model, seen, views=8) == pytest.approx(upright, abs=1e-6)
    assert answers(model, pictures.rot90(1, (1, 2)), views=1) != pytest.approx(
        answers(model, pictures, views=1), abs=1e-3
    )


def test_one_view_is_the_picture_as_it_is_and_temperature_softens(model: Node) -> None:
    pictures = torch.randint(256, (5, SIDE, SIDE, 3), dtype=torch.uint8)
    rows = np.arange(5)
    # To rounding alone: some CPUs add up in another order where a batch is larger.
    torch.testing.assert_close(model.ask(pictures, rows, range(8)).logits[0], model.ask(pictures, rows).logits[0])
    hot, cold = answers(model, pictures, 1, 10), answers(model, pictures, 1)
    assert (hot.max(axis=1) < cold.max(axis=1)).all()
    assert (hot.argmax(axis=1) == cold.argmax(axis=1)).all()


def test_a_view_in_a_mirror_says_of_windings_the_other_one(model: Node) -> None:
    pictures = torch.randint(256, (5, SIDE, SIDE, 3), dtype=torch.uint8)
    plain = model.ask(pictures, np.arange(5), range(8)).logits
    model.description = DESCRIPTION | {"mirrored": [1, 0, 2, 3]}
    told = model.ask(pictures, np.arange(5), range(8)).logits
    assert torch.equal(told[:4], plain[:4])
    assert torch.equal(told[4:], plain[4:][:, :, [1, 0, 2, 3]])
