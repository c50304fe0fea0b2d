"""Which galaxies are odd: unlike all others, and then as a person's answers say (Walmsley et al. 2022, section 4.2).

Without answers, a galaxy is the odder the farther it is from its neighbours. With answers, from 1 (dull) to 5, a
Gaussian process over the leading components of the features says how interesting the others are expected to be, and
which to ask about next: those of the highest expected improvement over the best answer so far.

Its mean before any answer rises with a galaxy's distance from its neighbours; its scale and noise are fixed. All three
were chosen on galaxies that the network was trained on.
"""

import numpy as np
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from hiwl.model.components import Features, directions
from hiwl.model.tree import Floats, Ints

ANSWERS = (1, 2, 3, 4, 5)
NEIGHBOUR = 5
"""The one whose distance tells how far apart a galaxy is."""
AT_ONCE = 10
"""Galaxies that are chosen at a time, after which the process learns anew."""
COMPONENTS, SCALE, NOISE = 40, 4.0, 0.3
DULL, SLOPE = 2.0, 0.3
"""Expected answer to a galaxy of usual neighbours, and what a standard deviation of the logarithm of their distance
adds."""
CHUNK = 10_000  # galaxies at a time, which bounds memory


def coordinates(features: Features) -> Floats:
    """(n, up to 40): the leading components of the directions of (n, width) features, each of unit variance."""
    leading = PCA(min(COMPONENTS, *features.shape), whiten=True, random_state=0).fit_transform(directions(features))
    return np.asarray(leading, np.float64)


class Interest:
    """How interesting n galaxies are to one person."""

    def __init__(self, features: Features, apart: Floats) -> None:
        """Of (n, width) `features`; `apart` (n,): how far each galaxy is from its neighbours."""
        self._coordinates = coordinates(features)
        far = np.log(np.maximum(apart, 1e-9))
        self._prior: Floats = DULL + SLOPE * (far - far.mean()) / max(float(far.std()), 1e-9)
        self._answers: dict[int, float] = {}
        self.mean = self._prior
        """(n,): the expected answers."""
        self.deviation: Floats = np.ones(len(apart))

    def learn(self, answers: dict[int, float]) -> None:
        """Know these answers by row, and no others."""
        if answers == self._answers:
            return
        self._answers = dict(answers)
        self.mean, self.deviation = self._prior, np.ones(len(self._prior))
        if not answers:
            return
        rows = list(answers)
        scale = SCALE * (self._coordinates.shape[1] / COMPONENTS) ** 0.5  # as distances grow with the dimensions
        kernel = Matern(scale, nu=1.5) + WhiteKernel(NOISE)
        process = GaussianProcessRegressor(kernel, optimizer=None)
        process.fit(self._coordinates[rows], np.array(list(answers.values())) - self._prior[rows])
        chunks = range(0, len(self._coordinates), CHUNK)
        told = [process.predict(self._coordinates[start : start + CHUNK], return_std=True) for start in chunks]
        self.mean = self._prior + np.concatenate([mean for mean, _ in told])
        self.deviation = np.concatenate([deviation for _, deviation in told])

    def next(self, number: int = AT_ONCE) -> Ints:
        """Up to `number` rows to ask about, the one of the highest expected improvement first."""
        over = self.mean - max(self._answers.values(), default=float(np.median(ANSWERS)))
        scaled = over / np.maximum(self.deviation, 1e-9)
        improvement = over * norm.cdf(scaled) + self.deviation * norm.pdf(scaled)
        improvement[list(self._answers)] = -np.inf
        order: Ints = np.argsort(-improvement, kind="stable")
        return order[: min(number, len(order) - len(self._answers))]
