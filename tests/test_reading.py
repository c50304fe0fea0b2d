from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiwl.errors import HiwlError
from hiwl.reading import count, doubts, majority, questions, read

CLASSES = ["A", "B", "C"]


def answered(labels: str, said: str) -> pd.DataFrame:
    chances = np.random.default_rng(len(labels)).uniform(0, 0.3, (len(labels), 3))
    chances[np.arange(len(said)), [CLASSES.index(name) for name in said]] += 1
    table = pd.DataFrame({"GalaxyID": range(10, 10 + len(labels)), "class": list(labels), "answer": list(said)})
    table[[f"p_{name}" for name in CLASSES]] = chances
    return table


@given(st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), max_size=40))
def test_a_reader_sees_every_error_among_as_many_right_answers(galaxies: list[tuple[str, str]]) -> None:
    test = answered("".join(label for label, _ in galaxies), "".join(said for _, said in galaxies))
    asked = questions(test, CLASSES)
    wrong = test.loc[test["class"] != test["answer"], "GalaxyID"]
    assert asked["GalaxyID"].is_unique
    assert set(wrong) <= set(asked["GalaxyID"])
    assert len(asked) == len(wrong) + min(len(wrong), len(test) - len(wrong))
    assert (asked["first"] != asked["second"]).all()
    for galaxy in asked.merge(test, on="GalaxyID").to_dict("records"):
        choices = {galaxy["first"], galaxy["second"]}
        assert {galaxy["class"], galaxy["answer"]} <= choices
        (other,) = choices - {galaxy["class"]}
        if galaxy["class"] == galaxy["answer"]:
            assert galaxy[f"p_{other}"] == sorted(galaxy[f"p_{name}"] for name in CLASSES)[1]
    pd.testing.assert_frame_equal(asked, questions(test.sample(frac=1, random_state=3).sort_index(), CLASSES))


def test_neither_place_nor_order_tells_the_label() -> None:
    test = answered("A" * 200 + "B" * 200, "B" * 200 + "B" * 200)
    asked = questions(test, CLASSES).merge(test, on="GalaxyID")
    assert 120 < (asked["first"] == asked["class"]).sum() < 280
    wrong = asked["class"] != asked["answer"]
    assert 60 < wrong[:200].sum() < 140


def test_a_reader_is_counted_on_errors_and_on_right_answers() -> None:
    answers = answered("AAAAABB", "BBBBABB").set_index("GalaxyID")
    says = pd.Series(["A", "B", "C", "?", "A", "A", "?"], index=answers.index)
    assert count(answers, says) == {
        "errors": {"galaxies": 4, "label": 1, "answer": 1, "another": 1, "unsure": 1},
        "right": {"galaxies": 3, "label": 1, "unsure": 1},
    }


def test_most_readers_are_more_than_half_of_them() -> None:
    readings = [pd.Series(list(said), index=[1, 2, 3]) for said in ("AAA", "ABB", "BB?")]
    assert majority(readings).tolist() == ["A", "B", "?"]
    assert majority(readings[:2]).tolist() == ["A", "?", "?"]


def test_an_unfinished_reading_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.reading-someone.csv"
    path.write_text("GalaxyID,first,second,says\n7,A,B,A\n8,A,B,\n")
    with pytest.raises(HiwlError, match=r"reading-someone\.csv: nothing in column `says` for 1 galaxies, first 8"):
        read(path)
    path.write_text("GalaxyID,first,second,says\n7,A,B,A\n7,A,B,B\n")
    with pytest.raises(HiwlError, match="galaxy 7 has two answers"):
        read(path)


def test_second_crowds_doubt_errors_and_right_answers_apart() -> None:
    answers = answered("AAAAB", "BBAAB").set_index("GalaxyID")
    redrawn = pd.DataFrame({"left": [0.4, 0.2, 0.1, 0.0], "changed": [0.1, 0.1, 0.0, 0.0]}, index=[10, 11, 12, 13])
    found = doubts(answers, redrawn)
    assert found["errors"] == {"galaxies": 2, "mean": pytest.approx(0.4), "standard_error": pytest.approx(0.1)}
    assert found["right"] == {"galaxies": 2, "mean": pytest.approx(0.05), "standard_error": pytest.approx(0.05)}
    assert doubts(answers, redrawn.iloc[:0])["errors"] == {"galaxies": 0, "mean": None, "standard_error": None}
