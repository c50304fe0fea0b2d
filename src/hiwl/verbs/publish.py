"""`hiwl publish <name>`: the evaluated choice as weights for everyone, in ``pretrained/<name>``.

Leaves there ``choice.json``; each node's weights in half precision (what has one dimension, such as batch
normalisation's, stays in single precision: it is small, and its range is not), of timm's backbones in a folder that
timm itself loads (``timm.create_model("local-dir:pretrained/<name>/<node>", pretrained=True)``); ``record.json``;
``SHA256SUMS``; and the model card ``README.md``, with what a model hub reads of it on top. What is shipped is what the
card's figures were measured on: the halved weights answer the test set anew.
"""

import json
import shutil
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
from hiwl.core.sums import read_sums, write_sums
from hiwl.measure.metrics import measure_routed, measured_on_test
from hiwl.model.backbones import create, library_of
from hiwl.model.classifier import CHOICE_FILE, GRAPH, Classifier
from hiwl.model.components import FILE as COMPONENTS
from hiwl.model.preprocess import shown
from hiwl.model.tree import Ints
from hiwl.model.trust import TRUST
from hiwl.params import definition
from hiwl.studies.plan import questions_of
from hiwl.studies.study_page import started_from
from hiwl.survey.packed import read_split
from hiwl.survey.tables import read_table

WEIGHTS = "model.safetensors"
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
        halve(CHOICE, beside)
        _describe(name, record, beside)
    print(f"publish: {PRETRAINED / name}; look at README.md there before it is committed")


def halve(folder: Path, to: Path) -> None:
    """Write the model in `folder` to the folder `to`, in half precision, under the names that timm knows."""
    choice = json.loads((folder / CHOICE_FILE).read_text())
    for name, node in choice["nodes"].items():
        (to / name).mkdir()
        if library_of(node["backbone"]) == "timm":
            _describe_to_timm(node, to / name)
        save_file(halved(folder / name / node["file"]), to / name / WEIGHTS)
        for file in (GRAPH, COMPONENTS):
            if (folder / name / file).exists():
                shutil.copyfile(folder / name / file, to / name / file)
        node["file"] = WEIGHTS
    write_json(to / CHOICE_FILE, choice)
    shutil.copyfile(folder / TRUST, to / TRUST)
    write_sums(to)


def _describe_to_timm(node: dict[str, Any], folder: Path) -> None:
    """Leave in `folder` what timm has to know to make a node's network and to prepare packed pictures for it."""
    from timm.models import save_for_hf

    network = create(node["backbone"], len(node["children"]), "scratch", None).model
    seen = {"input_size": (3, node["input"], node["input"]), "mean": node["mean"], "std": node["std"], "crop_pct": 1.0}
    labels = {"label_names": node["children"]}
    save_for_hf(network, str(folder), model_config=labels, safe_serialization=True, data_config=seen)


def halved(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors, those of more than one dimension in half precision."""
    weights = load_file(path)
    return {
        key: value.half() if value.is_floating_point() and value.ndim > 1 else value for key, value in weights.items()
    }


def _describe(name: str, record: Record, folder: Path) -> None:
    classifier = Classifier.load(folder, settings().accelerator)
    choice = classifier.choice
    classes = classifier.tree.classes
    _, images, labels = read_split("test", classifier.tree)
    routed = classifier(images).routed
    metrics, per_class = measure_routed(labels, routed, classes)
    before = read_table(REPORTS / "answers.csv.gz", ["answer"])["answer"].to_numpy()
    half = record.finished(measured_on_test(metrics, per_class))
    half = half.model_copy(update={"key": digest([record.key, "half"])[:16], "name": f"{record.name}, half precision"})
    write_json(folder / "record.json", half.to_json())
    write_sums(folder)
    files = [
        {"name": file, "bytes": (folder / file).stat().st_size, "sha256": digest}
        for file, digest in read_sums(folder).items()
    ]
    counts = {"training": record.data["counts"]["training"], "validation": record.data["counts"]["validation"]}
    train = record.parameters["train"]
    values: dict[str, Any] = {
        "name": name,
        "timm": [node for node in choice["nodes"] if (folder / node / "config.json").exists()],
        "record": record,
        "is_galaxy_zoo_2": _is_galaxy_zoo_2(record),
        "choice": choice,
        "counts": ", ".join(f"{n:,} {part}" for part, n in (counts | {"test": len(labels)}).items()),
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
    environment.globals |= {"shown": shown, "started_from": started_from}
    environment.globals["percent"] = lambda share: f"{100 * share:.2f} %"
    write_text(folder / "README.md", environment.from_string(CARD.read_text()).render(values))


def _is_galaxy_zoo_2(record: Record) -> bool:
    """Whether the classes are the paper's, by its rules on the votes."""
    of_votes = record.parameters["raw"]["source"].get("table") == "votes"
    by_rules = record.parameters["select"].get("by", "rules") == "rules"
    return record.columns["survey"] in ("labels", "kaggle") or (of_votes and by_rules)


def _commonest_errors(labels: Ints, answers: Ints, classes: list[str]) -> str:
    table = pd.DataFrame({"label": np.array(classes)[labels], "answer": np.array(classes)[answers]})
    wrong = table[table["label"] != table["answer"]]
    kinds = (wrong["label"] + " taken for " + wrong["answer"]).value_counts().head(5)
    return ", ".join(f"{kind} ({number})" for kind, number in kinds.items()) or "none"
