import math
from typing import Any

import pytest

from hiwl.training.params import RecipeParams
from hiwl.training.schedule import best_epochs, exhausted, is_over, learning_rate


def paper(**changes: Any) -> RecipeParams:
    """The paper's schedule."""
    values = {"name": "paper", "epochs": 150, "patience": 25, "batch": 24, "learning_rate": 0.005, "schedule": "cosine"}
    return RecipeParams.parse(values | changes, "train.recipe")


def test_the_papers_rate_is_stepped_once_an_epoch_and_is_still_0004_at_epoch_123() -> None:
    plan = paper()
    assert learning_rate(plan, 0, 5, 960) == pytest.approx(0.005)
    assert learning_rate(plan, 123, 0, 960) == pytest.approx(0.0004, abs=5e-5)
    last = 0.005 * (1 + math.cos(math.pi * 149 / 150)) / 2
    assert learning_rate(plan, 149, 959, 960) == pytest.approx(last)


def test_one_cycle_rises_to_the_highest_rate_and_ends_near_zero() -> None:
    plan = paper(schedule="one-cycle", epochs=4)
    rates = [learning_rate(plan, epoch, step, 10) for epoch in range(4) for step in range(10)]
    assert max(rates) == pytest.approx(plan.learning_rate)
    assert rates.index(max(rates)) == 10
    assert rates[0] < 0.1 * plan.learning_rate
    assert rates[-1] < 0.01 * plan.learning_rate


def test_training_stops_when_neither_loss_nor_accuracy_has_improved_for_the_patience() -> None:
    assert not exhausted([1.0, 0.9, 0.95, 0.95], [0.5, 0.6, 0.6, 0.6], 3)
    assert exhausted([1.0, 0.9, 0.95, 0.95, 0.9], [0.5, 0.6, 0.6, 0.6, 0.6], 3)
    assert not exhausted([1.0, 0.9, 0.95, 0.95, 0.9], [0.5, 0.6, 0.6, 0.7, 0.6], 3)
    assert not exhausted([1.0], [0.5], 1)


def test_of_equal_accuracies_the_earlier_epoch_is_kept_first() -> None:
    assert best_epochs([0.9, 0.95, 0.95, 0.97, 0.95], 3) == [3, 1, 2]
    assert best_epochs([0.9], 3) == [0]


def test_without_patience_a_training_has_all_its_epochs() -> None:
    row = {"validation_loss": 1.0, "validation_accuracy": 0.5}
    assert not is_over(paper(patience=None), [row] * 149)
    assert is_over(paper(patience=None), [row] * 150)
    assert is_over(paper(), [row] * 26)
    assert not is_over(paper(), [])
