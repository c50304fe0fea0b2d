"""Accuracy, recall, precision, F1, calibration error of answers."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from hiwl.measure.intervals import wilson
from hiwl.model.calibration import calibration_error
from hiwl.model.tree import Ints, Routed


def measure_routed(labels: Ints, routed: Routed, classes: list[str]) -> tuple[dict[str, Any], pd.DataFrame]:
    """As :func:`measure`, with the calibration error."""
    metrics, per_class = measure(labels, routed.label, classes)
    return metrics | {"calibration_error": calibration_error(routed.probabilities, routed.label, labels)}, per_class


def measure(labels: Ints, predicted: Ints, classes: list[str]) -> tuple[dict[str, Any], pd.DataFrame]:
    """Accuracy and mean recall, precision, F1 over classes; and a table with a row for each class.

    Intervals are Wilson's, 95 %. Of a class without a galaxy nothing is measured: its row has none of these (NaN), and
    the means leave it out. Precision where no answer names a class that has galaxies counts as 0.
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
    measured = per_class["galaxies"] > 0
    per_class.loc[~measured, per_class.columns[2:]] = np.nan
    metrics = {
        "galaxies": len(labels),
        "accuracy": float((labels == predicted).mean()),
        "accuracy_interval": list(wilson(int((labels == predicted).sum()), len(labels))),
        "mean_recall": float(recall[measured].mean()),
        "mean_precision": float(precision[measured].mean()),
        "mean_f1": float(f1[measured].mean()),
    }
    return metrics, per_class


def measured_on_test(metrics: dict[str, Any], per_class: pd.DataFrame) -> dict[str, float]:
    """What :func:`measure_routed` found on the test set, as records, DVC and MLflow name it: one number a name."""
    flat = {f"test_{name}": value for name, value in metrics.items() if isinstance(value, float)}
    flat["test_accuracy_low"], flat["test_accuracy_high"] = metrics["accuracy_interval"]
    measured = per_class[per_class["galaxies"] > 0]
    return flat | {f"test_recall_{row['class']}": row["recall"] for row in measured.to_dict("records")}
