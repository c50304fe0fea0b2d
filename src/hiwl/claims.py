"""The paper's claims about its method, each as a difference between paired runs of a study here."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from hiwl.comparison import Run, on_test, over_pairs, pairs
from hiwl.paper import ABLATIONS, BACKBONES

Explained = dict[str, Any]
"""What `hiwl explain` leaves of one run in ``explained.json``."""

PLAIN, SMOOTHED = "one layer, plain", "one layer, smoothing"
CLAIMING = {"HIWL", "HMWS", "SLWSLM", PLAIN, SMOOTHED}  # the cells that a study must have to say something


def _clusters(explained: Explained, metric: str, classes: str) -> float:
    """Mean silhouette of two `classes` of the test set at a time, at the node above them."""
    node = explained["nodes"][classes.split()[0]]
    found = explained["silhouette"][node][metric]["pairs"]
    return float(np.mean([found[" ".join(pair)] for pair in itertools.combinations(classes.split(), 2)]))


def _attention(explained: Explained) -> float:
    """Mean share of the Grad-CAM maps' weight that lies on the galaxy.

    At the last layer with a map of 7 x 7 cells or more: at the paper's 240 pixels that is the last of all; at 64 the
    last has four cells, which cannot tell a galaxy from its surroundings.
    """
    return float(explained["gradcam"]["fine"]["all"]["share"]["mean"])


class Claim(NamedTuple):
    """That `better` is above `worse`, two cells of the study, by some measure."""

    text: str
    measure: str
    unit: Literal["share", "silhouette"]
    better: str
    worse: str
    paper: float | None
    """The difference that the paper reports, as ours in shares of 1."""
    is_papers: bool = True
    """Whether the paper says so; if not, it is asked here beside."""
    of_class: str | None = None
    """Of test measures: recall of this class; None: accuracy of all."""
    of_explained: Callable[[Explained], float] | None = None
    """Of the paper's figures: the number compared."""


GAINS, HIWL = BACKBONES["EfficientNet-B1"], ABLATIONS["HIWL"]
ROUND, NARROW = "CRS IBS SPI", "CSS EO"
CLAIMS = [
    Claim("the method gains over a plain layer", "accuracy", "share", "HIWL", PLAIN, GAINS[1] - GAINS[0]),
    Claim("smoothing helps", "accuracy", "share", "HIWL", "HMWS", HIWL[0] - ABLATIONS["HMWS"][0]),
    # Not in the paper, whose one layer with smoothing is always the weighted one: what the layers alone do.
    Claim("two layers beat one that is smoothed", "accuracy", "share", "HIWL", SMOOTHED, None, is_papers=False),
    Claim(
        "two layers find more cigars than one that is smoothed",
        "recall of CSS",
        "share",
        "HIWL",
        SMOOTHED,
        None,
        is_papers=False,
        of_class="CSS",
    ),
    Claim(
        "two layers beat one that is weighted and smoothed",
        "accuracy",
        "share",
        "HIWL",
        "SLWSLM",
        HIWL[0] - ABLATIONS["SLWSLM"][0],
    ),
    Claim(
        "two layers find more cigars than one that is weighted and smoothed",
        "recall of CSS",
        "share",
        "HIWL",
        "SLWSLM",
        HIWL[1][2] - ABLATIONS["SLWSLM"][1][2],
        of_class="CSS",
    ),
    *(
        Claim(
            f"smoothing makes {what} denser by {name} (Figure 6)",
            f"silhouette of {classes.replace(' ', ', ')} by {name}",
            "silhouette",
            "HIWL",
            "HMWS",
            None,
            of_explained=partial(_clusters, metric=metric, classes=classes),
        )
        for what, classes in (("the first layer's clusters", ROUND), ("the second layer's", NARROW))
        for metric, name in (("euclidean", "distance"), ("cosine", "angle"))
    ),
    *(
        Claim(
            f"the second layer parts cigars from edge-on by {name} (Figure 6)",
            f"silhouette of CSS, EO by {name}",
            "silhouette",
            "HIWL",
            PLAIN,
            None,
            is_papers=False,
            of_explained=partial(_clusters, metric=metric, classes=NARROW),
        )
        for metric, name in (("euclidean", "distance"), ("cosine", "angle"))
    ),
    Claim(
        "attention is tighter (Figure 7)",
        "share of Grad-CAM on the galaxy",
        "share",
        "HIWL",
        PLAIN,
        None,
        of_explained=_attention,
    ),
]


def weigh(runs: list[Run]) -> list[dict[str, Any]]:
    """Every claim, with what the runs on record, and `hiwl explain` of them, have to say about it."""
    return [_weigh(claim, runs) for claim in CLAIMS]


def _weigh(claim: Claim, runs: list[Run]) -> dict[str, Any]:
    found: dict[str, Any] = {
        **{name: getattr(claim, name) for name in ("text", "is_papers", "measure", "unit", "better", "worse", "paper")},
        "each": [],
        "over_pairs": None,
        "over_galaxies": None,
    }
    paired = pairs(*([run for run in runs if run.cell.name == name] for name in (claim.better, claim.worse)))
    if claim.of_explained:
        both = [(pair, one, other) for pair in paired if (one := pair[0].explained) and (other := pair[1].explained)]
        each = [claim.of_explained(one) - claim.of_explained(other) for _, one, other in both]
        if each:
            interval = over_pairs([pair for pair, _, _ in both], each)
            found |= {"each": each, "difference": float(np.mean(each)), "over_pairs": interval}
    elif paired:
        found |= on_test(paired, claim.of_class)
    return found | {"verdict": verdict(len(found["each"]), found["over_pairs"], found["over_galaxies"])}


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
