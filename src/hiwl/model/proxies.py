"""A last layer that answers by distances: each class has a proxy, a point among the embeddings (Movshovitz-Attias et
al. 2017).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

SHARPNESS = 20.0
"""Logits are so many times a cosine; a temperature fitted on validation (`choose.calibrated`) makes up for the rest."""


class Proxies(nn.Module):
    """From embeddings (n, dimension), whose length does not count, to logits (n, classes)."""

    def __init__(self, dimension: int, classes: int) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.randn(classes, dimension))

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits of a batch."""
        cosines: Tensor = normalize(embedding) @ normalize(self.points).T
        return SHARPNESS * cosines
