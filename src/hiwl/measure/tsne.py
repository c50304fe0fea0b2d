"""The paper's Figure 6 as a measurement: what a node's features make of the classes, and how far these lie apart."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor
from tqdm import tqdm

from hiwl.measure.plots import headless_pyplot
from hiwl.model.classifier import Classifier
from hiwl.model.tree import Floats

SEED = 1  # of t-SNE
PERPLEXITY = 30.0  # scikit-learn's default; less where there are fewer galaxies than three times as many
# By Euclidean distance, which t-SNE goes by, a class counts as torn apart where its features differ much in length,
# even if all of them point the same way; by angle it does not. Both are measured.
METRICS = ("euclidean", "cosine")


def embed(values: npt.NDArray[np.float32]) -> Floats:
    """t-SNE of (n, width) features: (n, 2). Distances in it mean nothing; only which points are neighbours does."""
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
    result: Floats = TSNE(init="pca", perplexity=perplexity, random_state=SEED).fit_transform(values)
    return result


def silhouette(values: npt.NDArray[np.float32], classes: npt.NDArray[np.object_]) -> dict[str, Any]:
    """How far (n, width) features lie from those of the nearest other class, against their own: 1 apart, 0 mixed.

    In the feature space, for each of `METRICS`: `all` is the mean over all galaxies; `pairs` takes two classes at a
    time as if there were no other, so that trees can be compared whose nodes have different classes. Empty where the
    classes are fewer than two, or as many as the galaxies. No interval: every value depends on all galaxies of both
    classes, so that values of single galaxies are not independent.
    """
    from sklearn.metrics import silhouette_score

    names = sorted(set(classes))
    if not 2 <= len(names) < len(classes):
        return {}
    result: dict[str, Any] = {}
    for metric in METRICS:
        pairs = {}
        for pair in itertools.combinations(names, 2):
            either = np.isin(classes, pair)
            if either.sum() > 2:
                of_pair = silhouette_score(values[either], classes[either], metric=metric)
                pairs[" ".join(pair)] = round(float(of_pair), 4)
        result[metric] = {"all": round(float(silhouette_score(values, classes, metric=metric)), 4), "pairs": pairs}
    return result


def embed_nodes(
    classifier: Classifier, images: Tensor, shown: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Coordinates of all galaxies shown (`node`, `split`, `class`, `x`, `y`), and each node's silhouette in test."""
    parts, silhouettes = [], {}
    for name, node in tqdm(classifier.nodes.items(), "t-SNE", unit="node"):
        group = shown[shown["node"] == name]
        if group.empty:
            continue
        values = node.ask(images, group["row"].to_numpy()).features.numpy()
        of_test = (group["split"] == "test").to_numpy()
        silhouettes[name] = silhouette(values[of_test], group["class"].to_numpy(object)[of_test])
        parts.append(group[["node", "split", "class"]].assign(**dict(zip("xy", embed(values).T, strict=True))))
    return pd.concat(parts), silhouettes


def draw(embedded: pd.DataFrame, classes: list[str], silhouettes: dict[str, dict[str, Any]]) -> Any:
    """Every node's embedding in a panel of its own. Gives the figure."""
    figure, panels = headless_pyplot().subplots(
        1, len(silhouettes), figsize=(6 * len(silhouettes), 6), squeeze=False, layout="constrained"
    )
    for panel, (node, values) in zip(panels[0], silhouettes.items(), strict=True):
        here = embedded[embedded["node"] == node]
        for number, name in enumerate(sorted(classes)):  # a class's colour is the same whatever the tree
            for split, look in (("training", {"s": 5, "alpha": 0.3}), ("test", {"s": 9, "alpha": 1.0})):
                points = here[(here["class"] == name) & (here["split"] == split)]
                label = f"{name}, {len(points)} in test" if split == "test" and len(points) else None
                panel.scatter(
                    points["x"], points["y"], color=f"C{number}", label=label, linewidths=0, rasterized=True, **look
                )
        panel.set(xticks=[], yticks=[])
        panel.set_title(f"features of {node}; silhouette of test:\n{in_words(values)}", fontsize=10)
        panel.legend(markerscale=3, loc="best")
    figure.supxlabel("t-SNE, each node's features embedded separately; pale: training, full: test", fontsize=10)
    return figure


def in_words(of_metrics: dict[str, Any]) -> str:
    """A node's silhouettes over all its classes."""
    told = [f"{metric} {found['all']:.3f}" for metric, found in of_metrics.items()]
    return ", ".join(told) or "none, of one class"
