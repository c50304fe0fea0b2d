import numpy as np
import pytest

from hiwl.measure.intervals import mean_with_interval, over_galaxies, student


def test_the_interval_over_galaxies_is_that_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    for number in (200, 5000):
        right = (rng.random(number) < 0.9).astype(float)
        low, high = over_galaxies(right) or [0.0, 0.0]
        assert (low + high) / 2 == pytest.approx(right.mean(), abs=0.2 * right.std() / number**0.5)
        assert high - low == pytest.approx(2 * 1.96 * right.std() / number**0.5, rel=0.1)
    assert over_galaxies(np.ones(9)) == [1, 1]
    assert over_galaxies(np.ones(1)) is None


def test_the_interval_over_runs_is_students() -> None:
    assert student(np.array([0.1, 0.3])) == pytest.approx([0.2 - 12.706 * 0.1, 0.2 + 12.706 * 0.1], abs=1e-3)


def test_a_mean_comes_with_its_interval_where_there_is_one() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    found = mean_with_interval(values)
    assert found["mean"] == pytest.approx(values.mean(), abs=1e-4)
    assert found["interval"] == pytest.approx(over_galaxies(values), abs=1e-4)
    assert mean_with_interval(np.ones(1)) == {"galaxies": 1, "mean": 1, "interval": None}
    assert mean_with_interval(np.ones(0)) == {"galaxies": 0, "mean": None, "interval": None}
