"""Stage `train@<node>`: one model for one node of the hierarchy (paper, sections 3 and 4.1).

Writes to ``models/nodes/<node>``: the best checkpoints as safetensors, ``node.json`` (what a checkpoint needs to be
used, and how good each is), ``history.csv`` (one row an epoch), ``record.json`` (the run, as MLflow has it).

After every epoch the whole state is kept in ``.work/train/<key>`` in the project's root, outside the outputs, which
DVC removes. The key names everything that the result depends on; whoever starts the same training again goes on
from there, to the same bits.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from filelock import FileLock
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from pydantic import Field, PositiveFloat
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from hiwl import architectures, augment, backbone, classifier, dataset, hierarchy, recipe
from hiwl.backbone import Head
from hiwl.classifier import predict
from hiwl.dataset import read_images, read_table
from hiwl.errors import HiwlError
from hiwl.files import digest, replacing, replacing_folder, sha256, write_json
from hiwl.hierarchy import Tree
from hiwl.layout import CLEAN_TABLE, NODES, PACKED_IMAGES, PACKED_INDEX, SPLITS_TABLE, WORK
from hiwl.memory import keep_freed_memory
from hiwl.params import Section, read_section
from hiwl.recipe import RecipeParams
from hiwl.record import Record, new_record
from hiwl.settings import project_root, settings
from hiwl.votes import ID

CODE = [
    str(module.__file__) for module in (architectures, augment, backbone, classifier, dataset, hierarchy, recipe)
] + [__file__]


class TrainParams(Section):
    """Section `train`."""

    seed: int = Field(ge=0)
    backbone: str
    """A classifier of timm or torchvision."""
    pretrained: str
    """`scratch`, `hub`, or the SHA-256 of a safetensors file (setting HIWL_WEIGHTS)."""
    head: Head
    """How the new last layer is drawn (:func:`hiwl.backbone.create`)."""
    input: int = Field(gt=0)
    """Side of what the model sees, in packed pixels; at most `pack.side`."""
    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    """Of each band, of values in [0, 1]."""
    keep: int = Field(gt=0)
    """How many checkpoints of a node compete in `choose`."""
    recipe: RecipeParams
    nodes: dict[str, dict[str, Any]]
    """For every node of the hierarchy what it does otherwise than `recipe`."""

    def recipe_of(self, node: str) -> RecipeParams:
        """The recipe with the node's own values."""
        if node not in self.nodes:
            raise HiwlError(f"train.nodes: {node} is missing; write '{node}: {{}}' to train it by train.recipe")
        if "name" in self.nodes[node]:
            raise HiwlError(f"train.nodes.{node}.name: a recipe's name is the same for every node")
        return RecipeParams.parse({**self.recipe.model_dump(), **self.nodes[node]}, f"train.nodes.{node}")


class Data(NamedTuple):
    """What one node learns from, as rows of the packed images."""

    images: Tensor
    """(galaxies, side, side, 3) uint8: memory-mapped, or on the device."""
    rows: dict[str, Tensor]
    labels: dict[str, Tensor]
    """By split: row and child's index of every galaxy below the node, (n,) int64 each."""
    votes: dict[str, Tensor] | None
    """By split: the volunteers' shares for the node's children, (n, children), NaN where they are not known; None
    where the recipe does not ask for them."""
    shares: dict[str, int]
    """How many training galaxies each class below the node has."""
    sources: dict[str, str]
    """SHA-256 of every file read."""


def main(node: str) -> None:
    """Train the model of `node`, from where an earlier run of the same training was stopped."""
    keep_freed_memory()
    params = TrainParams.parse(read_section("train"), "train")
    tree = Tree(read_section("hierarchy"))
    if node not in tree.nodes:
        raise HiwlError(f"{node}: no node of the hierarchy; its nodes are {', '.join(tree.nodes)}")
    if unknown := set(params.nodes) - set(tree.nodes):
        raise HiwlError(f"train.nodes: {', '.join(sorted(unknown))} is no node of the hierarchy")
    data = read_data(tree, node, params.recipe_of(node).wants_votes)
    side = data.images.shape[1]
    if not 0.85 * side <= params.input <= side:
        # Training scales the crop to the input, evaluation cuts the centre out: far apart, they see other sizes.
        raise HiwlError(f"train.input is {params.input}; it has to be between .85 and 1 of pack.side, which is {side}")
    history = fit(node, tree, params, data)
    print(f"train@{node}: {len(history)} epochs, best validation accuracy {max(_accuracies(history)):.4f}")


