"""Runs against each other on the same galaxies."""

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
DRAWS = 2000


def mcnemar(first: Bools, second: Bools) -> tuple[int, int, float]:
    """Of two runs' right answers, (n,) each: how many only the first and only the second has, and the exact
    two-sided probability of a split at least as uneven if both were equally good."""
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    differing = only_first + only_second
    return only_first, only_second, float(binomtest(only_first, differing).pvalue) if differing else 1.0


def bootstrap_difference(first: Floats, second: Floats) -> tuple[float, float]:
    """95 % interval of mean(first) - mean(second) over resampled galaxies.

    Both (n,): for each galaxy the share of a method's runs that answered it rightly, so that runs with several seeds
    stay together and the interval is that of the galaxies.
    """
    rng = np.random.default_rng(0)
    gaps = first - second
    drawn = np.array([gaps[rng.integers(len(gaps), size=len(gaps))].mean() for _ in range(DRAWS)])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
