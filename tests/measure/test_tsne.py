import numpy as np

from hiwl.measure.tsne import silhouette


def test_silhouettes_are_high_for_separated_classes_and_none_for_mixed_ones() -> None:
    random = np.random.default_rng(1)
    classes = np.repeat(np.array(["A", "B", "C"], object), 40)
    noise = random.normal(0, 1, (120, 8)).astype(np.float32)
    apart = noise + 30 * np.eye(8, dtype=np.float32)[np.repeat([0, 1, 2], 40)]
    found, mixed = silhouette(apart, classes), silhouette(noise, classes)
    for metric in ("euclidean", "cosine"):
        assert 0.8 < found[metric]["all"] < 1
        assert set(found[metric]["pairs"]) == {"A B", "A C", "B C"}
        assert mixed[metric]["all"] < 0.1
    assert silhouette(apart[:40], classes[:40]) == {}
