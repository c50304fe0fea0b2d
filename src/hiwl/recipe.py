"""What the paper's recipe is made of besides pictures: smoothing, weighted sampling, optimiser, schedule, stopping.

Defaults do not live here but in ``conf/recipe``, one file a recipe.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import log_softmax

from hiwl.augment import AugmentParams
from hiwl.params import Section


class RecipeParams(Section):
    """Part `train.recipe`; a node may override any of it but the name (`train.nodes`)."""

    name: str
    epochs: int = Field(gt=0)
    """At most so many; also the length of the schedule."""
    patience: int = Field(gt=0)
    """Stop when for so many epochs neither the validation loss fell nor the validation accuracy rose."""
    batch: int = Field(gt=1)
    sampling: Literal["shuffled", "weighted"]
    """Every sample once an epoch, or as many draws with replacement, each class as often as any other."""
    smoothing: float = Field(ge=0, lt=1)
    """Share of the target that goes to the other classes, evenly."""
    learning_rate: float = Field(gt=0)
    """The highest rate of the schedule."""
    schedule: Literal["cosine", "one-cycle"]
    """Cosine to 0, stepped once an epoch (the paper); or a rise over the first quarter and a cosine to 0, stepped
    with every batch."""
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    augment: AugmentParams


def smoothed_loss(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy of (n, K) `logits` against smoothed targets (paper, section 3.3), n class indices.

    The target class weighs 1 - smoothing, each other class smoothing / (K - 1). torch's own `label_smoothing`
    shares the smoothing among all K classes, the target class included, and is another loss.
    """
    log_p = log_softmax(logits, dim=1)
    at_target = log_p.gather(1, target[:, None])[:, 0]
    others = (log_p.sum(dim=1) - at_target) / (logits.shape[1] - 1)
    return -((1 - smoothing) * at_target + smoothing * others).mean()


def sampling_weights(labels: Tensor) -> Tensor:
    """Weight of each sample: 1 / (how many samples its class has) (paper, section 3.2)."""
    return (1 / torch.bincount(labels).double())[labels]


def epoch_order(labels: Tensor, sampling: str, generator: torch.Generator) -> Tensor:
    """Rows of one epoch in the order in which they are trained on; as many as there are labels."""
    if sampling == "weighted":
        return torch.multinomial(sampling_weights(labels), len(labels), True, generator=generator)
    return torch.randperm(len(labels), generator=generator)


def learning_rate(recipe: RecipeParams, epoch: int, step: int, steps: int) -> float:
    """The rate for batch `step` of `steps` in `epoch`, both counted from 0."""
    if recipe.schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2
    done = (epoch + step / steps) / recipe.epochs
    rise = 0.25
    if done < rise:
        return recipe.learning_rate * (0.04 + 0.96 * (1 - math.cos(math.pi * done / rise)) / 2)
    return recipe.learning_rate * (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2


def exhausted(losses: Sequence[float], accuracies: Sequence[float], patience: int) -> bool:
    """Whether `patience` epochs have passed since the last in which the loss fell or the accuracy rose."""
    return len(losses) - 1 - max(_last_record([-x for x in losses]), _last_record(accuracies)) >= patience


def best_epochs(accuracies: Sequence[float], keep: int) -> list[int]:
    """The `keep` epochs of highest validation accuracy, best first; of equal ones the earlier first."""
    return sorted(range(len(accuracies)), key=lambda epoch: (-accuracies[epoch], epoch))[:keep]


def _last_record(values: Sequence[float]) -> int:
    """Index of the last value above all before it."""
    return max(i for i, value in enumerate(values) if all(value > before for before in values[:i]))
