"""The clean selection: galaxies whose votes are clear (paper, section 2; thresholds of Willett et al. 2013)."""

from typing import Literal

import pandas as pd
from pydantic import Field

from hiwl.core.errors import HiwlError
from hiwl.core.layout import ID
from hiwl.core.section import Section
from hiwl.survey.votes import COLUMNS, TASKS, task_of, volunteers_column

Rules = dict[str, dict[str, float]]


class SelectParams(Section):
    """Section `select`."""

    by: Literal["rules", "commonest", "label"] = "rules"
    """By `rules`, which leave out what is not clear; every galaxy by the commonest answers (:func:`commonest`); or by
    the label that its table has, of classes that no rule knows."""
    merged: dict[str, str] = Field({})
    """Of the commonest answers' classes, which count as another, being rare."""
    rules: Rules
    """For each class the columns of the vote table and the values that they must exceed (strictly)."""
    expected: dict[str, int] | None
    """How many galaxies of each class this survey holds; null where that is not known beforehand."""
    volunteers: int = Field(20, ge=0)
    """The least number of people who answered each task that a rule looks at, where the table counts them (Willett et
    al. 2013, Table 3)."""


def clean_selection(table: pd.DataFrame, kind: Literal["labels", "votes"], params: SelectParams) -> pd.DataFrame:
    """The galaxies of a raw table of that `kind` that have a class, with it.

    Raises:
        HiwlError: `select.by` needs a table of the other kind; see also the functions below.
    """
    if (kind, params.by) in (("labels", "commonest"), ("votes", "label")):
        raise HiwlError(
            f"select.by: {params.by} needs a table of {'votes' if kind == 'labels' else 'labels'}, not of {kind}"
        )
    if kind == "labels":
        return labelled(table, params.rules)
    if params.by == "commonest":
        return commonest(table, params.merged)
    return select(table, params.rules, params.volunteers)


def select(votes: pd.DataFrame, rules: Rules, volunteers: int = 0) -> pd.DataFrame:
    """The galaxies that exactly one rule takes, with their class and the votes that the rules look at.

    Where the table counts who answered a task, at least `volunteers` did each that the rule looks at.

    Raises:
        HiwlError: a rule on a column that is not in the table, or galaxies that two rules take, by their IDs.
    """
    if unknown := {column for rule in rules.values() for column in rule} - set(COLUMNS):
        raise HiwlError(f"select.rules: no such column of the vote table: {', '.join(sorted(unknown))}")
    taken = pd.DataFrame({name: _takes(rule, votes, volunteers) for name, rule in rules.items()})
    if (twice := taken.sum(axis=1) > 1).any():
        examples = [
            f"{votes[ID][row]} ({' and '.join(taken.columns[taken.loc[row]])})" for row in taken.index[twice][:10]
        ]
        raise HiwlError(f"select.rules: {twice.sum()} galaxies are in two classes: {', '.join(examples)}")
    clean = taken.any(axis=1)
    deciding = [column for column in COLUMNS if any(column in rule for rule in rules.values())]
    return pd.concat(
        [
            votes.loc[clean, ID],
            taken[clean].idxmax(axis=1).rename("class"),
            votes.loc[clean, deciding],
            class_votes(votes[clean], rules),
        ],
        axis=1,
    )


def commonest(votes: pd.DataFrame, merged: dict[str, str]) -> pd.DataFrame:
    """Every galaxy that is no star or artefact, with the class that the commonest answers lead to down the tree: the
    beginnings of Galaxy Zoo 2's own codes (Willett et al. 2013, appendix A).

    Smooth: Er, Ei, Ec (round, in between, cigar). Edge-on: Ser, Seb, Sen (bulge rounded, boxy, none). Else S or SB
    (barred) and a to d, from a dominant bulge to none. Of equal answers the first. What is in `merged` counts as
    another.
    """

    def most(task: int, codes: str) -> pd.Series:
        answers = votes[TASKS[task].columns(task)].set_axis(list(codes), axis=1)
        return answers.fillna(-1).idxmax(axis=1)

    face_on = "S" + most(3, "B_").replace("_", "") + most(5, "dcba")
    disk = face_on.where(most(2, "EF") == "F", "Se" + most(9, "rbn"))
    kind = most(1, "EDA")
    found = disk.where(kind == "D", "E" + most(7, "ric"))
    if unknown := set(merged) - set(found):
        raise HiwlError(f"select.merged: {', '.join(sorted(unknown))}: no galaxy has that code")
    found = found.replace(merged)
    return pd.DataFrame({ID: votes[ID], "class": found})[kind != "A"]


def _takes(rule: dict[str, float], votes: pd.DataFrame, volunteers: int) -> "pd.Series[bool]":
    answered = [volunteers_column(task_of(column)) for column in rule]
    counted = votes[[column for column in answered if column in votes]]
    takes: pd.Series[bool] = (votes[list(rule)] > pd.Series(rule)).all(axis=1) & (counted >= volunteers).all(axis=1)
    return takes


def class_votes(votes: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """A column ``votes_<class>`` for each class: the share of the volunteers who described the galaxy so.

    That is the last column of the class's rule, the end of its way down the tree of questions. What is left to 1 went
    to no class (a star, a disk without arms).
    """
    return pd.DataFrame({f"votes_{name}": votes[list(rule)[-1]] for name, rule in rules.items()})


def labelled(table: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """The galaxies of a table of labels; where it has votes too, the rules must give them the same class, unless
    they know none of its classes.

    Raises:
        HiwlError: they do not, by the galaxies' IDs.
    """
    if "Class1.1" not in table or rules.keys().isdisjoint(table["class"]):
        return table[[ID, "class"]]
    known = table.dropna(subset=list({column for rule in rules.values() for column in rule}))
    ruled = select(known, rules).set_index(ID)["class"].reindex(known[ID])
    if (other := ruled.to_numpy() != known["class"].to_numpy()).any():
        raise HiwlError(
            f"HIWL_VOTES: the votes give {other.sum()} galaxies another class than the table of labels, or none: "
            f"{', '.join(map(str, known.loc[other, ID][:10]))}"
        )
    return pd.concat([table[[ID, "class"]], class_votes(table, rules)], axis=1)
