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

PLAIN = "one layer, plain"
CLAIMING = {"HIWL", "HMWS", "SLWSLM", PLAIN}  # the cells that a study must have to say something


def _clusters(explained: Explained, metric: str, classes: str) -> float:
    """Mean silhouette of two `classes` of the test set at a time, at the node above them."""
    node = explained["nodes"][classes.split()[0]]
    found = explained["silhouette"][node][metric]["pairs"]
    return float(np.mean([found[" ".join(pair)]["mean"] for pair in itertools.combinations(classes.split(), 2)]))


def _attention(explained: Explained, layer: str) -> float:
    """Mean share of the Grad-CAM maps' weight that lies on the galaxy."""
    return float(explained["gradcam"][layer]["all"]["share"]["mean"])


class Claim(NamedTuple):
    """That `better` is above `worse`, two cells of the study, by some measure."""

    text: str
    measure: str
    unit: Literal["share", "silhouette"]
    better: str
    worse: str
    paper: float | None
    """The difference that the paper reports, as ours in shares of 1."""
    of_class: str | None = None
    """Of test measures: recall of this class; None: accuracy of all."""
    of_explained: Callable[[Explained], float] | None = None
    """Of the paper's figures: the number compared."""


GAINS, HIWL = BACKBONES["EfficientNet-B1"], ABLATIONS["HIWL"]
ROUND, NARROW = "CRS IBS SPI", "CSS EO"
CLAIMS = [
    # The paper gives the plain layer's accuracy only in its Table 7, beside 96.12 % for the method.
    Claim("the method gains over a plain layer", "accuracy", "share", "HIWL", PLAIN, GAINS[1] - GAINS[0]),
    Claim("smoothing helps", "accuracy", "share", "HIWL", "HMWS", HIWL[0] - ABLATIONS["HMWS"][0]),
    Claim("two layers beat one", "accuracy", "share", "HIWL", "SLWSLM", HIWL[0] - ABLATIONS["SLWSLM"][0]),
    Claim(
        "two layers find more cigars",
        "recall of CSS",
        "share",
        "HIWL",
        "SLWSLM",
        HIWL[1][2] - ABLATIONS["SLWSLM"][1][2],
        of_class="CSS",
    ),
    *(
        Claim(
            f"smoothing makes {what} denser (Figure 6)",
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
            "the second layer parts cigars from edge-on (Figure 6)",
            f"silhouette of CSS, EO by {name}",
            "silhouette",
            "HIWL",
            PLAIN,
            None,
            of_explained=partial(_clusters, metric=metric, classes=NARROW),
        )
        for metric, name in (("euclidean", "distance"), ("cosine", "angle"))
    ),
    *(
        Claim(
            "attention is tighter (Figure 7)",
            f"share of Grad-CAM on the galaxy, {layer} layer",
            "share",
            "HIWL",
            PLAIN,
            None,
            of_explained=partial(_attention, layer=layer),
        )
        for layer in ("last", "fine")
    ),
]


def weigh(runs: list[Run]) -> list[dict[str, Any]]:
    """Every claim, with what the runs on record, and `hiwl explain` of them, have to say about it."""
    return [_weigh(claim, runs) for claim in CLAIMS]


def _weigh(claim: Claim, runs: list[Run]) -> dict[str, Any]:
    found: dict[str, Any] = {
        **{name: getattr(claim, name) for name in ("text", "measure", "unit", "better", "worse", "paper")},
        "each": [],
        "over_galaxies": None,
        "verdict": "not measured",
    }
    paired = pairs(*([run for run in runs if run.cell.name == name] for name in (claim.better, claim.worse)))
    if claim.of_explained:
        both = [(run.explained, other.explained) for run, other in paired]
        found["each"] = [claim.of_explained(one) - claim.of_explained(other) for one, other in both if one and other]
    elif paired:
        test = on_test(paired, claim.of_class)
        found |= {"each": test["each"], "over_galaxies": [test["low"], test["high"]], "galaxies": test["galaxies"]}
    if found["each"]:
        found["difference"] = float(np.mean(found["each"]))
        found["over_pairs"] = over_pairs(found["each"])
        found["verdict"] = verdict(found["over_pairs"], found["over_galaxies"])
    return found


def verdict(*intervals: list[float] | None) -> str:
    """`holds` where every interval that there is lies above zero, `contradicted` where below; otherwise `open`.

    The first is that over pairs, without which nothing is settled.
    """
    if intervals[0] is not None:
        if all(interval is None or interval[0] > 0 for interval in intervals):
            return "holds"
        if all(interval is None or interval[1] < 0 for interval in intervals):
            return "contradicted"
    return "open"
