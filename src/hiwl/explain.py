"""`hiwl explain`: the paper's Figures 6 and 7 of the chosen models as measurements, and a sheet of their errors.

Run after `evaluate`. Writes to ``explained``:

- ``tsne.png``, ``tsne.csv.gz``: penultimate features embedded by t-SNE, for each node its own.
- ``gradcam.png``: where the models look, one test galaxy of each class.
- ``errors.png`` (then ``errors-2.png``, ...), ``errors.csv``: every wrongly answered test galaxy.
- ``reading``: sheets of errors among right answers, for a reader to judge without knowing which are which
  (`hiwl.reading`).
- ``explained.json``: silhouettes, shares of the maps' weight on the galaxy, counts, and whose they are.

Of a real survey the numbers and coordinates go into ``results`` too, beside the choice's record; pictures never do.
Intervals are 95 %, by bootstrap over galaxies.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from hiwl import attention, clusters, reading
from hiwl.classifier import Classifier, device_of
from hiwl.comparison import in_words
from hiwl.dataset import read_images, read_table
from hiwl.errors import HiwlError
from hiwl.figures import headless_pyplot
from hiwl.files import replacing, replacing_folder, write_json
from hiwl.hierarchy import Tree
from hiwl.layout import (
    CHOICE,
    CHOICE_FILE,
    EXPLAINED,
    NODES,
    RAW_MANIFEST,
    REPORTS,
)
from hiwl.memory import keep_freed_memory
from hiwl.record import Record, check_data, read_evaluated, results_folder, stem
from hiwl.settings import settings
from hiwl.votes import ID

SEED = 1  # of the training galaxies drawn
TRAINING = 5000  # training galaxies in Figure 6, as in the paper
SHEET = 200  # errors a sheet
COLUMNS = 20


def main() -> None:
    """Measure and draw.

    Raises:
        HiwlError: models, reports and data do not belong together.
    """
    keep_freed_memory()
    classifier = Classifier(CHOICE_FILE, lambda node, file: NODES / node / file, device_of(settings().accelerator))
    tree = classifier.tree
    choice = read_evaluated()
    check_data()
    _check_survey(choice)
    answers = pd.read_csv(REPORTS / "answers.csv.gz").drop(columns="class")
    images, table = read_images(), read_table()
    table["node"] = table["class"].map(nodes_above(tree))
    test = table[table["split"] == "test"].merge(answers, on=ID, validate="one_to_one")
    training = table[table["split"] == "training"]
    training = training.sample(min(TRAINING, len(training)), random_state=SEED)
    shown = pd.concat([training, test[training.columns]]).sort_values(ID, ignore_index=True)

    embedded, silhouettes = clusters.embed_nodes(classifier, images, shown)
    shares, sides = attention.attend(classifier, images, test)
    seen = attention.summarise(shares, tree.classes)
    wrong = errors(test)
    numbers = {
        "key": choice.key,
        **choice.columns,
        "classes": tree.classes,
        "nodes": nodes_above(tree),
        "galaxies": {"training": len(training), "test": len(test), "wrong": len(wrong)},
        "explain_seed": SEED,
        "silhouette": silhouettes,
        "gradcam": {"above_sky": attention.ABOVE_SKY, "map_sides": sides} | seen,
    }
    with replacing_folder(EXPLAINED) as beside:
        clusters.draw(embedded, tree.classes, silhouettes, beside / "tsne.png")
        attention.draw(classifier, images, test, sides, beside / "gradcam.png")
        _draw_errors(images, wrong, len(test), beside)
        asked = reading.questions(test, tree.classes)
        (beside / "reading").mkdir()
        reading.draw(asked, classifier.crop, beside / "reading")
        asked.to_csv(beside / "reading/reading.csv", index=False)
        wrong.drop(columns="row").to_csv(beside / "errors.csv", index=False, float_format="%.4f")
        embedded.assign(**{"class": embedded["class"].map(tree.classes.index)}).to_csv(
            beside / "tsne.csv.gz", index=False, float_format="%.2f", compression={"method": "gzip", "mtime": 0}
        )
        write_json(beside / "explained.json", numbers)
    _keep_in_results(choice, numbers)
    print(f"explain: {EXPLAINED}: {len(wrong)} errors in {len(test)} test galaxies")
    for node, values in silhouettes.items():
        print(f"explain: silhouette of {node}: {clusters.in_words(values)}")
    for layer in attention.LAYERS:
        share, uniform = (in_words(seen[layer]["all"][name]) for name in ("share", "uniform"))
        print(f"explain: {layer} layer: {share} of the maps' weight on the galaxy, {uniform} of a uniform map's")


def nodes_above(tree: Tree) -> dict[str, str]:
    """For every class the deepest node above it: the one that has it as a child, whose features and maps are taken."""
    parents = {child: node for node, children in tree.nodes.items() for child in children}
    return {name: parents[name] for name in tree.classes}


def errors(test: pd.DataFrame) -> pd.DataFrame:
    """The wrongly answered galaxies, with the answer's `probability`, the most confident first."""
    wrong = test[test["class"] != test["answer"]]
    probability = [galaxy[f"p_{galaxy['answer']}"] for galaxy in wrong.to_dict("records")]
    table = wrong[[ID, "class", "answer", "row"]].assign(probability=np.array(probability, np.float64))
    return table.sort_values(["probability", ID], ascending=[False, True], ignore_index=True)


