import pytest
import torch

from hiwl.training.data import epoch_order, sampling_weights
from hiwl.training.params import Shuffled, Weighted


def test_weighted_sampling_draws_each_class_as_often_as_the_other() -> None:
    labels = torch.cat([torch.zeros(462, dtype=torch.long), torch.ones(3122, dtype=torch.long)])
    weights = sampling_weights(labels)
    assert weights[0].item() == pytest.approx(1 / 462)
    assert (weights / weights.sum())[0].item() == pytest.approx(1 / 924)
    assert (weights / weights.sum())[-1].item() == pytest.approx(1 / 6244)
    order = epoch_order(labels, Weighted(), torch.Generator().manual_seed(1))
    assert len(order) == len(labels)
    assert (labels[order] == 0).double().mean().item() == pytest.approx(0.5, abs=0.04)
    assert len(order.unique()) < len(order)


def test_a_shuffled_epoch_shows_every_sample_once() -> None:
    order = epoch_order(torch.zeros(50, dtype=torch.long), Shuffled(), torch.Generator().manual_seed(1))
    assert sorted(order.tolist()) == list(range(50))
