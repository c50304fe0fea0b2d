"""`hiwl trust NAME`: how far the answers of published weights can be trusted.

Fits on the validation galaxies at hand what `choose` fits for a model that is trained here: prediction sets, the
distance from what is known, from which probability on one view decides. Measures on the test galaxies, and on pictures
that are no such galaxies, whether it holds. Writes into ``pretrained/<name>`` and renews ``docs/trust.md``.
"""

import io
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing_folder, sha256, write_json, write_text
from hiwl.core.layout import PACKED_IMAGES, PRETRAINED, RAW_IMAGES, SPLITS_TABLE
from hiwl.core.pages import page
from hiwl.core.record import Record, read_results
from hiwl.core.section import read_section
from hiwl.core.sums import read_sums, write_sums
from hiwl.measure import others, reliability
from hiwl.measure.intervals import student
from hiwl.measure.plots import save
from hiwl.model.answer import Model
from hiwl.model.calibration import fit_sure
from hiwl.model.classifier import CHOICE_FILE, Classifier, average
from hiwl.model.pixels import PackParams, Pixels
from hiwl.model.tree import ROOT, Floats, Tree
from hiwl.model.trust import Trust
from hiwl.stages.choose import components_of
from hiwl.studies.plan import on_record, plan, read_study
from hiwl.survey.inputs import find
from hiwl.survey.packed import Part, read_split
from hiwl.survey.pictures import look
from hiwl.training.export import check_export, export

MAY_DIFFER = 0.001
NUMBERS = "trust.json"
PAGE, PICTURE = Path("docs/trust.md"), Path("docs/trust.svg")
TEMPLATE = Path(__file__).with_name("trust.md.jinja")
FILES = re.compile(r"(\| file \| bytes \| SHA-256 \|\n\| --- \| --- \| --- \|\n)(?:\|.*\n)+")


def main(name: str, others: list[str]) -> None:
    """Fit, measure, and write.

    Raises:
        HiwlError: the data at hand are not those that the weights were trained and are to be measured on.
    """
    given = dict(_named(one) for one in others)
    folder = PRETRAINED / name
    of_folds()  # whose results have to be there in the end
    _check_data(folder)
    with replacing_folder(folder) as beside:
        shutil.copytree(folder, beside, dirs_exist_ok=True)
        fit(beside)
        numbers = measure(beside, given)
        write_json(beside / NUMBERS, numbers)
        write_sums(beside)
        list_files(beside)
    write_page()
    print(f"trust: {folder} and {PAGE}")


def fit(folder: Path) -> None:
    """Write graphs, thresholds and ``trust.safetensors`` into the folder of a model, from the validation galaxies."""
    classifier = Classifier.load(folder, "cpu")
    for name, node in classifier.nodes.items():
        export(node)
        components_of(classifier.tree, name, node).save(folder / name)
    write_sums(folder)
    classifier = Classifier.load(folder, "cpu")
    validation = read_split("validation", classifier.tree)
    choice = classifier.choice
    choice["sure"] = {
        name: _sure(classifier, name, validation) if classifier.views > 1 else 0.0 for name in classifier.nodes
    }
    answers = Classifier(choice, classifier.nodes)(validation.images)
    trust = Trust.fit(
        answers.routed.probabilities,
        validation.labels,
        answers.features,
        validation.images.numpy(),
        classifier.tree.classes,
    )
    trust.save(folder)
    write_json(folder / CHOICE_FILE, choice)
    write_sums(folder)


def list_files(folder: Path) -> None:
    """Renew the card's table of files."""
    card = (folder / "README.md").read_text()
    listed = [
        f"| {file} | {(folder / file).stat().st_size} | `{digest}` |\n" for file, digest in read_sums(folder).items()
    ]
    write_text(folder / "README.md", FILES.sub(lambda found: found[1] + "".join(listed), card))


def _sure(classifier: Classifier, name: str, validation: Part) -> float:
    below = np.isin(validation.labels, [classifier.tree.classes.index(leaf) for leaf in classifier.tree.labels(name)])
    seen = classifier.nodes[name].ask(validation.images, np.flatnonzero(below), range(classifier.views))
    temperature = classifier.temperatures[name]
    return fit_sure(average(seen.logits[:1], temperature), average(seen.logits, temperature), MAY_DIFFER)


