import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st
from scipy.stats import binom

from hiwl import redraw
from hiwl.errors import HiwlError
from hiwl.files import sha256
from hiwl.layout import RAW_MANIFEST, RAW_TABLE
from hiwl.settings import settings
from hiwl.volunteers import walk
from hiwl.votes import COLUMNS, ID, TASKS

RULES = {
    "CRS": {"Class1.1": 0.469, "Class7.1": 0.50},
    "IBS": {"Class1.1": 0.469, "Class7.2": 0.50},
    "CSS": {"Class1.1": 0.469, "Class7.3": 0.50},
    "EO": {"Class1.2": 0.430, "Class2.1": 0.602},
    "SPI": {"Class1.2": 0.430, "Class2.2": 0.715, "Class4.1": 0.619},
}
FILES = {"kind": "files", "table": "votes", "images_sha256": "a" * 64, "table_sha256": "b" * 64}
SIMULATED = {"kind": "simulated", "galaxies": 300, "seed": 1, "volunteers": 44}


def table(rows: list[dict[int, list[float]]]) -> pd.DataFrame:
    """Votes on one galaxy a row: by task, the shares of its answers; a task left out gets its last answer alone."""
    votes = []
    for row in rows:
        fractions: dict[str, float] = {}
        for number, task in TASKS.items():
            reached = 1.0 if task.reached_by is None else fractions[task.reached_by]
            shares = np.array(row.get(number, [0.0] * (task.answers - 1) + [1.0]), float)
            # Six digits, as published.
            values = (f"{reached * share:.6g}" for share in shares / shares.sum())
            fractions |= zip(task.columns(number), map(float, values), strict=True)
        votes.append(fractions)
    return pd.DataFrame(votes, columns=COLUMNS).assign(**{ID: range(100, 100 + len(votes))})


def answers(task: int) -> st.SearchStrategy[list[float]]:
    """Any shares of a task's answers, vanishing ones and zeros among them."""
    share = st.one_of(st.just(0.0), st.floats(1e-9, 1.0))
    return st.lists(share, min_size=TASKS[task].answers, max_size=TASKS[task].answers).filter(lambda row: sum(row) > 0)


def summary(votes: pd.DataFrame, rules: redraw.Rules, volunteers: int, repeats: int, seed: int) -> dict[str, Any]:
    return redraw.summarise(redraw.redraw(votes, rules, volunteers, repeats, seed))


any_galaxy = st.fixed_dictionaries({task: answers(task) for task in TASKS})


def unanimous(answer: dict[int, int]) -> dict[int, list[float]]:
    return {task: [float(number == given) for number in range(TASKS[task].answers)] for task, given in answer.items()}


any_unanimous_galaxy = st.fixed_dictionaries({n: st.integers(0, task.answers - 1) for n, task in TASKS.items()}).map(
    unanimous
)


@tries(max_examples=50)
@given(st.lists(any_galaxy, min_size=1, max_size=4), st.integers(1, 100), st.integers(0, 2**31))
def test_every_crowd_walks_down_the_tree(galaxies: list[dict[int, list[float]]], volunteers: int, seed: int) -> None:
    votes = table(galaxies)
    drawn = walk(redraw.answer_chances(votes), volunteers, np.random.default_rng(seed))
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


@tries(max_examples=30)
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


