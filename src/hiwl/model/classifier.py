"""The trained hierarchy, ready to use: the same for `evaluate`, for the served model and for everything later."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256, write_text
from hiwl.model import backbones
from hiwl.model.features import penultimate
from hiwl.model.pixels import PackParams, Pixels
from hiwl.model.preprocess import Preprocess, view
from hiwl.model.tree import Floats, Ints, Routed, Routing, Tree, route

BATCH = 256
CHOICE_FILE = "choice.json"
SUMS = "SHA256SUMS"


@torch.inference_mode()
def predict(
    model: Callable[[Tensor], Tensor] | nn.Module,
    images: Tensor,
    rows: Tensor,
    preprocess: Preprocess,
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
        inputs = preprocess(images[part.to(images.device)].to(device))
        parts.append(torch.stack([model(view(inputs, number)).float() for number in range(views)]))
    return torch.cat(parts, dim=1)


def average(logits: Tensor, temperature: float) -> Floats:
    """Mean over views of the softmax of (views, n, children) `logits` / `temperature`: (n, children), rows sum to 1."""
    result: Floats = torch.softmax(logits.cpu().double() / temperature, dim=2).mean(dim=0).numpy()
    return result


class Node:
    """One trained node: a checkpoint and what `node.json` says of it."""

    def __init__(self, description: dict[str, Any], checkpoint: Path, device: torch.device) -> None:
        self.preprocess = Preprocess(description["input"], tuple(description["mean"]), tuple(description["std"]))
        self.device = device
        self.model = backbones.create(description["backbone"], len(description["children"]), "scratch", None).model
        self.model.load_state_dict(load_file(checkpoint))  # also of half precision, to the model's own
        self.model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def logits(self, images: Tensor, rows: Ints, views: int) -> Tensor:
        """(views, len(rows), children)."""
        return predict(self.model, images, torch.from_numpy(rows), self.preprocess, self.device, views)

    def features(self, images: Tensor, rows: Ints) -> npt.NDArray[np.float32]:
        """Penultimate features, (len(rows), width), of packed uint8 `images` at `rows`."""
        with penultimate(self.model) as parts:
            self.logits(images, rows, views=1)
        result: npt.NDArray[np.float32] = torch.cat(parts).numpy()
        return result


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

    @classmethod
    def load(cls, folder: Path, accelerator: str = "auto") -> Self:
        """From a folder of ``choice.json`` and ``<node>/<checkpoint>``, as `choose` and `publish` write it.

        Raises:
            HiwlError: a file is missing, or not what ``SHA256SUMS`` beside it says.
        """
        check_sums(folder)
        choice = json.loads((folder / CHOICE_FILE).read_text())
        device = device_of(accelerator)
        nodes = {name: Node(one, folder / name / one["file"], device) for name, one in choice["nodes"].items()}
        return cls(choice, nodes)

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


def copy_model(folder: Path, to: Path) -> None:
    """Bring ``choice.json`` and the checkpoints that it names, and nothing else, from `folder` into the folder `to`."""
    shutil.copyfile(folder / CHOICE_FILE, to / CHOICE_FILE)
    for node, chosen in json.loads((to / CHOICE_FILE).read_text())["nodes"].items():
        (to / node).mkdir()
        shutil.copyfile(folder / node / chosen["file"], to / node / chosen["file"])
    write_sums(to)


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` of every file in `folder` but a card, which may name them."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    listed = [name for name in names if name not in (SUMS, "README.md")]
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in listed))


def read_sums(folder: Path) -> dict[str, str]:
    """By file: its SHA-256, as ``SHA256SUMS`` has it.

    Raises:
        HiwlError: there is no such file.
    """
    try:
        lines = (folder / SUMS).read_text().splitlines()
    except FileNotFoundError:
        raise HiwlError(f"{folder / SUMS}: not found; `dvc repro` makes a model, `dvc pull` brings it") from None
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def check_sums(folder: Path) -> None:
    """See to it that every file in `folder` is what ``SHA256SUMS`` there says.

    Raises:
        HiwlError: naming those that are missing or not.
    """
    expected = read_sums(folder)
    wrong = [name for name, digest in expected.items() if not _is(folder / name, digest)]
    if wrong or CHOICE_FILE not in expected:
        names = ", ".join(wrong or [CHOICE_FILE])
        raise HiwlError(f"{folder}: {names}: missing, or not as in {SUMS}; get the folder anew from where it came")


def _is(path: Path, digest: str) -> bool:
    return path.exists() and sha256(path) == digest


def device_of(accelerator: str) -> torch.device:
    """The device to answer on: where `accelerator` is `auto`, a CUDA device if there is one."""
    if accelerator == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(accelerator)
