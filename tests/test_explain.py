"""`hiwl explain`: masks, Grad-CAM, features and silhouettes where the answer is known, then all of it at once."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from hiwl import backbone
from hiwl.attention import LAYERS, Masks, galaxy_mask, grad_cam, share_on, summarise
from hiwl.augment import Normalisation
from hiwl.classifier import Node
from hiwl.clusters import features, silhouette
from hiwl.errors import HiwlError
from hiwl.explain import errors, nodes_above
from hiwl.hierarchy import Tree
from hiwl.images import Pixels
from project import TREES, Project, make


def disc(side: int, x: float, y: float, radius: float) -> Masks:
    rows, columns = np.mgrid[:side, :side] + 0.5
    inside: Masks = (columns - x) ** 2 + (rows - y) ** 2 < radius**2
    return inside


def sky(side: int) -> Pixels:
    return np.random.default_rng(1).normal(20, 2, (side, side, 3)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("side", [64, 65])
def test_the_mask_is_the_central_galaxy_without_its_neighbour(side: int) -> None:
    galaxy, neighbour = disc(side, side / 2, side / 2, 10), disc(side, 52, 12, 6)
    picture = sky(side)
    picture[galaxy | neighbour] = 150
    assert (galaxy_mask(picture) == galaxy).all()


def test_nothing_at_the_centre_gives_an_empty_mask_that_is_counted() -> None:
    picture = sky(64)
    picture[disc(64, 52, 12, 6)] = 150
    assert not galaxy_mask(picture).any()
    assert not galaxy_mask(np.zeros((64, 64, 3), np.uint8)).any()
    table = pd.DataFrame({"class": ["A", "A", "B"], "uniform": [0, 0.2, 0.2], "last": 0.5, "fine": [0.5, 0.5, np.nan]})
    found = summarise(table, ["A", "B"])
    assert found["no_galaxy_found"] == 1
    assert (found["last"]["maps_all_zero"], found["fine"]["maps_all_zero"]) == (0, 1)
    assert found["last"]["all"]["share"] == {"galaxies": 2, "mean": 0.5, "interval": [0.5, 0.5]}
    assert found["last"]["all"]["uniform"] == {"galaxies": 2, "mean": 0.2, "interval": [0.2, 0.2]}
    assert found["fine"]["B"]["share"] == {"galaxies": 0, "mean": None, "interval": None}


def test_a_uniform_maps_share_is_the_masks_share_of_the_area() -> None:
    masks = np.stack([disc(64, 32, 32, 10), disc(64, 20, 40, 15)])
    assert share_on(np.ones((2, 64, 64)), masks) == pytest.approx(masks.mean((1, 2)))
    assert share_on(masks.astype(np.float64), masks) == pytest.approx([1, 1])
    assert np.isnan(share_on(np.zeros((2, 64, 64)), masks)).all()


class Corner(nn.Module):
    """Lets the first channel of a map through in its upper left corner alone, the second in its lower right one."""

    def forward(self, cells: Tensor) -> Tensor:
        """(n, 2, side, side) to the same."""
        seen, half = torch.zeros_like(cells), cells.shape[-1] // 2
        seen[:, 0, :half, :half] = cells[:, 0, :half, :half]
        seen[:, 1, half:, half:] = cells[:, 1, half:, half:]
        return seen


def test_the_map_of_a_model_that_looks_at_one_corner_lies_there() -> None:
    look = nn.Conv2d(3, 2, 8, stride=8)
    nn.init.ones_(look.weight)
    head = nn.Linear(2, 2, bias=False)
    head.weight.data.copy_(torch.eye(2))
    model = nn.Sequential(look, Corner(), nn.AvgPool2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    maps, sides = grad_cam(model, torch.ones(3, 3, 64, 64), torch.tensor([0, 1, 0]))
    assert sides == {"last": 2, "fine": 8}
    upper_left = np.zeros((64, 64), bool)
    upper_left[:32, :32] = True
    shares = {layer: share_on(maps[layer].double().numpy(), np.stack([upper_left] * 3)) for layer in LAYERS}
    # The cells' corners are blurred by as much as half a cell where they are enlarged.
    assert (shares["fine"][[0, 2]] > 0.85).all()
    assert (shares["last"][[0, 2]] > 0.5).all()
    assert shares["fine"][1] < 0.01
    assert shares["last"][1] < 0.1
    assert not any(layer._forward_hooks for layer in model.modules())


def test_a_model_without_maps_is_refused() -> None:
    with pytest.raises(HiwlError, match="no layer with a map"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.ones(1, 3, 2, 2), torch.tensor([0]))


def test_maps_do_not_depend_on_who_else_is_in_the_batch() -> None:
    model = backbone.create("test_resnet", 3, "scratch", None).model
    pictures, targets = torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
    together, _ = grad_cam(model, pictures, targets)
    alone, _ = grad_cam(model, pictures[1:2], targets[1:2])
    for layer in LAYERS:
        torch.testing.assert_close(together[layer][1:2], alone[layer], rtol=1e-3, atol=1e-6)


def node_of(name: str, children: int, path: Path) -> Node:
    from safetensors.torch import save_file

    save_file(backbone.create(name, children, "scratch", None).model.state_dict(), path / "w.safetensors")
    description = {"backbone": name, "children": ["x"] * children, "input": 64, "mean": [0.05] * 3, "std": [0.1] * 3}
    return Node(description, path / "w.safetensors", torch.device("cpu"))


@pytest.mark.parametrize(("name", "head"), [("test_resnet", "fc"), ("test_vit", "head"), ("shufflenet_v2_x0_5", "fc")])
def test_features_are_what_the_last_layer_takes_in(name: str, head: str, tmp_path: Path) -> None:
    node = node_of(name, 3, tmp_path)
    images = torch.randint(0, 256, (5, 72, 72, 3), dtype=torch.uint8)
    rows = np.array([4, 0, 2])
    values = features(node, images, rows)
    layer = node.model.get_submodule(head)
    assert isinstance(layer, nn.Linear)
    inputs = images[torch.tensor(rows), 4:68, 4:68].permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        logits = node.model(Normalisation((0.05,) * 3, (0.1,) * 3)(inputs))
        torch.testing.assert_close(layer(torch.tensor(values)), logits, rtol=1e-3, atol=1e-4)
    assert not any(layer._forward_pre_hooks for layer in node.model.modules())


def test_a_galaxy_is_seen_by_the_deepest_node_above_its_class() -> None:
    above = {tree: nodes_above(Tree(nodes)) for tree, nodes in TREES.items()}
    assert set(above["flat"].values()) == {"root"}
    assert above["paper"] == {"CRS": "root", "IBS": "root", "SPI": "root", "CSS": "narrow", "EO": "narrow"}
    assert above["three"] == {"CRS": "smooth", "IBS": "smooth", "CSS": "narrow", "EO": "narrow", "SPI": "root"}


def test_silhouettes_are_high_for_separated_classes_and_none_for_mixed_ones() -> None:
    random = np.random.default_rng(1)
    classes = np.repeat(np.array(["A", "B", "C"], object), 40)
    noise = random.normal(0, 1, (120, 8)).astype(np.float32)
    apart = noise + 30 * np.eye(8, dtype=np.float32)[np.repeat([0, 1, 2], 40)]
    found, mixed = silhouette(apart, classes), silhouette(noise, classes)
    for metric in ("euclidean", "cosine"):
        assert 0.8 < found[metric]["all"] < 1
        assert set(found[metric]["pairs"]) == {"A B", "A C", "B C"}
        assert mixed[metric]["all"] < 0.1
    assert silhouette(apart[:40], classes[:40]) == {}


def test_errors_come_with_the_answers_probability_the_most_confident_first() -> None:
    answers = pd.DataFrame(
        {"GalaxyID": [3, 1, 2], "class": ["A", "A", "B"], "answer": ["B", "A", "A"], "row": [0, 1, 2]}
    )
    table = errors(answers.assign(p_A=[0.4, 0.9, 0.7], p_B=[0.6, 0.1, 0.3]))
    assert table["GalaxyID"].tolist() == [2, 3]
    assert table["probability"].tolist() == [0.7, 0.6]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The paper's tree on the tiny survey, evaluated."""
    project = make(tmp_path_factory.mktemp("explained") / "p", "paper")
    project.run("dvc", "repro", "evaluate")
    return project


