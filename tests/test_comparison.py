from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hiwl.comparison import Pair, Run, mcnemar, mean_with_interval, over_galaxies, over_pairs, pairs
from hiwl.study import Cell


def test_mcnemar_counts_only_where_two_runs_differ() -> None:
    first, second = np.array([True] * 8 + [False] * 4), np.array([True] * 6 + [False] * 5 + [True])
    assert mcnemar(first, second) == (2, 1, 1.0)
    assert mcnemar(first, first) == (0, 0, 1.0)
    assert mcnemar(np.array([True] * 10), np.array([False] * 10))[2] == pytest.approx(2 / 2**10)


def test_the_interval_over_galaxies_is_that_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    for number in (200, 5000):
        right = (rng.random(number) < 0.9).astype(float)
        low, high = over_galaxies(right)
        assert (low + high) / 2 == pytest.approx(right.mean(), abs=0.2 * right.std() / number**0.5)
        assert high - low == pytest.approx(2 * 1.96 * right.std() / number**0.5, rel=0.1)
    assert over_galaxies(np.ones(9)) == [1, 1]


def of(number: int, fold: int | None = None) -> list[Pair]:
    record: Any = None
    runs = [Run(Cell("", seed, fold, [], ""), record, None, None) for seed in range(number)]
    return [(run, run) for run in runs]


def test_only_runs_of_one_seed_fold_and_precision_are_paired() -> None:
    def run(seed: int, precision: str, fold: int | None = None) -> Run:
        kept: Any = SimpleNamespace(nodes={"root": SimpleNamespace(environment={"precision": precision})})
        return Run(Cell("", seed, fold, [], ""), kept, None, None)

    base = [run(1, "32-true"), run(2, "32-true"), run(3, "bf16-mixed"), run(4, "32-true", fold=1)]
    mine = [run(1, "32-true"), run(2, "bf16-mixed"), run(3, "bf16-mixed"), run(4, "32-true", fold=2)]
    assert [(one.cell.seed, other.cell.seed) for one, other in pairs(mine, base)] == [(1, 1), (3, 3)]


def test_the_interval_over_pairs_is_students_and_wants_three_of_seeds() -> None:
    assert over_pairs(of(2), [0.1, 0.2]) is None
    assert over_pairs(of(3, fold=4), [0.1, 0.2, 0.3]) is None
    assert over_pairs(of(3), [0.1, 0.2, 0.3]) == pytest.approx(
        [0.2 - 4.303 * 0.1 / 3**0.5, 0.2 + 4.303 * 0.1 / 3**0.5], abs=1e-3
    )


def test_a_mean_comes_with_its_interval_where_there_is_one() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    found = mean_with_interval(values)
    assert found["mean"] == pytest.approx(values.mean(), abs=1e-4)
    assert found["interval"] == pytest.approx(over_galaxies(values), abs=1e-4)
    assert mean_with_interval(np.ones(1)) == {"galaxies": 1, "mean": 1, "interval": None}
    assert mean_with_interval(np.ones(0)) == {"galaxies": 0, "mean": None, "interval": None}
