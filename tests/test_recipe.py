import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hiwl import recipe
from hiwl.augment import AugmentParams


def paper(**changes: object) -> recipe.RecipeParams:
    values: dict[str, object] = {
        "name": "paper",
        "epochs": 150,
        "patience": 25,
        "batch": 24,
        "sampling": "shuffled",
        "smoothing": 0.05,
        "learning_rate": 0.005,
        "schedule": "cosine",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "augment": {"rotation": 25, "scale": [0.9, 1.0], "ratio": [0.75, 4 / 3], "flip": 0.5},
    }
    return recipe.RecipeParams.parse(values | changes, "train.recipe")


def test_smoothing_is_the_papers_and_not_torchs() -> None:
    # K = 5, eps = .1: the paper's targets are .9 and four times .025 (section 3.3).
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.5, 0.0]], dtype=torch.float64)
    target = torch.tensor([2])
    wanted = -(torch.tensor([0.025, 0.025, 0.9, 0.025, 0.025]) * logits.log_softmax(1)).sum()
    found = recipe.smoothed_loss(logits, target, 0.1)
    assert found.item() == pytest.approx(wanted.item())
    assert found.item() != pytest.approx(
        torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.1).item(), abs=1e-3
    )


@given(st.integers(2, 8), st.integers(1, 10), st.floats(0, 0.5), st.integers(0, 100))
def test_the_smoothed_loss_is_the_cross_entropy_with_the_smoothed_targets(
    classes: int, count: int, smoothing: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (count,), generator=generator)
    targets = torch.full((count, classes), smoothing / (classes - 1), dtype=torch.float64)
    targets[torch.arange(count), target] = 1 - smoothing
    wanted = torch.nn.functional.cross_entropy(logits, targets)
    assert recipe.smoothed_loss(logits, target, smoothing).item() == pytest.approx(wanted.item())


def test_weighted_sampling_draws_each_class_as_often_as_the_other() -> None:
    labels = torch.cat([torch.zeros(462, dtype=torch.long), torch.ones(3122, dtype=torch.long)])
    weights = recipe.sampling_weights(labels)
    assert weights[0].item() == pytest.approx(1 / 462)
    assert (weights / weights.sum())[0].item() == pytest.approx(1 / 924)
    assert (weights / weights.sum())[-1].item() == pytest.approx(1 / 6244)
    order = recipe.epoch_order(labels, "weighted", torch.Generator().manual_seed(1))
    assert len(order) == len(labels)
    assert (labels[order] == 0).double().mean().item() == pytest.approx(0.5, abs=0.04)
    assert len(order.unique()) < len(order)


def test_a_shuffled_epoch_shows_every_sample_once() -> None:
    order = recipe.epoch_order(torch.zeros(50, dtype=torch.long), "shuffled", torch.Generator().manual_seed(1))
    assert sorted(order.tolist()) == list(range(50))


def test_the_papers_rate_is_stepped_once_an_epoch_and_is_still_0004_at_epoch_123() -> None:
    plan = paper()
    assert recipe.learning_rate(plan, 0, 5, 960) == pytest.approx(0.005)
    assert recipe.learning_rate(plan, 123, 0, 960) == pytest.approx(0.0004, abs=5e-5)
    last = 0.005 * (1 + math.cos(math.pi * 149 / 150)) / 2
    assert recipe.learning_rate(plan, 149, 959, 960) == pytest.approx(last)


def test_one_cycle_rises_to_the_highest_rate_and_ends_near_zero() -> None:
    plan = paper(schedule="one-cycle", epochs=4)
    rates = [recipe.learning_rate(plan, epoch, step, 10) for epoch in range(4) for step in range(10)]
    assert max(rates) == pytest.approx(plan.learning_rate)
    assert rates.index(max(rates)) == 10
    assert rates[0] < 0.1 * plan.learning_rate
    assert rates[-1] < 0.01 * plan.learning_rate


def test_training_stops_when_neither_loss_nor_accuracy_has_improved_for_the_patience() -> None:
    assert not recipe.exhausted([1.0, 0.9, 0.95, 0.95], [0.5, 0.6, 0.6, 0.6], 3)
    assert recipe.exhausted([1.0, 0.9, 0.95, 0.95, 0.9], [0.5, 0.6, 0.6, 0.6, 0.6], 3)
    assert not recipe.exhausted([1.0, 0.9, 0.95, 0.95, 0.9], [0.5, 0.6, 0.6, 0.7, 0.6], 3)
    assert not recipe.exhausted([1.0], [0.5], 1)


def test_of_equal_accuracies_the_earlier_epoch_is_kept_first() -> None:
    assert recipe.best_epochs([0.9, 0.95, 0.95, 0.97, 0.95], 3) == [3, 1, 2]
    assert recipe.best_epochs([0.9], 3) == [0]


def test_recipes_keep_their_parameters_typed() -> None:
    assert isinstance(paper().augment, AugmentParams)
    assert math.isclose(paper().augment.ratio[1], 4 / 3)
