from pathlib import Path

import numpy as np
import pytest
from crepes import ConformalClassifier
from hypothesis import given
from hypothesis import strategies as st

from hiwl.model.calibration import fit_sure
from hiwl.model.trust import Trust

CLASSES = ["a", "b", "c"]
RNG = np.random.default_rng(0)


def drawn(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a classifier that is often right, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, number)
    logits = rng.normal(size=(number, 3)) + 1.5 * np.eye(3)[labels]
    shares = np.exp(logits)
    return shares / shares.sum(axis=1, keepdims=True), labels


@given(st.integers(0, 1000), st.sampled_from([0.01, 0.05, 0.1, 0.3]))
def test_prediction_sets_are_those_of_crepes_with_the_likeliest_class_added(seed: int, alpha: float) -> None:
    shares, labels = drawn(120, seed)
    asked, _ = drawn(30, seed + 1)
    theirs = np.zeros(asked.shape, bool)
    for number in range(3):
        of_class = ConformalClassifier().fit(1 - shares[labels == number, number])
        values = of_class.predict_p((1 - asked[:, number])[:, None], smoothing=False)[:, 0]
        theirs[:, number] = values > alpha
    theirs[np.arange(30), asked.argmax(axis=1)] = True
    ours = Trust.of_answers(shares, labels, CLASSES).sets(asked, alpha)
    # A value that equals alpha is left to rounding.
    assert (ours == theirs).mean() > 0.98


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_each_class_is_covered_as_often_as_was_asked(alpha: float) -> None:
    held = np.zeros(3)
    for seed in range(40):
        trust = Trust.of_answers(*drawn(300, seed), CLASSES)
        shares, labels = drawn(300, seed + 1000)
        inside = trust.sets(shares, alpha)[np.arange(300), labels]
        held += [inside[labels == number].mean() / 40 for number in range(3)]
    assert (held > 1 - alpha - 0.015).all()


def test_a_class_of_few_galaxies_is_in_every_set_at_levels_that_they_cannot_tell() -> None:
    shares, labels = drawn(200, 3)
    labels = np.where(np.arange(200) < 10, 2, np.minimum(labels, 1))
    trust = Trust.of_answers(shares, labels, CLASSES)
    asked = np.array([[0.99, 0.009, 0.001]])
    assert trust.sets(asked, 1 / 11 - 1e-6)[0, 2]
    assert not trust.sets(asked, 1 / 11 + 1e-6)[0, 2]


def test_distance_is_one_at_what_one_in_a_hundred_galaxies_exceeds_and_is_kept_with_the_model(tmp_path: Path) -> None:
    features = (RNG.normal(size=(3000, 16)) + 5 * np.eye(16)[RNG.integers(0, 3, 3000)]).astype(np.float32)
    shares, labels = drawn(3000, 1)
    pictures = RNG.integers(0, 255, (3000, 8, 8, 3), np.uint8)
    trust = Trust.fit(shares, labels, features, pictures, CLASSES)
    trust.save(tmp_path)
    read = Trust.load(tmp_path, CLASSES)
    assert read is not None
    more = (RNG.normal(size=(3000, 16)) + 5 * np.eye(16)[RNG.integers(0, 3, 3000)]).astype(np.float32)
    assert (read.distances(more) > 1).mean() == pytest.approx(0.01, abs=0.008)
    far = (RNG.normal(size=(100, 16)) - 5 * np.eye(16)[8]).astype(np.float32)
    assert (read.distances(far) > 1).mean() > 0.9
    assert read.sets(shares, 0.05).tolist() == trust.sets(shares, 0.05).tolist()
    assert Trust.load(tmp_path / "elsewhere", CLASSES) is None


@given(st.integers(0, 100), st.sampled_from([0.0, 0.001, 0.01, 0.1]))
def test_the_first_view_decides_alone_where_no_more_answers_change_than_may(seed: int, may_differ: float) -> None:
    first, _ = drawn(500, seed)
    every = first + np.random.default_rng(seed).normal(0, 0.1, first.shape)
    sure = fit_sure(first, every, may_differ)
    alone = first.max(axis=1) >= sure
    assert (first.argmax(axis=1) != every.argmax(axis=1))[alone].sum() <= may_differ * 500
    if not may_differ:
        assert not alone.any()
