"""`hiwl learn LABELS.csv -o FOLDER`: a new task from one's own labels, as a model like any other.

The labels are a column of classes, or several columns of fractions. A fifth of the galaxies is held out: it chooses the
rate, calibrates the answers and says how good they are. `--train` says how much of a network is trained: `probe`, a new
last layer on features that stay as they are; `head`, what follows its last stage; `all` of it.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split
from torch import nn
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing_folder, sha256, write_json
from hiwl.core.layout import pretrained
from hiwl.core.registry import weights_folder
from hiwl.core.settings import settings
from hiwl.measure.intervals import wilson
from hiwl.model import backbones
from hiwl.model.answer import Model
from hiwl.model.calibration import fit_temperature
from hiwl.model.classifier import CHOICE_FILE, Classifier, Node, average, write_sums
from hiwl.model.components import Components
from hiwl.model.features import last_layers
from hiwl.model.probe import fit_probe
from hiwl.model.tree import NAME, ROOT, Floats, Ints
from hiwl.model.trust import Trust
from hiwl.survey.inputs import PATH, Files, Input, find
from hiwl.survey.pictures import look
from hiwl.survey.text_table import read_text_table
from hiwl.training.data import NodeData
from hiwl.training.export import export
from hiwl.training.params import AugmentParams, CrossEntropy, RecipeParams, TrainParams
from hiwl.training.trainer import Trainer

LIKE = "best"
"""Of `pretrained`: whose pixels a network sees that comes without a model."""
NAMES = ("class", "label", "answer", "type", "morphology", "category")
"""What people call the column of the labels."""
FILE, NUMBERS = "model.safetensors", "learned.json"
HELD_OUT, SEED = 0.2, 1
RATES = (0.003, 0.01, 0.03)
STEPS, LEAST, MOST = 200, 4, 30
"""A training takes about so many steps, in between 4 and 30 epochs."""


class Start(NamedTuple):
    """The network that learns, before it does."""

    backbone: str
    pretrained: str
    """As `train.pretrained`; of a model, its folder."""
    weights: Path | None
    """The file of weights or the model's checkpoint, where there is one."""
    seen: dict[str, Any]
    """`input`, `mean`, `std`: how the pixels come in."""
    pack: dict[str, Any]

    @classmethod
    def of(cls, start: str) -> Self:
        """From a model, or <network>:<weights>, which are `scratch`, `hub`, `hub:<tag>` or a safetensors file."""
        network, colon, weights = start.partition(":")
        is_model = not colon or network in ("models", "runs")
        folder = weights_folder(start) if is_model else pretrained(LIKE)
        choice = json.loads((folder / CHOICE_FILE).read_text())
        node = choice["nodes"][ROOT]
        seen = {name: node[name] for name in ("input", "mean", "std")}
        pack = {name: choice[name] for name in ("crop", "side", "small", "fits") if name in choice}
        if is_model:
            return cls(node["backbone"], str(folder), folder / ROOT / node["file"], seen, pack)
        if weights != "scratch":  # what has seen other pictures expects them as they were
            seen |= dict(zip(("mean", "std"), backbones.normalisation(network), strict=True))
        if not weights.endswith(".safetensors"):
            return cls(network, weights, None, seen, pack)
        if not Path(weights).is_file():
            raise HiwlError(f"--start {start}: {weights} not found")
        return cls(network, sha256(Path(weights)), Path(weights), seen, pack)

    def network(self, classes: int) -> nn.Module:
        """With a new last layer for so many classes."""
        torch.manual_seed(SEED)
        if self.weights is None or not self.weights.with_name("..").joinpath(CHOICE_FILE).exists():
            return backbones.create(self.backbone, classes, self.pretrained, self.weights, "linear").model
        model = backbones.create(self.backbone, classes, "scratch", None, "linear").model
        heads = last_layers(model)
        kept = {key: value for key, value in load_file(self.weights).items() if not key.startswith(heads)}
        model.load_state_dict(kept, strict=False)
        return model


