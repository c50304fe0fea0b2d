"""`hiwl publish <name>`: the evaluated choice as weights for everyone, in ``pretrained/<name>``.

Leaves there ``choice.json``, each node's checkpoint in half precision (what has one dimension, such as batch
normalisation's, stays in single precision: it is small, and its range is not), ``record.json``, ``SHA256SUMS`` and the
model card ``README.md``. What is shipped is what the card's figures were measured on: the halved weights answer the
test set anew.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, StrictUndefined
from safetensors.torch import load_file, save_file

from hiwl.core.errors import HiwlError
from hiwl.core.files import digest, replacing_folder, sha256, write_json, write_text
from hiwl.core.layout import CHOICE, PRETRAINED, REPORTS, SPLITS_TABLE
from hiwl.core.record import Record, check_data, read_evaluated, results_folder
from hiwl.core.settings import settings
from hiwl.measure.metrics import measure_routed, test_metrics
from hiwl.model.classifier import Classifier, copy_model
from hiwl.model.tree import Ints
from hiwl.params import definition
from hiwl.studies.plan import questions_of
from hiwl.survey.packed import read_split

SUMS = "SHA256SUMS"
CARD = Path(__file__).with_name("card.md.jinja")


def main(name: str) -> None:
    """Write ``pretrained/<name>``.

    Raises:
        HiwlError: the evaluated choice is of a simulated survey, or models, reports and data do not belong together.
    """
    record = read_evaluated()
    if results_folder(record.parameters["raw"]) is None:
        raise HiwlError("the model at hand was trained on simulated galaxies; publish one of real galaxies")
    check_data()
    with replacing_folder(PRETRAINED / name) as beside:
        copy_model(CHOICE, beside)
        for path in beside.glob("*/*.safetensors"):
            save_file(halved(path), path)
        _describe(name, record, beside)
    print(f"publish: {PRETRAINED / name}; look at README.md there before it is committed")


def halved(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors, those of more than one dimension in half precision."""
    weights = load_file(path)
    return {
        key: value.half() if value.is_floating_point() and value.ndim > 1 else value for key, value in weights.items()
    }


def read_sums(folder: Path) -> dict[str, str]:
    """By file: its SHA-256, as ``SHA256SUMS`` has it."""
    lines = (folder / SUMS).read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def _describe(name: str, record: Record, folder: Path) -> None:
    classifier = Classifier.load(folder, settings().accelerator)
    choice = classifier.choice
    classes = classifier.tree.classes
    _, images, labels = read_split("test", classifier.tree)
    routed = classifier(images)
    metrics, per_class = measure_routed(labels, routed, classes)
    before = pd.read_csv(REPORTS / "answers.csv.gz")["answer"].to_numpy()
    half = record.finished(test_metrics(metrics, per_class))
    half = half.model_copy(update={"key": digest([record.key, "half"])[:16], "name": f"{record.name}, half precision"})
    write_json(folder / "record.json", half.to_json())
    paths = [folder / "choice.json", folder / "record.json", *sorted(folder.glob("*/*.safetensors"))]
    files = [
        {"name": str(path.relative_to(folder)), "bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths
    ]
    counts = {"training": record.data["counts"]["training"], "validation": record.data["counts"]["validation"]}
    train = record.parameters["train"]
    values: dict[str, Any] = {
        "name": name,
        "record": record,
        "choice": choice,
        "counts": ", ".join(f"{n} {part}" for part, n in (counts | {"test": len(labels)}).items()),
        "split": sha256(SPLITS_TABLE),
        "questions": questions_of(definition(record.parameters)),
        "temperatures": ", ".join(f"{value:.3f}" for value in choice["temperatures"].values()),
        "files": files,
        "recipe": json.dumps({"recipe": train["recipe"], "nodes": train["nodes"]}, indent=1),
        "metrics": metrics,
        "changed": int((before != np.array(classes)[routed.label]).sum()),
        "per_class": per_class.to_dict("records"),
        "errors": _commonest_errors(labels, routed.label, classes),
    }
    environment = Environment(autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.globals["percent"] = lambda share: f"{100 * share:.2f} %"
    write_text(folder / "README.md", environment.from_string(CARD.read_text()).render(values))
    write_text(folder / SUMS, "".join(f"{file['sha256']}  {file['name']}\n" for file in files))


def _commonest_errors(labels: Ints, answers: Ints, classes: list[str]) -> str:
    table = pd.DataFrame({"label": np.array(classes)[labels], "answer": np.array(classes)[answers]})
    wrong = table[table["label"] != table["answer"]]
    kinds = (wrong["label"] + " taken for " + wrong["answer"]).value_counts().head(5)
    return ", ".join(f"{kind} ({number})" for kind, number in kinds.items()) or "none"
