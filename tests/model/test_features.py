from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hiwl.model import backbones
from hiwl.model.classifier import Node


def node_of(name: str, children: int, path: Path) -> Node:
    save_file(backbones.create(name, children, "scratch", None).model.state_dict(), path / "w.safetensors")
    description = {"backbone": name, "children": ["x"] * children, "input": 64, "mean": [0.05] * 3, "std": [0.1] * 3}
    return Node(description, path / "w.safetensors", torch.device("cpu"))


@pytest.mark.parametrize(("name", "head"), [("test_resnet", "fc"), ("test_vit", "head"), ("shufflenet_v2_x0_5", "fc")])
def test_features_are_what_the_last_layer_takes_in(name: str, head: str, tmp_path: Path) -> None:
    node = node_of(name, 3, tmp_path)
    images = torch.randint(0, 256, (5, 72, 72, 3), dtype=torch.uint8)
    rows = np.array([4, 0, 2])
    values = node.ask(images, rows).features
    layer = node.model.get_submodule(head)
    assert isinstance(layer, nn.Linear)
    inputs = images[torch.tensor(rows), 4:68, 4:68].permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        logits = node.model(node.preprocess.normalise(inputs))
        torch.testing.assert_close(layer(values), logits, rtol=1e-3, atol=1e-4)
    assert not any(layer._forward_pre_hooks for layer in node.model.modules())


def test_threads_that_ask_one_network_get_the_features_of_their_own_pictures(tmp_path: Path) -> None:
    node = node_of("test_resnet", 3, tmp_path)
    pictures = [np.random.default_rng(seed).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8) for seed in range(8)]
    alone = [node.by_torch(one)[1] for one in pictures]
    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda one: node.by_torch(one)[1], pictures))
        for mine, wanted in zip(together, alone, strict=True):
            torch.testing.assert_close(mine, wanted)
