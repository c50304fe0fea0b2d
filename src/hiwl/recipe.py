"""What the paper's recipe is made of besides pictures: smoothing, weighted sampling, optimiser, schedule, stopping.

Defaults do not live here but in ``conf/recipe``, one file a recipe.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from hiwl.augment import AugmentParams
from hiwl.errors import HiwlError
from hiwl.params import Section


class RecipeParams(Section):
    """Part `train.recipe`; a node may override any of it but the name (`train.nodes`)."""

    name: str
    epochs: int = Field(gt=0)
    """At most so many; also the length of the schedule."""
    patience: int = Field(gt=0)
    """Stop when for so many epochs neither the loss fell nor the validation accuracy rose."""
    stopping: Literal["validation", "training"]
    """Which loss: the validation set's (the paper's text) or that of training (its published code)."""
    batch: int = Field(gt=1)
    sampling: Literal["shuffled", "weighted"]
    """Every sample once an epoch, or as many draws with replacement, each class as often as any other."""
    smoothing: float = Field(ge=0, lt=1)
    """Share of the target that goes to the other classes."""
    smoothing_by: Literal["even", "similarity"]
    """How the others share it: evenly (the paper), or as the volunteers' votes did on average over the training
    galaxies of the class (the paper's future work; wants votes)."""
    votes: float = Field(ge=0, le=1)
    """Share of the target that is the volunteers' votes on the galaxy itself, where they are known."""
    mixup: float = Field(ge=0)
    """Two pictures and their targets are mixed in shares from Beta(mixup, mixup) (Zhang et al. 2018); 0: never."""
    logit_adjustment: float = Field(ge=0)
    """So many times the logarithm of the classes' shares is added to the logits in training (Menon et al. 2021)."""
    averaging: float = Field(ge=0, lt=1)
    """Decay, per step, of the moving average of weights that is validated and kept; 0: the weights themselves."""
    learning_rate: float = Field(gt=0)
    """The highest rate of the schedule."""
    schedule: Literal["cosine", "one-cycle"]
    """Cosine to 0, stepped once an epoch (the paper); or a rise over the first quarter and a cosine to 0, stepped
    with every batch."""
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    augment: AugmentParams

    @property
    def wants_votes(self) -> bool:
        """Whether the volunteers' votes are part of the targets."""
        return self.smoothing_by == "similarity" or self.votes > 0


def smoothing_matrix(
    classes: int, smoothing: float, votes: Tensor | None = None, labels: Tensor | None = None
) -> Tensor:
    """(K, K): the smoothed target of every class (paper, section 3.3). Rows sum to 1.

    The target class weighs 1 - smoothing, each other class smoothing / (K - 1): torch's own `label_smoothing` shares
    the smoothing among all K classes, the target class included, and is another loss. Where the `votes` (n, K) on
    galaxies of classes `labels` (n,) are given (rows of NaN: not known), the other classes share the smoothing as the
    votes did on average over the class instead.

    Raises:
        HiwlError: votes are given, but none of them on any galaxy of a class is for another class.
    """
    others = 1 - torch.eye(classes)
    if votes is not None and labels is not None:
        known = ~votes.isnan().any(dim=1)
        for label in range(classes):
            of_class = votes[known & (labels == label)].sum(dim=0)
            others[label] *= of_class
        if not bool((others.sum(dim=1) > 0).all()):
            raise HiwlError(
                "train.recipe.smoothing_by: similarity needs votes on galaxies of every class: give them with the "
                "survey (raw.source.votes_sha256), or use smoothing_by: even"
            )
    return (1 - smoothing) * torch.eye(classes) + smoothing * others / others.sum(dim=1, keepdim=True)


def targets(labels: Tensor, smoothed: Tensor, votes: Tensor | None, share: float) -> Tensor:
    """(n, K) targets of n galaxies: the `smoothed` row of each one's class, and for `share` of it its own votes.

    `votes` (n, K) are shares of the volunteers, rows sum to 1 or are NaN where they are not known; None: nowhere.
    """
    found = smoothed[labels]
    if votes is None or share == 0:
        return found
    return torch.where(votes.isnan(), found, (1 - share) * found + share * votes)


def mix(inputs: Tensor, target: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """`share` of every picture and target with the rest of the one before it in the batch (Zhang et al. 2018)."""
    return (
        share * inputs + (1 - share) * inputs.roll(1, 0),
        share * target + (1 - share) * target.roll(1, 0),
    )


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
