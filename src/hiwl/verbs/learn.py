"""`hiwl learn LABELS.csv -o FOLDER`: a new task from one's own labels, as a model like any other.

The labels are a column of classes, or several columns of fractions. A fifth of the galaxies is held out: it chooses the
rate, calibrates the answers and says how good they are. `--train` says how much of a network is trained: `probe`, a new
last layer on features that stay as they are; `head`, what follows its last stage; `all` of it.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split
from torch import nn
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing_folder, sha256, write_json
from hiwl.core.layout import pretrained
from hiwl.core.registry import weights_folder
from hiwl.core.settings import settings
from hiwl.core.sums import SUMS, write_sums
from hiwl.measure.intervals import wilson
from hiwl.model import backbones
from hiwl.model.answer import Model
from hiwl.model.calibration import fit_temperature
from hiwl.model.classifier import CHOICE_FILE, Classifier, Node, average
from hiwl.model.components import Components, Features
from hiwl.model.features import last_layers
from hiwl.model.probe import fit_probe
from hiwl.model.tree import ROOT, Floats, Ints
from hiwl.model.trust import TRUST, Trust
from hiwl.survey.inputs import PATH, Files
from hiwl.training.data import NodeData
from hiwl.training.export import export
from hiwl.training.params import AugmentParams, CrossEntropy, RecipeParams, TrainParams
from hiwl.training.trainer import Trainer
from hiwl.verbs.labels import read_labels

LIKE = "best"
"""Of `pretrained`: whose pixels a network sees that comes without a model."""
FILE, NUMBERS = "model.safetensors", "learned.json"
HELD_OUT, SEED = 0.2, 1
MANY = 50
"""Galaxies held out, with fewer than which answers are not made more certain than the network has them."""
RATES = (0.003, 0.01, 0.03)
STEPS, LEAST, MOST = 200, 4, 30
"""A training takes about so many steps, in between 4 and 30 epochs."""


class Start(NamedTuple):
    """The network that learns, before it does."""

    backbone: str
    pretrained: str
    """As `train.pretrained`."""
    weights: Path | None
    """The file of weights or the model's checkpoint, where there is one."""
    seen: dict[str, Any]
    """`input`, `mean`, `std`: how the pixels come in."""
    pack: dict[str, Any]

    @classmethod
    def of(cls, start: str) -> Self:
        """From a model, or <network>:<weights>, which are `scratch`, `hub`, `hub:<tag>` or a safetensors file.

        Raises:
            HiwlError: there are no such weights, or they end in an embedding.
        """
        network, colon, weights = start.partition(":")
        is_model = not colon or network in ("models", "runs")
        folder = weights_folder(start) if is_model else pretrained(LIKE)
        choice = json.loads((folder / CHOICE_FILE).read_text())
        node = choice["nodes"][ROOT]
        seen = {name: node[name] for name in ("input", "mean", "std")}
        pack = {name: choice[name] for name in ("crop", "side", "small", "fits") if name in choice}
        if is_model:
            if node.get("dimension"):
                raise HiwlError(
                    f"--start {start}: it learned distances, and its embedding would be lost; start from another"
                )
            checkpoint = folder / ROOT / node["file"]
            return cls(node["backbone"], sha256(checkpoint), checkpoint, seen, pack)
        if weights != "scratch":  # what has seen other pictures expects them as they were
            seen |= dict(zip(("mean", "std"), backbones.normalisation(network, weights), strict=True))
        if not weights.endswith(".safetensors"):
            return cls(network, weights, None, seen, pack)
        if not Path(weights).is_file():
            raise HiwlError(f"--start {start}: {weights} not found")
        return cls(network, sha256(Path(weights)), Path(weights), seen, pack)

    def network(self, classes: int) -> nn.Module:
        """With a new last layer for so many classes."""
        torch.manual_seed(SEED)
        model = backbones.create(self.backbone, classes, self.pretrained, self.weights, "linear").model
        side = self.seen["input"]
        try:
            with torch.inference_mode():
                model.eval()(torch.zeros(1, 3, side, side))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise HiwlError(f"--start {self.backbone}: it does not take pictures of {side} pixels ({error})") from None
        return model


