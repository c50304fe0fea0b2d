"""A linear layer on features that stay as they are, fitted whole instead of step by step."""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from hiwl.model.components import Features
from hiwl.model.tree import Floats, Ints

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of which the inverse penalty is chosen, on features of unit variance."""
FOLDS, SEED = 5, 1
Layer = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def fit_probe(features: Features, targets: Floats) -> Layer:
    """Weight (K, width) and bias (K,) of a multinomial logistic regression from (n, width) features to (n, K) targets,
    rows of which sum to 1; its penalty has the least cross-entropy over five folds."""
    labels = targets.argmax(axis=1)
    folds = min(FOLDS, int(np.bincount(labels, minlength=targets.shape[1]).min()))
    strength = STRENGTHS[1]
    if folds > 1:
        parts = list(StratifiedKFold(folds, shuffle=True, random_state=SEED).split(features, labels))
        found = [sum(_surprise(features, targets, part, one) for part in parts) for one in STRENGTHS]
        strength = STRENGTHS[int(np.argmin(found))]
    return _fit(features, targets, strength)


def logits(features: Features, layer: Layer) -> Floats:
    """(n, K) of (n, width) features."""
    weight, bias = layer
    return np.asarray(features @ weight.T + bias, np.float64)


def _fit(features: Features, targets: Floats, strength: float) -> Layer:
    mean, deviation = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    rows, classes = np.nonzero(targets)  # a galaxy once for each class that has a share of it
    model = LogisticRegression(C=strength, max_iter=500, tol=1e-3)
    model.fit((features[rows] - mean) / deviation, classes, sample_weight=targets[rows, classes])
    weight, bias = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    if len(weight) == 1:  # of two classes, the logit of the second
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / deviation
    return weight, bias - weight @ mean


def _surprise(features: Features, targets: Floats, part: tuple[Ints, Ints], strength: float) -> float:
    """Cross-entropy of the second rows of a `part`, learned from the first."""
    taught, asked = part
    said = logits(features[asked], _fit(features[taught], targets[taught], strength))
    logarithms = said - np.logaddexp.reduce(said, axis=1, keepdims=True)
    return float(-(targets[asked] * logarithms).sum())
