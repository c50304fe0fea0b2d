"""A second look at the errors: by readers of the pictures, and by second crowds where the votes are known.

A reader sees every wrongly answered test galaxy among as many rightly answered ones, each with two classes to choose
between in random order: its label, and the answer (where that was right, the runner-up). Neither which class is the
label nor which galaxies are errors can be seen. How often a reader goes against the label of a right answer says what
going against it on an error is worth.

`hiwl explain` writes the sheets (``reading-1.png``, ...) and ``reading.csv``, whose column `says` a reader fills in:
one of the two classes, another one, or ``?``. Kept in ``results`` as ``<run>.reading-<reader>.csv``, it is counted by
`hiwl report`.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hiwl.errors import HiwlError
from hiwl.evaluate import _pyplot
from hiwl.images import decode, members
from hiwl.layout import RAW_IMAGES
from hiwl.redraw import LIKE_THE_FIRST
from hiwl.votes import ID

SEED = 1  # of the right answers drawn and of all orders
LINES, COLUMNS = 5, 6  # pictures a sheet
QUESTION = ["first", "second"]
UNSURE = "?"


def questions(test: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """What a reader is asked of the answered `test` set: `GalaxyID`, `first` and `second` class, and `says`, empty."""
    wrong = test[test["class"] != test["answer"]]
    right = test[test["class"] == test["answer"]]
    right = right.sample(min(len(wrong), len(right)), random_state=SEED)
    chances = right[[f"p_{name}" for name in classes]].to_numpy(copy=True)
    chances[np.arange(len(right)), right["class"].map(classes.index)] = -1
    runner_up = np.array(classes)[chances.argmax(axis=1)]
    asked = pd.concat([wrong.assign(other=wrong["answer"]), right.assign(other=runner_up)])
    asked = asked.sort_values(ID).sample(frac=1, random_state=SEED)
    turned = np.random.default_rng(SEED).random(len(asked)) < 0.5
    return pd.DataFrame(
        {
            ID: asked[ID].to_numpy(),
            "first": np.where(turned, asked["other"], asked["class"]),
            "second": np.where(turned, asked["class"], asked["other"]),
            "says": "",
        }
    )


def draw(asked: pd.DataFrame, crop: int, folder: Path) -> None:
    """The sheets of :func:`questions`, with the central `crop` pixels of each picture as the survey has them."""
    pyplot = _pyplot()
    names = members(RAW_IMAGES)
    with zipfile.ZipFile(RAW_IMAGES) as archive:
        for sheet, start in enumerate(range(0, len(asked), LINES * COLUMNS), start=1):
            part = asked.iloc[start : start + LINES * COLUMNS].to_dict("records")
            figure, panels = pyplot.subplots(LINES, COLUMNS, figsize=(15, 13.6), layout="constrained")
            for panel in panels.flat:
                panel.set_axis_off()
            for number, (panel, galaxy) in enumerate(zip(panels.flat, part, strict=False), start=start + 1):
                panel.imshow(decode(archive.read(names[galaxy[ID]]), crop, crop))
                panel.set_title(f"{number}: {galaxy['first']} or {galaxy['second']}?", fontsize=11)
            figure.savefig(folder / f"reading-{sheet}.png", dpi=110)
            pyplot.close(figure)


def read(path: Path) -> "pd.Series[str]":
    """What a reader said, by GalaxyID.

    Raises:
        HiwlError: galaxies without an answer, or with two.
    """
    filled = pd.read_csv(path, dtype={"says": str})
    if filled["says"].isna().any():
        missing = filled.loc[filled["says"].isna(), ID].tolist()
        raise HiwlError(
            f"{path}: nothing in column `says` for {len(missing)} galaxies, first {missing[0]}: a class, or {UNSURE}"
        )
    if filled[ID].duplicated().any():
        raise HiwlError(f"{path}: galaxy {filled.loc[filled[ID].duplicated(), ID].iloc[0]} has two answers")
    says: pd.Series[str] = filled.set_index(ID)["says"]
    return says


def majority(readings: "list[pd.Series[str]]") -> "pd.Series[str]":
    """By GalaxyID what more than half of the readers said, or ``?``."""
    said = pd.concat(readings, axis=1)
    voiced: pd.Series[str] = said.mode(axis=1)[0].where(
        lambda most: said.eq(most, axis=0).sum(axis=1) * 2 > said.shape[1]
    )
    return voiced.fillna(UNSURE)


def count(answers: pd.DataFrame, says: "pd.Series[str]") -> dict[str, Any]:
    """With whom a reader sides. `answers` by GalaxyID: `class` and `answer`; of every galaxy read."""
    read = answers.loc[says.index]
    wrong = read["class"] != read["answer"]
    label, answer = says == read["class"], says == read["answer"]
    return {
        "errors": {
            "galaxies": int(wrong.sum()),
            "label": int((wrong & label).sum()),
            "answer": int((wrong & answer).sum()),
            "another": int((wrong & ~label & ~answer & (says != UNSURE)).sum()),
            "unsure": int((wrong & (says == UNSURE)).sum()),
        },
        "right": {
            "galaxies": int((~wrong).sum()),
            "label": int((~wrong & label).sum()),
            "unsure": int((~wrong & (says == UNSURE)).sum()),
        },
    }


def doubts(answers: pd.DataFrame, redrawn: pd.DataFrame) -> dict[str, Any]:
    """How often second crowds drop or rename the galaxies that were answered wrongly, and those answered rightly.

    `answers` as in :func:`count`; `redrawn` is `hiwl redraw`'s table, by GalaxyID. Means and their standard errors over
    the galaxies whose votes are known.
    """
    known = answers.join(redrawn[["left", "changed"]], how="inner")
    wrong = known["class"] != known["answer"]
    unsure = known["left"] + known["changed"]
    return {
        "volunteers": LIKE_THE_FIRST,
        **{
            name: {
                "galaxies": len(part),
                "mean": float(part.mean()) if len(part) else None,
                "standard_error": float(part.std() / len(part) ** 0.5) if len(part) > 1 else None,
            }
            for name, part in (("errors", unsure[wrong]), ("right", unsure[~wrong]))
        },
    }