@pytest.fixture
def votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """A few galaxies of each kind, in a project's folder; ten repeats."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(redraw, "REPEATS", 10)
    settings.cache_clear()
    smooth, disk = [0.9, 0.05, 0.05], [0.05, 0.9, 0.05]
    kinds: list[dict[int, list[float]]] = [
        {1: smooth, 7: shares} for shares in ([7.0, 2.0, 1.0], [2.0, 7.0, 1.0], [1.0, 2.0, 7.0])
    ]
    kinds += [
        {1: disk, 2: [8.0, 2.0]},
        {1: disk, 2: [0.5, 9.5], 4: [8.0, 2.0]},
        {1: [5.0, 4.0, 1.0], 7: [1.0, 1.0, 1.0]},
    ]
    return table(kinds * 4)


def bring_in(
    votes: pd.DataFrame, committed: dict[str, Any], source: dict[str, Any], kind: str = "votes", survey: str = "mine"
) -> None:
    RAW_TABLE.parent.mkdir(parents=True, exist_ok=True)
    votes.to_csv(RAW_TABLE, index=False)
    RAW_MANIFEST.write_text(json.dumps({"survey": survey, "table": kind}))
    sections = {"raw": {"survey": "mine", "source": source}, "select": committed["select"] | {"rules": RULES}}
    Path("params.yaml").write_text(yaml.safe_dump(committed | sections, sort_keys=False))


def test_real_galaxies_leave_their_figures_in_results(
    votes: pd.DataFrame, committed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    bring_in(votes, committed, FILES)
    redraw.main()
    content = json.loads(Path("results/mine/redraw.json").read_text())
    assert content["table_sha256"] == sha256(RAW_TABLE)
    assert (content["survey"], content["rules"], content["repeats"]) == ("mine", RULES, 10)
    assert [crowd["volunteers"] for crowd in content["crowds"]] == [20, 40, 44, 60]
    for crowd in content["crowds"]:
        assert {name: kept["galaxies"] for name, kept in crowd["classes"].items()} == dict.fromkeys(RULES, 4)
        assert crowd["rejected"]["galaxies"] == 4
        for kept in [*crowd["classes"].values(), crowd["selected"]]:
            stayed = sum(kept["drawn_as"].values()) / (10 * kept["galaxies"])
            assert kept["stayed"]["share"] == pytest.approx(stayed)
            assert kept["left"]["share"] == pytest.approx(1 - stayed)
    assert "\n".join(redraw.lines(content)) in capsys.readouterr().out
    of_galaxies = pd.read_csv("results/mine/redraw.csv.gz")
    like_the_first = content["crowds"][2]
    assert of_galaxies["class"].value_counts().to_dict() == dict.fromkeys(RULES, 4)
    assert of_galaxies["left"].mean() == pytest.approx(like_the_first["selected"]["left"]["share"], abs=1e-3)
    stayed = (1 - of_galaxies["left"]).sum()
    assert of_galaxies["changed"].sum() == pytest.approx(
        stayed * like_the_first["selected"]["changed"]["share"], abs=0.01
    )


def test_the_table_has_a_row_for_each_crowd_in_percent_and_galaxies() -> None:
    votes = table([{1: [1.0, 0.0, 0.0], 7: [0.0, 0.0, 1.0]}] * 2 + [{6: [1.0, 0.0]}] * 3)
    crowds = [summary(votes, RULES, volunteers, 2, seed=1) for volunteers in (20, 44)]
    header, _, first, second, *_ = redraw.lines({"crowds": crowds, "repeats": 2, "survey": "mine"})
    assert "entered (of 3 rejected)" in header
    certain, never = "100.00 ± 0.00", "0.00 ± 0.00"
    cells = [certain, never, never, never, never, "0 ± 0", "100.0 to 100.0"]
    assert [first, second] == [f"| {n} | {' | '.join(cells)} |" for n in (20, 44)]


def test_a_table_without_cigars_leaves_their_columns_empty() -> None:
    votes = table([{1: [1.0, 0.0, 0.0], 7: [1.0, 0.0, 0.0]}] * 2)
    for rules in (RULES, {"CRS": RULES["CRS"]}):
        content = {"crowds": [summary(votes, rules, 20, 2, seed=1)], "repeats": 2, "survey": "mine"}
        cells = ["20", "100.00 ± 0.00", "0.00 ± 0.00", "–", "0.00 ± 0.00", "–", "–", "100.0 to 100.0"]
        assert redraw.lines(content)[2] == f"| {' | '.join(cells)} |"


def test_simulated_galaxies_leave_nothing_in_results(
    votes: pd.DataFrame, committed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    bring_in(votes, committed, SIMULATED)
    redraw.main()
    assert "| 44 |" in capsys.readouterr().out
    assert not Path("results").exists()


def test_labels_cannot_be_drawn_again(votes: pd.DataFrame, committed: dict[str, Any]) -> None:
    bring_in(votes, committed, FILES | {"table": "labels"}, kind="labels")
    with pytest.raises(HiwlError, match=r"manifest\.json.*labels.*dvc exp run -S survey=votes select"):
        redraw.main()
    assert not Path("results").exists()


def test_another_surveys_votes_are_not_taken_for_this_ones(votes: pd.DataFrame, committed: dict[str, Any]) -> None:
    bring_in(votes, committed, FILES, survey="simulated")
    with pytest.raises(HiwlError, match=r"holds the survey simulated, params\.yaml names mine"):
        redraw.main()
    assert not Path("results").exists()
