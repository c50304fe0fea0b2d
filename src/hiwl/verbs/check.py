"""`hiwl check PATH...`: are these pictures like those that the model was trained on? A page, its verdict first.

Compares brightness, sky, colour, size and sharpness with validation galaxies, the mixture of answers with that of
training, and the distances in the network's features with what is usual.
"""

import base64
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from scipy.stats import binomtest
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import write_text
from hiwl.core.pages import page
from hiwl.core.registry import weights_folder
from hiwl.measure.plots import headless_pyplot, save
from hiwl.model.answer import Model
from hiwl.model.measures import IN_WORDS, NAMES, measure
from hiwl.model.pixels import Pixels
from hiwl.model.tree import Floats
from hiwl.model.trust import FALSE_ALARMS, PERCENTILES
from hiwl.survey.inputs import find

TEMPLATE = Path(__file__).with_name("check.html.jinja")
MOST = 2000
SEED = 1
SHIFT = 0.2
"""Of the two-sample Kolmogorov-Smirnov distance: what a measure may differ by."""
FEW, MANY = 0.05, 0.25
"""Shares of pictures unlike those of training: up to the first is no cause for concern, above the second no use."""
ENOUGH = 100
"""Pictures from which on nothing against them is something for them."""
SHOWN = 8


class Compared(NamedTuple):
    """One measure of the new pictures, beside validation's."""

    name: str
    words: str
    new: Floats
    known: Floats
    distance: float
    """Kolmogorov-Smirnov: the largest difference between the two cumulative distributions."""


def main(paths: list[str], weights: str, output: str) -> None:
    """Write the page `output`.

    Raises:
        HiwlError: nothing can be read, or the weights have nothing to compare with.
    """
    model = Model.load(weights_folder(weights))
    if model.trust is None:
        raise HiwlError(f"{weights}: nothing was fitted for it that pictures can be compared with: see `hiwl trust`")
    answers, pictures = _sample(model, paths)
    if not len(pictures):
        raise HiwlError(f"none of {len(answers)} pictures can be read, such as: {answers['error'].iloc[0]}")
    measured = measure(pictures)
    compared = [
        Compared(name, IN_WORDS[name], measured[name], known, distance_between(measured[name], known))
        for name, known in ((name, model.trust.arrays[f"measures.{name}"].astype(float)) for name in NAMES)
    ]
    told = answers[answers["error"].isna()]
    verdict, why = judge(told["unlike"].to_numpy(bool), compared)
    values: dict[str, Any] = {
        "verdict": verdict,
        "why": why,
        "paths": paths,
        "weights": weights,
        "number": len(answers),
        "errors": answers["error"].dropna().value_counts().to_dict(),
        "unlike": float(told["unlike"].astype(bool).mean()),
        "usual": FALSE_ALARMS,
        "compared": compared,
        "shift": SHIFT,
        "classes": _mixture(told, model),
        "charts": _drawn(compared),
        "oddest": _oddest(told, pictures),
    }
    write_text(Path(output), page(TEMPLATE, values, {"percent": lambda share: f"{100 * share:.1f} %"}))
    print(f"check: {verdict} {output} says why")


def distance_between(new: Floats, percentiles: Floats) -> float:
    """Kolmogorov-Smirnov distance of values from a distribution that is known by its `PERCENTILES`."""
    below = np.searchsorted(np.sort(new), percentiles, side="right") / len(new)
    strictly = np.searchsorted(np.sort(new), percentiles, side="left") / len(new)
    share = PERCENTILES / 100
    # Where many values are equal, any share between the two is theirs.
    gaps = np.maximum(np.maximum(strictly - share, share - below), 0)
    return float(gaps.max())


def judge(unlike: "np.ndarray[tuple[int], np.dtype[np.bool_]]", compared: list[Compared]) -> tuple[str, list[str]]:
    """The first sentence, and what it rests on."""
    share, number = float(unlike.mean()), len(unlike)
    low = float(binomtest(int(unlike.sum()), number).proportion_ci(method="wilson").low)
    shifted = [one for one in compared if one.distance > SHIFT + 1.36 / number**0.5]  # 5 % level for so few
    why = [f"{one.name} is distributed otherwise (by {one.distance:.2f} of 1)" for one in shifted]
    if low > FEW:
        why.insert(0, f"{share:.0%} of the pictures are unlike anything in training, where 1 % is usual")
    if share > MANY:
        return "Do not trust the scores of these pictures.", why
    if why:
        return "Trust the scores of these pictures only after a look at some of them.", why
    if number < ENOUGH:
        why = [f"Of {ENOUGH} pictures or more this page says whether their scores can be trusted; these are {number}."]
        return "Nothing speaks against these pictures, but they are too few to say more.", why
    return "The scores of these pictures can be trusted as far as those of the test set.", []


def _sample(model: Model, paths: list[str]) -> tuple[pd.DataFrame, Pixels]:
    inputs = find(paths)
    if not (total := sum(map(len, inputs))):
        raise HiwlError("no picture was given; there is nothing to compare")
    chosen = np.zeros(total, bool)
    chosen[np.random.default_rng(SEED).permutation(total)[:MOST]] = True
    answers, pictures, start = [], [], 0
    with tqdm(total=int(chosen.sum()), unit="image", desc="looking") as progress:
        for one in inputs:
            for table in one.tables(0, 256):
                taken = table[chosen[start : start + len(table)]].reset_index(drop=True)
                start += len(table)
                pictures += [pixels for image in taken["image"] if (pixels := model.decoded(image)) is not None]
                answers.append(model.answer(taken, each=progress.update))
    return pd.concat(answers, ignore_index=True), np.stack(pictures) if pictures else np.zeros((0, 1, 1, 3), np.uint8)


def _mixture(told: pd.DataFrame, model: Model) -> list[dict[str, Any]]:
    shares, counts = model.classifier.shares, told["answer"].value_counts()
    return [
        {"name": name, "new": counts.get(name, 0) / len(told), "known": shares[name] / sum(shares.values())}
        for name in model.classifier.tree.classes
    ]


def _drawn(compared: list[Compared]) -> str:
    figure, panels = headless_pyplot().subplots(
        1, len(compared), figsize=(3 * len(compared), 2.6), layout="constrained"
    )
    for panel, one in zip(panels, compared, strict=True):
        panel.plot(np.sort(one.known), PERCENTILES / 100, color="grey", label="training survey")
        panel.plot(np.sort(one.new), (np.arange(len(one.new)) + 0.5) / len(one.new), label="these")
        panel.set_title(one.name, fontsize=10)
    panels[0].set_ylabel("share below")
    panels[0].legend(fontsize=8)
    buffer = io.BytesIO()
    save(figure, buffer)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _oddest(told: pd.DataFrame, pictures: Pixels) -> list[dict[str, Any]]:
    order = told["distance"].astype(float).to_numpy().argsort(kind="stable")[::-1][:SHOWN]
    shown = []
    for row in order:
        buffer = io.BytesIO()
        Image.fromarray(pictures[row]).save(buffer, "PNG")
        answer = told.iloc[row]
        said = {"picture": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()}
        shown.append(
            said | {name: answer[name] for name in ("answer", "distance")} | {"path": str(answer.get("path", ""))}
        )
    return shown
