from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning_fabric import Fabric
from torch.multiprocessing.spawn import spawn
from torch.nn.functional import normalize

from hiwl.core.errors import HiwlError
from hiwl.model import backbones
from hiwl.model.proxies import SHARPNESS
from hiwl.params import Params
from hiwl.training.data import NodeData
from hiwl.training.distances import ByPairs, ByProxies
from hiwl.training.losses import Output, answers_loss
from hiwl.training.params import NormalisedSoftmax, ProxyNCA, RecipeParams, TrainParams, Triplet
from hiwl.training.trainer import Trainer
from project import ROOT

KINDS = ["proxy_nca", "normalised_softmax", "contrastive", "triplet", "multi_similarity"]


def coloured(with_answers: bool = False) -> NodeData:
    """Pictures of three colours, a class each."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    images = torch.randint(0, 60, (90, 32, 32, 3), dtype=torch.uint8, generator=generator)
    images[torch.arange(90), :, :, labels] += 150
    answers = torch.full((90, 37), torch.nan)
    answers[::2, :3] = torch.eye(3)[labels[::2]]
    parts = {"training": torch.arange(60), "validation": torch.arange(60, 90)}
    return NodeData(
        images=images,
        rows=parts,
        labels={name: labels[rows] for name, rows in parts.items()},
        votes=None,
        teachers=None,
        answers={name: answers[rows] for name, rows in parts.items()} if with_answers else None,
        children=["red", "green", "blue"],
        shares={},
        sources={},
    )


def trainer_of(recipe: dict[str, Any], data: NodeData) -> Trainer:
    train = yaml.safe_load((ROOT / "params.yaml").read_text())["train"]
    own = {"epochs": 10, "batch": 15, "learning_rate": 0.02} | recipe
    params = TrainParams.parse(train | {"input": 32, "recipe": train["recipe"] | own, "nodes": {"root": {}}}, "train")
    torch.manual_seed(0)
    classes, dimension = len(data.children), params.recipe_of("root").dimension
    network = backbones.create("test_resnet", classes, "scratch", None, "linear", dimension).model
    return Trainer(Fabric(accelerator="cpu", devices=1), network, data, params, "root")


@pytest.mark.parametrize("kind", [*KINDS, "cross_entropy"])
def test_every_loss_learns_classes_and_answers_by_what_it_learned(kind: str) -> None:
    trainer = trainer_of({"loss": {"kind": kind}}, coloured())
    for _ in range(10):
        trainer.history.append(trainer.epoch() | trainer.validate())
    assert trainer.history[-1]["validation_accuracy"] > 0.9


def test_the_volunteers_answers_are_learned_beside_the_classes_and_not_kept() -> None:
    plain, more = trainer_of({}, coloured()), trainer_of({"answers": 1.0}, coloured(with_answers=True))
    first = more.epoch()["training_loss"]
    more.history.append({})
    assert more.epoch()["training_loss"] < first
    assert more.weights().keys() == plain.weights().keys()
    state = more.state_dict()
    again = trainer_of({"answers": 1.0}, coloured(with_answers=True))
    again.load_state_dict(state)
    assert torch.equal(again.state_dict()["model"]["answers.weight"], state["model"]["answers.weight"])


def test_windings_are_learned_through_mirrors() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 2
    images = torch.randint(0, 60, (90, 32, 32, 3), dtype=torch.uint8, generator=generator)
    for row, label in enumerate(labels):  # an L, or one in a mirror
        stroke = images[row] if label else images[row].flip(1)
        stroke[8:24, 8:12], stroke[20:24, 8:22] = 200, 200
        images[row] = stroke if label else stroke.flip(1)
    data = coloured()._replace(images=images, children=["CW", "ACW"])
    data = data._replace(labels={name: labels[rows] for name, rows in data.rows.items()})
    augment = {"rotation": 10, "scale": [0.9, 1.0], "flip": 0.5}
    accuracy = {}
    for mirrors in ({"CW": "ACW"}, {}):
        trainer = trainer_of({"augment": augment | {"mirrors": mirrors}, "epochs": 12}, data)
        for _ in range(12):
            trainer.history.append(trainer.epoch() | trainer.validate())
        accuracy[len(mirrors)] = trainer.history[-1]["validation_accuracy"]
    assert accuracy[1] > 0.9
    assert accuracy[0] < 0.8  # half of the pictures were told the wrong way round


def test_questions_that_nobody_was_asked_count_nothing() -> None:
    logits = torch.randn(2, 37, requires_grad=True)
    answers = torch.full((2, 37), torch.nan)
    assert answers_loss(logits, answers).item() == 0
    answers[0, :3] = torch.tensor([0.2, 0.5, 0.3])
    answers_loss(logits, answers).backward()
    assert logits.grad is not None
    assert logits.grad[0, :3].abs().sum() > 0
    assert logits.grad[0, 3:].abs().sum() == logits.grad[1].abs().sum() == 0


def test_normalised_softmax_is_the_librarys() -> None:
    from pytorch_metric_learning.losses import NormalizedSoftmaxLoss

    data, labels = coloured(), torch.tensor([0, 2, 1, 1])
    library = NormalizedSoftmaxLoss(num_classes=3, embedding_size=8, temperature=0.05)
    embedding = torch.randn(4, 8)
    logits = SHARPNESS * normalize(embedding) @ normalize(library.W, dim=0)
    ours = ByProxies(NormalisedSoftmax(), data, torch.device("cpu"))(Output(logits), torch.eye(3)[labels])
    torch.testing.assert_close(ours, library(embedding, labels))


def test_proxy_nca_leaves_the_own_proxy_out_below_the_line() -> None:
    # Cosines .8 with the own proxy, .6 and 0 with the others: squared distances .4, .8 and 2.
    logits = SHARPNESS * torch.tensor([[0.8, 0.6, 0.0]])
    found = ByProxies(ProxyNCA(scale=1), coloured(), torch.device("cpu"))(Output(logits), torch.eye(3)[[0]])
    expected = 0.4 + torch.logsumexp(-torch.tensor([0.8, 2.0]), 0)
    torch.testing.assert_close(found, expected)


def test_the_proxies_of_pairs_are_the_mean_directions_of_classes() -> None:
    torch.manual_seed(1)
    network = backbones.create("test_resnet", 3, "scratch", None, dimension=2).model
    loss = ByPairs(Triplet(), coloured(), torch.device("cpu"), network)
    points = network.get_parameter("fc.1.points")
    unseen = points[2].clone()
    embedding = torch.tensor([[3.0, 1.0], [3.0, -1.0], [0.0, 0.5]], requires_grad=True)
    for _ in range(800):
        loss(Output(torch.zeros(3, 3), embedding), torch.eye(3)[[0, 0, 1]])
    torch.testing.assert_close(points[:2], torch.eye(2), atol=1e-3, rtol=0)
    assert torch.equal(points[2], unseen)
    assert not points.requires_grad


def test_what_cannot_learn_distances_is_refused() -> None:
    with pytest.raises(HiwlError, match="squeezenet1_1 does not end in one linear layer"):
        backbones.create("squeezenet1_1", 3, "scratch", None, dimension=8)
    recipe = yaml.safe_load((ROOT / "params.yaml").read_text())["train"]["recipe"]
    with pytest.raises(HiwlError, match=r"mixup .* which loss triplet cannot learn from"):
        RecipeParams.parse(recipe | {"loss": {"kind": "triplet"}, "mixup": 0.2})
    assert Params.parse(yaml.safe_load((ROOT / "params.yaml").read_text())).train.recipe.dimension is None


@pytest.mark.process
def test_processes_that_share_a_batch_follow_the_same_class_means(tmp_path: Path) -> None:
    spawn(follow_half, (tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first, second)
    assert torch.allclose(first, followed(slice(None)), atol=1e-6)


def follow_half(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/met", rank=rank, world_size=2)
    torch.save(followed(slice(3 * rank, 3 * rank + 3)), folder / f"{rank}.pt")


def followed(part: slice) -> torch.Tensor:
    """The class means after a step of so much of a batch of six."""
    torch.manual_seed(0)
    network = backbones.create("test_resnet", 3, "scratch", None, "linear", 8).model
    embedding, labels = torch.randn(6, 8), torch.tensor([0, 0, 1, 1, 1, 0])
    loss = ByPairs(Triplet(kind="triplet"), coloured(), torch.device("cpu"), network)
    loss(Output(torch.zeros(6, 3)[part], embedding[part]), torch.eye(3)[labels][part])
    return loss._points
