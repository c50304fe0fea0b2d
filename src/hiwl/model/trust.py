"""How far answers can be trusted: sets of classes that hold the right one, and pictures unlike those of training.

Fitted on validation galaxies, which no network has learned from, and kept with the model as plain arrays in
``trust.safetensors``.

Prediction sets are conformal and class-conditional (Vovk 2012, section 3; Sadinle et al. 2019): of each class's own
galaxies, the right class is in the set of at least 1 - alpha on average, provided they are like those of validation.
A class of n validation galaxies can be left out only where alpha is at least 1 / (n + 1).

How unlike a picture is, is the cosine distance of its penultimate features to the third nearest of up to 1,000
validation galaxies, in units of what one in a hundred of the other validation galaxies exceeds (docs/trust.md has the
measurement that chose it).
"""

from functools import cache, cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from threadpoolctl import ThreadpoolController

from hiwl.model.components import Features, directions
from hiwl.model.measures import measure
from hiwl.model.pixels import Pixels
from hiwl.model.tree import Floats, Ints

TRUST = "trust.safetensors"
ALPHA = 0.05
KNOWN = 1000
NEIGHBOUR = 3
FALSE_ALARMS = 0.01
PERCENTILES = np.arange(0, 100.5, 0.5)
RARE = (0.5, 99.5)
"""Percentiles of validation galaxies: a galaxy whose size lies outside is told."""


class Trust:
    """What was fitted for one model."""

    def __init__(self, arrays: dict[str, npt.NDArray[np.generic]], classes: list[str]) -> None:
        self.arrays = arrays
        self._classes = classes

    @cached_property
    def _known(self) -> Features:
        return np.asarray(self.arrays["known"], np.float32)

    @classmethod
    def load(cls, folder: Path, classes: list[str]) -> "Self | None":
        """From the folder of a model; None where nothing was fitted for it."""
        path = folder / TRUST
        return cls(load_file(path), classes) if path.exists() else None

    @classmethod
    def fit(cls, probabilities: Floats, labels: Ints, features: Features, pictures: Pixels, classes: list[str]) -> Self:
        """From validation galaxies: (n, K) probabilities, (n,) labels, (n, width) features, packed pictures."""
        order = np.random.default_rng(0).permutation(len(labels))
        number = min(KNOWN, len(labels) // 2)
        at = directions(features)
        known, others = at[np.sort(order[:number])], at[order[number:]]
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "known": known.astype(np.float16),
            "unit": np.maximum(
                np.quantile(_to_third(others, known.astype(np.float16).astype(np.float32)), 1 - FALSE_ALARMS), 1e-9
            ),
            **cls.of_answers(probabilities, labels, classes).arrays,
            **{f"measures.{name}": np.percentile(values, PERCENTILES) for name, values in measure(pictures).items()},
        }
        return cls({name: np.ascontiguousarray(array) for name, array in arrays.items()}, classes)

    @classmethod
    def of_answers(cls, probabilities: Floats, labels: Ints, classes: list[str]) -> Self:
        """What prediction sets need alone."""
        of_label = 1 - probabilities[np.arange(len(labels)), labels]
        scores = {f"scores.{name}": np.sort(of_label[labels == number]) for number, name in enumerate(classes)}
        return cls(scores, classes)

    def save(self, folder: Path) -> None:
        """Write ``trust.safetensors`` into `folder`."""
        save_file(self.arrays, folder / TRUST)

    def sets(self, probabilities: Floats, alpha: float) -> npt.NDArray[np.bool_]:
        """(n, K): which classes are in the prediction sets of (n, K) probabilities.

        A class is left out where at most the share alpha of its validation galaxies has as little of a probability of
        it. The likeliest class is always in.
        """
        inside = np.zeros(probabilities.shape, bool)
        for number, name in enumerate(self._classes):
            scores = self.arrays[f"scores.{name}"]
            as_strange = len(scores) - np.searchsorted(scores, 1 - probabilities[:, number], side="left")
            inside[:, number] = (as_strange + 1) / (len(scores) + 1) > alpha
        inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
        return inside

    def distances(self, features: Features) -> Floats:
        """(n,): how unlike the known galaxies pictures of (n, width) features are; one in a hundred exceeds 1."""
        with _libraries().limit(limits=1, user_api="blas"):  # whose threads would go on spinning beside the engine's
            result: Floats = _to_third(directions(features), self._known) / self.arrays["unit"].item()
        return result

    def about_sizes(self, pictures: Pixels) -> list[str]:
        """For each of n pictures a warning, or '': its galaxy is larger or smaller than almost all of training."""
        sizes = measure(pictures)["size"]
        known = np.asarray(self.arrays["measures.size"], np.float64)
        least, most = (float(np.interp(at, PERCENTILES, known)) for at in RARE)
        told = "half of the light lies within {:.3f} of the side, {} than in 199 of 200 of training: another scale?"
        words = np.where(sizes < least, "less", np.where(sizes > most, "more", ""))
        return [told.format(size, word) if word else "" for size, word in zip(sizes, words, strict=True)]


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def _to_third(at: Features, known: Features) -> Floats:
    """Cosine distances of (n, width) to the third nearest of (m, width), or the last where there are fewer."""
    if not len(known):
        return np.zeros(len(at))
    nearest = min(NEIGHBOUR, len(known)) - 1
    result: Floats = np.partition(1 - at @ known.T, nearest, axis=1)[:, nearest].astype(np.float64)
    return result