class Task(NamedTuple):
    """What is to be learned, of n galaxies."""

    classes: list[str]
    targets: Floats
    """(n, classes), rows sum to 1."""
    pictures: torch.Tensor
    """(n, side, side, 3) uint8."""

    @property
    def is_soft(self) -> bool:
        """Whether they are fractions instead of one class each."""
        return bool(((self.targets > 0) & (self.targets < 1)).any())

    @property
    def labels(self) -> Ints:
        """(n,): the class of the largest share."""
        return np.asarray(self.targets.argmax(axis=1), np.int64)


def main(labels: str, output: str, images: str | None, column: list[str], start: str, train: str) -> None:
    """Learn, and write a model into the folder `output`.

    Raises:
        HiwlError: the labels, pictures or start are not usable.
    """
    out = Path(output).absolute()
    _check_output(out)
    began = Start.of(start)
    given, classes, targets = read_labels(Path(labels), images, column)
    network = began.network(len(classes))
    with replacing_folder(out) as beside:
        (beside / ROOT).mkdir()
        node = _save(network, began, classes, beside)
        task, features = _look(given, classes, targets, node, began)
        taught, held_out = split(task)
        if train == "probe":
            _set_last(node.model, fit_probe(features[taught], task.targets[taught]))
            tried: dict[float, float | None] = {}
        else:
            tried = teach(node.model, began, task, taught, held_out, head=train == "head")
        node = _save(node.model, began, classes, beside)
        said = _finish(beside, node, task, taught, held_out, began)
        said |= {"start": start, "backbone": began.backbone, "train": train, "validation_loss_by_rate": tried}
        write_json(beside / NUMBERS, said)
        write_sums(beside)
    low, high = said["accuracy_interval"]
    worst = min(said["recall"], key=said["recall"].__getitem__)
    print(
        f"learn: {output}: {', '.join(classes)} from {said['galaxies']['training']:,} galaxies; accuracy "
        f"{said['accuracy']:.4f} ({low:.4f} to {high:.4f}) on {said['galaxies']['validation']:,} held out"
        f"{', which chose the rate too' if tried else ''}, of which {said['commonest_share']:.4f} are of the commonest "
        f"class; lowest recall {said['recall'][worst]:.4f} ({worst})"
        + (f"; AUROC {said['auroc']:.4f}" if "auroc" in said else "")
    )


def _check_output(out: Path) -> None:
    """Nothing but an earlier model is replaced.

    Raises:
        HiwlError: something else lies there.
    """
    if out.is_dir() and (out / CHOICE_FILE).exists():
        foreign = {path.name for path in out.iterdir()} - {CHOICE_FILE, ROOT, NUMBERS, SUMS, TRUST}
    else:
        if files := [path for path in (out, *out.parents) if path.exists() and not path.is_dir()]:
            raise HiwlError(f"{out}: {files[0]} is a file; name a new folder")
        foreign = {path.name for path in out.glob("*")}
    if foreign:
        raise HiwlError(f"{out}: holds {', '.join(sorted(foreign)[:3])}, and would be replaced; name a new folder")


def _look(given: Files, classes: list[str], targets: Floats, node: Node, start: Start) -> tuple[Task, Features]:
    """Decode the labelled pictures, and see them."""
    model = Model(Classifier(_choice(node.description, start), {ROOT: node}), None)
    with tqdm(total=len(given), unit="image", desc="looking") as progress:
        seen = [model.embed(table, ROOT, each=progress.update) for table in given.tables(0, 1024)]
    errors = np.concatenate([part.errors for part in seen])
    pictures = np.concatenate([part.pictures for part in seen])
    features = np.concatenate([part.features for part in seen])
    is_good = np.array([error is None for error in errors], bool)
    told = ""
    if not is_good.all():
        first = int(np.argmin(is_good))
        told = f"{(~is_good).sum():,} pictures cannot be read, first {given.given[PATH].iloc[first]}: {errors[first]}"
        print(f"learn: {told}")
    if not is_good.any():
        raise HiwlError(f"none of the labelled pictures can be read: {told}")
    seen_pictures = torch.from_numpy(np.stack(list(pictures[is_good])))
    return Task(classes, targets[is_good], seen_pictures), features[is_good]


