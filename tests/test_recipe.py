import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hiwl import recipe
from hiwl.augment import AugmentParams
from hiwl.errors import HiwlError


def paper(**changes: object) -> recipe.RecipeParams:
    values: dict[str, object] = {
        "name": "paper",
        "epochs": 150,
        "patience": 25,
        "stopping": "validation",
        "batch": 24,
        "sampling": "shuffled",
        "smoothing": 0.05,
        "smoothing_by": "even",
        "votes": 0,
        "mixup": 0,
        "logit_adjustment": 0,
        "averaging": 0,
        "learning_rate": 0.005,
        "schedule": "cosine",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "augment": {"rotation": 25, "scale": [0.9, 1.0], "ratio": [0.75, 4 / 3], "flip": 0.5},
    }
    return recipe.RecipeParams.parse(values | changes, "train.recipe")


def test_smoothing_is_the_papers_and_not_torchs() -> None:
    # K = 5, eps = .1: the paper's targets are .9 and four times .025 (section 3.3).
    matrix = recipe.smoothing_matrix(5, 0.1)
    assert matrix[2].tolist() == pytest.approx([0.025, 0.025, 0.9, 0.025, 0.025])
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.5, 0.0]])
    found = torch.nn.functional.cross_entropy(logits, matrix[[2]])
    torchs = torch.nn.functional.cross_entropy(logits, torch.tensor([2]), label_smoothing=0.1)
    assert found.item() != pytest.approx(torchs.item(), abs=1e-3)


@given(st.integers(2, 8), st.floats(0, 0.9), st.integers(1, 20), st.integers(0, 99))
def test_targets_are_shares_and_the_class_keeps_all_but_the_smoothing(
    classes: int, smoothing: float, count: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.arange(classes), torch.randint(classes, (count,), generator=generator)])
    votes = torch.rand(len(labels), classes, generator=generator) + 0.01
    votes = votes / votes.sum(dim=1, keepdim=True)
    for matrix in (
        recipe.smoothing_matrix(classes, smoothing),
        recipe.smoothing_matrix(classes, smoothing, votes, labels),
    ):
        assert matrix.sum(dim=1).tolist() == pytest.approx([1] * classes)
        assert matrix.diagonal().tolist() == pytest.approx([1 - smoothing] * classes)
        found = recipe.targets(labels, matrix, votes, 0.3)
        assert found.sum(dim=1).tolist() == pytest.approx([1] * len(labels))


def test_smoothing_by_similarity_follows_the_votes_that_are_known() -> None:
    labels = torch.tensor([0, 0, 1, 2, 0])
    nobody = [float("nan")] * 3
    votes = torch.tensor([[0.6, 0.3, 0.1], [0.7, 0.3, 0.0], [0.2, 0.8, 0.0], [0.1, 0.1, 0.8], nobody])
    matrix = recipe.smoothing_matrix(3, 0.1, votes, labels)
    assert matrix[0].tolist() == pytest.approx([0.9, 0.1 * 6 / 7, 0.1 * 1 / 7])
    assert matrix[1].tolist() == pytest.approx([0.1, 0.9, 0])
    with pytest.raises(HiwlError, match="needs votes on galaxies of every class"):
        recipe.smoothing_matrix(3, 0.1, votes[:3], labels[:3])


def test_votes_take_their_share_of_the_target_where_they_are_known() -> None:
    votes = torch.tensor([[0.6, 0.4], [float("nan")] * 2])
    found = recipe.targets(torch.tensor([0, 0]), recipe.smoothing_matrix(2, 0.1), votes, 0.5)
    assert found[0].tolist() == pytest.approx([0.75, 0.25])
    assert found[1].tolist() == pytest.approx([0.9, 0.1])


def test_mixing_keeps_shares_and_mixes_pictures_with_their_targets() -> None:
    pictures, target = torch.arange(3.0).view(3, 1, 1, 1), torch.eye(3)
    mixed, mixed_target = recipe.mix(pictures, target, 0.75)
    assert mixed.flatten().tolist() == pytest.approx([0.5, 0.75, 1.75])
    assert mixed_target[0].tolist() == pytest.approx([0.75, 0, 0.25])


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
