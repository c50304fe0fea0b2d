"""What features are worth: do they bring alike galaxies together, find the odd ones, and learn a new class from few
labels? Judged by the volunteers' votes (the three tools of Walmsley et al. 2022).
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score
from tqdm import tqdm

from hiwl.measure.interest import AT_ONCE, NEIGHBOUR, Interest
from hiwl.measure.intervals import over_galaxies
from hiwl.model.components import Features, directions
from hiwl.model.probe import fit_probe, logits
from hiwl.model.tree import Floats, Ints

SEEDS = (1, 2, 3, 4, 5)
NEAREST = 10
TOP = 100
ODD = "Class6.1"
THRESHOLDS = (0.3, 0.5, 0.7)
"""From which share of the volunteers on a galaxy counts as odd."""
ANSWERS = (0, 20, 50, 100, 200, 500)
SHARE = 0.8
"""Of the galaxies, which each seed searches."""
WORDS = {
    "odd": "judged odd by more than half",
    "ring": "judged ringed by more than a fifth",
    "merger": "judged merging by more than a fifth",
    "bar": "judged barred by more than half",
    "tight arms": "judged tightly wound by more than half",
}
LABELS = (10, 30, 100, 300, 1000)


class Tag(NamedTuple):
    """Something that n galaxies have or have not."""

    words: str
    has: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]


def tags_of(votes: pd.DataFrame, classes: "pd.Series[str]") -> dict[str, Tag]:
    """What volunteers said by `votes` (rows of the competition's table, NaN where not known) and the clean `classes`.

    Shares are of all volunteers; of bars and arms, of those who were asked, where most were.
    """
    arms = votes[["Class10.1", "Class10.2", "Class10.3"]].sum(axis=1, min_count=3)
    bars = votes["Class3.1"] + votes["Class3.2"]
    found = {
        "odd": _tag(WORDS["odd"], votes[ODD], 0.5),
        "ring": _tag(WORDS["ring"], votes["Class8.1"], 0.2),
        "merger": _tag(WORDS["merger"], votes["Class8.6"], 0.2),
        "bar": _tag(WORDS["bar"], (votes["Class3.1"] / bars).where(votes["Class2.2"] > 0.5), 0.5),
        "tight arms": _tag(WORDS["tight arms"], (votes["Class10.1"] / arms).where(votes["Class4.1"] > 0.5), 0.5),
    }
    clean = classes.notna().to_numpy(bool)
    return found | {
        str(name): Tag(f"clean {name}", (classes == name).to_numpy(bool), clean)
        for name in sorted(classes[clean].unique())
    }


def _tag(words: str, shares: pd.Series, above: float) -> Tag:
    return Tag(words, (shares > above).to_numpy(bool), shares.notna().to_numpy(bool))


def similar(features: Features, tag: Tag) -> dict[str, Any]:
    """Every galaxy that has the tag asked for those like it among the others of which it is known.

    `precision`: the share of the ten nearest by cosine that have it; `auroc`: of the ranking by similarity to the one
    galaxy; both as means with their 95 % intervals over galaxies. `chance`: the share of all.
    """
    rows = np.flatnonzero(tag.known)
    at, has = directions(features[rows]), tag.has[rows]
    precision, auroc = [], []
    for row in np.flatnonzero(has):
        others = np.arange(len(rows)) != row
        alike = (at @ at[row])[others]
        nearest = np.argpartition(-alike, NEAREST)[:NEAREST]
        precision.append(has[others][nearest].mean())
        auroc.append(roc_auc_score(has[others], alike))
    return {
        "galaxies": len(rows),
        "asked": int(has.sum()),
        "chance": float(has.mean()),
        "precision": _mean(np.array(precision)),
        "auroc": _mean(np.array(auroc)),
    }


def odd(features: Features, oddness: Floats, pictures: str, is_active: bool = True) -> dict[str, Any]:
    """The search for odd galaxies; answers are 1 + 4 times the share of volunteers who say odd, rounded.

    By number of answers, and threshold of oddness: how many of the first 100 are odd, one number a seed; each seed
    searches other four fifths of the galaxies. `is_active`: whether the search chooses whom it asks about, or chance
    does. `pictures` names them, on the bar of progress.
    """
    found: dict[str, dict[str, list[int]]] = {str(n): {str(t): [] for t in THRESHOLDS} for n in ANSWERS}
    for seed in tqdm(SEEDS, f"odd, {pictures}", leave=False):
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.permutation(len(oddness))[: int(SHARE * len(oddness))])
        for number, expected in _search(features[rows], oddness[rows], rng if not is_active else None):
            first = np.argsort(-expected, kind="stable")[:TOP]
            for threshold in THRESHOLDS:
                found[str(number)][str(threshold)].append(int((oddness[rows][first] > threshold).sum()))
    shares = {str(threshold): float((oddness > threshold).mean()) for threshold in THRESHOLDS}
    return {"galaxies": len(oddness), "each": int(SHARE * len(oddness)), "top": TOP, "chance": shares, "found": found}


def _search(features: Features, oddness: Floats, chance: np.random.Generator | None) -> Any:
    """After each of `ANSWERS`, its number and how interesting the galaxies are expected to be."""
    answer = np.clip(np.round(1 + 4 * oddness), 1, 5)
    apart = apart_of(features)
    interest, known = Interest(features, apart), dict[int, float]()
    yield 0, apart
    while len(known) < min(ANSWERS[-1], len(oddness) - AT_ONCE):
        unknown = [row for row in range(len(oddness)) if row not in known]
        asked = interest.next() if chance is None else chance.choice(unknown, AT_ONCE, replace=False)
        known |= {int(row): float(answer[row]) for row in asked}
        interest.learn(known)
        if len(known) in ANSWERS:
            yield len(known), interest.mean


def without_answers(features: Features, oddness: Floats) -> dict[str, dict[str, list[int]]]:
    """By method that needs no answers, and threshold: how many of the first 100 are odd, one number a seed."""
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import LocalOutlierFactor

    found: dict[str, dict[str, list[int]]] = {}
    for seed in SEEDS:
        rows = np.sort(np.random.default_rng(seed).permutation(len(oddness))[: int(SHARE * len(oddness))])
        part = directions(features[rows])
        scores = {
            "isolation forest": -IsolationForest(random_state=seed).fit(part).score_samples(part),
            "local outlier factor": -LocalOutlierFactor().fit(part).negative_outlier_factor_,
            "distance from the fifth neighbour": apart_of(part),
        }
        for name, score in scores.items():
            first = np.argsort(-score, kind="stable")[:TOP]
            for threshold in THRESHOLDS:
                number = int((oddness[rows][first] > threshold).sum())
                found.setdefault(name, {}).setdefault(str(threshold), []).append(number)
    return found


def apart_of(features: Features) -> Floats:
    """(n,) cosine distances of (n, width) features from their fifth nearest other."""
    at = directions(features)
    parts = [at[start : start + 1000] @ at.T for start in range(0, len(at), 1000)]
    nearest = [np.partition(-part, NEIGHBOUR, axis=1)[:, NEIGHBOUR] for part in parts]
    return np.asarray(1 + np.concatenate(nearest), np.float64)


def learning(features: Features, tag: Tag, name: str) -> dict[str, dict[str, list[float]]]:
    """A linear probe for a tag from few labels, tested on all other galaxies of which it is known: by number of labels,
    :func:`told_apart`, one number a seed. Features are compared on the same labels."""
    found: dict[str, dict[str, list[float]]] = {}
    for draw in tqdm(list(draws(tag)), f"labels, {name}", leave=False):
        layer = fit_probe(features[draw.taught], np.eye(2)[tag.has[draw.taught].astype(int)])
        for measure, value in told_apart(logits(features[draw.asked], layer), tag.has[draw.asked]).items():
            found.setdefault(str(draw.number), {}).setdefault(measure, []).append(value)
    return found


class Draw(NamedTuple):
    """So many labels drawn with a seed: the rows of galaxies labelled, and of all others of which the tag is known."""

    number: int
    seed: int
    taught: Ints
    asked: Ints


def draws(tag: Tag) -> Iterator[Draw]:
    """By number of labels, as far as there are galaxies, and seed. Half of the labels have the tag, and at most half of
    all that have it are labelled. They depend on the seed alone."""
    rows = np.flatnonzero(tag.known)
    for number, seed in itertools.product(LABELS, SEEDS):
        if number <= len(rows) // 2:
            taught = _labelled(tag.has[rows], number, np.random.default_rng(seed))
            yield Draw(number, seed, rows[taught], np.delete(rows, taught))


def told_apart(logits: npt.NDArray[np.floating], has: npt.NDArray[np.bool_]) -> dict[str, float]:
    """How well (n, 2) logits, without and with a tag, tell apart who has it: `accuracy`, the mean of both kinds;
    `auroc` and `average_precision`."""
    score = logits[:, 1] - logits[:, 0]
    right = (score > 0) == has
    return {
        "accuracy": float(right[has].mean() + right[~has].mean()) / 2,
        "auroc": float(roc_auc_score(has, score)),
        "average_precision": float(average_precision_score(has, score)),
    }


def having(number: int, known: int) -> int:
    """How many of `number` drawn labels have a tag that `known` galaxies have: half, but half of those at most."""
    return min(number // 2, known // 2)


def _labelled(has: npt.NDArray[np.bool_], number: int, rng: np.random.Generator) -> Ints:
    with_it, without = rng.permutation(np.flatnonzero(has)), rng.permutation(np.flatnonzero(~has))
    chosen = with_it[: having(number, len(with_it))]
    return np.concatenate([chosen, without[: number - len(chosen)]])


def _mean(values: Floats) -> dict[str, Any]:
    return {"mean": float(values.mean()), "interval": over_galaxies(values)}