def read_data(tree: Tree, node: str, with_votes: bool) -> Data:
    """Everything below `node`, from the pack, the splits and, if asked for, the votes of the clean selection."""
    table = read_table()
    tree.check_classes(set(table["class"]))
    label_of = tree.labels(node)
    table = table[table["class"].isin(label_of)]
    parts = {name: table[table["split"] == name] for name in ("training", "validation")}
    if untaught := set(label_of) - set(parts["training"]["class"]):
        raise HiwlError(f"train@{node}: no galaxy of {', '.join(sorted(untaught))} to train on; use a larger survey")
    if parts["validation"].empty:
        raise HiwlError(f"train@{node}: no galaxy to validate on; use a larger survey, or raise split.held_out")
    files = [PACKED_IMAGES, PACKED_INDEX, SPLITS_TABLE] + ([CLEAN_TABLE] if with_votes else [])
    return Data(
        images=read_images(),
        rows={name: torch.tensor(part["row"].to_numpy()) for name, part in parts.items()},
        labels={name: torch.tensor(part["class"].map(label_of).to_numpy()) for name, part in parts.items()},
        votes=_read_votes(tree, node, parts) if with_votes else None,
        shares={str(k): int(n) for k, n in parts["training"]["class"].value_counts().items()},
        sources={path.name: sha256(path) for path in files},
    )


def _read_votes(tree: Tree, node: str, parts: dict[str, pd.DataFrame]) -> dict[str, Tensor]:
    clean = pd.read_csv(CLEAN_TABLE, index_col=ID)
    if missing := [leaf for leaf in tree.leaves(node) if f"votes_{leaf}" not in clean]:
        raise HiwlError(
            f"{CLEAN_TABLE}: no votes for {', '.join(missing)}, but the recipe of {node} wants them "
            "(train.recipe.votes, train.recipe.smoothing_by): give them with the survey (raw.source.votes_sha256)"
        )
    of_children = pd.concat(
        [
            clean[[f"votes_{leaf}" for leaf in tree.leaves(child)]].sum(axis=1, skipna=False)
            for child in tree.nodes[node]
        ],
        axis=1,
    )
    shares = of_children.div(of_children.sum(axis=1), axis=0)
    return {name: torch.tensor(shares.loc[part[ID]].to_numpy(), dtype=torch.float32) for name, part in parts.items()}


