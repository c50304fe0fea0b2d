import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hiwl.model.probe import fit_probe, logits


def test_a_probe_of_two_classes_is_logistic_regression_on_standardised_features() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    features = (rng.normal(size=(300, 5)) * [1, 10, 0.1, 1, 1] + 3 + labels[:, None]).astype(np.float32)
    said = logits(features, fit_probe(features, np.eye(2)[labels]))
    standard = (features - features.mean(0)) / features.std(0)
    wanted = [
        LogisticRegression(C=c, max_iter=500, tol=1e-3).fit(standard, labels) for c in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    ]
    apart = [np.abs(one.decision_function(standard) - (said[:, 1] - said[:, 0])).max() for one in wanted]
    assert min(apart) < 1e-3
    assert ((said[:, 1] > said[:, 0]) == labels).mean() > 0.8


def test_fractions_are_learned_as_fractions() -> None:
    rng = np.random.default_rng(0)
    share = rng.uniform(0, 1, 400)
    features = np.stack([np.log(share / (1 - share)), rng.normal(size=400)], axis=1).astype(np.float32)
    targets = np.stack([1 - share, share], axis=1)
    said = logits(features, fit_probe(features, targets))
    expected = 1 / (1 + np.exp(said[:, 0] - said[:, 1]))
    assert np.abs(expected - share).mean() < 0.05


@pytest.mark.parametrize("counts", [(3, 1), (2, 2, 9)])
def test_few_labels_are_enough(counts: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    features = np.eye(len(counts), dtype=np.float32)[labels] + 0.01
    weight, bias = fit_probe(features, np.eye(len(counts))[labels])
    assert weight.shape == (len(counts), len(counts))
    assert np.isfinite(logits(features, (weight, bias))).all()
