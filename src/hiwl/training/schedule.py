"""Learning rate, stopping, and which epochs are kept (paper, section 4.1)."""

import math
from collections.abc import Sequence

from hiwl.training.params import RecipeParams


def learning_rate(recipe: RecipeParams, epoch: int, step: int, steps: int) -> float:
    """The rate for batch `step` of `steps` in `epoch`, both counted from 0."""
    if recipe.schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2
    done = (epoch + step / steps) / recipe.epochs
    rise = 0.25
    if done < rise:
        return recipe.learning_rate * (0.04 + 0.96 * (1 - math.cos(math.pi * done / rise)) / 2)
    return recipe.learning_rate * (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2


def is_over(recipe: RecipeParams, history: Sequence[dict[str, float]]) -> bool:
    """Whether the training that has this `history`, a row an epoch, ends here."""
    if len(history) >= recipe.epochs:
        return True
    if recipe.patience is None or not history:
        return False
    return exhausted([row[f"{recipe.stopping}_loss"] for row in history], accuracies(history), recipe.patience)


def exhausted(losses: Sequence[float], accuracies: Sequence[float], patience: int) -> bool:
    """Whether `patience` epochs have passed since the last in which the loss fell or the accuracy rose."""
    return len(losses) - 1 - max(_last_record([-x for x in losses]), _last_record(accuracies)) >= patience


def accuracies(history: Sequence[dict[str, float]]) -> list[float]:
    """Validation accuracy of each epoch."""
    return [row["validation_accuracy"] for row in history]


def best_epochs(accuracies: Sequence[float], keep: int) -> list[int]:
    """The `keep` epochs of highest validation accuracy, best first; of equal ones the earlier first."""
    return sorted(range(len(accuracies)), key=lambda epoch: (-accuracies[epoch], epoch))[:keep]


def _last_record(values: Sequence[float]) -> int:
    """Index of the last value above all before it."""
    return max(i for i, value in enumerate(values) if all(value > before for before in values[:i]))
