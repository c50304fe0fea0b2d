"""A second look at the errors: by readers of the pictures, and by second crowds where the votes are known.

A reader sees the wrongly answered test galaxies mixed with rightly answered ones, each with two classes to choose
between: its label, and what the model said (where that was right, its second choice). Each error has a right answer
for a partner with the same two classes, which the model set as nearly as far apart as it can be had. So neither the
classes offered nor how clear a picture is to the model tell errors from right answers, and how often a reader finds
for the label of the partners is what to hold the errors against: weighed to the errors' labels, since the one of two
classes may be the label more often among the partners, and readers may favour it. The classes stand in a fixed order.

`hiwl explain` writes the sheets (``1.png``, ...) and ``reading.csv`` into a folder of their own, which is all that a
reader may see, and who fills in the column `says`: one of the two classes, another one, or ``?``. Kept in ``results``
as ``<run>.reading-<reader>.csv``, it is counted by `hiwl report`.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hiwl.errors import HiwlError
from hiwl.evaluate import wilson
from hiwl.figures import headless_pyplot
from hiwl.images import decode, members
from hiwl.layout import RAW_IMAGES
from hiwl.votes import ID

SEED = 1  # of the order
LINES, COLUMNS = 5, 6  # pictures a sheet
UNSURE = "?"


def questions(answered: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """What a reader is asked of `answered` test galaxies (`GalaxyID`, `class`, `answer`, `p_<class>`).

    `number` on the sheets, `GalaxyID`, the `first` and `second` class offered, and `says`, empty. Errors for which no
    right answer with the same two classes is left are not asked.
    """
    galaxies = answered.sort_values(ID, ignore_index=True)
    is_wrong = galaxies["class"] != galaxies["answer"]
    galaxies["other"] = galaxies["answer"].where(is_wrong, _second_choice(galaxies, classes))
    galaxies = galaxies[galaxies["other"].notna()]
    chances, rows = galaxies[[f"p_{name}" for name in classes]].to_numpy(), np.arange(len(galaxies))
    label, other = (galaxies[name].map(classes.index).to_numpy(np.int64) for name in ("class", "other"))
    gap = np.abs(chances[rows, label] - chances[rows, other])
    galaxies = galaxies.assign(first=np.minimum(label, other), second=np.maximum(label, other), gap=gap)
    partners = galaxies[galaxies["class"] == galaxies["answer"]]
    asked = []
    for error in galaxies[galaxies["class"] != galaxies["answer"]].to_dict("records"):
        alike = partners[(partners["first"] == error["first"]) & (partners["second"] == error["second"])]
        if len(alike):
            nearest = (alike["gap"] - error["gap"]).abs().idxmin()
            partners = partners.drop(nearest)
            asked += [error[ID], galaxies.loc[nearest, ID]]
    table = galaxies[galaxies[ID].isin(asked)].sample(frac=1, random_state=SEED, ignore_index=True)
    names = dict(enumerate(classes))
    return pd.DataFrame(
        {
            "number": np.arange(1, len(table) + 1),
            ID: table[ID],
            "first": table["first"].map(names),
            "second": table["second"].map(names),
            "says": "",
        }
    )


def draw(asked: pd.DataFrame, crop: int, folder: Path) -> None:
    """The sheets of :func:`questions`, with the central `crop` pixels of each picture as the survey has them."""
    pyplot = headless_pyplot()
    names = members(RAW_IMAGES)
    with zipfile.ZipFile(RAW_IMAGES) as archive:
        for sheet, start in enumerate(range(0, len(asked), LINES * COLUMNS), start=1):
            part = asked.iloc[start : start + LINES * COLUMNS].to_dict("records")
            figure, panels = pyplot.subplots(LINES, COLUMNS, figsize=(15, 13.6), layout="constrained")
            for panel in panels.flat:
                panel.set_axis_off()
            for panel, galaxy in zip(panels.flat, part, strict=False):
                panel.imshow(decode(archive.read(names[galaxy[ID]]), crop, crop))
                panel.set_title(f"{galaxy['number']}: {galaxy['first']} or {galaxy['second']}?", fontsize=11)
            figure.savefig(folder / f"{sheet}.png", dpi=110)
            pyplot.close(figure)


def read(path: Path, answered: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """What a reader said, a row a galaxy: `number`, `GalaxyID`, `first`, `second`, `says`.

    Raises:
        HiwlError: not the questions on `answered`, or an answer that is none.
    """
    asked, filled = questions(answered, classes), pd.read_csv(path, dtype={"says": str}, keep_default_na=False)
    keys = ["number", ID]
    if not {*keys, "says"} <= set(filled) or filled[keys].to_numpy().tolist() != asked[keys].to_numpy().tolist():
        raise HiwlError(f"{path}: not the rows of this run's reading.csv; `hiwl explain` writes it anew")
    wrong = filled[~filled["says"].isin([*classes, UNSURE])]
    if len(wrong):
        number, says = wrong.iloc[0][["number", "says"]]
        raise HiwlError(
            f"{path}: number {number}: {says!r} in column `says`; {', '.join(classes)} or {UNSURE} is wanted"
        )
    return asked.assign(says=filled["says"])


def agreed(readings: list[pd.DataFrame]) -> pd.DataFrame:
    """What all readings say alike, and ``?`` where they differ."""
    first, *others = readings
    alike = np.logical_and.reduce([first["says"] == other["says"] for other in others])
    return first.assign(says=first["says"].where(alike, UNSURE))


def count(answered: pd.DataFrame, reading: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """With what a reading sides, on `errors` and on their partners, the `right` answers.

    How many `galaxies` (of the errors: `of` how many that the model made); for how many the `label` and the `other`
    class offered was found, `another` one, or none (`unsure`); and the 95 % Wilson interval of the share of the label
    among those found for one of the two. Of the partners this share is also `weighted`: as it would be if each label
    were as often that of two classes offered as among the errors (None where no partner has an error's label).
    """
    galaxies = reading.merge(answered[[ID, "class", "answer"]], on=ID, validate="one_to_one")
    says, wrong = galaxies["says"], galaxies["class"] != galaxies["answer"]
    label, unsure = says == galaxies["class"], says == UNSURE
    other = ~label & ((says == galaxies["first"]) | (says == galaxies["second"]))
    found: dict[str, dict[str, Any]] = {}
    for name, which in (("errors", wrong), ("right", ~wrong)):
        for_label, for_other = int((which & label).sum()), int((which & other).sum())
        found[name] = {
            "galaxies": int(which.sum()),
            "label": for_label,
            "other": for_other,
            "another": int((which & ~label & ~other & ~unsure).sum()),
            "unsure": int((which & unsure).sum()),
            "interval": wilson(for_label, for_label + for_other),
        }
    found["errors"]["of"] = int((answered["class"] != answered["answer"]).sum())
    alike = galaxies.assign(wrong=wrong, right=~wrong).groupby(["first", "second", "class"])[["wrong", "right"]]
    weights = (alike.transform("sum")["wrong"] / alike.transform("sum")["right"])[~wrong]
    for_either = float(weights[label | other].sum())
    found["right"]["weighted"] = float(weights[label].sum()) / for_either if for_either else None
    return found


def doubts(answered: pd.DataFrame, redrawn: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """How often second crowds drop (`left`) or rename (`changed`) galaxies that were answered wrongly, and rightly.

    `redrawn` is `hiwl redraw`'s table of galaxies. Means and their standard errors over the galaxies in it.
    """
    known = answered.merge(redrawn[[ID, "left", "changed", "volunteers"]], on=ID, validate="many_to_one")
    wrong = known["class"] != known["answer"]
    found: dict[str, dict[str, Any]] = {}
    for name, part in (("errors", known[wrong]), ("right", known[~wrong])):
        found[name] = {"galaxies": len(part), "volunteers": ", ".join(map(str, sorted(set(part["volunteers"]))))}
        if len(part) > 1:
            for share in ("left", "changed"):
                values = part[share].to_numpy()
                error = float(values.std(ddof=1) / len(values) ** 0.5)
                found[name][share] = {"mean": float(values.mean()), "standard_error": error}
    return found


def _second_choice(answered: pd.DataFrame, classes: list[str]) -> "pd.Series[str]":
    """The most probable class but for the answer; missing where several are."""
    chances = answered[[f"p_{name}" for name in classes]].to_numpy(copy=True)
    chances[np.arange(len(answered)), answered["answer"].map(classes.index).to_numpy(np.int64)] = -1
    best = chances.max(axis=1, keepdims=True)
    names = pd.Series(np.array(classes, object)[chances.argmax(axis=1)], index=answered.index)
    return names.where((chances == best).sum(axis=1) == 1)
