"""How certain the labels themselves are: what second crowds of volunteers would have made of each galaxy.

Each galaxy of a survey of votes is shown to a second crowd: volunteers who walk down the tree of questions and answer
with the chances of the galaxy's *observed* fractions. Their fractions go through the same selection. What is counted:
how often a second crowd of that size, drawn from the observed fractions, would label the galaxy otherwise.

What that says of a classifier's accuracy. The test galaxies have their labels because a first crowd selected them. As
a classifier, the second crowd names that label for at least stayed x (1 - changed) of them and at most 1 - stayed x
changed: of a galaxy that leaves, the selection names no class. Bootstrap reasoning takes the second crowd's scatter
about the observed fractions for the first one's about the true ones; then `changed` estimates how often a classifier
that knew the true fractions would differ from the labels of galaxies that both select. This is an estimate and no
bound: galaxies were selected partly by luck, real volunteers have weights and are not equally many everywhere, and
whatever a picture does not show costs a classifier more. Volunteers without weights often tie: exactly half of an even
crowd is not above .50, so more galaxies leave, and fewer change, than with one volunteer more or less.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hiwl.core.errors import HiwlError
from hiwl.core.layout import ID
from hiwl.model.tree import Floats, Ints
from hiwl.survey.selection import Rules, SelectParams, select
from hiwl.survey.votes import COLUMNS, TASKS, walk

USUAL = 44  # the median of Galaxy Zoo 2 (Willett et al. 2013)
REJECTED = -1  # in place of a class's number


class Drawn(NamedTuple):
    """What second crowds made of each galaxy of a table of votes."""

    now: Ints
    """(galaxies,): the number in `rules` of the class that each has now, or REJECTED."""
    again: Ints
    """(galaxies, repeats): the same for every crowd."""
    volunteers: int
    rules: Rules


def redraw(votes: pd.DataFrame, params: SelectParams, volunteers: int, repeats: int, seed: int) -> Drawn:
    """What `repeats` crowds of `volunteers` make of each galaxy of the table `votes`.

    Raises:
        HiwlError: a selection that is not by rules; rules on unknown columns, or that take one galaxy for two classes,
            if only when it is drawn again.
    """
    if params.by != "rules":
        raise HiwlError(f"select.by: {params.by}: only a selection by rules can be drawn again")
    rng = np.random.default_rng([seed, volunteers])
    chances = answer_chances(votes)
    kept = votes.drop(columns=[column for column in COLUMNS if column in votes])  # how many answered, where it is known
    again = [_classes(kept.assign(**walk(chances, volunteers, rng)), params) for _ in range(repeats)]
    return Drawn(_classes(votes, params), np.stack(again, axis=1), volunteers, params.rules)


def of_galaxies(ids: "pd.Series[int]", drawn: Drawn) -> pd.DataFrame:
    """Of each selected galaxy: `class` now, and which shares of the crowds drop it (`left`) or `changed` its class."""
    selected = drawn.now != REJECTED
    now, again = drawn.now[selected], drawn.again[selected]
    left = again == REJECTED
    return pd.DataFrame(
        {
            ID: ids[selected],
            "class": np.array(list(drawn.rules))[now],
            "left": left.mean(axis=1),
            "changed": (~left & (again != now[:, None])).mean(axis=1),
            "volunteers": drawn.volunteers,
        }
    )


def summarise(drawn: Drawn) -> dict[str, Any]:
    """All galaxies together, and those of each class that they have now.

    Counts (`drawn_as`) are over all repeats. Shares have their standard errors over galaxies: how far they would be
    off on other galaxies of the kind.
    """
    now, again, rules = drawn.now, drawn.again, drawn.rules
    rejected = now == REJECTED
    return {
        "classes": {name: _kept(now, again, now == number, rules) for number, name in enumerate(rules)},
        "rejected": {
            "drawn_as": _counts(again[rejected], rules),
            "entered": _share((again[rejected] != REJECTED).sum(axis=1), np.full(rejected.sum(), again.shape[1])),
            "galaxies": int(rejected.sum()),
        },
        "selected": _kept(now, again, ~rejected, rules),
        "volunteers": drawn.volunteers,
    }


def answer_chances(votes: pd.DataFrame) -> dict[int, Floats]:
    """For each task of the tree, the chances (galaxies, answers) of those who reach it; rows sum to 1.

    They are fractions of what the answers sum to, which rounding sets apart from the fraction that reached the task.
    Where nobody answered, every answer is as likely.
    """
    chances = {}
    for number, task in TASKS.items():
        fractions = votes[task.columns(number)].to_numpy(float)
        total = fractions.sum(axis=1, keepdims=True)
        even = np.full_like(fractions, 1 / task.answers)
        chances[number] = np.divide(fractions, total, out=even, where=total > 0)
    return chances


def doubts(answered: pd.DataFrame, redrawn: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """How often second crowds drop (`left`) or rename (`changed`) galaxies that were answered wrongly, and rightly.

    `redrawn` is `hiwl redraw`'s table of galaxies. Means and their standard errors over the galaxies in it.
    """
    known = answered.merge(redrawn[[ID, "left", "changed", "volunteers"]], on=ID, validate="many_to_one")
    wrong = known["label"] != known["answer"]
    found: dict[str, dict[str, Any]] = {}
    for name, part in (("errors", known[wrong]), ("right", known[~wrong])):
        found[name] = {"galaxies": len(part), "volunteers": ", ".join(map(str, sorted(set(part["volunteers"]))))}
        if len(part) > 1:
            for share in ("left", "changed"):
                values = part[share].to_numpy()
                error = float(values.std(ddof=1) / len(values) ** 0.5)
                found[name][share] = {"mean": float(values.mean()), "standard_error": error}
    return found


def _classes(votes: pd.DataFrame, params: SelectParams) -> Ints:
    """The number of each galaxy's class in the order of the rules, or REJECTED."""
    selected = select(votes, params.rules, params.volunteers)["class"]
    numbers = np.full(len(votes), REJECTED)
    numbers[votes.index.get_indexer(selected.index)] = selected.map(list(params.rules).index)
    return numbers


def _kept(now: Ints, drawn: Ints, rows: NDArray[np.bool_], rules: Rules) -> dict[str, Any]:
    """Of selected galaxies: which stay so, which of these change their class, which leave."""
    stays = drawn[rows] != REJECTED
    changes = stays & (drawn[rows] != now[rows, None])
    every = np.full(len(stays), drawn.shape[1])
    return {
        "changed": _share(changes.sum(axis=1), stays.sum(axis=1)),
        "drawn_as": _counts(drawn[rows], rules),
        "galaxies": len(stays),
        "left": _share((~stays).sum(axis=1), every),
        "stayed": _share(stays.sum(axis=1), every),
    }


def _counts(drawn: Ints, rules: Rules) -> dict[str, int]:
    return {name: int((drawn == number).sum()) for number, name in enumerate(rules)}


def _share(hits: Ints, trials: Ints) -> dict[str, float | None] | None:
    """Hits among trials, both (galaxies,), with its standard error over galaxies; None where nothing was tried.

    A galaxy's trials are no independent ones: the error is that of a ratio of sums over galaxies (Cochran, Sampling
    Techniques, 1977, chapter 6).
    """
    galaxies, total = len(trials), int(trials.sum())
    if total == 0:
        return None
    share = hits.sum() / total
    error = None
    if galaxies > 1:
        error = float(np.sqrt(galaxies / (galaxies - 1) * ((hits - share * trials) ** 2).sum()) / total)
    return {"share": float(share), "standard_error": error}
