"""The trained hierarchy, ready to use: the same for `evaluate`, for the served model and for everything later."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hiwl.core.settings import settings
from hiwl.core.sums import check_sums, write_sums
from hiwl.model import backbones
from hiwl.model.components import FILE as COMPONENTS
from hiwl.model.features import penultimate, width
from hiwl.model.pixels import PackParams, Pixels
from hiwl.model.preprocess import Preprocess, is_mirror, view
from hiwl.model.tree import ROOT, Floats, Ints, Routed, Routing, Tree, route
from hiwl.model.trust import TRUST

BATCH = 128
CHOICE_FILE = "choice.json"
GRAPH = "network.onnx"


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, rows: Tensor, preprocess: Preprocess, device: torch.device) -> Tensor:
    """Logits (len(rows), children) of packed uint8 `images` at `rows`, by the evaluation transform."""
    model.eval()
    parts = (images[part.to(images.device)].to(device) for part in rows.split(BATCH))
    return torch.cat([model(preprocess(part)).float() for part in parts])


def average(logits: Tensor, temperature: float) -> Floats:
    """Mean over views of the softmax of (views, n, children) `logits` / `temperature`: (n, children), rows sum to 1."""
    result: Floats = torch.softmax(logits.cpu().double() / temperature, dim=2).mean(dim=0).numpy()
    return result


class Seen(NamedTuple):
    """What a node says of n pictures."""

    logits: Tensor
    """(views, n, children)."""
    features: Tensor
    """(n, width): penultimate features of the first of these views."""


Network = Callable[[Pixels], tuple[Tensor, Tensor]]
"""From (n, size, size, 3) uint8 pictures to logits (n, children) and penultimate features (n, width)."""


class Node:
    """One trained node: a checkpoint, what `node.json` says of it, and the graph beside it if there is one."""

    def __init__(self, description: dict[str, Any], checkpoint: Path, device: torch.device) -> None:
        self.preprocess = Preprocess(description["input"], tuple(description["mean"]), tuple(description["std"]))
        self.description = description
        self.checkpoint = checkpoint
        self.device = device
        self._has_graph = device.type == "cpu" and checkpoint.with_name(GRAPH).exists()

    @cached_property
    def model(self) -> nn.Module:
        """The network itself."""
        children, dimension = len(self.description["children"]), self.description.get("dimension")
        model = backbones.create(self.description["backbone"], children, "scratch", None, dimension=dimension).model
        model.load_state_dict(load_file(self.checkpoint))  # also of half precision, to the model's own
        return model.to(self.device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]

    @cached_property
    def width(self) -> int:
        """How many features it has."""
        return width(self.model)

    @cached_property
    def by_torch(self) -> Network:
        """By torch."""
        return partial(_by_torch, self.model, self.preprocess, self.device)

    @cached_property
    def by_engine(self) -> Network:
        """By OpenVINO."""
        from hiwl.model.engine import Engine

        return Engine(self.checkpoint.with_name(GRAPH), load_file(self.checkpoint), self.preprocess, settings().threads)

    def ask(self, images: Tensor, rows: Ints, views: Sequence[int] = (0,), by: Network | None = None) -> Seen:
        """What the node says of packed uint8 `images` at `rows`, by each of `views` (see :func:`view`)."""
        network = by or (self.by_engine if self._has_graph else self.by_torch)
        packed, logits, features = images.numpy(), [], []
        at_once = max(1, BATCH // len(views))
        for start in range(0, len(rows), at_once):
            pictures = self.preprocess.centre(packed[rows[start : start + at_once]])
            said, seen = network(np.concatenate([view(pictures, number) for number in views]))
            of_views = said.unflatten(0, (len(views), -1))
            if mirrored := self.description.get("mirrored"):  # a winding seen in a mirror is the other one
                in_mirror = torch.tensor([is_mirror(number) for number in views])[:, None, None]
                of_views = torch.where(in_mirror, of_views[:, :, mirrored], of_views)
            logits.append(of_views)
            features.append(seen[: len(pictures)])
        return Seen(torch.cat(logits, dim=1), torch.cat(features))


@torch.inference_mode()
def _by_torch(
    model: nn.Module, preprocess: Preprocess, device: torch.device, pictures: Pixels
) -> tuple[Tensor, Tensor]:
    with penultimate(model) as parts:
        logits = model(preprocess(torch.from_numpy(pictures).to(device))).float().cpu()
    return logits, parts[0].cpu()


class Answers(NamedTuple):
    """What the tree says of n pictures."""

    routed: Routed
    features: npt.NDArray[np.float32]
    """(n, width): the root's penultimate features of each picture as it stands."""
    views: Ints
    """(n,): by how many views at most the nodes on its way have seen each picture."""