def measure(folder: Path, given: dict[str, str]) -> dict[str, Any]:
    """What holds of a model on the test galaxies, and of `given` pictures by name."""
    model = Model.load(folder)
    classifier, trust, classes = model.classifier, model.trust, model.classifier.tree.classes
    assert trust is not None
    test = read_split("test", classifier.tree)
    answers = classifier(test.images)
    every = Classifier(classifier.choice | {"sure": {}}, classifier.nodes)(test.images)
    shares, labels = answers.routed.probabilities, test.labels
    confidence = shares[np.arange(len(labels)), answers.routed.label]
    right = answers.routed.label == labels
    scores = _scores(classifier, trust, answers.features, answers.routed.probabilities, test.images.numpy())
    apart: dict[str, dict[str, Any]] = {}
    chosen = np.random.default_rng(others.SEED).permutation(len(labels))[: others.NUMBER]
    kinds = dict(
        others.made(test.images.numpy()[chosen], _whole([test.galaxies[row] for row in chosen]), classifier.pack)
    )
    kinds["simulated galaxies"] = others.simulated(classifier.pack)
    kinds |= {name: _decoded(path, model) for name, path in given.items()}
    for name, pictures in kinds.items():
        of_kind = classifier(pictures)
        found = _scores(classifier, trust, of_kind.features, of_kind.routed.probabilities, pictures)
        apart[name] = {kind: reliability.telling_apart(scores[kind], found[kind]) for kind in scores}
        apart[name]["flagged"] = float((found["distance"] > 1).mean())
    return {
        "galaxies": {"validation": len(read_split("validation", classifier.tree).labels), "test": len(labels)},
        "accuracy": float(right.mean()),
        "accuracy_of_every_view": float((every.routed.label == labels).mean()),
        "changed": int((every.routed.label != answers.routed.label).sum()),
        "views": float(answers.views.mean()),
        "asked_again": float((answers.views > 1).mean()),
        "engine": max(check_export(node, test.images, np.arange(len(labels))) for node in classifier.nodes.values()),
        "flagged": float((scores["distance"] > 1).mean()),
        "coverage": reliability.coverage(trust, shares, labels, classes),
        "bins": reliability.bins(confidence, right).to_dict("list"),
        "others": apart,
    }


def _scores(
    classifier: Classifier, trust: Trust, features: Any, probabilities: Floats, pictures: Pixels
) -> dict[str, Floats]:
    """By each of three ways, how unlike training pictures are."""
    images = torch.from_numpy(np.ascontiguousarray(pictures))
    logits = classifier.nodes[ROOT].ask(images, np.arange(len(images))).logits[0]
    return {
        "distance": trust.distances(features),
        "energy": -logits.double().logsumexp(dim=1).numpy(),
        "probability": -probabilities.max(axis=1),
    }


def write_page() -> None:
    """Renew ``docs/trust.md`` and its picture from what is published."""
    found = {path.parent.name: json.loads(path.read_text()) for path in sorted(PRETRAINED.glob(f"*/{NUMBERS}"))}
    values = {"models": found, "folds": of_folds()}
    write_text(PAGE, page(TEMPLATE, values, {"percent": lambda share, digits=1: f"{100 * share:.{digits}f} %"}))
    save(reliability.draw({name: pd.DataFrame(numbers["bins"]) for name, numbers in found.items()}), PICTURE)


def of_folds() -> dict[str, Any]:
    """Coverage of prediction sets in study `folds`, over the folds of its one layer."""
    parts: list[pd.DataFrame] = []
    galaxies = 0
    study = read_study("folds")
    wanted = {run.definition for run in plan(study) if run.cell == "one-layer"}
    for definition, kept in on_record(study, read_results()).items():
        if definition not in wanted:
            continue
        tree = Tree(kept.choice.parameters["hierarchy"]["nodes"])
        answers = pd.read_csv(kept.answers).rename(columns={"class": "label"})  # as it was called once
        shares = answers[[f"p_{name}" for name in tree.classes]].to_numpy(np.float64)
        labels = answers["label"].map(tree.classes.index).to_numpy(np.int64)
        first = np.random.default_rng(len(parts)).permutation(len(labels)) < len(labels) // 2
        trust = Trust.of_answers(shares[first], labels[first], tree.classes)
        parts.append(pd.DataFrame(reliability.coverage(trust, shares[~first], labels[~first], tree.classes)))
        galaxies += len(labels)
    if not parts:
        raise HiwlError("results: no run of study `folds`; git brings them")
    rows = [
        {"alpha": alpha, "class": name, "mean": of["covered"].mean(), "least": of["covered"].min()}
        | {"most": of["covered"].max(), **dict(zip(("low", "high"), student(of["covered"].to_numpy()), strict=True))}
        for (alpha, name), of in pd.concat(parts).groupby(["alpha", "class"], sort=False)
    ]
    return {"galaxies": galaxies, "rows": rows}


def _check_data(folder: Path) -> None:
    record = Record.model_validate_json((folder / "record.json").read_text())
    if sha256(SPLITS_TABLE) != record.data["sources"]["splits.csv"]:
        raise HiwlError(
            f"{SPLITS_TABLE}: not the split that {folder} was trained on: its validation galaxies are others"
        )
    asked = PackParams.parse(record.parameters["pack"], "pack")
    if PackParams.parse(read_section("pack"), "pack") != asked:
        raise HiwlError(f"{PACKED_IMAGES}: {folder} sees other pixels; run `dvc repro pack` with pack: {asked}")


def _named(given: str) -> tuple[str, str]:
    name, equals, path = given.partition("=")
    if not equals:
        raise HiwlError(f"--others {given}: expected NAME=PATH")
    return name, path


def _whole(galaxies: list[str]) -> list[Pixels]:
    pictures = look(RAW_IMAGES)
    with zipfile.ZipFile(RAW_IMAGES) as archive:
        files = [archive.read(str(pictures.of(galaxy))) for galaxy in galaxies]
    return [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in files]


def _decoded(path: str, model: Model) -> Pixels:
    tables = [table for one in find([path]) for table in one.tables(0, 1024)]
    found = [model.decoded(image) for table in tables for image in table["image"]]
    if not (good := [pixels for pixels in found if pixels is not None]):
        raise HiwlError(f"{path}: none of its pictures can be read")
    return np.stack(good)
