"""Stage `train@<node>`: one model for one node of the hierarchy (paper, sections 3 and 4.1).

Writes to ``models/nodes/<tree>/<node>``: the best checkpoints as safetensors, ``node.json`` (what a checkpoint needs to
be used, and how good each is), ``record.json`` (the run, as MLflow has it). Writes ``reports/curves/<node>.csv``, one
row an epoch, while it trains.

After every epoch the whole state is kept in ``.work/train/<key>`` in the project's root. The key names everything that
the result depends on; whoever starts the same training again goes on from there, to the same bits.
"""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment

import hiwl
from hiwl.core import tracking
from hiwl.core.errors import HiwlError
from hiwl.core.files import alone, digest, replacing, replacing_folder, sha256, write_json
from hiwl.core.layout import CURVES, NODES, WORK
from hiwl.core.record import Record, run_name, started_here
from hiwl.core.section import check_unchanged, read_section
from hiwl.core.settings import Settings, project_root, settings
from hiwl.model import backbones
from hiwl.model.tree import HierarchyParams, Tree
from hiwl.survey import packed, pictures, tables, votes
from hiwl.training.augment import mirrored_order
from hiwl.training.checkpoints import Checkpoints
from hiwl.training.data import NodeData, read_data
from hiwl.training.params import PRETRAINED, TrainParams
from hiwl.training.schedule import accuracies, is_over
from hiwl.training.trainer import Trainer, seed_of

CODE = ("model", "training")  # the folders that a training's result depends on


def main(node: str) -> None:
    """Train the model of `node`, from where an earlier run of the same training was stopped."""
    params = TrainParams.parse(read_section("train"), "train")
    hierarchy = HierarchyParams.parse(read_section("hierarchy"), "hierarchy")
    tree = Tree(hierarchy.nodes)
    if node not in tree.nodes:
        raise HiwlError(f"{node}: not a node of the hierarchy; its nodes are {', '.join(tree.nodes)}")
    params.check_nodes(tree, hierarchy.name)
    data = read_data(tree, node, params.recipe_of(node), params.teachers)
    side = data.images.shape[1]
    if params.input_of(node) > side:
        raise HiwlError(
            f"train.nodes.{node}.input (or train.input) is {params.input_of(node)}, but pack.side is {side}: lower the "
            "one or raise the other"
        )
    history = fit(node, hierarchy, params, data)
    print(f"train@{node}: {len(history)} epochs, best validation accuracy {max(accuracies(history)):.4f}")


