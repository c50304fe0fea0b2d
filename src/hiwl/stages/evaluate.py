"""Stage `evaluate`: the chosen combination on the test set, once (paper, section 4.3).

Writes to ``reports``: ``test.json`` (what was measured), ``per_class.csv`` (counts, recall, precision, F1, intervals),
``confusion.csv`` (one row a galaxy: label, answer), ``confusion.png``, ``curves.png`` (loss and accuracy of every
node against epochs), ``answers.csv.gz`` (every galaxy's answer, with what the
survey's table says of it beside classes and votes, such as its place in the sky), ``record.json``.
"""

import os

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from hiwl.core import tracking
from hiwl.core.errors import HiwlError
from hiwl.core.files import scratch_folder, write_json
from hiwl.core.layout import CHOICE, ID, RAW_TABLE, REPORTS
from hiwl.core.record import Record, nodes_of
from hiwl.core.settings import settings
from hiwl.measure.metrics import measure_routed, measured_on_test
from hiwl.measure.plots import draw_confusion, draw_history, save
from hiwl.measure.retrieval import retrieval
from hiwl.model.classifier import Classifier
from hiwl.model.tree import Ints, Routed
from hiwl.survey import votes
from hiwl.survey.packed import read_split


def main() -> None:
    """Answer for every test galaxy and measure."""
    classifier = Classifier.load(CHOICE, settings().accelerator)
    classes = classifier.tree.classes
    galaxies, images, labels = read_split("test", classifier.tree)
    if not galaxies:
        raise HiwlError("no galaxy to test on; bring a larger survey, or raise split.held_out")
    answers = classifier(images)
    routed = answers.routed
    metrics, per_class = measure_routed(labels, routed, classes)

    choice = Record.model_validate_json((CHOICE / "record.json").read_text())
    nodes = {
        name: Record.model_validate_json((nodes_of(choice) / name / "record.json").read_text()) for name in choice.nodes
    }
    measured = measured_on_test(metrics, per_class)
    measured |= {f"test_{name}": value for name, value in retrieval(answers.features, labels).items()}
    record = choice.finished(measured)
    counted = choice.data["counts"] | {"test": len(labels)}
    record = record.model_copy(update={"data": choice.data | {"counts": counted}})
    table = with_given(answers_table(galaxies, labels, routed, classes))
    with scratch_folder(REPORTS / "evaluation") as beside:
        write_json(beside / "test.json", measured)
        per_class.to_csv(beside / "per_class.csv", index=False)
        table[["label", "answer"]].to_csv(beside / "confusion.csv", index=False)
        counts = confusion_matrix(labels, routed.label, labels=range(len(classes)))
        save(
            draw_confusion(counts, classes, f"{choice.columns['survey']}: {len(labels)} test galaxies"),
            beside / "confusion.png",
        )
        save(draw_history({name: run.history for name, run in nodes.items()}), beside / "curves.png")
        table.to_csv(
            beside / "answers.csv.gz",
            index=False,
            float_format="%.4f",
            compression={"method": "gzip", "mtime": 0},
        )
        write_json(beside / "record.json", record.to_json())
        for path in beside.iterdir():  # all is written
            os.replace(path, REPORTS / path.name)
    tracking.log_report(record, REPORTS)
    low, high = metrics["accuracy_interval"]
    print(f"evaluate: test accuracy {metrics['accuracy']:.4f} ({low:.4f} to {high:.4f}) on {len(labels)} galaxies")


def answers_table(galaxies: list[str], labels: Ints, routed: Routed, classes: list[str]) -> pd.DataFrame:
    """One row a test galaxy, by GalaxyID: its label, the answer, the probability of every class."""
    names = np.array(classes)
    table = pd.DataFrame({ID: galaxies, "label": names[labels], "answer": names[routed.label]})
    table[[f"p_{name}" for name in classes]] = routed.probabilities
    return table


def with_given(answers: pd.DataFrame) -> pd.DataFrame:
    """`answers`, with the columns of the survey's table that are neither classes nor votes, as they stand there."""
    ours = {"class", *votes.BY_VOLUNTEERS}
    given = pd.read_csv(RAW_TABLE, dtype=str, keep_default_na=False, usecols=lambda column: column not in ours)
    names = [str(column) for column in given if column != ID]
    taken = {name: f"given_{name}" for name in names if name in answers or name.startswith("p_")}
    return answers.merge(given.rename(columns=taken), on=ID, how="left", validate="one_to_one")
