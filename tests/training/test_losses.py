import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hiwl.core.errors import HiwlError
from hiwl.training.data import NodeData
from hiwl.training.losses import SoftCrossEntropy, blended, mix, smoothing_matrix
from hiwl.training.params import CrossEntropy


def test_smoothing_is_the_papers_and_not_torchs() -> None:
    # K = 5, eps = .1: the paper's targets are .9 and four times .025 (section 3.3).
    matrix = smoothing_matrix(5, 0.1)
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
        smoothing_matrix(classes, smoothing),
        smoothing_matrix(classes, smoothing, votes, labels),
    ):
        assert matrix.sum(dim=1).tolist() == pytest.approx([1] * classes)
        assert matrix.diagonal().tolist() == pytest.approx([1 - smoothing] * classes)
        found = blended(matrix[labels], votes, 0.3)
        assert found.sum(dim=1).tolist() == pytest.approx([1] * len(labels))


def test_smoothing_by_similarity_follows_the_votes_that_are_known() -> None:
    labels = torch.tensor([0, 0, 1, 2, 0])
    nobody = [float("nan")] * 3
    votes = torch.tensor([[0.6, 0.3, 0.1], [0.7, 0.3, 0.0], [0.2, 0.8, 0.0], [0.1, 0.1, 0.8], nobody])
    matrix = smoothing_matrix(3, 0.1, votes, labels)
    assert matrix[0].tolist() == pytest.approx([0.9, 0.1 * 6 / 7, 0.1 * 1 / 7])
    assert matrix[1].tolist() == pytest.approx([0.1, 0.9, 0])
    with pytest.raises(HiwlError, match="needs votes on galaxies of every class"):
        smoothing_matrix(3, 0.1, votes[:3], labels[:3])


def test_votes_take_their_share_of_the_target_where_they_are_known() -> None:
    votes = torch.tensor([[0.6, 0.4], [float("nan")] * 2])
    found = blended(smoothing_matrix(2, 0.1)[torch.tensor([0, 0])], votes, 0.5)
    assert found[0].tolist() == pytest.approx([0.75, 0.25])
    assert found[1].tolist() == pytest.approx([0.9, 0.1])


def test_mixing_keeps_shares_and_mixes_pictures_with_their_targets() -> None:
    pictures, target = torch.arange(3.0).view(3, 1, 1, 1), torch.eye(3)
    mixed, mixed_target = mix(pictures, target, 0.75)
    assert mixed.flatten().tolist() == pytest.approx([0.5, 0.75, 1.75])
    assert mixed_target[0].tolist() == pytest.approx([0.75, 0, 0.25])


def test_what_teachers_say_is_a_share_of_the_target_where_they_say_it() -> None:
    labels = {"training": torch.tensor([0, 1]), "validation": torch.tensor([1])}
    told = {"training": torch.tensor([[0.6, 0.4], [torch.nan, torch.nan]]), "validation": torch.tensor([[0.2, 0.8]])}
    data = NodeData(torch.zeros(0), labels, labels, None, told, None, ["a", "b"], {}, {})
    loss = SoftCrossEntropy(CrossEntropy(teachers=0.5), data, torch.device("cpu"))
    assert torch.allclose(loss.targets("training"), torch.tensor([[0.8, 0.2], [0.0, 1.0]]))
    assert torch.allclose(loss.targets("validation"), torch.tensor([[0.1, 0.9]]))
