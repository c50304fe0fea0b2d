"""Losses that learn distances: galaxies of a class near each other, those of others apart.

The pair losses and the miners that choose pairs are pytorch-metric-learning's. They have no proxies to answer by;
theirs are the classes' mean directions.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from hiwl.model.features import last_layers
from hiwl.model.proxies import SHARPNESS, Proxies
from hiwl.training.data import NodeData
from hiwl.training.losses import Output
from hiwl.training.params import Contrastive, Distances, MultiSimilarity, NormalisedSoftmax, ProxyNCA, Triplet

KEPT = 0.98
"""Share of a class's mean direction that a batch leaves as it was."""


class _ByLabel:
    """What is learned from labels alone."""

    def __init__(self, data: NodeData, device: torch.device) -> None:
        labels = {name: labels.to(device) for name, labels in data.labels.items()}
        self._targets = {name: one_hot(of_split, len(data.children)).float() for name, of_split in labels.items()}

    def targets(self, split: str) -> Tensor:
        """(n, children): 1 for the label, else 0."""
        return self._targets[split]

    def validation(self, logits: Tensor, rows: slice) -> Tensor:
        """Cross-entropy of the answers, whatever is learned by, so that losses can be compared by it."""
        return cross_entropy(logits, self._targets["validation"][rows], reduction="sum")


class ByProxies(_ByLabel):
    """Proxies that are learned as weights are."""

    def __init__(self, params: ProxyNCA | NormalisedSoftmax, data: NodeData, device: torch.device) -> None:
        super().__init__(data, device)
        self._params = params

    def __call__(self, output: Output, target: Tensor) -> Tensor:
        """Of a training batch."""
        assert isinstance(output.logits, Tensor)
        cosines, labels = output.logits.float() / SHARPNESS, target.argmax(dim=1)
        if isinstance(self._params, NormalisedSoftmax):
            return cross_entropy(cosines / self._params.temperature, labels)
        nearness = -self._params.scale * (2 - 2 * cosines)
        own = nearness.gather(1, labels[:, None]).squeeze(1)
        others = nearness.masked_fill(target > 0, -torch.inf).logsumexp(dim=1)
        return (others - own).mean()


class ByPairs(_ByLabel):
    """Pairs or triplets within a batch; class means as proxies."""

    def __init__(self, params: Distances, data: NodeData, device: torch.device, network: nn.Module) -> None:
        super().__init__(data, device)
        self._loss, self._miner = _made(params)
        proxies = network.get_submodule(last_layers(network)[0])
        assert isinstance(proxies, Proxies)
        self._points = proxies.points.requires_grad_(False)

    def __call__(self, output: Output, target: Tensor) -> Tensor:
        """Of a training batch, whose classes' mean directions the proxies follow."""
        assert output.embedding is not None
        embedding, labels = normalize(output.embedding.float()), target.argmax(dim=1)
        self._follow(embedding.detach(), target)
        loss: Tensor = self._loss(embedding, labels, self._miner(embedding, labels) if self._miner else None)
        return loss

    @torch.no_grad()
    def _follow(self, embedding: Tensor, target: Tensor) -> None:
        sums, counts = target.T @ embedding, target.sum(dim=0)[:, None]
        if distributed.is_available() and distributed.is_initialized():  # a batch is shared out among processes
            distributed.all_reduce(sums)
            distributed.all_reduce(counts)
        means, there = normalize(sums), counts > 0
        followed = KEPT * normalize(self._points) + (1 - KEPT) * means
        self._points.copy_(torch.where(there, followed, self._points))


def _made(params: Distances) -> tuple[Any, Any]:
    """The library's loss and miner."""
    from pytorch_metric_learning import distances, losses, miners

    match params:
        case Contrastive():
            return losses.ContrastiveLoss(pos_margin=0, neg_margin=params.margin), None
        case Triplet():
            miner = miners.TripletMarginMiner(params.margin, type_of_triplets="semihard")
            return losses.TripletMarginLoss(params.margin), miner
        case MultiSimilarity():
            similarity = distances.CosineSimilarity()
            loss = losses.MultiSimilarityLoss(params.alpha, params.beta, params.base, distance=similarity)
            return loss, miners.MultiSimilarityMiner(params.epsilon, distance=similarity)
    raise AssertionError(params)