def split(task: Task) -> tuple[Ints, Ints]:
    """Rows to learn from and rows held out, each class among both.

    Raises:
        HiwlError: there are too few galaxies of a class.
    """
    counts = np.bincount(task.labels, minlength=len(task.classes))
    if len(task.labels) < 2 * len(task.classes) or (counts.min() < 2 and not task.is_soft):
        rare = task.classes[int(counts.argmin())]
        raise HiwlError(f"{rare}: {counts.min()} galaxies; label at least two, one to learn from and one to check by")
    held_out = max(HELD_OUT, len(task.classes) / len(task.labels))
    within = None if task.is_soft else task.labels
    taught, checked = train_test_split(
        np.arange(len(task.labels)), test_size=held_out, stratify=within, random_state=SEED
    )
    for name, share in zip(task.classes, task.targets[taught].sum(axis=0), strict=True):
        if not share:
            raise HiwlError(f"{name}: above 0 in too few rows to learn from some and check by others; label more")
    return np.sort(taught), np.sort(checked)


def teach(
    model: nn.Module, start: Start, task: Task, taught: Ints, held_out: Ints, head: bool
) -> dict[float, float | None]:
    """Train `model` at the rate whose loss on the galaxies held out is least; give that of each rate."""
    begun = {name: value.clone() for name, value in model.state_dict().items()}
    if head:
        freeze_trunk(model)
    losses: dict[float, float | None] = {}
    best, least = begun, math.inf
    for rate in RATES:
        model.load_state_dict(begun)
        trainer = _trainer(model, start, task, taught, held_out, rate)
        try:
            for _ in range(trainer.recipe.epochs):
                trainer.history.append(trainer.epoch())
        except HiwlError:  # its loss is not finite; lower rates may do
            losses[rate] = None
            continue
        loss = trainer.validate()["validation_loss"]
        losses[rate] = loss if math.isfinite(loss) else None
        if loss < least:
            best, least = {name: value.clone() for name, value in model.state_dict().items()}, loss
    if math.isinf(least):
        raise HiwlError(
            f"the losses of all rates ({', '.join(map(str, RATES))}) are not finite; start from another network"
        )
    model.load_state_dict(best)
    return losses


def freeze_trunk(model: nn.Module) -> None:
    """Let all but what follows the network's last stage stay as it is."""
    last = last_layers(model)[0].split(".")[0]
    children = list(model.named_children())
    stages = [
        place
        for place, (name, child) in enumerate(children)
        if isinstance(child, nn.Sequential) and name != last and any(True for _ in child.parameters())
    ]
    model.requires_grad_(False)
    for _, child in children[stages[-1] + 1 if stages else -1 :]:
        child.requires_grad_(True)