class Task(NamedTuple):
    """What is to be learned, of n galaxies."""

    classes: list[str]
    targets: Floats
    """(n, classes), rows sum to 1."""
    is_soft: bool
    """Fractions instead of one class each."""
    pictures: torch.Tensor
    """(n, side, side, 3) uint8."""

    @property
    def labels(self) -> Ints:
        """(n,): the class of the largest share."""
        return np.asarray(self.targets.argmax(axis=1), np.int64)


def main(labels: str, output: str, images: str | None, column: list[str], start: str, train: str) -> None:
    """Learn, and write a model into the folder `output`.

    Raises:
        HiwlError: the labels, pictures or start are not usable.
    """
    began = Start.of(start)
    given = _inputs(Path(labels), images)
    classes, targets = read_targets(Path(labels), given.given, column)
    out = Path(output)
    with replacing_folder(out) as beside:
        (beside / ROOT).mkdir()
        node = _save(began.network(len(classes)), began, classes, beside)
        task, features = _look(given, classes, targets, len(column) > 1, node, began)
        taught, held_out = _split(task)
        if train == "probe":
            layer = fit_probe(features[taught], task.targets[taught])
            tried: dict[float, float] = {}
            _set_last(node.model, layer)
        else:
            tried = _train(node.model, began, task, taught, held_out, head=train == "head")
        node = _save(node.model, began, classes, beside)
        said = _finish(beside, node, task, taught, held_out, began)
        said |= {"start": start, "backbone": began.backbone, "train": train, "validation_loss_by_rate": tried}
        write_json(beside / NUMBERS, said)
        write_sums(beside)
    low, high = said["accuracy_interval"]
    print(
        f"learn: {out}: {', '.join(classes)} from {said['galaxies']['training']:,} galaxies; accuracy "
        f"{said['accuracy']:.4f} ({low:.4f} to {high:.4f}) on {said['galaxies']['validation']:,} held out"
        + (f", AUROC {said['auroc']:.4f}" if "auroc" in said else "")
    )


def read_targets(path: Path, table: pd.DataFrame, columns: list[str]) -> tuple[list[str], Floats]:
    """The classes and, for every row of the `table`, their shares: 1 and 0, or the fractions in several `columns`.

    A row without a label has not numbers.

    Raises:
        HiwlError: no such column, fewer than two classes, a cell that is no fraction.
    """
    names = {str(name).lower(): str(name) for name in table}
    columns = columns or [names[name] for name in NAMES if name in names][:1]
    if not columns or (unknown := [name for name in columns if name not in table]):
        told = f"no column {', '.join(unknown)}" if columns else "which column has the labels is not clear"
        raise HiwlError(f"{path}: {told}; name it with --column, of {', '.join(map(str, table))}")
    if len(columns) > 1:
        numbers = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
        if (wrong := ((numbers < 0) | (numbers > 1)).any(axis=1)).any():
            raise HiwlError(f"{path}: row {int(np.argmax(wrong)) + 1}: fractions lie between 0 and 1")
        totals = numbers.sum(axis=1, keepdims=True)
        classes, shares = columns, np.where(totals > 0, numbers / np.where(totals > 0, totals, 1), np.nan)
    else:
        text = table[columns[0]].astype("string").str.strip()
        text = text.where(text != "")
        classes = sorted(text.dropna().unique().tolist())
        shares = np.eye(len(classes))[pd.Categorical(text, classes).codes]
        shares[text.isna().to_numpy(bool)] = np.nan
    if len(classes) < 2:
        raise HiwlError(f"{path}: {', '.join(columns)} holds {len(classes)} class; two are needed to tell them apart")
    if wrong_names := [name for name in classes if not NAME.fullmatch(name)]:
        raise HiwlError(f"{path}: {wrong_names[0]!r} is no name for a class; use letters, digits, '-' and '_'")
    return classes, shares