def explain(project: Project, check: bool = True) -> str:
    return project.run("python", "-c", "from hiwl.explain import main; main()", check=check).stdout


def test_a_pack_that_the_models_do_not_know_is_refused(evaluated: Project, tmp_path: Path) -> None:
    other = evaluated.copy(tmp_path / "p")
    other.change(pack={"crop": 256, "side": 40})  # the same galaxies in larger pictures
    other.run("dvc", "repro", "pack")
    assert "data/packed/images.npy: not what models/nodes was trained on" in explain(other, check=False)


def test_an_evaluated_project_is_explained_and_only_numbers_of_real_galaxies_are_kept(evaluated: Project) -> None:
    folder = evaluated.folder
    assert "errors in" in explain(evaluated)
    assert not (folder / "results").exists()
    numbers = json.loads((folder / "explained/explained.json").read_text())
    record = json.loads((folder / "reports/record.json").read_text())
    answers = pd.read_csv(folder / "reports/answers.csv.gz")
    wrong = answers[answers["class"] != answers["answer"]]
    assert numbers["key"] == record["key"]
    assert numbers["galaxies"]["test"] == len(answers)
    assert numbers["galaxies"]["wrong"] == len(wrong)
    assert set(numbers["silhouette"]) == {"root", "narrow"}
    for layer in LAYERS:
        seen = numbers["gradcam"][layer]
        lost = numbers["gradcam"]["no_galaxy_found"] + seen["maps_all_zero"]
        assert seen["all"]["share"]["galaxies"] == len(answers) - lost
    table = pd.read_csv(folder / "explained/errors.csv")
    assert set(table["GalaxyID"]) == set(wrong["GalaxyID"])
    assert table["probability"].is_monotonic_decreasing
    points = pd.read_csv(folder / "explained/tsne.csv.gz")
    splits = pd.read_csv(folder / "data/splits/splits.csv")
    assert points["split"].value_counts().to_dict() == (
        splits.loc[splits["split"] != "validation", "split"].value_counts().to_dict()
    )
    seen_by = points["class"].map(dict(enumerate(numbers["classes"]))).map(numbers["nodes"])
    assert (points["node"] == seen_by).all()
    asked = pd.read_csv(folder / "explained/reading/reading.csv")
    assert len(asked) == 2 * asked["GalaxyID"].isin(wrong["GalaxyID"]).sum() > 0
    for name in ("tsne.png", "gradcam.png", "errors.png", "reading/1.png"):
        assert (folder / "explained" / name).stat().st_size > 10_000

    raw = {"survey": "mine", "source": {"kind": "files"}}
    evaluated.change(raw=evaluated.read()["raw"] | raw)  # by now of another survey than the models
    explain(evaluated)
    assert not (folder / "results").exists()
    real = record | {"parameters": record["parameters"] | {"raw": raw}}
    for file in (folder / "reports/record.json", folder / "models/choice/record.json"):
        file.unlink()  # DVC's cache may hold the same file
        file.write_text(json.dumps(real))
    assert "holds the survey simulated" in explain(evaluated, check=False)
    manifest = folder / "data/raw/manifest.json"
    found = json.loads(manifest.read_text())
    manifest.unlink()
    manifest.write_text(json.dumps(found | {"survey": "mine"}))
    explain(evaluated)
    stem = f"root-narrow-seed1-{record['key'][:8]}"
    kept = {path.name for path in (folder / "results/mine").iterdir()}
    assert kept == {f"{stem}.explained.json", f"{stem}.tsne.csv.gz"}
    assert json.loads((folder / f"results/mine/{stem}.explained.json").read_text()) == numbers


def test_another_choices_evaluation_is_refused(evaluated: Project) -> None:
    file = evaluated.folder / "reports/record.json"
    before = file.read_text()
    file.unlink()  # DVC's cache may hold the same file
    file.write_text(json.dumps(json.loads(before) | {"key": "0" * 16}))
    said = explain(evaluated, check=False)
    file.write_text(before)
    assert "dvc repro evaluate" in said
