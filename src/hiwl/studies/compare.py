"""Cells of a study against each other, on the same seeds and the same galaxies; and the claims that follow."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from scipy.stats import binomtest

from hiwl.core.errors import HiwlError
from hiwl.core.section import Section
from hiwl.measure.intervals import over_galaxies, student
from hiwl.studies.plan import CONF, Study
from hiwl.studies.table import answers_of, is_right

CLAIMS = CONF / "claims.yaml"
PARTNER = ["seed", "fold", "precision"]  # what two runs share that make a pair

Bools = npt.NDArray[np.bool_]


class Claim(Section):
    """That one cell is above another by some measure, in every study that has both cells."""

    text: str
    measure: str
    """A column of :mod:`hiwl.studies.table`."""
    above: str
    below: str
    paper: float | None = None
    """The difference that the paper reports, in shares of 1."""
    whose: Literal["paper", "ours"] = "paper"
    """Whether the paper makes this claim; if not, it is asked here beside."""


def read_claims(path: Path = CLAIMS) -> list[Claim]:
    """The claims of ``conf/claims.yaml``, if it is there."""
    if not path.exists():
        return []
    return [Claim.parse(one, str(number), path) for number, one in enumerate(yaml.safe_load(path.read_text()))]


def pairs(runs: pd.DataFrame, above: str, below: str) -> pd.DataFrame:
    """Runs of cell `above` beside those of `below` (columns ending in `_base`) with the same seed, fold and precision;
    those that stand alone are left out."""
    mine, theirs = (runs[runs["cell"] == cell] for cell in (above, below))
    return mine.merge(theirs, on=PARTNER, suffixes=("", "_base"))


def differences(paired: pd.DataFrame, column: str) -> "pd.Series[float]":
    """By how much `column` of each run is above its partner's; of those that have both."""
    if column not in paired or f"{column}_base" not in paired:
        return pd.Series(dtype=float)
    return (paired[column] - paired[f"{column}_base"]).dropna()


def over_pairs(each: "pd.Series[float]", paired: pd.DataFrame) -> list[float] | None:
    """Student's t interval of the mean of `each` pair's difference, as other seeds might have had it.

    None of fewer than three: of two pairs the interval would reach more than six times their distance to either side.
    None over folds: their trainings share most galaxies, so that the differences are not independent (Nadeau and
    Bengio 2003).
    """
    if len(each) < 3 or paired["fold"].notna().any():
        return None
    return student(np.array(each, np.float64))


def on_test(paired: pd.DataFrame, of_class: str | None = None) -> dict[str, Any]:
    """Accuracy on the test set (or recall of one class): what the runs have above their partners.

    `each` pair's difference, the `mean`, its intervals over pairs and over `galaxies`, and how many galaxies these are.

    Raises:
        HiwlError: a pair was tested on different galaxies.
    """
    right: tuple[list[pd.Series[float]], list[pd.Series[float]]] = ([], [])
    for file, base in zip(paired["file"], paired["file_base"], strict=True):
        is_mine, is_theirs = is_right(file), is_right(base)
        if set(is_mine.index) != set(is_theirs.index):
            raise HiwlError(f"{file} and {base} were tested on different galaxies")
        label = answers_of(file)["label"]
        asked = label.index[label == of_class] if of_class else label.index
        right[0].append(is_mine.loc[asked].astype(float))
        right[1].append(is_theirs.loc[asked].astype(float))
    # A galaxy's share of right answers over all runs, so that those with several seeds stay together.
    mine, theirs = (pd.concat(side).groupby(level=0).mean() for side in right)
    gaps = np.array(mine - theirs, np.float64)
    each = pd.Series([float(mine.mean() - theirs.mean()) for mine, theirs in zip(*right, strict=True)])
    return {
        "each": each.tolist(),
        "mean": float(gaps.mean()),
        "over_pairs": over_pairs(each, paired),
        "over_galaxies": over_galaxies(gaps),
        "galaxies": len(gaps),
    }


def compare(study: Study, runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Every cell of `study` that has another to be compared with, where both have `runs`."""
    found = []
    for cell in study.cells:
        base = study.base_of(cell)
        paired = pairs(runs, cell, base) if base else pd.DataFrame()
        if not len(paired):
            continue
        one: dict[str, Any] = {"cell": cell, "base": base, "pairs": len(paired), "rarest": paired["rarest"].iloc[0]}
        for name in ("accuracy", "mean_recall", f"recall_{one['rarest']}", "ece", "map_at_r"):
            each = differences(paired, f"validation_{name}")
            if len(each) == len(paired):
                interval = over_pairs(each, paired)
                one[f"validation_{name}"] = _spread(each) | {"over_pairs": interval}
                if paired["fold"].isna().all():  # folds have no such interval
                    one[f"validation_{name}"]["verdict"] = verdict(len(each), interval, None)
        if study.until == "evaluate":
            one["test"], one["test_rarest"] = on_test(paired), on_test(paired, one["rarest"])
            one["mcnemar"] = _mcnemars(paired)
        found.append(one)
    return found


def weigh(claims: list[Claim], runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Each of the `claims` with what the `runs` of one study have to say about it."""
    found = []
    for claim in claims:
        paired = pairs(runs, claim.above, claim.below)
        one: dict[str, Any] = {"claim": claim, "each": [], "mean": None, "over_pairs": None, "over_galaxies": None}
        kind, _, of_class = claim.measure.partition("test_recall_")
        if len(paired) and (claim.measure == "test_accuracy" or (of_class and not kind)):
            one |= on_test(paired, of_class or None)
        elif len(each := differences(paired, claim.measure)):
            one |= {"each": each.tolist(), "mean": float(each.mean()), "over_pairs": over_pairs(each, paired)}
        one["verdict"] = verdict(len(one["each"]), one["over_pairs"], one["over_galaxies"])
        found.append(one)
    return found


def verdict(pairs: int, over_pairs: list[float] | None, over_galaxies: list[float] | None) -> str:
    """`holds` where the intervals that there are lie above zero, `contradicted` where below; otherwise `open`.

    Without the interval over pairs nothing is settled: `not measured`, or `too few pairs`.
    """
    if over_pairs is None:
        return "too few pairs" if pairs else "not measured"
    intervals = [over_pairs] if over_galaxies is None else [over_pairs, over_galaxies]
    if all(interval[0] > 0 for interval in intervals):
        return "holds"
    return "contradicted" if all(interval[1] < 0 for interval in intervals) else "open"


def mcnemar(first: Bools, second: Bools) -> tuple[int, int, float]:
    """Of two runs' right answers, (n,) each: how many only the first and only the second has, and the exact
    two-sided probability of a split at least as uneven if both were equally good."""
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    differing = only_first + only_second
    return only_first, only_second, float(binomtest(only_first, differing).pvalue) if differing else 1.0


def _mcnemars(paired: pd.DataFrame) -> list[tuple[int, int, float]]:
    """Of each pair; of the folds of one seed, whose test sets share no galaxy, of all together."""
    sides = [
        (is_right(file).to_numpy(), is_right(base).reindex(is_right(file).index).to_numpy())
        for file, base in zip(paired["file"], paired["file_base"], strict=True)
    ]
    if paired["fold"].notna().any() and paired["seed"].nunique() == 1:
        mine, theirs = (np.concatenate(side) for side in zip(*sides, strict=True))
        return [mcnemar(mine, theirs)]
    return [mcnemar(*both) for both in sides]


def _spread(each: "pd.Series[float]") -> dict[str, float | None]:
    return {"mean": float(each.mean()), "sd": float(each.std(ddof=1)) if len(each) > 1 else None}
