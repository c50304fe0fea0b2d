"""The trained hierarchy, ready to use: the same for `evaluate`, for the served model and for everything later."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hiwl import backbone
from hiwl.augment import Normalisation, centre
from hiwl.errors import HiwlError
from hiwl.hierarchy import Floats, Ints, Routed, Routing, Tree, route
from hiwl.images import Pixels

BATCH = 256


@torch.inference_mode()
def predict(
    model: Callable[[Tensor], Tensor] | nn.Module,
    images: Tensor,
    rows: Tensor,
    size: int,
    normalise: Normalisation,
    device: torch.device,
    views: int = 1,
) -> Tensor:
    """Logits (views, len(rows), children) of packed uint8 `images` at `rows`, by the evaluation transform.

    Of the eight rotations by quarter turns and reflections of each picture, the first `views`.
    """
    if isinstance(model, nn.Module):
        model.eval()
    parts = []
    for part in rows.split(BATCH):
        pictures = centre(images[part.to(images.device)].to(device), size, normalise)
        parts.append(torch.stack([model(_view(pictures, number)).float() for number in range(views)]))
    return torch.cat(parts, dim=1)


def _view(pictures: Tensor, number: int) -> Tensor:
    """One of the eight symmetries of the square of (n, 3, h, w) pictures; 0 leaves them as they are."""
    turned = torch.rot90(pictures, number % 4, (2, 3))
    seen = turned.flip(3) if number >= 4 else turned
    return seen.contiguous(memory_format=torch.channels_last)


def average(logits: Tensor, temperature: float) -> Floats:
    """Mean over views of the softmax of (views, n, children) `logits` / `temperature`: (n, children), rows sum to 1."""
    result: Floats = torch.softmax(logits.cpu().double() / temperature, dim=2).mean(dim=0).numpy()
    return result


class Node:
    """One trained node: a checkpoint and what `node.json` says of it."""

    def __init__(self, description: dict[str, Any], checkpoint: Path, device: torch.device) -> None:
        self.input: int = description["input"]
        self.normalise = Normalisation(tuple(description["mean"]), tuple(description["std"]))
        self.device = device
        self.model = backbone.create(description["backbone"], len(description["children"]), "scratch", None).model
        try:
            weights = load_file(checkpoint)
        except FileNotFoundError:
            raise HiwlError(f"{checkpoint}: not there; `dvc repro` or `dvc pull` brings it") from None
        self.model.load_state_dict(weights)  # also of half precision, to the model's own
        self.model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def logits(self, images: Tensor, rows: Ints, views: int) -> Tensor:
        """(views, len(rows), children)."""
        return predict(self.model, images, torch.from_numpy(rows), self.input, self.normalise, self.device, views)


class Classifier:
    """A choice of one checkpoint for every node, and the tree that routes between them."""

    def __init__(self, choice_file: Path, checkpoints: Callable[[str, str], Path], device: torch.device) -> None:
        """Load what `choice_file` names; `checkpoints(node, file)` says where a checkpoint lies."""
        choice = json.loads(choice_file.read_text())
        self.tree = Tree(choice["hierarchy"])
        self.crop: int = choice["crop"]
        self.side: int = choice["side"]
        self.shares: dict[str, int] = choice["shares"]
        self.views: int = choice["views"]
        self.routing: Routing = choice["routing"]
        self.temperatures: dict[str, float] = choice["temperatures"]
        self.nodes = {
            name: Node(description, checkpoints(name, description["file"]), device)
            for name, description in choice["nodes"].items()
        }

    def __call__(self, images: Pixels | Tensor) -> Routed:
        """Answers for (n, side, side, 3) uint8 pictures."""
        pictures = images if isinstance(images, Tensor) else torch.from_numpy(images)
        return route(
            self.tree,
            lambda node, rows: average(self.nodes[node].logits(pictures, rows, self.views), self.temperatures[node]),
            len(pictures),
            self.shares,
            self.routing,
        )


def device_of(accelerator: str) -> torch.device:
    """The device to answer on: where `accelerator` is `auto`, a CUDA device if there is one."""
    if accelerator == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(accelerator)
