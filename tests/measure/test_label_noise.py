from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st
from scipy.stats import binom

from crowds import RULES, table
from hiwl.measure import label_noise
from hiwl.survey.selection import Rules, SelectParams
from hiwl.survey.votes import COLUMNS, TASKS, walk


def answers(task: int) -> st.SearchStrategy[list[float]]:
    """Any shares of a task's answers, vanishing ones and zeros among them."""
    share = st.one_of(st.just(0.0), st.floats(1e-9, 1.0))
    return st.lists(share, min_size=TASKS[task].answers, max_size=TASKS[task].answers).filter(lambda row: sum(row) > 0)


def summary(votes: pd.DataFrame, rules: Rules, volunteers: int, repeats: int, seed: int) -> dict[str, Any]:
    params = SelectParams(rules=rules, expected=None)
    return label_noise.summarise(label_noise.redraw(votes, params, volunteers, repeats, seed))


any_galaxy = st.fixed_dictionaries({task: answers(task) for task in TASKS})


def unanimous(answer: dict[int, int]) -> dict[int, list[float]]:
    return {task: [float(number == given) for number in range(TASKS[task].answers)] for task, given in answer.items()}


any_unanimous_galaxy = st.fixed_dictionaries({n: st.integers(0, task.answers - 1) for n, task in TASKS.items()}).map(
    unanimous
)


@tries(max_examples=25)
@given(st.lists(any_galaxy, min_size=1, max_size=4), st.integers(1, 100), st.integers(0, 2**31))
def test_every_crowd_walks_down_the_tree(galaxies: list[dict[int, list[float]]], volunteers: int, seed: int) -> None:
    votes = table(galaxies)
    drawn = walk(label_noise.answer_chances(votes), volunteers, np.random.default_rng(seed))
    assert list(drawn) == COLUMNS
    for number, task in TASKS.items():
        total = sum(drawn[column] for column in task.columns(number))
        reached = 1.0 if task.reached_by is None else drawn[task.reached_by]
        np.testing.assert_allclose(total, reached, atol=1e-12)
        observed = votes[task.columns(number)]
        for column in task.columns(number):
            never = (observed[column] == 0) & observed.any(axis=1)
            assert (drawn[column][never] == 0).all()
            people = volunteers * drawn[column]
            np.testing.assert_allclose(people, people.round(), atol=1e-9)


@tries(max_examples=15)
@given(st.lists(any_unanimous_galaxy, min_size=1, max_size=5), st.integers(1, 100), st.integers(0, 2**31))
def test_where_all_agree_every_crowd_says_the_same(
    galaxies: list[dict[int, list[float]]], volunteers: int, seed: int
) -> None:
    votes = table(galaxies)
    found = summary(votes, RULES, volunteers, 2, seed)
    selected, rejected = found["selected"], found["rejected"]
    assert selected["galaxies"] + rejected["galaxies"] == len(votes)
    if selected["galaxies"]:
        assert (selected["stayed"]["share"], selected["changed"]["share"], selected["left"]["share"]) == (1, 0, 0)
    else:
        assert selected["stayed"] is selected["changed"] is None
    if rejected["galaxies"]:
        assert rejected["entered"]["share"] == 0
    for name, kept in found["classes"].items():
        assert kept["drawn_as"] == dict.fromkeys(RULES, 0) | {name: 2 * kept["galaxies"]}


@pytest.mark.parametrize("volunteers", [20, 44, 45])
def test_an_edge_on_galaxy_stays_as_often_as_the_binomial_says(volunteers: int) -> None:
    # Down the tree .8 x .8: the people who say both are binomial of the product.
    votes = table([{1: [0.1, 0.8, 0.1], 2: [0.8, 0.2], 7: [0.0, 0.0, 1.0]}] * 500)
    stayed = summary(votes, RULES, volunteers, 40, seed=1)["classes"]["EO"]["stayed"]
    expected = binom.sf(np.floor(0.602 * volunteers), volunteers, 0.64)
    assert stayed["share"] == pytest.approx(expected, abs=4 * stayed["standard_error"])
    # Galaxies alike: as good as 500 x 40 independent trials.
    assert stayed["standard_error"] == pytest.approx((expected * (1 - expected) / 20_000) ** 0.5, rel=0.15)


