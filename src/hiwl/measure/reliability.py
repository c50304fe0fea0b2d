"""Whether what is said of an answer's reliability holds: prediction sets, probabilities, pictures called unlike."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from hiwl.measure.intervals import wilson
from hiwl.measure.plots import headless_pyplot
from hiwl.model.calibration import BINS
from hiwl.model.tree import Floats, Ints
from hiwl.model.trust import Trust

ALPHAS = (0.01, 0.05, 0.1)
DETECTED = 0.95
RESAMPLES = 200
SEED = 1


def coverage(trust: Trust, probabilities: Floats, labels: Ints, classes: list[str]) -> list[dict[str, Any]]:
    """For each error level and class, and for all: galaxies, share whose set holds their class, with Wilson's interval,
    and the sets' mean size."""
    rows = []
    for alpha in ALPHAS:
        sets = trust.sets(probabilities, alpha)
        for name, inside in [*((name, labels == number) for number, name in enumerate(classes)), ("all", labels >= 0)]:
            number = int(inside.sum())
            held = int(sets[inside, labels[inside]].sum())
            low, high = wilson(held, number)
            size = float(sets[inside].sum(axis=1).mean()) if number else 0.0
            row = {"alpha": alpha, "class": name, "galaxies": number, "covered": held / max(number, 1)}
            rows.append(row | {"low": low, "high": high, "size": size})
    return rows


def telling_apart(galaxies: Floats, others: Floats) -> dict[str, Any]:
    """How well scores tell `others` (high) from `galaxies`: AUROC with a bootstrap interval of 95 %, and the share of
    galaxies that raise an alarm where the threshold detects 95 % of the others."""
    rng = np.random.default_rng(SEED)

    def auroc(low: Floats, high: Floats) -> float:
        return float(roc_auc_score(np.repeat([0, 1], [len(low), len(high)]), np.concatenate([low, high])))

    again = [auroc(rng.choice(galaxies, len(galaxies)), rng.choice(others, len(others))) for _ in range(RESAMPLES)]
    return {
        "pictures": len(others),
        "auroc": auroc(galaxies, others),
        "interval": [float(end) for end in np.quantile(again, (0.025, 0.975))],
        "false_alarms": float((galaxies >= np.quantile(others, 1 - DETECTED)).mean()),
    }


def bins(confidence: Floats, right: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> pd.DataFrame:
    """Answers by their probability: `galaxies`, mean `confidence`, share `right`, `low` and `high` (Wilson) a bin."""
    table = pd.DataFrame({"bin": np.minimum((confidence * BINS).astype(int), BINS - 1), "c": confidence, "r": right})
    rows = []
    for _, group in table.groupby("bin"):
        low, high = wilson(int(group["r"].sum()), len(group))
        row = {"galaxies": len(group), "confidence": float(group["c"].mean()), "right": float(group["r"].mean())}
        rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def draw(diagrams: dict[str, pd.DataFrame]) -> Any:
    """A reliability diagram for each model by name. Gives the figure."""
    figure, panels = headless_pyplot().subplots(
        1, len(diagrams), figsize=(4.2 * len(diagrams), 4), squeeze=False, layout="constrained"
    )
    for panel, (name, table) in zip(panels[0], diagrams.items(), strict=True):
        panel.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        reach = [table["right"] - table["low"], table["high"] - table["right"]]
        panel.errorbar(table["confidence"], table["right"], yerr=reach, fmt="o", markersize=4)
        panel.set(xlim=(0.2, 1.02), ylim=(0, 1.02), xlabel="stated probability of the answer", ylabel="share right")
        panel.set_title(f"{name}: {int(table['galaxies'].sum())} test galaxies", fontsize=10)
    return figure
