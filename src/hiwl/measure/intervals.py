"""95 % intervals: of a share, of a mean over galaxies, of a mean over runs."""

from typing import Any

import numpy as np
from scipy.stats import binomtest, bootstrap, t

from hiwl.model.tree import Floats

RESAMPLES = 2000
SEED = 1  # of the bootstrap


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's interval of a proportion; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def student(values: Floats) -> list[float]:
    """Student's t interval of the mean of one value a run, of two runs or more."""
    reach = float(t.ppf(0.975, len(values) - 1)) * np.std(values, ddof=1) / len(values) ** 0.5
    return [float(np.mean(values) - reach), float(np.mean(values) + reach)]


def over_galaxies(values: Floats) -> list[float] | None:
    """Interval (percentile bootstrap) of the mean of one value a galaxy, as other galaxies might have had it; None of
    fewer than two.

    Of the difference between runs the values are differences within a galaxy, so that what it does to both drops out.
    """
    if len(values) < 2:
        return None
    found = bootstrap((values,), np.mean, n_resamples=RESAMPLES, batch=100, method="percentile", rng=SEED)
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def mean_with_interval(values: Floats) -> dict[str, Any]:
    """Mean of one value a galaxy (None of none), its 95 % bootstrap interval (None of fewer than two), and how many."""
    interval = over_galaxies(values)
    return {
        "galaxies": len(values),
        "mean": round(float(values.mean()), 4) if len(values) else None,
        "interval": interval and [round(end, 4) for end in interval],
    }


def in_words(value: dict[str, Any]) -> str:
    """A mean with its interval, as :func:`mean_with_interval` gives them."""
    if value["interval"] is None:
        return str(value["mean"])
    low, high = value["interval"]
    return f"{value['mean']:.3f} ({low:.3f} to {high:.3f})"