def _check_survey(choice: Record) -> None:
    here, there = json.loads(RAW_MANIFEST.read_text())["survey"], choice.parameters["raw"]["survey"]
    if here != there:
        raise HiwlError(
            f"{RAW_MANIFEST}: holds the survey {here}, {CHOICE} is of {there}: `dvc exp run -S survey={there} raw`"
        )


def _draw_errors(images: Tensor, wrong: pd.DataFrame, tested: int, folder: Path) -> None:
    pyplot = headless_pyplot()
    height = 1.38  # of a picture of width 1 with its two lines of text
    for start in range(0, max(len(wrong), 1), SHEET):
        part = wrong.iloc[start : start + SHEET]
        lines = max(math.ceil(len(part) / COLUMNS), 1)
        figure, panel = pyplot.subplots(figsize=(COLUMNS, height * lines + 0.5), layout="constrained")
        for place, galaxy in enumerate(part.to_dict("records")):
            left, top = place % COLUMNS, height * (place // COLUMNS)
            panel.imshow(images[galaxy["row"]].numpy(), extent=(left, left + 0.96, top + 0.96, top))
            said = f"{galaxy[ID]}\n{galaxy['class']}, said {galaxy['answer']} {galaxy['probability']:.2f}"
            panel.text(left + 0.48, top + 0.98, said, fontsize=7, ha="center", va="top", linespacing=1.1)
        panel.set(xlim=(0, COLUMNS), ylim=(height * lines, 0))
        panel.set_axis_off()
        shown = f"{start + 1} to {start + len(part)} of {len(wrong)}" if len(part) else "none"
        panel.set_title(f"errors: {shown}, the most confident first; {tested} test galaxies", loc="left")
        number = start // SHEET + 1
        figure.savefig(folder / ("errors.png" if number == 1 else f"errors-{number}.png"), dpi=120)
        pyplot.close(figure)


def _keep_in_results(choice: Record, numbers: dict[str, Any]) -> None:
    """Leave numbers and coordinates beside the choice's record (`hiwl.record.keep_in_results`), of a real survey."""
    folder = results_folder(choice.parameters["raw"])
    if folder is None:
        return
    write_json(folder / f"{stem(choice)}.explained.json", numbers)
    with replacing(folder / f"{stem(choice)}.tsne.csv.gz") as beside:
        beside.write_bytes((EXPLAINED / "tsne.csv.gz").read_bytes())