def test_the_error_of_galaxies_unlike_each_other_is_that_of_their_number() -> None:
    # Half of them always stay, half stay about half of the time: more repeats tell nothing about other galaxies.
    sure, doubtful = {1: [1.0, 0.0, 0.0], 7: [1.0, 0.0, 0.0]}, {1: [1.0, 0.0, 0.0], 7: [0.500001, 0.25, 0.249999]}
    votes = table([sure] * 50 + [doubtful] * 50)
    few, many = (summary(votes, RULES, 45, repeats, seed=1)["selected"]["left"] for repeats in (20, 80))
    assert few["standard_error"] == pytest.approx(0.025, rel=0.1)
    assert many["standard_error"] == pytest.approx(0.025, rel=0.1)


def test_a_galaxy_at_the_threshold_leaves_half_of_the_time() -> None:
    votes = table([{1: [1.0, 0.0, 0.0], 7: [0.500001, 0.25, 0.249999]}] * 500)
    found = summary(votes, RULES, 45, 20, seed=1)
    assert found["classes"]["CRS"]["galaxies"] == 500
    assert found["selected"]["left"]["share"] == pytest.approx(0.5, abs=0.02)
    assert found["selected"]["changed"]["share"] < 0.005


def test_a_rejected_galaxy_at_the_threshold_enters_half_of_the_time() -> None:
    votes = table([{1: [1.0, 0.0, 0.0], 7: [0.5, 0.25, 0.25]}] * 500)
    found = summary(votes, RULES, 45, 20, seed=1)
    assert found["selected"]["galaxies"] == 0
    assert found["rejected"]["entered"]["share"] == pytest.approx(0.5, abs=0.02)
    entered = found["rejected"]["entered"]["share"] * 500 * 20
    assert sum(found["rejected"]["drawn_as"].values()) == pytest.approx(entered)


def test_more_volunteers_change_fewer_classes_and_lose_fewer_galaxies() -> None:
    votes = table([{1: [1.0, 0.0, 0.0], 7: [0.55, 0.45, 0.0]}] * 300)
    found = [summary(votes, RULES, volunteers, 20, seed=1)["selected"] for volunteers in (21, 61, 201)]
    for fewer, more in pairwise(found):
        assert fewer["changed"]["share"] > more["changed"]["share"] > 0
    even = [summary(votes, RULES, volunteers, 20, seed=1)["selected"] for volunteers in (20, 60, 200)]
    for fewer, more in pairwise(even):
        assert fewer["left"]["share"] > more["left"]["share"] > 0


def test_the_change_of_class_is_a_share_of_those_that_stay() -> None:
    votes = table([{1: [1.0, 0.0, 0.0], 7: [0.52, 0.48, 0.0]}] * 100)
    kept = summary(votes, RULES, 20, 10, seed=1)["classes"]["CRS"]
    drawn_as = kept["drawn_as"]
    assert 0 < drawn_as["CRS"] + drawn_as["IBS"] < 1000  # the rest have left: ten against ten
    assert kept["changed"]["share"] == pytest.approx(drawn_as["IBS"] / (drawn_as["CRS"] + drawn_as["IBS"]))


def test_the_seed_decides_and_the_order_of_crowds_does_not() -> None:
    votes = table([{1: [1.0, 0.0, 0.0], 7: [0.52, 0.48, 0.0]}] * 50)
    first = summary(votes, RULES, 44, 5, seed=1)
    summary(votes, RULES, 20, 5, seed=1)
    assert summary(votes, RULES, 44, 5, seed=1) == first
    assert summary(votes, RULES, 44, 5, seed=2) != first


def test_errors_and_right_answers_are_set_beside_second_crowds() -> None:
    answered = pd.DataFrame({"GalaxyID": range(4), "label": "A", "answer": ["B", "B", "A", "A"]})
    redrawn = pd.DataFrame(
        {"GalaxyID": range(3), "left": [0.4, 0.2, 0.1], "changed": [0.2, 0.0, 0.0], "volunteers": 44}
    )
    found = label_noise.doubts(answered, redrawn)
    assert found["errors"]["galaxies"] == 2
    assert found["errors"]["left"] == {"mean": pytest.approx(0.3), "standard_error": pytest.approx(0.1)}
    assert found["right"] == {"galaxies": 1, "volunteers": "44"}
