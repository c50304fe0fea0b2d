import numpy as np
import pandas as pd
import pytest

from hiwl.measure import worth
from hiwl.survey.votes import COLUMNS


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worth, "ANSWERS", (0, 10, 30))
    monkeypatch.setattr(worth, "SEEDS", (1, 2))
    monkeypatch.setattr(worth, "TOP", 20)


def clustered() -> tuple[np.ndarray, np.ndarray]:
    """300 galaxies, of which the first 40 lie in a direction of their own, and farther from each other."""
    rng = np.random.default_rng(0)
    has = np.arange(300) < 40
    at = rng.normal(size=(300, 12)) * 0.3 + 2 * np.eye(12)[np.where(has, 0, 1)]
    return (at + has[:, None] * rng.normal(size=(300, 12)) * 0.1).astype(np.float32), has


def test_galaxies_that_lie_together_find_each_other_and_others_by_chance() -> None:
    features, has = clustered()
    known = np.arange(300) != 5
    found = worth.similar(features, worth.Tag("ring", has, known))
    assert found["galaxies"] == 299
    assert found["asked"] == 39
    assert found["chance"] == pytest.approx(39 / 299)
    assert found["precision"]["mean"] > 0.95
    assert found["auroc"]["mean"] > 0.95
    low, high = found["precision"]["interval"]
    assert low <= found["precision"]["mean"] <= high
    blind = worth.similar(np.random.default_rng(1).normal(size=(300, 12)).astype(np.float32), worth.Tag("", has, known))
    assert blind["precision"]["mean"] == pytest.approx(40 / 300, abs=0.06)


def test_answers_find_odd_galaxies_that_lie_together() -> None:
    features, has = clustered()
    oddness = np.where(has, 0.9, 0.05)
    found = worth.odd(features, oddness, "test")
    assert found["each"] == 240
    assert found["chance"]["0.5"] == pytest.approx(40 / 300)
    by_answers = [np.mean(found["found"][str(number)]["0.5"]) for number in (0, 10, 30)]
    assert by_answers[0] < by_answers[-1]
    assert by_answers[-1] > 15
    assert set(worth.without_answers(features, oddness)) >= {"isolation forest", "local outlier factor"}


def test_a_probe_learns_from_few_labels_the_same_for_all_features() -> None:
    features, has = clustered()
    tag = worth.Tag("ring", has, np.full(300, True))
    found = worth.learning(features, tag, "test")
    assert list(found) == ["10", "30", "100"]
    assert all(np.mean(of["auroc"]) > 0.9 for of in found.values())
    assert found == worth.learning(features, tag, "again")


def test_tags_are_shares_of_those_who_were_asked() -> None:
    votes = pd.DataFrame(np.nan, index=range(3), columns=COLUMNS)
    votes["Class6.1"] = [0.6, 0.5, np.nan]
    votes[["Class2.2", "Class3.1", "Class3.2"]] = [[0.8, 0.5, 0.3], [0.3, 0.3, 0.0], [0.9, 0.1, 0.8]]
    tags = worth.tags_of(votes, pd.Series(["SPI", None, "EO"]))
    assert tags["odd"].has.tolist() == [True, False, False]
    assert tags["odd"].known.tolist() == [True, True, False]
    assert tags["bar"].has.tolist() == [True, False, False]
    assert tags["bar"].known.tolist() == [True, False, True]
    assert tags["SPI"].known.tolist() == [True, False, True]
