from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hiwl.core.errors import HiwlError
from hiwl.model import backbones
from hiwl.model.classifier import GRAPH, Node
from hiwl.training.export import check_export, export


def node_of(name: str, folder: Path, dimension: int | None = None) -> Node:
    if not (folder / "w.safetensors").exists():
        torch.manual_seed(0)
        network = backbones.create(name, 3, "scratch", None, dimension=dimension).model
        save_file(network.state_dict(), folder / "w.safetensors")
    description = {"backbone": name, "children": ["x"] * 3, "input": 64, "mean": [0.05] * 3, "std": [0.1] * 3}
    description |= {"dimension": dimension} if dimension else {}
    return Node(description, folder / "w.safetensors", torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        ("test_resnet", None),
        ("test_efficientnet", None),
        ("shufflenet_v2_x0_5", None),
        ("dieleman", None),
        ("test_resnet", 16),
    ],
)
def test_the_engine_says_what_torch_says_by_a_graph_without_numbers(
    name: str, dimension: int | None, tmp_path: Path
) -> None:
    export(node_of(name, tmp_path, dimension))
    weights = (tmp_path / "w.safetensors").stat().st_size
    assert (tmp_path / GRAPH).stat().st_size < max(weights / 4, 400_000)
    node = node_of(name, tmp_path, dimension)
    assert node.width == node.ask(torch.zeros(1, 64, 64, 3, dtype=torch.uint8), np.array([0])).features.shape[1]
    images = torch.randint(0, 256, (9, 72, 72, 3), dtype=torch.uint8)
    rows = np.array([8, 0, 3])
    seen, wanted = node.ask(images, rows, (0, 5)), node.ask(images, rows, (0, 5), by=node.by_torch)
    torch.testing.assert_close(seen.logits, wanted.logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(seen.features, wanted.features, rtol=1e-3, atol=1e-4)
    assert node.__dict__.get("model") is not None
    assert check_export(node, images, np.arange(9)) < 1e-4


def test_one_graph_serves_the_checkpoint_in_half_precision_too(tmp_path: Path) -> None:
    export(node_of("test_resnet", tmp_path))
    halves = {
        name: value.half() if value.ndim > 1 else value for name, value in load_file(tmp_path / "w.safetensors").items()
    }
    save_file(halves, tmp_path / "w.safetensors")
    node = Node(node_of("test_resnet", tmp_path).description, tmp_path / "w.safetensors", torch.device("cpu"))
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    assert check_export(node, images, np.arange(4)) < 1e-4


def test_a_graph_of_another_network_is_refused(tmp_path: Path) -> None:
    export(node_of("test_resnet", tmp_path))
    node = node_of("test_resnet", tmp_path)
    assert node.by_engine is not None  # holds the numbers as they were
    changed = load_file(tmp_path / "w.safetensors")
    changed["fc.bias"] = changed["fc.bias"] + torch.tensor([0.0, 5.0, 0.0])
    save_file(changed, tmp_path / "w.safetensors")
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    with pytest.raises(HiwlError, match=r"answers otherwise than torch: . of 4 answers"):
        check_export(node, images, np.arange(4))
