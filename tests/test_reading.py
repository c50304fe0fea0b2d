from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from hiwl.errors import HiwlError
from hiwl.reading import agreed, count, doubts, questions, read

CLASSES = ["A", "B", "C"]


def answered(chances: Sequence[Sequence[float]], labels: str) -> pd.DataFrame:
    said = [CLASSES[int(np.argmax(row))] for row in chances]
    table = pd.DataFrame({"GalaxyID": range(10, 10 + len(labels)), "class": list(labels), "answer": said})
    table[[f"p_{name}" for name in CLASSES]] = np.array(chances).reshape(-1, 3)
    return table


any_chances = st.permutations([0.6, 0.3, 0.1]) | st.permutations([0.9, 0.08, 0.02]) | st.just([0.8, 0.1, 0.1])
any_galaxies = st.lists(st.tuples(any_chances, st.sampled_from(CLASSES)), max_size=40)


@tries(max_examples=50)
@given(any_galaxies)
def test_errors_and_right_answers_are_asked_in_pairs_that_look_alike(galaxies: list[tuple[list[float], str]]) -> None:
    test = answered([chances for chances, _ in galaxies], "".join(label for _, label in galaxies))
    asked = questions(test, CLASSES)
    assert asked["GalaxyID"].is_unique
    assert asked["number"].tolist() == list(range(1, len(asked) + 1))
    shown = asked.merge(test, on="GalaxyID")
    wrong = shown["class"] != shown["answer"]
    offered = shown["first"] + shown["second"]
    assert (shown["first"] < shown["second"]).all()  # the order of the classes, whichever is the label
    assert sorted(offered[wrong]) == sorted(offered[~wrong])
    for galaxy in shown.to_dict("records"):
        choices = {galaxy["first"], galaxy["second"]}
        assert {galaxy["class"], galaxy["answer"]} <= choices
        if galaxy["class"] == galaxy["answer"]:
            first, second, third = sorted((galaxy[f"p_{name}"] for name in CLASSES), reverse=True)
            assert {galaxy[f"p_{name}"] for name in choices} == {first, second}
            assert second > third
    pd.testing.assert_frame_equal(asked, questions(test[::-1], CLASSES))


def test_a_partner_is_the_right_answer_as_nearly_as_clear() -> None:
    right = [(0.5 + gap / 2, 0.5 - gap / 2, 0.0) for gap in (0.1, 0.4, 0.9)]
    test = answered([*right, (0.25, 0.75, 0.0), (0.3, 0.7, 0.0)], "AAAAA")
    assert set(questions(test, CLASSES)["GalaxyID"]) == {13, 14, 11, 10}  # gaps .5 and .4: one takes .4, the other .1


def test_the_order_tells_nothing() -> None:
    rng = np.random.default_rng(2)
    sure = [(float(0.5 + x), float(0.4 - x), 0.1) for x in rng.uniform(0.05, 0.25, 400)]
    test = answered(sure, "B" * 100 + "A" * 300)  # the first hundred are errors
    wrong = questions(test, CLASSES)["GalaxyID"].isin(range(10, 110))
    assert len(wrong) == 200
    assert wrong.sum() == 100
    assert 30 < wrong[:100].sum() < 70
    assert 60 < sum(a != b for a, b in pairwise(wrong)) < 140


def reading(test: pd.DataFrame, says: dict[int, str]) -> pd.DataFrame:
    asked = questions(test, CLASSES)
    return asked.assign(says=asked["GalaxyID"].map(says))


FOUR = answered([(0.6, 0.4, 0.0), (0.7, 0.3, 0.0), (0.6, 0.3, 0.1), (0.8, 0.2, 0.0)], "BBAA")  # 10 and 11 are errors


