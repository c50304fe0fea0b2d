"""How well features bring like to like: every galaxy's neighbours by cosine distance, judged by their classes."""

import numpy as np

from hiwl.model.components import Features, directions
from hiwl.model.tree import Floats, Ints

MOST = 5000  # galaxies, each of which is compared with every other


def retrieval(features: Features, labels: Ints) -> dict[str, float]:
    """Of (n, width) features: means over galaxies, each asked for those like it among the others.

    `precision_at_1` and `r_precision`, of the nearest and of the R nearest, R being the number of the others of its
    class; `map_at_r`, the mean average precision among these (Musgrave et al. 2020), and `map`, among all; the
    `silhouette` of the classes. Of more than 5,000 galaxies, 5,000 drawn by chance. A class of one is left out.
    """
    from sklearn.metrics import silhouette_score

    chosen = np.random.default_rng(1).permutation(len(labels))[:MOST]
    numbers = np.bincount(labels[chosen])
    chosen = chosen[numbers[labels[chosen]] > 1]
    if len(set(labels[chosen].tolist())) < 2:
        return {}
    labels, at = labels[chosen], directions(features[chosen]).astype(np.float64)
    found = np.array([_of_one(at, labels, row) for row in range(len(labels))]).mean(axis=0)
    names = ("precision_at_1", "r_precision", "map_at_r", "map")
    apart = np.maximum(1 - at @ at.T, 0)
    np.fill_diagonal(apart, 0)
    return dict(zip(names, found.tolist(), strict=True)) | {
        "silhouette": float(silhouette_score(apart, labels, metric="precomputed"))
    }


def _of_one(at: Floats, labels: Ints, row: int) -> list[float]:
    order = np.argsort(-(at @ at[row]), kind="stable")
    hits = labels[order[order != row]] == labels[row]
    like = int(hits.sum())
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    at_hits = precision * hits
    return [float(hits[0]), hits[:like].mean(), at_hits[:like].sum() / like, at_hits.sum() / like]