def _inputs(labels: Path, images: str | None) -> Files:
    """A row a labelled picture."""
    if images is None:
        found: list[Input] = find([str(labels)])
        if not isinstance(found[0], Files) or found[0].archive is not None:
            raise HiwlError(f"{labels}: a table of labels is needed, with a column of paths, or --images and IDs")
        return found[0]
    pictures, table = look(Path(images)), read_text_table(labels)
    known = {str(name): [pictures.knows(cell) for cell in table[name]] for name in table}
    ids = max(known, key=lambda name: sum(known[name]))
    if not any(known[ids]):
        raise HiwlError(f"{labels}: no column names a picture of {images}")
    table = table[known[ids]].reset_index(drop=True)
    table[PATH] = [f"{images}/{pictures.of(cell)}" for cell in table[ids]]
    return Files(table, archive=None if Path(images).is_dir() else pictures)


def _look(
    given: Files, classes: list[str], targets: Floats, is_soft: bool, node: Node, start: Start
) -> tuple[Task, Any]:
    """Decode the labelled pictures, and see them."""
    model = Model(Classifier(_choice(node.description, start), {ROOT: node}), None)
    labelled = np.flatnonzero(~np.isnan(targets).any(axis=1))
    with tqdm(total=len(given), unit="image", desc="looking") as progress:
        seen = [model.embed(table, ROOT, progress.update) for table in given.tables(0, 1024)]
    errors = np.concatenate([part.errors for part in seen])
    pictures = np.concatenate([part.pictures for part in seen])
    features = np.concatenate([part.features for part in seen])
    rows = labelled[[errors[row] is None for row in labelled]]
    if lost := len(labelled) - len(rows):
        first = labelled[[errors[row] is not None for row in labelled]][0]
        print(f"learn: {lost:,} pictures cannot be read, first {given.given[PATH].iloc[first]}: {errors[first]}")
    if not len(rows):
        raise HiwlError("none of the labelled pictures can be read")
    return Task(classes, targets[rows], is_soft, torch.from_numpy(np.stack(list(pictures[rows])))), features[rows]


def _split(task: Task) -> tuple[Ints, Ints]:
    """Rows to learn from and rows held out, within each class."""
    counts = np.bincount(task.labels, minlength=len(task.classes))
    if counts.min() < 2:
        rare = task.classes[int(counts.argmin())]
        raise HiwlError(f"{rare}: {counts.min()} galaxies; label at least two, one to learn from and one to check by")
    held_out = max(HELD_OUT, len(task.classes) / len(task.labels))
    taught, checked = train_test_split(
        np.arange(len(task.labels)), test_size=held_out, stratify=task.labels, random_state=SEED
    )
    return np.sort(taught), np.sort(checked)


def _train(model: nn.Module, start: Start, task: Task, taught: Ints, held_out: Ints, head: bool) -> dict[float, float]:
    """Train `model` at the rate whose loss on the galaxies held out is least; give that of each rate."""
    begun = {name: value.clone() for name, value in model.state_dict().items()}
    if head:
        freeze_trunk(model)
    losses: dict[float, float] = {}
    best = begun
    for rate in RATES:
        model.load_state_dict(begun)
        trainer = _trainer(model, start, task, taught, held_out, rate)
        for _ in range(trainer.recipe.epochs):
            trainer.history.append(trainer.epoch())
        losses[rate] = trainer.validate()["validation_loss"]
        if losses[rate] == min(losses.values()):
            best = {name: value.clone() for name, value in model.state_dict().items()}
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
    for _, child in children[: stages[-1] + 1 if stages else -1]:
        child.requires_grad_(False)


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
    last = model.get_submodule(last_layers(model)[0])
    if not isinstance(last, nn.Linear):
        raise HiwlError("--train probe: the network's last layer is not linear; use head or all")
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
    temperature = fit_temperature(seen.logits, labels)
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
        "temperature": temperature,
    }
    if len(task.classes) == 2 and len(set(labels.tolist())) == 2:
        said |= {"auroc": float(roc_auc_score(labels, shares[:, 1]))}
        said |= {"average_precision": float(average_precision_score(labels, shares[:, 1]))}
    if task.is_soft:
        said["mean_absolute_error"] = float(np.abs(shares - task.targets[held_out]).mean())
    return said