def test_a_reading_is_counted_on_errors_and_on_right_answers() -> None:
    found = count(FOUR, reading(FOUR, {10: "B", 11: "A", 12: "C", 13: "?"}))
    assert {name: value for name, value in found["errors"].items() if name != "interval"} == {
        "galaxies": 2,
        "label": 1,
        "other": 1,
        "another": 0,
        "unsure": 0,
        "of": 2,
    }
    assert {name: value for name, value in found["right"].items() if name != "interval"} == {
        "galaxies": 2,
        "label": 0,
        "other": 0,
        "another": 1,
        "unsure": 1,
        "weighted": None,
    }
    assert found["errors"]["interval"] == pytest.approx((0.0945, 0.9055), abs=1e-3)


def test_partners_are_weighed_to_the_labels_of_the_errors() -> None:
    # Three errors on A or B with the label A, one with B; of their partners only one has A.
    says_a, says_b = (0.6, 0.4, 0.0), (0.4, 0.6, 0.0)
    test = answered([says_b] * 3 + [says_a] * 2 + [says_b] * 3, "AAAB" + "ABBB")
    for of_right, plain, weighted in (("ABBB", 1, 1), ("AAAA", 0.25, 0.75), ("BBBB", 0.75, 0.25)):
        says = dict(zip(range(10, 18), "AAAB" + of_right, strict=True))
        found = count(test, reading(test, says))
        assert found["errors"]["label"] == found["errors"]["of"] == 4
        assert found["right"]["label"] / 4 == plain
        assert found["right"]["weighted"] == pytest.approx(weighted)


def test_an_error_without_a_partner_is_counted_but_not_asked() -> None:
    test = answered([(0.6, 0.4, 0.0), (0.6, 0.0, 0.4), (0.6, 0.4, 0.0)], "BCA")
    found = count(test, reading(test, {10: "A", 12: "A"}))
    assert (found["errors"]["galaxies"], found["errors"]["of"]) == (1, 2)


def test_readings_agree_where_all_say_the_same() -> None:
    readings = [reading(FOUR, dict(zip((10, 11, 12, 13), says, strict=True))) for says in ("AAA?", "AB A", "AAA?")]
    assert agreed(readings).set_index("GalaxyID")["says"].sort_index().tolist() == ["A", "?", "?", "?"]


def test_what_is_no_reading_of_the_run_is_refused(tmp_path: Path) -> None:
    path, asked = tmp_path / "run.reading-someone.csv", questions(FOUR, CLASSES)
    asked.to_csv(path, index=False)
    with pytest.raises(
        HiwlError, match=r"reading-someone\.csv: number 1: '' in column `says`; A, B, C or \? is wanted"
    ):
        read(path, FOUR, CLASSES)
    asked.assign(says=["A", "a", "B", "?"]).to_csv(path, index=False)
    with pytest.raises(HiwlError, match="number 2: 'a'"):
        read(path, FOUR, CLASSES)
    asked.assign(says="A")[1:].to_csv(path, index=False)
    with pytest.raises(HiwlError, match="not the rows of this run"):
        read(path, FOUR, CLASSES)
    asked.assign(says="A").to_csv(path, index=False)
    assert read(path, FOUR, CLASSES)["says"].tolist() == ["A"] * 4


def test_second_crowds_drop_and_rename_errors_and_right_answers() -> None:
    redrawn = pd.DataFrame(
        {"GalaxyID": [10, 11, 12, 13, 14], "left": [0.4, 0.2, 0.1, 0.0, 1.0], "changed": [0.1, 0.1, 0.0, 0.0, 0.0]}
    ).assign(volunteers=44)
    found = doubts(FOUR, redrawn)
    assert found["errors"]["left"] == {"mean": pytest.approx(0.3), "standard_error": pytest.approx(0.1)}
    assert found["errors"]["changed"] == {"mean": pytest.approx(0.1), "standard_error": pytest.approx(0.0)}
    assert found["right"]["left"] == {"mean": pytest.approx(0.05), "standard_error": pytest.approx(0.05)}
    assert found["right"]["volunteers"] == "44"
    assert doubts(FOUR, redrawn.iloc[:0])["errors"] == {"galaxies": 0, "volunteers": ""}
