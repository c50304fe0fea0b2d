"""Galaxy Zoo 2's published catalogue: made from votes, and back."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from crowds import RULES
from hiwl.core.layout import ID
from hiwl.survey import published
from hiwl.survey.selection import select
from hiwl.survey.votes import COLUMNS, SUM_TOLERANCE, TASKS, walk


def counted(galaxies: int, seed: int, people: int) -> dict[str, np.ndarray]:
    """How many of `people` gave each answer."""
    rng = np.random.default_rng(seed)
    chances = {number: rng.dirichlet(np.full(task.answers, 0.4), galaxies) for number, task in TASKS.items()}
    return {column: np.rint(share * people) for column, share in walk(chances, people, rng).items()}


def catalogue(counts: dict[str, np.ndarray]) -> pd.DataFrame:
    """As published: counts, and each task's fractions, of those who reached it, to three digits."""
    columns: dict[str, np.ndarray] = {}
    for number, task in TASKS.items():
        of_task = np.stack([counts[column] for column in task.columns(number)], axis=1)
        total = of_task.sum(axis=1, keepdims=True)
        fractions = np.divide(of_task, total, out=np.zeros_like(of_task), where=total > 0).round(3)
        for kind, values in (("count", of_task), ("fraction", fractions)):
            columns |= dict(zip(published.columns(number, kind), values.T, strict=True))
    return pd.DataFrame(columns)


@given(st.integers(1, 20), st.integers(0, 2**32), st.integers(10, 60))
def test_fractions_of_each_task_become_those_of_all_volunteers(galaxies: int, seed: int, people: int) -> None:
    counts = counted(galaxies, seed, people)
    table = catalogue(counts)
    votes = published.votes_of(table, "fraction")
    assert list(votes) == COLUMNS
    wanted = pd.DataFrame({column: counts[column] / people for column in COLUMNS})
    assert np.allclose(votes, wanted, rtol=0, atol=0.004)
    for number, task in TASKS.items():
        reached = votes[task.reached_by] if task.reached_by else 1.0
        assert (votes[task.columns(number)].sum(axis=1) - reached).abs().max() < SUM_TOLERANCE
    answered = published.volunteers_of(table)
    assert answered["volunteers_1"].eq(people).all()
    assert np.array_equal(answered["volunteers_7"], counts["Class1.1"])


def test_a_task_that_only_debiased_votes_reached_is_unknown() -> None:
    table = catalogue(counted(1, 1, 40))
    debiased = table[[c for n in TASKS for c in published.columns(n, "fraction")]].copy()
    debiased[published.columns(1, "fraction")] = [0.2, 0.8, 0.0]
    debiased[published.columns(2, "fraction")] = 0.0
    votes = published.votes_of(debiased, "fraction")
    assert votes[["Class2.1", "Class2.2"]].isna().all(axis=None)
    assert votes["Class1.2"].tolist() == [0.8]


def test_a_task_that_too_few_answered_selects_nothing() -> None:
    clear = dict.fromkeys(COLUMNS, 0.0) | {"Class1.1": 1.0, "Class7.1": 1.0, "Class6.2": 1.0}
    counts = pd.DataFrame({ID: ["a", "b"], "volunteers_1": [40, 40], "volunteers_7": [20, 19]})
    table = pd.concat([pd.DataFrame([clear, clear]), counts], axis=1)
    assert select(table, RULES, volunteers=20)[ID].tolist() == ["a"]
    assert select(table, RULES, volunteers=0)[ID].tolist() == ["a", "b"]
    assert select(table.drop(columns=["volunteers_1", "volunteers_7"]), RULES, volunteers=20)[ID].tolist() == ["a", "b"]
