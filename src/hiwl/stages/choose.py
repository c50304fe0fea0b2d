"""Stage `choose`: every combination of the nodes' checkpoints on the validation set; the best one serves.

Writes to ``models/choice``: ``choice.json`` (which checkpoints serve, and how: views, routing, temperatures), these
checkpoints with their graphs, and ``trust.safetensors``, a model to load; ``combinations.csv``, ``record.json``. Writes
``reports/validation.json``. The best is the combination of highest accuracy; among equals that of highest mean recall;
then that of the nodes' better-ranked checkpoints, root first.
"""

import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor

from hiwl.core import tracking
from hiwl.core.files import digest, replacing_folder, sha256, write_json
from hiwl.core.layout import CHOICE, NODES, PACKED_INDEX, SPLITS_TABLE, VALIDATION
from hiwl.core.record import Record, run_name, started_here
from hiwl.core.section import read_params, read_section
from hiwl.core.settings import settings
from hiwl.core.sums import write_sums
from hiwl.measure.retrieval import retrieval
from hiwl.model.calibration import calibration_error, fit_sure, fit_temperature
from hiwl.model.classifier import CHOICE_FILE, Node, Seen, average, device_of
from hiwl.model.components import Components, Features, sample
from hiwl.model.pixels import PackParams
from hiwl.model.tree import ROOT, ChooseParams, Floats, HierarchyParams, Ints, Tree, route
from hiwl.model.trust import Trust
from hiwl.survey.packed import Part, read_images, read_packed, read_split
from hiwl.training.export import export


class Asked:
    """What one checkpoint says of validation galaxies: of those below its node, and of others once they reach it."""

    features: Features
    """Of the galaxies below its node; below the root that is all."""
    temperature = 1.0
    sure: float
    """From which probability on the first view decides alone (`may_differ`)."""

    def __init__(self, tree: Tree, name: str, node: Node, validation: Part, params: ChooseParams) -> None:
        self._node, self._images, self._views = node, validation.images, range(params.views)
        self._probabilities = np.full((len(validation.labels), len(tree.nodes[name])), np.nan)
        child_of = tree.labels(name)
        own = np.array([child_of.get(leaf, -1) for leaf in tree.classes])[validation.labels]
        below = np.flatnonzero(own >= 0)
        logits, features = self._ask(below)
        self.features = features.numpy()
        if params.calibrated:
            self.temperature = fit_temperature(logits, np.eye(logits.shape[2])[own[below]])
        first, every = average(logits[:1], self.temperature), average(logits, self.temperature)
        self.sure = fit_sure(first, every, params.may_differ)
        self._keep(below, logits)

    def __call__(self, rows: Ints) -> Floats:
        """Probabilities, (len(rows), children)."""
        new = rows[np.isnan(self._probabilities[rows, 0])]
        if len(new):
            self._keep(new, self._ask(new).logits)
        return self._probabilities[rows]

    def _ask(self, rows: Ints) -> Seen:
        return self._node.ask(self._images, rows, self._views)

    def _keep(self, rows: Ints, logits: Tensor) -> None:
        first, every = average(logits[:1], self.temperature), average(logits, self.temperature)
        is_sure = first.max(axis=1) >= self.sure
        self._probabilities[rows] = np.where(is_sure[:, None], first, every)


