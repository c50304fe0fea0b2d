import numpy as np
import pytest
import torch

from hiwl.measure.retrieval import retrieval


def test_it_is_what_the_library_of_metric_learning_has() -> None:
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 150)
    features = (rng.normal(size=(150, 6)) + np.eye(6)[labels]).astype(np.float32)
    found = retrieval(features, labels)
    by_name = {
        "precision_at_1": "precision_at_1",
        "r_precision": "r_precision",
        "map_at_r": "mean_average_precision_at_r",
    }
    nearest = CustomKNN(CosineSimilarity())
    calculator = AccuracyCalculator(include=tuple(by_name.values()), k="max_bin_count", knn_func=nearest)
    library = calculator.get_accuracy(torch.tensor(features), torch.tensor(labels))
    for ours, theirs in by_name.items():
        assert found[ours] == pytest.approx(library[theirs], abs=1e-4)
    every = AccuracyCalculator(include=("mean_average_precision",), k=149, knn_func=nearest)
    whole = every.get_accuracy(torch.tensor(features), torch.tensor(labels))
    assert found["map"] == pytest.approx(whole["mean_average_precision"], abs=1e-4)


def test_classes_that_lie_apart_are_found_whole_and_lonely_galaxies_left_out() -> None:
    labels = np.array([0] * 5 + [1] * 5 + [2])
    found = retrieval(np.eye(3, dtype=np.float32)[labels] + 0.01, labels)
    assert all(value == pytest.approx(1) for value in found.values())
    assert retrieval(np.eye(3, dtype=np.float32), np.arange(3)) == {}