class Classifier:
    """One checkpoint for every node, and the tree that routes between them."""

    def __init__(self, choice: dict[str, Any], nodes: dict[str, Node]) -> None:
        self.choice = choice
        self.nodes = nodes
        self.tree = Tree(choice["hierarchy"])
        self.pack = PackParams.parse({name: choice[name] for name in PackParams.model_fields if name in choice})
        self.shares: dict[str, int] = choice["shares"]
        self.views: int = choice["views"]
        self.routing: Routing = choice["routing"]
        self.temperatures: dict[str, float] = choice["temperatures"]
        self.sure: dict[str, float] = choice.get("sure", {})

    @classmethod
    def load(cls, folder: Path, accelerator: str = "auto") -> Self:
        """From a folder of ``choice.json`` and ``<node>/<checkpoint>``, as `choose` and `publish` write it.

        Raises:
            HiwlError: a file is missing, or not what ``SHA256SUMS`` beside it says.
        """
        check_sums(folder, CHOICE_FILE)
        choice = json.loads((folder / CHOICE_FILE).read_text())
        device = device_of(accelerator)
        nodes = {name: Node(one, folder / name / one["file"], device) for name, one in choice["nodes"].items()}
        return cls(choice, nodes)

    def __call__(self, images: Pixels | Tensor) -> Answers:
        """Answers for (n, side, side, 3) uint8 pictures."""
        pictures = images if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images))
        views = np.zeros(len(pictures), np.int64)
        features: list[Tensor] = [torch.empty(0, 0)]

        def probabilities_of(name: str, rows: Ints) -> Floats:
            probabilities, asked, seen = self._ask(name, pictures, rows)
            views[rows] = np.maximum(views[rows], asked)
            if name == ROOT:
                features[0] = seen
            return probabilities

        routed = route(self.tree, probabilities_of, len(pictures), self.shares, self.routing)
        return Answers(routed, features[0].numpy(), views)

    def _ask(self, name: str, pictures: Tensor, rows: Ints) -> tuple[Floats, Ints, Tensor]:
        """Probabilities by a node, by how many views, and features: first by one view, and where that leaves the answer
        open, by the mean over all."""
        node, temperature = self.nodes[name], self.temperatures[name]
        first, features = node.ask(pictures, rows)
        probabilities = average(first, temperature)
        is_open = probabilities.max(axis=1) < self.sure.get(name, math.inf)
        if self.views > 1 and is_open.any():
            rest, _ = node.ask(pictures, rows[is_open], range(1, self.views))
            every = torch.cat([first[:, torch.from_numpy(is_open)], rest])
            probabilities[is_open] = average(every, temperature)
        return probabilities, np.where(is_open, self.views, 1), features


def copy_model(folder: Path, to: Path) -> None:
    """Bring ``choice.json``, what was fitted for it, the checkpoints that it names and their graphs, and nothing else,
    from `folder` into the folder `to`."""
    shutil.copyfile(folder / CHOICE_FILE, to / CHOICE_FILE)
    if (folder / TRUST).exists():
        shutil.copyfile(folder / TRUST, to / TRUST)
    for node, chosen in json.loads((to / CHOICE_FILE).read_text())["nodes"].items():
        (to / node).mkdir()
        for file in (chosen["file"], GRAPH, COMPONENTS):
            if (folder / node / file).exists():
                shutil.copyfile(folder / node / file, to / node / file)
    write_sums(to)


def device_of(accelerator: str) -> torch.device:
    """The device to answer on: where `accelerator` is `auto`, a CUDA device if there is one."""
    if accelerator == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(accelerator)
