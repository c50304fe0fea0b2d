import numpy as np
import pytest

from hiwl.evaluate import measure, wilson

CLASSES = ["CRS", "IBS", "CSS", "EO", "SPI"]
PAPER = [[813, 26, 0, 0, 5], [25, 777, 0, 0, 5], [0, 6, 41, 11, 0], [0, 1, 11, 376, 3], [2, 8, 0, 3, 768]]


def test_the_papers_confusion_matrix_gives_the_papers_figures() -> None:
    cells = [(row, column) for row, counts in enumerate(PAPER) for column, n in enumerate(counts) for _ in range(n)]
    labels, predicted = np.array(cells).T
    metrics, table = measure(labels, predicted, CLASSES)
    assert metrics["galaxies"] == 2881
    assert metrics["accuracy"] == pytest.approx(0.9632, abs=5e-5)
    assert metrics["accuracy_interval"] == pytest.approx([0.9557, 0.9695], abs=1e-4)
    assert table["galaxies"].tolist() == [844, 807, 58, 391, 781]
    assert table["recall"].to_numpy() == pytest.approx([0.9633, 0.9628, 0.7069, 0.9616, 0.9834], abs=6e-5)
    precision = [0.9679, 0.9499, 41 / 52, 0.9641, 0.9834]  # the paper prints .7855 for 41 / 52
    assert table["precision"].to_numpy() == pytest.approx(precision, abs=1e-4)
    assert table["f1"][[0, 1, 3, 4]].to_numpy() == pytest.approx([0.9656, 0.9563, 0.9629, 0.9834], abs=1e-4)
    assert table[["recall_low", "recall_high"]].to_numpy()[2] == pytest.approx([0.58, 0.81], abs=5e-3)


def test_classes_without_galaxies_or_answers_count_as_zero() -> None:
    metrics, table = measure(np.array([0, 0]), np.array([0, 1]), ["A", "B", "C"])
    assert table["recall"].tolist() == [0.5, 0.0, 0.0]
    assert metrics["mean_precision"] == pytest.approx(1 / 3)
    assert wilson(0, 0) == (0.0, 1.0)
