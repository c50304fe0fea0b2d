"""`hiwl figures`: the paper's Figures 6 and 7 of the chosen models as measurements, and a sheet of their errors.

Run after `evaluate`. Writes to ``figures``:

- ``tsne.png``, ``tsne.csv.gz``: penultimate features embedded by t-SNE, for each node its own.
- ``gradcam.png``: where the models look, one test galaxy of each class.
- ``errors.png`` (then ``errors-2.png``, ...), ``errors.csv``: every wrongly answered test galaxy.
- ``figures.json``: silhouettes, shares of the maps' weight on the galaxy, counts, and of which run they are.

Of a real survey the numbers and coordinates go into ``results`` too, beside the run's record; pictures never do.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing, replacing_folder, write_json
from hiwl.core.layout import CHOICE, FIGURES, ID, RAW_MANIFEST, REPORTS
from hiwl.core.record import Record, check_data, read_evaluated, results_folder, stem
from hiwl.core.settings import settings
from hiwl.measure import gradcam, tsne
from hiwl.measure.intervals import in_words
from hiwl.measure.plots import headless_pyplot, save
from hiwl.model.classifier import Classifier
from hiwl.model.tree import Tree
from hiwl.survey.packed import read_images, read_packed
from hiwl.survey.tables import in_order, read_table

SEED = 1  # of the training galaxies drawn
TRAINING = 5000  # training galaxies in Figure 6, as in the paper
SHEET = 200  # errors a sheet
COLUMNS = 20


def main() -> None:
    """Measure and draw.

    Raises:
        HiwlError: models, reports and data do not belong together.
    """
    choice = read_evaluated()
    check_data()
    _check_survey(choice)
    classifier = Classifier.load(CHOICE, settings().accelerator)
    tree = classifier.tree
    answers = read_table(REPORTS / "answers.csv.gz", [ID, "answer", *(f"p_{name}" for name in tree.classes)])
    images, table = read_images(), read_packed()
    table["node"] = table["class"].map(nodes_above(tree))
    test = table[table["split"] == "test"].merge(answers, on=ID, validate="one_to_one")
    training = table[table["split"] == "training"]
    training = training.sample(min(TRAINING, len(training)), random_state=SEED)
    shown = in_order(pd.concat([training, test[training.columns]]))

    embedded, silhouettes = tsne.embed_nodes(classifier, images, shown)
    shares, sides = gradcam.attend(classifier, images, test)
    seen = gradcam.summarise(shares, tree.classes)
    wrong = errors(test)
    numbers = {
        "key": choice.key,
        **choice.columns,
        "classes": tree.classes,
        "nodes": nodes_above(tree),
        "galaxies": {"training": len(training), "test": len(test), "wrong": len(wrong)},
        "seed_of_sample": SEED,
        "silhouette": silhouettes,
        "gradcam": {"above_sky": gradcam.ABOVE_SKY, "map_sides": sides} | seen,
    }
    with replacing_folder(FIGURES) as beside:
        save(tsne.draw(embedded, tree.classes, silhouettes), beside / "tsne.png")
        save(gradcam.draw(classifier, images, test, sides), beside / "gradcam.png")
        _draw_errors(images, wrong, len(test), beside)
        wrong.drop(columns="row").to_csv(beside / "errors.csv", index=False, float_format="%.4f")
        embedded.assign(**{"class": embedded["class"].map(tree.classes.index)}).to_csv(
            beside / "tsne.csv.gz", index=False, float_format="%.2f", compression={"method": "gzip", "mtime": 0}
        )
        write_json(beside / "figures.json", numbers)
    _keep(choice, numbers)
    print(f"figures: {FIGURES}: {len(wrong)} errors in {len(test)} test galaxies")
    for node, values in silhouettes.items():
        print(f"figures: silhouette of {node}: {tsne.in_words(values)}")
    for layer in gradcam.LAYERS:
        share, uniform = (in_words(seen[layer]["all"][name]) for name in ("share", "uniform"))
        print(f"figures: {layer} layer: {share} of the maps' weight on the galaxy, {uniform} of a uniform map's")


def nodes_above(tree: Tree) -> dict[str, str]:
    """For every class the deepest node above it: the one that has it as a child, whose features and maps are taken."""
    parents = {child: node for node, children in tree.nodes.items() for child in children}
    return {name: parents[name] for name in tree.classes}


def errors(test: pd.DataFrame) -> pd.DataFrame:
    """The wrongly answered galaxies, with the answer's `probability`, the most confident first."""
    wrong = test[test["class"] != test["answer"]]
    probability = [galaxy[f"p_{galaxy['answer']}"] for galaxy in wrong.to_dict("records")]
    table = wrong[[ID, "class", "answer", "row"]].rename(columns={"class": "label"})
    table = in_order(table.assign(probability=np.array(probability, np.float64)))
    return table.sort_values("probability", ascending=False, kind="stable", ignore_index=True)


def _check_survey(choice: Record) -> None:
    here, there = json.loads(RAW_MANIFEST.read_text())["survey"], choice.parameters["raw"]["survey"]
    if here != there:
        raise HiwlError(
            f"{RAW_MANIFEST}: holds the survey {here}, but {CHOICE} belongs to {there}: "
            f"`dvc exp run -S survey={there} raw` brings that one in"
        )


def _draw_errors(images: Tensor, wrong: pd.DataFrame, tested: int, folder: Path) -> None:
    height = 1.38  # of a picture of width 1 with its two lines of text
    for start in range(0, max(len(wrong), 1), SHEET):
        part = wrong.iloc[start : start + SHEET]
        lines = max(math.ceil(len(part) / COLUMNS), 1)
        figure, panel = headless_pyplot().subplots(figsize=(COLUMNS, height * lines + 0.5), layout="constrained")
        for place, galaxy in enumerate(part.to_dict("records")):
            left, top = place % COLUMNS, height * (place // COLUMNS)
            panel.imshow(images[galaxy["row"]].numpy(), extent=(left, left + 0.96, top + 0.96, top))
            text = f"{galaxy[ID]}\n{galaxy['label']}, answer {galaxy['answer']} {galaxy['probability']:.2f}"
            panel.text(left + 0.48, top + 0.98, text, fontsize=7, ha="center", va="top", linespacing=1.1)
        panel.set(xlim=(0, COLUMNS), ylim=(height * lines, 0))
        panel.set_axis_off()
        shown = f"{start + 1} to {start + len(part)} of {len(wrong)}" if len(part) else "none"
        panel.set_title(f"errors: {shown}, the most confident first; {tested} test galaxies", loc="left")
        number = start // SHEET + 1
        save(figure, folder / ("errors.png" if number == 1 else f"errors-{number}.png"))


def _keep(choice: Record, numbers: dict[str, Any]) -> None:
    """Leave numbers and coordinates beside the run's record, of a real survey."""
    folder = results_folder(choice.parameters["raw"])
    if folder is not None:
        write_json(folder / "runs" / f"{stem(choice)}.figures.json", numbers)
        with replacing(folder / "runs" / f"{stem(choice)}.tsne.csv.gz") as beside:
            beside.write_bytes((FIGURES / "tsne.csv.gz").read_bytes())
