"""The paper's Figure 6 as a measurement: what a node's features make of the classes, and how far these lie apart."""

import itertools
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from hiwl.augment import centre
from hiwl.classifier import Classifier, Node
from hiwl.figures import headless_pyplot
from hiwl.hierarchy import Floats, Ints

SEED = 1  # of t-SNE
PERPLEXITY = 30.0  # scikit-learn's default; less where there are fewer galaxies than three times as many
# By Euclidean distance, which t-SNE goes by, a class counts as torn apart where its features differ much in length,
# even if all of them point the same way; by angle it does not. Both are measured.
METRICS = ("euclidean", "cosine")
BATCH = 64


def features(node: Node, images: Tensor, rows: Ints) -> npt.NDArray[np.float32]:
    """What the node's last linear layer takes in, (len(rows), width), of packed uint8 `images` at `rows`."""
    taken: list[Tensor] = []

    def take(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        taken[:] = inputs  # every such layer overwrites; the last one that runs stands

    parts = []
    layers = [layer for layer in node.model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(take) for layer in layers]
    try:
        with torch.inference_mode():
            for part in torch.tensor(rows).split(BATCH):
                node.model.eval()(centre(images[part].to(node.device), node.input, node.normalise))
                # Where the last layer is a convolution (SqueezeNet), its answer is averaged over the picture.
                parts.append(taken[0].float().mean((2, 3)) if taken[0].ndim == 4 else taken[0].float())
    finally:
        for hook in hooks:
            hook.remove()
    result: npt.NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return result


def embed(values: npt.NDArray[np.float32]) -> Floats:
    """t-SNE of (n, width) features: (n, 2). Distances in it mean nothing; only who lies beside whom does."""
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
    result: Floats = TSNE(init="pca", perplexity=perplexity, random_state=SEED).fit_transform(values)
    return result


def silhouette(values: npt.NDArray[np.float32], classes: npt.NDArray[np.object_]) -> dict[str, Any]:
    """How far (n, width) features lie from those of the nearest other class, against their own: 1 apart, 0 mixed.

    In the feature space, for each of `METRICS`: `all` is the mean over all galaxies; `pairs` takes two classes at a
    time as if there were no other, so that trees can be compared whose nodes have different classes. Empty where the
    classes are fewer than two, or as many as the galaxies. No interval: every value hangs on all galaxies of both
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
    for name, node in classifier.nodes.items():
        group = shown[shown["node"] == name]
        if group.empty:
            continue
        values = features(node, images, group["row"].to_numpy())
        of_test = (group["split"] == "test").to_numpy()
        silhouettes[name] = silhouette(values[of_test], group["class"].to_numpy(object)[of_test])
        parts.append(group[["node", "split", "class"]].assign(**dict(zip("xy", embed(values).T, strict=True))))
    return pd.concat(parts), silhouettes


def draw(
    embedded: pd.DataFrame, classes: list[str], silhouettes: dict[str, dict[str, Any]], file: Path | BinaryIO
) -> None:
    """Every node's embedding in a panel of its own."""
    pyplot = headless_pyplot()
    figure, panels = pyplot.subplots(
        1, len(silhouettes), figsize=(6 * len(silhouettes), 6), squeeze=False, layout="constrained"
    )
    for panel, (node, values) in zip(panels[0], silhouettes.items(), strict=True):
        here = embedded[embedded["node"] == node]
        for number, name in enumerate(sorted(classes)):  # a class's colour is the same whatever the tree
            for split, look in (("training", {"s": 5, "alpha": 0.3}), ("test", {"s": 9, "alpha": 1.0})):
                points = here[(here["class"] == name) & (here["split"] == split)]
                label = f"{name}, {len(points)} in test" if split == "test" and len(points) else None
                panel.scatter(points["x"], points["y"], color=f"C{number}", label=label, linewidths=0, **look)
        panel.set(xticks=[], yticks=[])
        panel.set_title(f"features of {node}; silhouette of test:\n{in_words(values)}", fontsize=10)
        panel.legend(markerscale=3, loc="best")
    figure.supxlabel("t-SNE, each node's features embedded for themselves; pale: training, full: test", fontsize=10)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def in_words(of_metrics: dict[str, Any]) -> str:
    """A node's silhouettes over all its classes."""
    told = [f"{metric} {found['all']:.3f}" for metric, found in of_metrics.items()]
    return ", ".join(told) or "of one class, none"
