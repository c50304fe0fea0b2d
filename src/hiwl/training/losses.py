"""What a node's outputs are held to: targets and losses (paper, section 3.3; distances: `hiwl.training.distances`)."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hiwl.core.errors import HiwlError
from hiwl.survey.votes import TASKS
from hiwl.training.data import NodeData
from hiwl.training.params import CrossEntropy


class Output(NamedTuple):
    """What a network in training says of a batch."""

    logits: Tensor | tuple[Tensor, ...]
    """(batch, children); a model's auxiliary outputs follow its main one."""
    embedding: Tensor | None = None
    """(batch, width) penultimate features."""
    answers: Tensor | None = None
    """(batch, 37) logits of the answers to the volunteers' questions."""


class Loss(Protocol):
    """What is to be as small as can be."""

    def targets(self, split: str) -> Tensor:
        """(n, ...): what the galaxies of the `split` are to be answered with."""

    def __call__(self, output: Output, target: Tensor) -> Tensor:
        """Of a training batch, its mean."""

    def validation(self, logits: Tensor, rows: slice) -> Tensor:
        """Summed over the `rows` of the validation set, whose classes weigh as they come."""


class SoftCrossEntropy:
    """Cross-entropy against smoothed labels and votes."""

    def __init__(self, params: CrossEntropy, data: NodeData, device: torch.device) -> None:
        taught = data.labels["training"]
        by_votes = data.votes["training"] if data.votes and params.smoothing_by == "similarity" else None
        smoothed = smoothing_matrix(len(data.children), params.smoothing, by_votes, taught)
        self._targets: dict[str, Tensor] = {}
        for name, labels in data.labels.items():
            found = blended(smoothed[labels], data.votes[name] if data.votes else None, params.votes)
            found = blended(found, data.teachers[name] if data.teachers else None, params.teachers)
            self._targets[name] = found.to(device)
        shares = torch.bincount(taught, minlength=len(data.children)) / len(taught)
        self._adjustment = torch.xlogy(params.logit_adjustment, shares).to(device)  # 0 without, whatever the shares

    def targets(self, split: str) -> Tensor:
        """(n, children): what the galaxies of the `split` are to be answered with; rows sum to 1."""
        return self._targets[split]

    def __call__(self, output: Output, target: Tensor) -> Tensor:
        """Of a training batch; auxiliary outputs count .3 each (Szegedy et al. 2015, section 5)."""
        main, *auxiliary = (output.logits,) if isinstance(output.logits, Tensor) else output.logits
        losses = [cross_entropy(logits.float() + self._adjustment, target) for logits in (main, *auxiliary)]
        return losses[0] + 0.3 * torch.stack(losses[1:]).sum() if auxiliary else losses[0]

    def validation(self, logits: Tensor, rows: slice) -> Tensor:
        """Summed over the `rows` of the validation set, whose classes weigh as they come."""
        return cross_entropy(logits, self._targets["validation"][rows], reduction="sum")


class WithAnswers:
    """Another loss, and the volunteers' answers beside it."""

    def __init__(self, loss: Loss, weight: float, data: NodeData, device: torch.device) -> None:
        assert data.answers
        self._loss, self._weight, self._children = loss, weight, len(data.children)
        self._answers = {name: answers.to(device) for name, answers in data.answers.items()}
        self.validation = loss.validation

    def targets(self, split: str) -> Tensor:
        """(n, children + 37): the other loss's, and the answers."""
        return torch.cat([self._loss.targets(split), self._answers[split]], dim=1)

    def __call__(self, output: Output, target: Tensor) -> Tensor:
        """Of a training batch."""
        assert output.answers is not None
        children = self._children
        own = self._loss(output, target[:, :children])
        return own + self._weight * answers_loss(output.answers, target[:, children:])


def answers_loss(logits: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy of every question's answers, (n, 37): summed over questions, mean over galaxies that have votes.

    As the fractions are of all volunteers, a question weighs as much as the share of them that reached it. Questions
    whose answers are not known (NaN) count nothing.
    """
    sizes = [task.answers for task in TASKS.values()]
    logarithms = torch.cat([part.log_softmax(dim=1) for part in logits.float().split(sizes, dim=1)], dim=1)
    known = (~answers.isnan()).any(dim=1).sum().clamp(min=1)
    return -(answers.nan_to_num() * logarithms).sum() / known


def smoothing_matrix(
    classes: int, smoothing: float, votes: Tensor | None = None, labels: Tensor | None = None
) -> Tensor:
    """(K, K): the smoothed target of every class (paper, section 3.3). Rows sum to 1.

    The target class weighs 1 - smoothing, each other class smoothing / (K - 1): torch's own `label_smoothing` shares
    the smoothing among all K classes, the target class included, and is another loss. Where the `votes` (n, K) on
    galaxies of classes `labels` (n,) are given (rows of NaN: not known), the other classes share the smoothing as the
    votes did on average over the class instead.

    Raises:
        HiwlError: votes are given, but for some class none that names another class.
    """
    others = 1 - torch.eye(classes)
    if votes is not None and labels is not None:
        known = ~votes.isnan().any(dim=1)
        for label in range(classes):
            of_class = votes[known & (labels == label)].sum(dim=0)
            others[label] *= of_class
        if not bool((others.sum(dim=1) > 0).all()):
            raise HiwlError(
                "train.recipe.loss.smoothing_by: similarity needs votes on galaxies of every class: give them with the "
                "survey (raw.source.votes_sha256), or use smoothing_by: even"
            )
    return (1 - smoothing) * torch.eye(classes) + smoothing * others / others.sum(dim=1, keepdim=True)


def blended(targets: Tensor, told: Tensor | None, share: float) -> Tensor:
    """(n, K) targets of n galaxies, `share` of which is what is `told` of them, by volunteers or other models.

    Rows of `told` (n, K) sum to 1, or are NaN where nothing is known; None: nowhere.
    """
    if told is None or share == 0:
        return targets
    return torch.where(told.isnan(), targets, (1 - share) * targets + share * told)


def mix(inputs: Tensor, target: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """`share` of every picture and target with the rest of the one before it in the batch (Zhang et al. 2018)."""
    return (
        share * inputs + (1 - share) * inputs.roll(1, 0),
        share * target + (1 - share) * target.roll(1, 0),
    )
