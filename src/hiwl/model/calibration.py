"""How far stated probabilities can be believed, and the one number that makes them more believable."""

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from hiwl.model.tree import Floats, Ints

BINS = 15


def calibration_error(probabilities: Floats, answers: Ints, labels: Ints) -> float:
    """Expected calibration error: |accuracy - confidence| over 15 equal bins of confidence, weighted by the galaxies in
    them (Guo et al. 2017, equation 3); 0 without galaxies.

    The confidence is that in the answer, by (n, K) probabilities; routed answers need not be the likeliest class.
    """
    if not len(labels):
        return 0.0
    confidence, right = probabilities[np.arange(len(answers)), answers], answers == labels
    of_bin = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(of_bin, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def fit_sure(first: Floats, every: Floats, may_differ: float) -> float:
    """From which probability on the answer of the first view can stand for that of every view: the least with which at
    most the share `may_differ` of answers differs, by (n, K) probabilities of both. 2, beyond all, where none may."""
    confidence = first.max(axis=1)
    differing = np.sort(confidence[first.argmax(axis=1) != every.argmax(axis=1)])[::-1]
    allowed = int(may_differ * len(first))
    if not allowed:
        return 2.0
    return float(np.nextafter(differing[allowed], 2)) if allowed < len(differing) else 0.0


def fit_temperature(logits: Tensor, targets: Floats) -> float:
    """The temperature by which (views, n, K) logits have to be divided for the least cross-entropy of the mean over
    views against (n, K) targets: one-hot labels (Guo et al. 2017, section 4.2), or fractions. Between 1/20 and 20."""
    target = torch.from_numpy(targets)
    values = logits.cpu().double()

    def surprise(logarithm: float) -> float:
        log_mean = (values / np.exp(logarithm)).log_softmax(dim=2).logsumexp(dim=0)
        return float(-(target * log_mean).sum(dim=1).mean())

    limit = float(np.log(20))
    return float(np.exp(minimize_scalar(surprise, bounds=(-limit, limit), method="bounded").x))