def main() -> None:
    """Score all combinations and keep the best."""
    here = started_here({})
    parameters = {name: read_section(name) for name in read_params() if name != "register"}
    params = ChooseParams.parse(parameters["choose"], "choose")
    hierarchy = HierarchyParams.parse(parameters["hierarchy"], "hierarchy")
    tree, folder = Tree(hierarchy.nodes), NODES / hierarchy.name
    descriptions = {name: json.loads((folder / name / "node.json").read_text()) for name in tree.nodes}
    validation = read_split("validation", tree)
    labels = validation.labels
    device = device_of(settings().accelerator)
    asked = {
        (name, checkpoint["file"]): Asked(
            tree, name, Node(description, folder / name / checkpoint["file"], device), validation, params
        )
        for name, description in descriptions.items()
        for checkpoint in description["checkpoints"]
    }
    shares = descriptions["root"]["shares"]
    table = score(tree, descriptions, asked, labels, shares, params)
    best = table.iloc[0]
    choice = {
        "hierarchy": tree.nodes,
        **PackParams.parse(parameters["pack"], "pack").model_dump(mode="json", exclude_defaults=True),
        "shares": shares,
        "views": params.views,
        "routing": params.routing,
        "temperatures": {name: asked[name, best[name]].temperature for name in tree.nodes},
        **({"sure": {name: asked[name, best[name]].sure for name in tree.nodes}} if params.may_differ else {}),
        "validation_accuracy": best["accuracy"],
        "nodes": {
            name: {key: value for key, value in description.items() if key not in ("checkpoints", "shares")}
            | {"file": best[name]}
            for name, description in descriptions.items()
        },
    }
    nodes = {name: Record.model_validate_json((folder / name / "record.json").read_text()) for name in tree.nodes}
    here["environment"]["device"] = nodes["root"].environment["device"]
    record = _record(parameters, nodes, choice, len(labels), here)
    metrics = {f"validation_{name}": float(value) for name, value in best.items() if name not in tree.nodes}
    metrics |= {key: sum(run.metrics[key] for run in nodes.values()) for key in ("epochs", "cost_seconds")}
    served = {name: asked[name, best[name]] for name in tree.nodes}
    routed = route(tree, lambda node, rows: served[node](rows), len(labels), shares, params.routing)
    features = served[ROOT].features
    metrics |= {f"validation_{name}": value for name, value in retrieval(features, labels).items()}
    record = record.finished(metrics)
    trust = Trust.fit(routed.probabilities, labels, features, validation.images.numpy(), tree.classes)
    with replacing_folder(CHOICE) as beside:
        write_json(beside / CHOICE_FILE, choice)
        trust.save(beside)
        for name, description in descriptions.items():
            (beside / name).mkdir()
            shutil.copyfile(folder / name / best[name], beside / name / best[name])
            components_of(tree, name, Node(description, folder / name / best[name], device)).save(beside / name)
            export(Node(description, beside / name / best[name], torch.device("cpu")))
        table.to_csv(beside / "combinations.csv", index=False)
        write_json(beside / "record.json", record.to_json())
        write_sums(beside)
    write_json(VALIDATION, metrics)
    tracking.try_to_log(record)
    print(f"choose: best of {len(table)} combinations, validation accuracy {best['accuracy']:.4f}")


def components_of(tree: Tree, name: str, node: Node) -> Components:
    """Principal components of the node's features, from the training galaxies below it."""
    table = read_packed()
    taught = table[(table["split"] == "training") & table["class"].isin(tree.leaves(name))]
    rows = taught["row"].to_numpy()[sample(len(taught))]
    return Components.fit(node.ask(read_images(), rows).features.numpy())


def score(
    tree: Tree,
    descriptions: dict[str, Any],
    asked: Mapping[tuple[str, str], Callable[[Ints], Floats]],
    labels: Ints,
    shares: dict[str, int],
    params: ChooseParams,
) -> pd.DataFrame:
    """All combinations, best first: a column for each node (its checkpoint), and what it reaches.

    `asked` gives for each (node, checkpoint) the probabilities of the images at some rows, (len(rows), children).
    """
    rows = []
    files = [[checkpoint["file"] for checkpoint in descriptions[name]["checkpoints"]] for name in tree.nodes]
    for combination in itertools.product(*files):
        chosen = dict(zip(tree.nodes, combination, strict=True))
        routed = route(
            tree,
            lambda node, rows, chosen=chosen: asked[node, chosen[node]](rows),  # type: ignore[misc]
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


def _record(
    parameters: dict[str, Any],
    nodes: dict[str, Record],
    choice: dict[str, Any],
    validation: int,
    here: dict[str, Any],
) -> Record:
    root = nodes["root"]
    shared = ("survey", "backbone", "input", "recipe", "seed")
    columns = {"tree": "-".join(choice["hierarchy"])} | {name: root.columns[name] for name in shared}
    columns["started_from"] = "; ".join(dict.fromkeys(str(run.columns["started_from"]) for run in nodes.values()))
    key = digest([choice, {name: run.key for name, run in nodes.items()}])[:16]
    return Record(
        key=key,
        kind="choice",
        name=run_name(columns, key),
        columns=columns,
        parameters=parameters | {"files": {name: chosen["file"] for name, chosen in choice["nodes"].items()}},
        data={
            "sources": {path.name: sha256(path) for path in (SPLITS_TABLE, PACKED_INDEX)},
            "counts": root.data["counts"] | {"validation": validation},
        },
        nodes={name: run.key for name, run in nodes.items()},
        **here,
    )
