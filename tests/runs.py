"""Records of made-up runs on real galaxies, for tests of what is made of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from hiwl.core.record import Record, keep_run, started_here
from hiwl.studies.plan import compose

CLASSES = ["CRS", "IBS", "CSS", "EO", "SPI"]
MINE = ["survey=labels", "raw.survey=mine"]
CELLS: dict[str, dict[str, Any]] = {
    "two": {"title": "two layers", "choices": ["hierarchy=paper"]},
    "one": {"title": "one layer", "choices": ["hierarchy=flat"]},
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "hiwl": {"title": "HIWL", "paper": "HIWL", "choices": ["hierarchy=paper"]},
    "hmws": {"title": "HMWS", "choices": ["hierarchy=paper", "train.recipe.loss.smoothing=0"]},
    "slwslm": {"title": "SLWSLM", "choices": ["hierarchy=flat", "train.recipe.sampling.kind=weighted"]},
    "smoothing": {"title": "one layer, smoothing", "choices": ["hierarchy=flat"]},
    "plain": {"title": "one layer, plain", "choices": ["hierarchy=flat", "train.recipe.loss.smoothing=0"]},
}
STUDY: dict[str, Any] = {
    "question": "Which tree?",
    "until": "evaluate",
    "seeds": [1, 2],
    "common": MINE,
    "against": "two",
    "cells": CELLS,
}


def plan_study(content: dict[str, Any], name: str = "trees") -> None:
    """Write a study's file."""
    Path("conf/study").mkdir(exist_ok=True)
    Path(f"conf/study/{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def node(seed: int, epochs: int, accuracy: float = 0.5) -> Record:
    """The training of a root."""
    columns = {"node": "root", "backbone": "resnet10t", "input": 64, "recipe": "quick", "seed": seed}
    record = Record(
        key=f"node-{seed}",
        kind="node",
        name=f"mine: root seed {seed}",
        columns={"survey": "mine"} | columns,
        parameters={"train": {"recipe": {"batch": 64, "augment": {"scale": [0.9, 1.0]}}}},
        data={"sources": {"splits.csv": "c" * 64}, "counts": {"training": 40, "validation": 5}},
        **started_here({"device": "cpu"}),
    )
    rows = [{"epoch": float(e + 1), "training_loss": 1 / (e + 1), "seconds": 2.0} for e in range(epochs)]
    return record.with_history([row | {"validation_loss": 0.5, "validation_accuracy": accuracy} for row in rows])


def choice(seed: int, cell: str, choices: list[str], **metrics: float) -> Record:
    """The choice of a cell's checkpoints."""
    columns = {"tree": cell, "backbone": "resnet10t", "input": 64, "recipe": "quick", "seed": seed}
    return node(seed, 0).model_copy(
        update={
            "key": f"{cell}-{seed}-{'-'.join(choices)}"[:40],
            "kind": "choice",
            "columns": {"survey": "mine", "started_from": "scratch"} | columns,
            "parameters": compose([*MINE, *choices, f"train.seed={seed}"]),
            "nodes": {"root": f"node-{seed}"},
            "metrics": {"validation_accuracy": 0.9, "validation_mean_recall": 0.8, "cost_seconds": 4.0} | metrics,
            "is_finished": True,
        }
    )


def keep(
    seed: int,
    cell: str,
    wrong: list[int] | None,
    first: int = 0,
    choices: list[str] | None = None,
    accuracy: float = 0.5,
    **metrics: float,
) -> Path:
    """Leave the record of a run and its answers for 20 galaxies, of which it had the `wrong` ones wrong (None: it was
    not tested). The galaxies are numbered from `first` on, `wrong` from zero."""
    own = [*(CELLS | ABLATIONS).get(cell, {"choices": []})["choices"], *(choices or [])]
    record = choice(seed, f"{cell}{first or ''}", own, **metrics)
    tree = record.parameters["hierarchy"]["name"]
    outputs: dict[str, bytes] = {
        "models/choice/record.json": record.model_dump_json().encode(),
        f"models/nodes/{tree}/root/record.json": node(seed, 3, accuracy).model_dump_json().encode(),
    }
    if wrong is not None:
        labels = np.array(CLASSES * 4)
        answers = labels.copy()
        answers[wrong] = np.roll(labels, 1)[wrong]
        table = pd.DataFrame({"GalaxyID": range(first, first + 20), "label": labels, "answer": answers})
        table[[f"p_{name}" for name in CLASSES]] = 0.1 + 0.5 * (answers[:, None] == np.array(CLASSES))
        table.to_csv("answers.csv.gz", index=False)
        outputs["reports/record.json"] = outputs["models/choice/record.json"]
        outputs["reports/answers.csv.gz"] = Path("answers.csv.gz").read_bytes()
    path = keep_run(lambda path: outputs.get(str(path)))
    assert path is not None
    return path


def edit(path: Path, **metrics: float) -> None:
    """Change what a record's choice measured."""
    content = json.loads(path.read_text())
    content["choice"]["metrics"] |= metrics
    path.write_text(json.dumps(content))
