import numpy as np

from hiwl.measure.interest import Interest


def galaxies() -> tuple[np.ndarray, np.ndarray]:
    """Two hundred alike, and twenty of another kind, ten of which are alone."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(220, 8)).astype(np.float32)
    features[200:] += 6 * np.eye(8, dtype=np.float32)[0]
    return features, np.r_[np.full(210, 0.1), np.full(10, 0.4)] + rng.uniform(0, 0.01, 220)


def test_first_those_far_from_their_neighbours_then_those_like_the_interesting_ones() -> None:
    features, apart = galaxies()
    interest = Interest(features, apart)
    first = interest.next()
    assert set(first) == set(range(210, 220))
    interest.learn({int(row): 5.0 for row in first} | {0: 1.0, 1: 1.0})
    second = interest.next()
    assert len(set(second) & set(range(200, 210))) >= 8
    assert not set(second) & {*first.tolist(), 0, 1}


def test_answers_change_what_is_expected_of_the_like_and_little_else() -> None:
    features, apart = galaxies()
    interest = Interest(features, apart)
    before = interest.mean.copy()
    interest.learn(dict.fromkeys(range(210, 220), 1.0))
    change = np.abs(interest.mean - before)
    assert (interest.mean[200:210] < before[200:210]).all()
    assert change[:200].mean() < change[200:210].mean() / 3
    interest.learn({})
    assert (interest.mean == before).all()
    interest.learn(dict.fromkeys(range(218), 1.0))
    assert sorted(interest.next(5)) == [218, 219]
