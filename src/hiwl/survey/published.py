"""Galaxy Zoo 2's published catalogue (Willett et al. 2013; Hart et al. 2016) as a table of votes.

Its columns are called after task, question and answer: `t07_rounded_a18_cigar_shaped_debiased`. There fractions are of
those who reached a task; here, as in the competition, of all: each is multiplied by the fraction that reached its task.
A task's published fractions are rounded, and debiasing moves each by itself; they are first divided by their sum.
"""

from typing import Literal, get_args

import numpy as np
import pandas as pd

from hiwl.survey.votes import TASKS, volunteers_column

Fractions = Literal["debiased", "weighted_fraction", "fraction"]
KINDS = get_args(Fractions)
QUESTIONS = {  # of each task its name and those of its answers
    1: ("t01_smooth_or_features", ["a01_smooth", "a02_features_or_disk", "a03_star_or_artifact"]),
    2: ("t02_edgeon", ["a04_yes", "a05_no"]),
    3: ("t03_bar", ["a06_bar", "a07_no_bar"]),
    4: ("t04_spiral", ["a08_spiral", "a09_no_spiral"]),
    5: ("t05_bulge_prominence", ["a10_no_bulge", "a11_just_noticeable", "a12_obvious", "a13_dominant"]),
    6: ("t06_odd", ["a14_yes", "a15_no"]),
    7: ("t07_rounded", ["a16_completely_round", "a17_in_between", "a18_cigar_shaped"]),
    8: (
        "t08_odd_feature",
        ["a19_ring", "a20_lens_or_arc", "a21_disturbed", "a22_irregular", "a23_other", "a24_merger", "a38_dust_lane"],
    ),
    9: ("t09_bulge_shape", ["a25_rounded", "a26_boxy", "a27_no_bulge"]),
    10: ("t10_arms_winding", ["a28_tight", "a29_medium", "a30_loose"]),
    11: ("t11_arms_number", ["a31_1", "a32_2", "a33_3", "a34_4", "a36_more_than_4", "a37_cant_tell"]),
}


def columns(task: int, kind: str) -> list[str]:
    """The catalogue's columns for the answers of `task`: their `debiased` fractions, their `count`."""
    question, answers = QUESTIONS[task]
    return [f"{question}_{answer}_{kind}" for answer in answers]


def is_of_catalogue(column: str) -> bool:
    """Whether `column` is one of the catalogue's on votes."""
    return any(column.startswith(f"{question}_") for question, _ in QUESTIONS.values())


def votes_of(catalogue: pd.DataFrame, kind: Fractions) -> pd.DataFrame:
    """The competition's 37 columns of a `catalogue` of numbers, from its fractions of this `kind`.

    A task that nobody reached has zeros; one that was reached by debiased votes alone and answered by none is unknown
    (NaN).
    """
    found: dict[str, pd.Series[float]] = {}
    for number, task in TASKS.items():
        given = catalogue[columns(number, kind)].fillna(0)
        reached = found[task.reached_by] if task.reached_by else pd.Series(1.0, catalogue.index)
        total = given.sum(axis=1)
        shares = given.div(total.where(total > 0), axis=0).mul(reached, axis=0)
        shares[np.asarray(reached == 0)] = 0.0
        found |= zip(task.columns(number), (shares[column] for column in given), strict=True)
    return pd.DataFrame(found).round(6)


def volunteers_of(counts: pd.DataFrame) -> pd.DataFrame:
    """How many people answered each task, from the counts of its answers."""
    return pd.DataFrame(
        {
            volunteers_column(number): counts[columns(number, "count")].sum(axis=1).astype(int)
            for number in TASKS
            if set(columns(number, "count")) <= set(counts)
        }
    )
