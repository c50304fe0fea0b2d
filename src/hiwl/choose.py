"""Stage `choose`: every combination of the nodes' checkpoints on the validation set; the best one serves.

Writes to ``models/choice``: ``choice.json`` (which checkpoints serve, and how: views, routing, temperatures),
``combinations.csv``, ``metrics.json``, ``record.json``. The best is the combination of highest accuracy; among equals
that of highest mean recall; then that of the nodes' better-ranked checkpoints, root first.
"""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from sklearn.metrics import balanced_accuracy_score

from hiwl import tracking
from hiwl.calibration import calibration_error, fit_temperature
from hiwl.classifier import Node, average, device_of
from hiwl.dataset import read_split
from hiwl.files import digest, replacing_folder, sha256, write_json
from hiwl.hierarchy import Floats, Ints, Routing, Tree, route
from hiwl.layout import CHOICE, CHOICE_FILE, CHOICE_TABLE, NODES, PACKED_INDEX, SPLITS_TABLE
from hiwl.memory import keep_freed_memory
from hiwl.params import Section, read_section
from hiwl.record import DEFINING, Record, keep_in_results, new_record
from hiwl.settings import settings


class ChooseParams(Section):
    """Section `choose`: how the nodes are asked, on validation and ever after."""

    views: int = Field(ge=1, le=8)
    """Answers are averaged over so many of a picture's eight rotations and reflections."""
    routing: Routing
    """`hard`: down the likeliest child (the paper); `soft`: products of probabilities over every way."""
    calibrated: bool
    """Divide each node's logits by the temperature that fits its validation galaxies best."""


class Answers(NamedTuple):
    """What one checkpoint says of every validation galaxy."""

    probabilities: Floats
    """(n, children)."""
    temperature: float


def main() -> None:
    """Score all combinations and keep the best."""
    keep_freed_memory()
    params = ChooseParams.parse(read_section("choose"), "choose")
    tree = Tree(read_section("hierarchy"))
    _drop_foreign_nodes(tree)
    descriptions = {name: json.loads((NODES / name / "node.json").read_text()) for name in tree.nodes}
    _, images, labels = read_split("validation", tree)
    answers = {
        (name, checkpoint["file"]): _answers(tree, description, checkpoint["file"], images, labels, params)
        for name, description in descriptions.items()
        for checkpoint in description["checkpoints"]
    }
    shares = descriptions["root"]["shares"]
    table = score(
        tree, descriptions, {key: said.probabilities for key, said in answers.items()}, labels, shares, params
    )
    best = table.iloc[0]
    pack = read_section("pack")
    choice = {
        "hierarchy": tree.nodes,
        "crop": pack["crop"],
        "side": pack["side"],
        "shares": shares,
        "views": params.views,
        "routing": params.routing,
        "temperatures": {name: answers[name, best[name]].temperature for name in tree.nodes},
        "validation_accuracy": best["accuracy"],
        "nodes": {
            name: {key: value for key, value in description.items() if key not in ("checkpoints", "shares")}
            | {"file": best[name]}
            for name, description in descriptions.items()
        },
    }
    nodes = {name: Record.model_validate_json((NODES / name / "record.json").read_text()) for name in tree.nodes}
    record = _record(tree, nodes, choice, len(labels))
    metrics = {f"validation_{name}": float(value) for name, value in best.items() if name not in tree.nodes}
    metrics |= {key: sum(run.metrics[key] for run in nodes.values()) for key in ("epochs", "cost_seconds")}
    record = record.finished(metrics)
    with replacing_folder(CHOICE) as beside:
        write_json(beside / CHOICE_FILE.name, choice)
        table.to_csv(beside / CHOICE_TABLE.name, index=False)
        write_json(beside / "metrics.json", metrics)
        write_json(beside / "record.json", record.to_json())
    tracking.log_run(record)
    keep_in_results(record, nodes)
    print(f"choose: best of {len(table)} combinations, validation accuracy {best['accuracy']:.4f}")


def score(
    tree: Tree,
    descriptions: dict[str, Any],
    answers: dict[tuple[str, str], Floats],
    labels: Ints,
    shares: dict[str, int],
    params: ChooseParams,
) -> pd.DataFrame:
    """All combinations, best first: a column for each node (its checkpoint), and what it reaches.

    `answers` holds for each (node, checkpoint) the probabilities of all images, (n, children): computed once, however
    many combinations use them.
    """
    rows = []
    files = [[checkpoint["file"] for checkpoint in descriptions[name]["checkpoints"]] for name in tree.nodes]
    for combination in itertools.product(*files):
        chosen = dict(zip(tree.nodes, combination, strict=True))
        routed = route(
            tree,
            lambda node, rows, chosen=chosen: answers[node, chosen[node]][rows],  # type: ignore[misc]
            len(labels),
            shares,
            params.routing,
        )
        rows.append(
            chosen
            | {
                "accuracy": float((routed.label == labels).mean()),
                "mean_recall": float(balanced_accuracy_score(labels, routed.label)),
                "calibration_error": calibration_error(routed.probabilities, routed.label, labels),
            }
            | {f"recall_{tree.classes[k]}": float((routed.label[labels == k] == k).mean()) for k in np.unique(labels)}
        )
    return pd.DataFrame(rows).sort_values(
        ["accuracy", "mean_recall"], ascending=False, kind="stable", ignore_index=True
    )


def _answers(
    tree: Tree, description: dict[str, Any], file: str, images: torch.Tensor, labels: Ints, params: ChooseParams
) -> Answers:
    name = description["node"]
    node = Node(description, NODES / name / file, device_of(settings().accelerator))
    logits = node.logits(images, np.arange(len(images)), params.views)
    temperature = 1.0
    if params.calibrated:
        child_of = tree.labels(name)
        own = np.array([child_of.get(leaf, -1) for leaf in tree.classes])[labels]
        below = own >= 0
        temperature = fit_temperature(logits[:, torch.from_numpy(below)], own[below])
    return Answers(average(logits, temperature), temperature)


def _drop_foreign_nodes(tree: Tree) -> None:
    """Remove nodes that another tree left in the folder, so that this stage's input is this tree's alone."""
    for folder in NODES.iterdir():
        if folder.is_dir() and folder.name not in tree.nodes:
            shutil.rmtree(folder)


def _record(tree: Tree, nodes: dict[str, Record], choice: dict[str, Any], validation: int) -> Record:
    root = nodes["root"]
    shared = ("backbone", "input", "recipe", "seed", "started_from")
    return new_record(
        key=digest([choice, {name: run.key for name, run in nodes.items()}])[:16],
        kind="choice",
        name=f"choice {root.columns['backbone']} {root.columns['recipe']} seed {root.columns['seed']}",
        columns={"tree": "-".join(tree.nodes), **{key: root.columns[key] for key in shared}},
        parameters={name: read_section(name) for name in DEFINING}
        | {"files": {name: chosen["file"] for name, chosen in choice["nodes"].items()}},
        data={
            "sources": {path.name: sha256(path) for path in map(Path, (SPLITS_TABLE, PACKED_INDEX))},
            "counts": root.data["counts"] | {"validation": validation},
        },
        hardware={"device": root.environment["device"]},
    ).model_copy(update={"nodes": {name: run.key for name, run in nodes.items()}})