def fit(node: str, tree: Tree, params: TrainParams, data: Data) -> list[dict[str, float]]:
    """Train to the end, write the node's folder, and give the history: one row an epoch."""
    from hiwl import tracking

    here, plan = settings(), params.recipe_of(node)
    key = _key(node, tree, params, data)
    work = project_root() / WORK / "train" / key
    lock = FileLock(project_root() / WORK / f"{key}.lock")  # two experiments may share a node's training, and its state

    processes = here.devices * here.machines
    if TorchElasticEnvironment.detect() and (started := TorchElasticEnvironment().world_size()) != processes:
        raise HiwlError(
            f"torchrun started {started} processes, but HIWL_DEVICES x HIWL_MACHINES is {processes}: set HIWL_DEVICES "
            "to the processes of each machine and HIWL_MACHINES to the number of machines"
        )
    torch.set_num_threads(max(1, here.threads // here.devices))
    torch.manual_seed(_seed(params.seed, node, 0))
    fabric = Fabric(
        accelerator=here.accelerator, devices=here.devices, num_nodes=here.machines, precision=here.precision
    )
    fabric.launch()
    state: dict[str, Any] | None = None
    if fabric.global_rank == 0:
        work.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        work.mkdir(exist_ok=True)
        if (work / "state.pt").exists():
            state = torch.load(work / "state.pt", map_location="cpu", weights_only=True)
            print(f"train@{node}: going on after epoch {len(state['history'])}, from {work}")
    state = fabric.broadcast(state)  # other machines do not see the file
    made = backbone.create(params.backbone, len(tree.nodes[node]), params.pretrained, here.weights, params.head)
    model, optimiser = set_up(fabric, made.model, plan, here.compile)
    images = _near(data.images, fabric)
    data = data._replace(images=images, rows={name: rows.to(images.device) for name, rows in data.rows.items()})
    goal = Goal(data, plan, len(tree.nodes[node]), fabric.device)
    states: dict[str, Any] = {"model": made.model, "optimiser": optimiser}
    kept, after_step = made.model, None  # what is validated and kept; what is done after each step
    if plan.averaging:
        averaged = AveragedModel(made.model, multi_avg_fn=get_ema_multi_avg_fn(plan.averaging), use_buffers=True)
        states["averaged"] = averaged
        kept, after_step = averaged.module, partial(averaged.update_parameters, made.model)
    normalise = augment.Normalisation(params.mean, params.std)

    history: list[dict[str, float]] = []
    if state is not None:
        for name, part in states.items():
            part.load_state_dict(state[name])
        history = state["history"]

    device = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else str(fabric.device)
    record = new_record(
        key=key,
        kind="node",
        name=f"{node} {params.backbone} {plan.name} seed {params.seed}",
        columns={
            "node": node,
            "backbone": params.backbone,
            "input": params.input,
            "recipe": plan.name,
            "seed": params.seed,
            "started_from": made.started_from,
        },
        parameters={
            "raw": {"survey": read_section("raw")["survey"]},
            "hierarchy": tree.nodes,
            "train": params.model_dump(exclude={"nodes", "recipe"}) | {"recipe": plan.model_dump()},
        },
        data={"sources": data.sources, "counts": {name: len(rows) for name, rows in data.rows.items()}},
        hardware={
            "device": device,
            "processes": str(fabric.world_size),
            "precision": here.precision,
            "compiled": str(here.compile),
        },
    )
    while len(history) < plan.epochs and not _stopped(history, plan):
        epoch = len(history)
        row = train_epoch(fabric, model, optimiser, data, goal, params, plan, node, epoch, normalise, after_step)
        row |= _validate(fabric, kept, data, goal, params.input, normalise)
        history.append({"epoch": float(epoch + 1), **row})
        if fabric.global_rank == 0:
            _save_epoch(work, kept, states, history, params.keep)
            try:
                tracking.log_run(record.with_history(history))
            except Exception as error:  # the epoch is safe, and logged with the next one or at the end
                print(f"train@{node}: MLflow did not take epoch {epoch + 1}: {error}", file=sys.stderr)
        fabric.barrier()

    if fabric.global_rank == 0:
        _write_node(NODES / node, work, node, tree, params, data, record.with_history(history), history)
        tracking.log_run(record.with_history(history).finished(_metrics(history)))
        shutil.rmtree(work)
        lock.release()
    return history


def set_up(
    fabric: Fabric, model: nn.Module, plan: RecipeParams, compiled: bool
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """What trains `model` on the device, and its optimiser; the weights stay in `model`, under its own names."""
    on_gpu = fabric.device.type == "cuda"
    if on_gpu:
        torch.set_float32_matmul_precision("high")  # TF32, which convolutions take anyway
        torch.backends.cudnn.benchmark = True
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=plan.learning_rate,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        fused=on_gpu or None,
    )
    trained: Any = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        # Not among several processes: there CUDA graphs do not take batch normalisation's buffers
        # (pytorch/pytorch#139207).
        graphs = on_gpu and fabric.world_size == 1
        trained = torch.compile(trained, mode="reduce-overhead" if graphs else None)
    trained, fabric_optimiser = fabric.setup(trained, optimiser)
    return trained, fabric_optimiser


def train_epoch(
    fabric: Fabric,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    data: Data,
    goal: "Goal",
    params: TrainParams,
    plan: RecipeParams,
    node: str,
    epoch: int,
    normalise: augment.Normalisation,
    after_step: Callable[[], None] | None,
) -> dict[str, float]:
    """One pass; what is drawn in it depends on the seed, the node and the epoch alone."""
    seed = _seed(params.seed, node, epoch + 1)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # for dropout and mixing
    order = recipe.epoch_order(data.labels["training"], plan.sampling, generator)
    rest = len(order) % plan.batch
    if rest < 2 * fabric.world_size and len(order) > plan.batch:
        order = order[: len(order) - rest]  # batch normalisation needs two pictures in every process
    rows, side, mine = data.rows["training"], data.images.shape[1], slice(fabric.global_rank, None, fabric.world_size)
    # All that a step needs lies on the device before it, or is copied there without waiting: on a GPU the steps are
    # handed over faster than they are done.
    batches = [batch[mine] for batch in rows[order.to(rows.device)].split(plan.batch)]
    targets = goal.targets["training"][order.to(fabric.device)].split(plan.batch)
    model.train()
    started, total, seen = time.perf_counter(), torch.zeros((), device=fabric.device), 0
    progress = tqdm(
        zip(_pictures(data.images, batches, fabric.device), targets, strict=True),
        total=len(batches),
        desc=f"{node} epoch {epoch + 1}",
        unit="batch",
        disable=fabric.global_rank > 0,
    )
    for step, (pictures, target) in enumerate(progress):
        whole = len(target)
        rate = recipe.learning_rate(plan, epoch, step, len(batches))
        for group in optimiser.param_groups:
            group["lr"] = rate
        # Drawn for the whole batch, so that what is drawn does not depend on the number of processes; each takes its
        # share. (Batch normalisation sees a process's own share only, so results do depend on it a little.)
        draws = augment.draw(whole, side, plan.augment, generator)
        inputs = augment.augment(pictures, draws.part(mine), params.input, normalise)
        target = target[mine]
        if plan.mixup:
            inputs, target = recipe.mix(
                inputs, target, float(torch.distributions.Beta(plan.mixup, plan.mixup).sample())
            )
        optimiser.zero_grad(set_to_none=True)  # before the model: a CUDA graph writes the next gradients into these
        # The epoch's last batch may be smaller; it is not worth compiling for once more.
        with torch.compiler.set_stance("default" if whole == plan.batch else "force_eager"):
            loss = goal.loss(model(inputs), target)
        fabric.backward(loss)
        optimiser.step()
        if after_step is not None:
            after_step()
        total += loss.detach() * len(target)
        seen += whole
    summed = fabric.all_reduce(total, reduce_op="sum")
    assert isinstance(summed, Tensor)
    if not torch.isfinite(summed):
        raise HiwlError(f"train@{node}: the loss of epoch {epoch + 1} is not finite; lower recipe.learning_rate")
    seconds = time.perf_counter() - started
    return {
        "training_loss": summed.item() / seen,
        "learning_rate": rate,
        "seconds": seconds,
        "images_per_second": seen / seconds,
    }


def _validate(
    fabric: Fabric, model: nn.Module, data: Data, goal: "Goal", size: int, normalise: augment.Normalisation
) -> dict[str, float]:
    mine = slice(fabric.global_rank, None, fabric.world_size)
    rows, labels = data.rows["validation"], data.labels["validation"]
    started = time.perf_counter()
    logits = predict(model, data.images, rows[mine], size, normalise, fabric.device)[0]
    right = (logits.argmax(dim=1) == labels[mine].to(fabric.device)).sum()
    sums = torch.stack([cross_entropy(logits, goal.targets["validation"][mine], reduction="sum"), right.float()])
    summed = fabric.all_reduce(sums, reduce_op="sum")
    assert isinstance(summed, Tensor)
    loss, accuracy = (summed / len(labels)).tolist()
    return {
        "validation_loss": loss,
        "validation_accuracy": accuracy,
        "validation_seconds": time.perf_counter() - started,
    }


class Goal:
    """What a node's outputs are held to."""

    def __init__(self, data: Data, plan: RecipeParams, children: int, device: torch.device) -> None:
        taught = data.labels["training"]
        by_votes = data.votes["training"] if data.votes and plan.smoothing_by == "similarity" else None
        smoothed = recipe.smoothing_matrix(children, plan.smoothing, by_votes, taught)
        self.targets = {
            name: recipe.targets(labels, smoothed, data.votes[name] if data.votes else None, plan.votes).to(device)
            for name, labels in data.labels.items()
        }
        """By split: (n, children)."""
        shares = torch.bincount(taught, minlength=children) / len(taught)
        self.adjustment = (plan.logit_adjustment * shares.log()).to(device)

    def loss(self, output: Tensor | tuple[Tensor, ...], target: Tensor) -> Tensor:
        """Of the logits of a training batch; a model's auxiliary outputs, which follow its main one, count .3 each
        (Szegedy et al. 2015, section 5)."""
        main, *auxiliary = (output,) if isinstance(output, Tensor) else output
        losses = [cross_entropy(logits.float() + self.adjustment, target) for logits in (main, *auxiliary)]
        return losses[0] + 0.3 * torch.stack(losses[1:]).sum() if auxiliary else losses[0]


def _near(images: Tensor, fabric: Fabric) -> Tensor:
    """The images on the device where they fit into half of its free memory, else where they are."""
    if fabric.device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(fabric.device)[0] / 2:
        return images.to(fabric.device)
    return images


def _pictures(images: Tensor, batches: list[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The pictures of each batch of rows, on the device; to a GPU the next are fetched while one batch is at work."""
    if device.type != "cuda" or images.device == device:
        yield from (images[rows].to(device) for rows in batches)
        return

    def fetch(rows: Tensor) -> Tensor:
        return images[rows].pin_memory()

    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(fetch, batches[0])
        for following in batches[1:]:
            fetched, coming = coming.result(), thread.submit(fetch, following)
            yield fetched.to(device, non_blocking=True)
        yield coming.result().to(device, non_blocking=True)


def _seed(seed: int, node: str, epoch: int) -> int:
    return int(digest([seed, node, epoch])[:12], 16)


def _key(node: str, tree: Tree, params: TrainParams, data: Data) -> str:
    """Names everything that this training's result depends on: parameters, data and code."""
    code = {path.name: sha256(path) for path in map(Path, CODE)}
    own = params.model_dump(exclude={"nodes"}) | {"recipe": params.recipe_of(node).model_dump()}
    here = settings()
    run = [here.precision, here.devices * here.machines, here.compile, torch.__version__]
    return digest([node, tree.nodes, own, data.sources, code, run])[:16]


def _accuracies(history: list[dict[str, float]]) -> list[float]:
    return [row["validation_accuracy"] for row in history]


def _stopped(history: list[dict[str, float]], plan: RecipeParams) -> bool:
    losses = [row[f"{plan.stopping}_loss"] for row in history]
    return bool(history) and recipe.exhausted(losses, _accuracies(history), plan.patience)


def _metrics(history: list[dict[str, float]]) -> dict[str, float]:
    return {
        "best_validation_accuracy": max(_accuracies(history)),
        "epochs": float(len(history)),
        "cost_seconds": sum(row["seconds"] + row["validation_seconds"] for row in history),
    }


def _checkpoint(epoch: int) -> str:
    return f"epoch_{epoch + 1:03d}.safetensors"


def _save_epoch(
    work: Path, kept: nn.Module, states: dict[str, Any], history: list[dict[str, float]], keep: int
) -> None:
    """Keep the newest weights where they are among the best; then the state; then drop what fell behind."""
    best = [_checkpoint(epoch) for epoch in recipe.best_epochs(_accuracies(history), keep)]
    weights = {name: value.contiguous() for name, value in kept.state_dict().items()}
    newest = _checkpoint(len(history) - 1)
    if newest in best:
        with replacing(work / newest) as beside:
            save_file(weights, beside)
    with replacing(work / "state.pt") as beside:
        torch.save({name: part.state_dict() for name, part in states.items()} | {"history": history}, beside)
    for path in work.glob("*.safetensors"):
        if path.name not in best:
            path.unlink()


def _write_node(
    folder: Path,
    work: Path,
    node: str,
    tree: Tree,
    params: TrainParams,
    data: Data,
    record: Record,
    history: list[dict[str, float]],
) -> None:
    with replacing_folder(folder) as beside:
        best = recipe.best_epochs(_accuracies(history), params.keep)
        for epoch in best:
            shutil.copyfile(work / _checkpoint(epoch), beside / _checkpoint(epoch))
        write_json(
            beside / "node.json",
            {
                "node": node,
                "children": tree.nodes[node],
                "backbone": params.backbone,
                "input": params.input,
                "mean": params.mean,
                "std": params.std,
                "shares": data.shares,
                "checkpoints": [
                    {
                        "file": _checkpoint(epoch),
                        "epoch": epoch + 1,
                        "validation_accuracy": history[epoch]["validation_accuracy"],
                    }
                    for epoch in best
                ],
            },
        )
        pd.DataFrame(history).to_csv(beside / "history.csv", index=False)
        write_json(beside / "record.json", record.finished(_metrics(history)).to_json())