def fit(node: str, hierarchy: HierarchyParams, params: TrainParams, data: NodeData) -> list[dict[str, float]]:
    """Train to the end, write the node's folder, and give the history: one row an epoch."""
    here = settings()
    pretrained, weights = _start(params, node)
    key = _key(node, hierarchy, params, data, pretrained)
    work = project_root() / WORK / "train" / key
    held = ExitStack()
    torch.set_num_threads(max(1, here.threads // here.devices))
    torch.manual_seed(seed_of(params.seed, node, 0))
    fabric = _launch(here)
    state: dict[str, Any] | None = None
    if fabric.global_rank == 0:
        _forget_others(hierarchy)
        # Two experiments may share a node's training, and its state.
        held.enter_context(alone(work.with_suffix(".lock"), "trains this same node"))
        checkpoints = Checkpoints(work, params.keep)
        state = checkpoints.load()
        if state is not None:
            print(f"train@{node}: going on after epoch {len(state['history'])}, from {work}")
    state = fabric.broadcast(state)  # other machines do not see the file
    dimension = params.recipe_of(node).dimension
    children = len(data.children)
    made = backbones.create(params.backbone, children, pretrained, weights, params.head, dimension)
    trainer = Trainer(fabric, made.model, data, params, node, here.compile)
    if state is not None:
        trainer.load_state_dict(state)
    start = params.recipe_of(node).start
    started_from = made.started_from if start == PRETRAINED else f"{start}: {made.started_from}"
    record = _record(key, trainer, hierarchy, data, started_from)

    is_first = fabric.global_rank == 0
    run = tracking.try_to_log(record.with_history(trainer.history)) if is_first else None
    with tracking.watched(run):
        while not is_over(trainer.recipe, trainer.history):
            row = trainer.epoch() | trainer.validate()
            trainer.history.append({"epoch": float(len(trainer.history) + 1), **row})
            if is_first:
                checkpoints.save(trainer)
                tracking.try_to_log(record.with_history(trainer.history))
                _write_curves(node, trainer.history)
            fabric.barrier()

    if is_first:
        check_unchanged()  # before the state goes: it serves the old parameters, should they come back
        record = record.with_history(trainer.history).finished(_metrics(trainer.history))
        _write_curves(node, trainer.history)
        _write_node(NODES / hierarchy.name / node, trainer, checkpoints, record, data)
        tracking.try_to_log(record)
        checkpoints.remove()
        held.close()
    return trainer.history


def _forget_others(hierarchy: HierarchyParams) -> None:
    """Remove what is left of nodes that the tree had before."""
    for folder in (NODES / hierarchy.name).glob("*/"):
        if folder.name not in hierarchy.nodes and not folder.name.startswith("."):
            shutil.rmtree(folder, ignore_errors=True)
    for file in CURVES.glob("*.csv"):
        if file.stem not in hierarchy.nodes:
            file.unlink(missing_ok=True)


def _launch(here: Settings) -> Fabric:
    """The processes of this training, each of which comes out of here."""
    processes = here.devices * here.machines
    if TorchElasticEnvironment.detect() and (started := TorchElasticEnvironment().world_size()) != processes:
        raise HiwlError(
            f"torchrun started {started} processes, but HIWL_DEVICES x HIWL_MACHINES is {processes}: set HIWL_DEVICES "
            "to the processes of each machine and HIWL_MACHINES to the number of machines"
        )
    fabric = Fabric(
        accelerator=here.accelerator, devices=here.devices, num_nodes=here.machines, precision=here.precision
    )
    fabric.launch()
    if fabric.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, which convolutions take anyway
        torch.backends.cudnn.benchmark = True
    return fabric


def _start(params: TrainParams, node: str) -> tuple[str, Path | None]:
    """What the node starts from, as `train.pretrained` would say it, and where that lies."""
    start = params.recipe_of(node).start
    if start == PRETRAINED:
        return params.pretrained, settings().weights
    folder = NODES / start
    try:
        best = folder / json.loads((folder / "node.json").read_text())["checkpoints"][0]["file"]
        return sha256(best), best
    except FileNotFoundError as error:
        raise HiwlError(
            f"train.nodes.{node}.start: {error.filename} not found; train that node first, and bring its folder to "
            "each machine that trains this one"
        ) from None


def _key(node: str, hierarchy: HierarchyParams, params: TrainParams, data: NodeData, pretrained: str) -> str:
    """Names everything that this training's result depends on: parameters, data and code."""
    package = Path(str(hiwl.__file__)).parent
    paths = [
        *(path for name in CODE for path in package.glob(f"{name}/**/*.py")),
        Path(packed.__file__),
        Path(pictures.__file__),
        Path(tables.__file__),
        Path(votes.__file__),
        Path(__file__),
    ]
    code = {str(path.relative_to(package)): sha256(path) for path in paths}
    own = params.model_dump(exclude={"nodes", "recipe"}) | {"recipe": params.recipe_of(node).model_dump()}
    own |= {"pretrained": pretrained}
    here = settings()
    run = [here.precision, here.devices * here.machines, here.compile, torch.__version__]
    return digest([node, hierarchy.nodes, own, data.sources, code, run])[:16]


def _record(key: str, trainer: Trainer, hierarchy: HierarchyParams, data: NodeData, started_from: str) -> Record:
    params, recipe, here = trainer.params, trainer.recipe, settings()
    survey = read_section("raw.survey")
    columns: dict[str, str | int | float] = {
        "survey": survey,
        "tree": "-".join(hierarchy.nodes),
        "node": trainer.node,
        "backbone": params.backbone,
        "input": params.input_of(trainer.node),
        "recipe": recipe.name,
        "seed": params.seed,
        "started_from": started_from,
    }
    return Record(
        key=key,
        kind="node",
        name=run_name(columns, key),
        columns=columns,
        parameters={
            "raw": {"survey": survey},
            "hierarchy": hierarchy.model_dump(),
            "train": params.model_dump(exclude={"nodes", "recipe"}) | {"recipe": recipe.model_dump()},
        },
        data={"sources": data.sources, "counts": {name: len(rows) for name, rows in data.rows.items()}},
        **started_here(trainer.hardware | {"precision": here.precision, "compiled": str(here.compile)}),
    )


def _metrics(history: list[dict[str, float]]) -> dict[str, float]:
    return {
        "best_validation_accuracy": max(accuracies(history)),
        "epochs": float(len(history)),
        "cost_seconds": sum(row["seconds"] + row["validation_seconds"] for row in history),
    }


def _write_curves(node: str, history: list[dict[str, float]]) -> None:
    """The history so far, where DVC and editors draw it while the training runs."""
    with replacing(CURVES / f"{node}.csv") as beside:
        pd.DataFrame(history).to_csv(beside, index=False)


def _write_node(folder: Path, trainer: Trainer, checkpoints: Checkpoints, record: Record, data: NodeData) -> None:
    params, best = trainer.params, checkpoints.best(trainer.history)
    with replacing_folder(folder) as beside:
        for kept in best:
            shutil.copyfile(checkpoints.folder / kept.file, beside / kept.file)
        write_json(
            beside / "node.json",
            {
                "node": trainer.node,
                "children": data.children,
                "backbone": params.backbone,
                "input": params.input_of(trainer.node),
                **{name: getattr(params, name) for name in ("mean", "std")},
                **({} if trainer.recipe.dimension is None else {"dimension": trainer.recipe.dimension}),
                **(
                    {"mirrored": mirrored}
                    if (mirrored := mirrored_order(trainer.recipe.augment, data.children))
                    else {}
                ),
                "shares": data.shares,
                "checkpoints": [kept._asdict() for kept in best],
            },
        )
        write_json(beside / "record.json", record.to_json())
