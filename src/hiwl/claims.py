"""The paper's claims about its method, each as a difference between paired runs of a study here."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from hiwl.comparison import Run, on_test, pairs
from hiwl.paper import ABLATIONS, BACKBONES

Explained = dict[str, Any]
"""What `hiwl explain` leaves of one run in ``explained.json``."""

PAIRS = 3  # fewer settle nothing
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
    better: str
    worse: str
    paper: float | None
    """The difference that the paper reports."""
    of_class: str | None = None
    """Of test measures: recall of this class; None: accuracy of all."""
    of_explained: Callable[[Explained], float] | None = None
    """Of the paper's figures: the number compared."""


GAINS = BACKBONES["EfficientNet-B1"]
ROUND, NARROW = "CRS IBS SPI", "CSS EO"
CLAIMS = [
    Claim("the method gains over a plain layer", "accuracy", "HIWL", PLAIN, GAINS[1] - GAINS[0]),
    Claim("smoothing helps", "accuracy", "HIWL", "HMWS", ABLATIONS["HIWL"][0] - ABLATIONS["HMWS"][0]),
    Claim("two layers beat one", "accuracy", "HIWL", "SLWSLM", ABLATIONS["HIWL"][0] - ABLATIONS["SLWSLM"][0]),
    Claim(
        "two layers find more cigars",
        "recall of CSS",
        "HIWL",
        "SLWSLM",
        ABLATIONS["HIWL"][1][2] - ABLATIONS["SLWSLM"][1][2],
        of_class="CSS",
    ),
    *(
        Claim(
            f"smoothing makes {what} denser (Figure 6)",
            f"silhouette of {classes.replace(' ', ', ')} by {name}",
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
            "HIWL",
            PLAIN,
            None,
            of_explained=partial(_attention, layer=layer),
        )
        for layer in ("last", "fine")
    ),
]


def weigh(runs: list[Run], explained: dict[str, Explained]) -> list[dict[str, Any]]:
    """Every claim that the runs on record, or what `hiwl explain` measured of them, can say something about."""
    found = []
    for claim in CLAIMS:
        paired = pairs(*([run for run in runs if run.cell.name == name] for name in (claim.better, claim.worse)))
        test: dict[str, Any] = {}
        if claim.of_explained:
            both = [[explained.get(run.cell.definition) for run in pair] for pair in paired]
            each = [claim.of_explained(one) - claim.of_explained(other) for one, other in both if one and other]
        elif paired:
            test = on_test(paired, claim.of_class)
            each = test["each"]
        else:
            each = []
        if not each:
            continue
        interval = [test["low"], test["high"]] if test else None
        found.append(
            {
                **{name: getattr(claim, name) for name in ("text", "measure", "better", "worse", "paper")},
                "unit": "of -1 to 1" if claim.measure.startswith("silhouette") else "per cent",
                "each": each,
                "difference": float(np.mean(each)),
                "interval": interval,
                "verdict": verdict(each, interval),
            }
        )
    return found


def verdict(each: list[float], interval: list[float] | None) -> str:
    """`holds` or `contradicted` where enough pairs, and the interval if there is one, agree on the sign; or `open`."""
    if len(each) >= PAIRS:
        if min(each) > 0 and (interval is None or interval[0] > 0):
            return "holds"
        if max(each) < 0 and (interval is None or interval[1] < 0):
            return "contradicted"
    return "open"
