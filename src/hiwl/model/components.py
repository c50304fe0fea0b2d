"""Principal components of a node's features, fitted on its training galaxies: fewer numbers that say nearly as much.

Each has unit variance among these galaxies, so that what the classes do not need counts as much as what they do. What
that is good and bad for is in docs/results/features.md.
"""

from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

Features = npt.NDArray[np.float32]
"""(n, width): what a node's last layer takes in, of n pictures."""
FILE = "components.safetensors"
MOST = 64
LEAST = 1e-3
"""Of the first one's deviation: components that vary less say nothing."""
GALAXIES = 5000  # of training at most, from which they are fitted
SEED = 1


class Components(NamedTuple):
    """Of one node."""

    mean: Features
    """(width,)."""
    axes: Features
    """(components, width), the most telling first; of the length that gives unit variance."""

    @classmethod
    def fit(cls, features: Features) -> Self:
        """From (n, width) features of training galaxies; up to 64 components."""
        from sklearn.decomposition import PCA

        number = max(1, min(MOST, len(features) - 1, features.shape[1]))
        fitted = PCA(number, random_state=SEED).fit(features)
        deviation = np.sqrt(fitted.explained_variance_)
        telling = np.flatnonzero(deviation > LEAST * deviation[0])
        axes = fitted.components_[telling] / deviation[telling, None]
        return cls(fitted.mean_.astype(np.float32), axes.astype(np.float32))

    @classmethod
    def load(cls, folder: Path) -> "Self | None":
        """Of the node in `folder`; None where none were fitted."""
        return cls(**load_file(folder / FILE)) if (folder / FILE).exists() else None

    def save(self, folder: Path) -> None:
        """Write ``components.safetensors`` into the node's folder."""
        save_file({name: np.ascontiguousarray(array) for name, array in self._asdict().items()}, folder / FILE)

    def __call__(self, features: Features, number: int) -> Features:
        """(n, number) components of (n, width) features."""
        return np.asarray((features - self.mean) @ self.axes[:number].T, np.float32)


def directions(features: Features) -> Features:
    """(n, width) features, each of unit length, so that their products are cosines."""
    result: Features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return result


def sample(galaxies: int) -> npt.NDArray[np.int64]:
    """Which of so many training galaxies they are fitted from."""
    chosen = np.random.default_rng(SEED).permutation(galaxies)[:GALAXIES]
    return np.sort(chosen)