def _trainer(model: nn.Module, start: Start, task: Task, taught: Ints, held_out: Ints, rate: float) -> Trainer:
    batch = min(32, max(2, len(taught) // 4))
    epochs = int(np.clip(STEPS * batch // len(taught), LEAST, MOST))
    recipe = RecipeParams(
        name="learn",
        epochs=epochs,
        batch=batch,
        learning_rate=rate,
        loss=CrossEntropy(votes=1.0 if task.is_soft else 0.0),
        augment=AugmentParams(rotation=180, scale=(0.9, 1.0), flip=0.5),
    )
    params = TrainParams(
        seed=SEED,
        backbone=start.backbone,
        pretrained=start.pretrained,
        head="linear",
        input=start.seen["input"],
        mean=tuple(start.seen["mean"]),
        std=tuple(start.seen["std"]),
        keep=1,
        recipe=recipe,
        nodes={ROOT: {}},
    )
    rows = {"training": torch.from_numpy(taught), "validation": torch.from_numpy(held_out)}
    labels, shares = torch.from_numpy(task.labels), torch.from_numpy(task.targets).float()
    data = NodeData(
        images=task.pictures,
        rows=rows,
        labels={name: labels[part] for name, part in rows.items()},
        votes={name: shares[part] for name, part in rows.items()} if task.is_soft else None,
        teachers=None,
        answers=None,
        children=task.classes,
        shares={},
        sources={},
    )
    here = settings()
    fabric = Fabric(accelerator=here.accelerator, devices=1, precision=here.precision)
    torch.set_num_threads(here.threads)
    return Trainer(fabric, model, data, params, ROOT, here.compile)


def _set_last(model: nn.Module, layer: tuple[Any, Any]) -> None:
    names = last_layers(model)
    last = model.get_submodule(names[0])
    if len(names) > 1 or not isinstance(last, nn.Linear):
        raise HiwlError("--train probe: the network does not end in one linear layer; use head or all")
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(layer[0]))
        last.bias.copy_(torch.from_numpy(layer[1]))


def _save(model: nn.Module, start: Start, classes: list[str], folder: Path) -> Node:
    """Write the checkpoint, and give the node that answers by it."""
    path = folder / ROOT / FILE
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    description = {"node": ROOT, "children": classes, "backbone": start.backbone, **start.seen, "file": FILE}
    return Node(description, path, torch.device("cpu"))


def _choice(description: dict[str, Any], start: Start, temperature: float = 1.0) -> dict[str, Any]:
    shares = dict.fromkeys(description["children"], 1)
    return {
        "hierarchy": {ROOT: description["children"]},
        **start.pack,
        "shares": shares,
        "views": 1,
        "routing": "hard",
        "temperatures": {ROOT: temperature},
        "nodes": {ROOT: description},
    }


def _finish(folder: Path, node: Node, task: Task, taught: Ints, held_out: Ints, start: Start) -> dict[str, Any]:
    """Calibrate, write all that a model has, and measure it on the galaxies held out."""
    export(node)
    seen = node.ask(task.pictures, held_out)
    labels = task.labels[held_out]
    temperature = fit_temperature(seen.logits, task.targets[held_out])
    if len(labels) < MANY:  # few right answers say nothing for more certainty
        temperature = max(1.0, temperature)
        print(f"learn: {len(labels)} galaxies held out calibrate the answers; take probabilities and sets as rough")
    shares = average(seen.logits, temperature)
    known = task.pictures[torch.from_numpy(held_out)].numpy()
    Trust.fit(shares, labels, seen.features.numpy(), known, task.classes).save(folder)
    Components.fit(node.ask(task.pictures, taught).features.numpy()).save(folder / ROOT)
    right = shares.argmax(axis=1) == labels
    choice = _choice(node.description, start, temperature)
    counts = np.bincount(task.labels[taught], minlength=len(task.classes))
    choice |= {"shares": dict(zip(task.classes, counts.tolist(), strict=True)), "validation_accuracy": right.mean()}
    write_json(folder / CHOICE_FILE, choice)
    said: dict[str, Any] = {
        "galaxies": {"training": len(taught), "validation": len(held_out)},
        "accuracy": float(right.mean()),
        "accuracy_interval": wilson(int(right.sum()), len(right)),
        "commonest_share": float(np.bincount(labels).max() / len(labels)),
        "recall": {task.classes[label]: float(right[labels == label].mean()) for label in np.unique(labels)},
        "temperature": temperature,
    }
    if len(task.classes) == 2 and len(set(labels.tolist())) == 2:
        said |= {"auroc": float(roc_auc_score(labels, shares[:, 1]))}
        rarer = int(np.bincount(labels).argmin())  # of the other, a high precision would mean nothing
        said["average_precision"] = float(average_precision_score(labels == rarer, shares[:, rarer]))
        said["average_precision_of"] = task.classes[rarer]
    if task.is_soft:
        said["mean_absolute_error"] = float(np.abs(shares - task.targets[held_out]).mean())
    return said
