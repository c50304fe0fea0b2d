import numpy as np
import pandas as pd
import pytest

from hiwl.measure.intervals import wilson
from hiwl.measure.metrics import measure, measured_on_test
from hiwl.studies.paper import ABLATIONS, SPLITS, paper_metrics


def test_the_papers_confusion_matrix_gives_the_papers_figures() -> None:
    metrics = paper_metrics()
    table = pd.DataFrame(metrics["per_class"]).T
    assert metrics["galaxies"] == 2881
    assert metrics["accuracy_interval"] == pytest.approx([0.9557, 0.9695], abs=1e-4)
    assert table["galaxies"].tolist() == SPLITS["test"]
    assert metrics["accuracy"] == pytest.approx(ABLATIONS["HIWL"][0], abs=5e-5)
    assert table["recall"].to_numpy() == pytest.approx(ABLATIONS["HIWL"][1], abs=6e-5)
    precision = [0.9679, 0.9499, 41 / 52, 0.9641, 0.9834]  # the paper prints .7855 for 41 / 52
    assert table["precision"].to_numpy() == pytest.approx(precision, abs=1e-4)
    assert table["f1"].iloc[[0, 1, 3, 4]].to_numpy() == pytest.approx([0.9656, 0.9563, 0.9629, 0.9834], abs=1e-4)
    assert table[["recall_low", "recall_high"]].to_numpy()[2] == pytest.approx([0.58, 0.81], abs=5e-3)


def test_a_class_without_galaxies_is_not_measured_and_one_that_is_never_answered_counts_as_zero() -> None:
    metrics, table = measure(np.array([0, 0, 2]), np.array([0, 1, 0]), ["A", "B", "C"])
    assert table["recall"].fillna(-1).tolist() == [0.5, -1, 0.0]
    assert table.loc[1, "recall":].isna().all()
    assert metrics["mean_recall"] == pytest.approx(0.25)
    assert metrics["mean_precision"] == pytest.approx(0.25)
    assert set(found := measured_on_test(metrics, table)) >= {"test_recall_A", "test_recall_C", "test_accuracy"}
    assert "test_recall_B" not in found
    assert wilson(0, 0) == (0.0, 1.0)
