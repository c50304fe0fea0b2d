"""Stage `evaluate`: the chosen combination on the test set, once (paper, section 4.3).

Writes to ``reports``: ``metrics.json``, ``per_class.csv`` (counts, recall, precision, F1, intervals),
``confusion.csv`` (one row a galaxy: actual, predicted), ``confusion.png``, ``curves.png`` (loss and accuracy of every
node against epochs), ``answers.csv.gz`` (every galaxy's answer), ``record.json``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from hiwl import tracking
from hiwl.calibration import calibration_error
from hiwl.classifier import Classifier, device_of
from hiwl.dataset import read_split
from hiwl.figures import draw_confusion, headless_pyplot
from hiwl.files import replacing_folder, write_json
from hiwl.hierarchy import Ints, Routed
from hiwl.layout import CHOICE, CHOICE_FILE, NODES, REPORTS
from hiwl.memory import keep_freed_memory
from hiwl.record import Record, keep_in_results
from hiwl.settings import settings
from hiwl.votes import ID


def main() -> None:
    """Answer for every test galaxy and measure."""
    keep_freed_memory()
    classifier = Classifier(CHOICE_FILE, lambda node, file: NODES / node / file, device_of(settings().accelerator))
    classes = classifier.tree.classes
    galaxies, images, labels = read_split("test", classifier.tree)
    routed = classifier(images)
    metrics, per_class = measure_routed(labels, routed, classes)

    choice = Record.model_validate_json((CHOICE / "record.json").read_text())
    nodes = {
        name: Record.model_validate_json((NODES / name / "record.json").read_text()) for name in classifier.tree.nodes
    }
    record = choice.finished(test_metrics(metrics, per_class))
    with replacing_folder(REPORTS) as beside:
        write_json(
            beside / "metrics.json",
            metrics | {"recall": dict(zip(classes, per_class["recall"], strict=True))},
        )
        per_class.to_csv(beside / "per_class.csv", index=False)
        names = np.array(classes)
        pd.DataFrame({"actual": names[labels], "predicted": names[routed.label]}).to_csv(
            beside / "confusion.csv", index=False
        )
        _draw_confusion(labels, routed.label, classes, str(choice.columns["survey"]), beside / "confusion.png")
        _draw_curves(nodes, str(choice.columns["survey"]), beside / "curves.png")
        answers_table(galaxies, labels, routed, classes).to_csv(
            beside / "answers.csv.gz",
            index=False,
            float_format="%.4f",
            compression={"method": "gzip", "mtime": 0},
        )
        write_json(beside / "record.json", record.to_json())
    tracking.log_report(record, REPORTS)
    keep_in_results(record, nodes, REPORTS / "answers.csv.gz")
    low, high = metrics["accuracy_interval"]
    print(f"evaluate: test accuracy {metrics['accuracy']:.4f} ({low:.4f} to {high:.4f}) on {len(labels)} galaxies")


def test_metrics(metrics: dict[str, Any], per_class: pd.DataFrame) -> dict[str, float]:
    """What :func:`measure_routed` found, as a record has it."""
    flat = {f"test_{name}": value for name, value in metrics.items() if isinstance(value, float)}
    return flat | {f"test_recall_{row['class']}": row["recall"] for row in per_class.to_dict("records")}


def measure_routed(labels: Ints, routed: Routed, classes: list[str]) -> tuple[dict[str, Any], pd.DataFrame]:
    """As :func:`measure`, with the calibration error."""
    metrics, per_class = measure(labels, routed.label, classes)
    return metrics | {"calibration_error": calibration_error(routed.probabilities, routed.label, labels)}, per_class


def measure(labels: Ints, predicted: Ints, classes: list[str]) -> tuple[dict[str, Any], pd.DataFrame]:
    """Accuracy and mean recall, precision, F1 over classes; and a table with a row for each class.

    Intervals are Wilson's, 95 %. Precision where nothing was said to be of a class, and recall where no galaxy is,
    count as 0.
    """
    numbers = range(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=list(numbers), zero_division=0.0
    )
    right = np.diag(confusion_matrix(labels, predicted, labels=list(numbers)))
    per_class = pd.DataFrame(
        {"class": classes, "galaxies": support, "recall": recall, "precision": precision, "f1": f1}
    )
    intervals = [wilson(int(k), int(n)) for k, n in zip(right, support, strict=True)]
    per_class["recall_low"] = [low for low, _ in intervals]
    per_class["recall_high"] = [high for _, high in intervals]
    metrics = {
        "galaxies": len(labels),
        "accuracy": float((labels == predicted).mean()),
        "accuracy_interval": list(wilson(int((labels == predicted).sum()), len(labels))),
        "mean_recall": float(recall.mean()),
        "mean_precision": float(precision.mean()),
        "mean_f1": float(f1.mean()),
    }
    return metrics, per_class


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def answers_table(galaxies: Ints, labels: Ints, routed: Routed, classes: list[str]) -> pd.DataFrame:
    """One row a test galaxy, by GalaxyID: its class, the answer, the probability of every class."""
    names = np.array(classes)
    table = pd.DataFrame({ID: galaxies, "class": names[labels], "answer": names[routed.label]})
    table[[f"p_{name}" for name in classes]] = routed.probabilities
    return table


def _draw_confusion(labels: Ints, predicted: Ints, classes: list[str], survey: str, path: Path) -> None:
    pyplot = headless_pyplot()
    figure, axes = pyplot.subplots(layout="constrained")
    draw_confusion(axes, confusion_matrix(labels, predicted, labels=range(len(classes))), classes, size=9)
    axes.set(title=f"{survey}: {len(labels)} test galaxies")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _draw_curves(nodes: dict[str, Record], survey: str, path: Path) -> None:
    pyplot = headless_pyplot()
    figure, (losses, accuracies) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for name, run in nodes.items():
        history = pd.DataFrame(run.history)
        losses.plot(history["epoch"], history["training_loss"], label=f"{name}, training")
        losses.plot(history["epoch"], history["validation_loss"], label=f"{name}, validation", linestyle="--")
        accuracies.plot(history["epoch"], history["validation_accuracy"], marker=".", label=name)
    losses.set(title=survey, xlabel="epoch", ylabel="loss")
    accuracies.set(xlabel="epoch", ylabel="validation accuracy of the node")
    losses.legend()
    accuracies.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
