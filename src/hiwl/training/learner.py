"""A network in training, where more of it is learned from than its logits."""

from torch import Tensor, nn

from hiwl.model.features import penultimate, width
from hiwl.survey.votes import COLUMNS
from hiwl.training.losses import Output


class Learner(nn.Module):
    """Gives a network's embedding too, and what a second layer answers to the volunteers' questions."""

    def __init__(self, network: nn.Module, answers: bool) -> None:
        super().__init__()
        self.network = network
        self.answers = nn.Linear(width(network), len(COLUMNS)) if answers else None

    def forward(self, inputs: Tensor) -> Output:
        """What is learned from, of a batch (n, 3, size, size)."""
        with penultimate(self.network) as parts:
            logits = self.network(inputs)
        return Output(logits, parts[0], None if self.answers is None else self.answers(parts[0]))
