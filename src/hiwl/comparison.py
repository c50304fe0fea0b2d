"""Runs against each other on the same galaxies."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest, bootstrap, t

from hiwl.errors import HiwlError
from hiwl.hierarchy import Floats
from hiwl.record import Kept
from hiwl.study import Cell

Bools = npt.NDArray[np.bool_]
RESAMPLES = 2000
SEED = 1  # of the bootstrap


class Run(NamedTuple):
    """One run of a study's cell, and its record."""

    cell: Cell
    kept: Kept
    answers: pd.DataFrame | None
    """By GalaxyID: `class`, `answer` and `p_<class>` of every test galaxy; None where the study ends at `choose`."""
    explained: dict[str, Any] | None
    """What `hiwl explain` measured of it, if it did."""

    @property
    def is_right(self) -> "pd.Series[bool]":
        """By GalaxyID, of an evaluated run."""
        assert self.answers is not None
        return self.answers["class"] == self.answers["answer"]

    @property
    def passes(self) -> int:
        """Images that training looked at, over all nodes and epochs."""
        return sum(len(run.history) * run.data["counts"]["training"] for run in self.kept.nodes.values())

    @property
    def precisions(self) -> frozenset[str]:
        """Of the arithmetic in its trainings; the earliest records, which do not say it, are of single precision."""
        return frozenset(node.environment.get("precision", "32-true") for node in self.kept.nodes.values())


Pair = tuple[Run, Run]


def pairs(runs: list[Run], base: list[Run]) -> list[Pair]:
    """Same seed, fold and precision with the same; those that stand alone are left out."""
    other = {_partner(run): run for run in base}
    return [(run, other[key]) for run in runs if (key := _partner(run)) in other]


def _partner(run: Run) -> tuple[int, int | None, frozenset[str]]:
    return run.cell.seed, run.cell.fold, run.precisions


def on_test(paired: list[Pair], of_class: str | None = None) -> dict[str, Any]:
    """Accuracy on the test set (or recall of one class): what the runs have above their partners.

    `each` pair's difference, that of all together, the latter's 95 % intervals over pairs and over galaxies, and how
    many galaxies these are.

    Raises:
        HiwlError: a pair was tested on different galaxies.
    """
    right: tuple[list[pd.Series[float]], list[pd.Series[float]]] = ([], [])
    for run, first in paired:
        assert run.answers is not None
        if set(run.is_right.index) != set(first.is_right.index):
            raise HiwlError(f"{run.kept.path} and {first.kept.path} were tested on different galaxies")
        asked = run.answers.index[run.answers["class"] == of_class] if of_class else run.answers.index
        right[0].append(run.is_right.loc[asked].astype(float))
        right[1].append(first.is_right.loc[asked].astype(float))
    mine, theirs = (pd.concat(side).groupby(level=0).mean() for side in right)
    # A galaxy's share of right answers over all runs, so that those with several seeds stay together.
    gaps = np.array(mine - theirs, np.float64)
    each = [float(mine.mean() - theirs.mean()) for mine, theirs in zip(*right, strict=True)]
    return {
        "each": each,
        "difference": float(gaps.mean()),
        "over_pairs": over_pairs(paired, each),
        "over_galaxies": over_galaxies(gaps),
        "galaxies": len(gaps),
    }


def over_pairs(paired: list[Pair], each: list[float]) -> list[float] | None:
    """95 % interval (Student's t) of the mean of `each` pair's difference, as other seeds might have had it.

    None of fewer than three: of two pairs the interval would reach more than six times their distance to either side.
    None over folds: their trainings share most galaxies, so that the differences are not independent (Nadeau and
    Bengio 2003).
    """
    if len(each) < 3 or any(run.cell.fold is not None for run, _ in paired):
        return None
    reach = float(t.ppf(0.975, len(each) - 1)) * np.std(each, ddof=1) / len(each) ** 0.5
    return [float(np.mean(each) - reach), float(np.mean(each) + reach)]


def over_galaxies(values: Floats) -> list[float]:
    """95 % interval (percentile bootstrap) of the mean of one value a galaxy, as other galaxies might have had it.

    Of the difference between runs the values are differences within a galaxy, so that what it does to both drops out.
    """
    found = bootstrap((values,), np.mean, n_resamples=RESAMPLES, batch=100, method="percentile", rng=SEED)
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def mean_with_interval(values: Floats) -> dict[str, Any]:
    """Mean of one value a galaxy (None of none), its 95 % bootstrap interval (None of fewer than two), and how many."""
    result = {
        "galaxies": len(values),
        "mean": round(float(values.mean()), 4) if len(values) else None,
        "interval": None,
    }
    if len(values) < 2:
        return result
    return result | {"interval": [round(end, 4) for end in over_galaxies(values)]}


def in_words(value: dict[str, Any]) -> str:
    """A mean with its interval, as :func:`mean_with_interval` gives them."""
    if value["interval"] is None:
        return str(value["mean"])
    low, high = value["interval"]
    return f"{value['mean']:.3f} ({low:.3f} to {high:.3f})"


def mcnemar(first: Bools, second: Bools) -> tuple[int, int, float]:
    """Of two runs' right answers, (n,) each: how many only the first and only the second has, and the exact
    two-sided probability of a split at least as uneven if both were equally good."""
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    differing = only_first + only_second
    return only_first, only_second, float(binomtest(only_first, differing).pvalue) if differing else 1.0
