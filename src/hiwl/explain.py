"""`hiwl explain`: the paper's Figures 6 and 7 of the chosen models as measurements, and a sheet of their errors.

Run after `evaluate`. Writes to ``explained``:

- ``tsne.png``, ``tsne.csv.gz``: penultimate features embedded by t-SNE, for each node its own.
- ``gradcam.png``: where the models look, one test galaxy of each class.
- ``errors.png`` (then ``errors-2.png``, ...), ``errors.csv``: every wrongly answered test galaxy.
- ``reading``: sheets of errors among right answers, for a reader to judge without knowing which are which
  (`hiwl.reading`).
- ``explained.json``: silhouettes, shares of the maps' weight on the galaxy, counts, and whose they are.

Of a real survey the numbers and coordinates go into ``results`` too, beside the choice's record; pictures never do.
Intervals are 95 %, by bootstrap over galaxies.
"""

import itertools
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from hiwl import reading
from hiwl.augment import centre
from hiwl.classifier import Classifier, Node, device_of
from hiwl.comparison import over_galaxies
from hiwl.dataset import read_images, read_table
from hiwl.errors import HiwlError
from hiwl.evaluate import read_evaluated
from hiwl.figures import headless_pyplot
from hiwl.files import replacing, replacing_folder, sha256, write_json
from hiwl.hierarchy import Floats, Ints, Tree
from hiwl.images import Pixels
from hiwl.layout import (
    CHOICE,
    CHOICE_FILE,
    EXPLAINED,
    NODES,
    PACKED_INDEX,
    RAW_MANIFEST,
    REPORTS,
    SPLITS_TABLE,
)
from hiwl.memory import keep_freed_memory
from hiwl.record import Record, results_folder, stem
from hiwl.settings import settings
from hiwl.votes import ID

SEED = 1  # of the training galaxies drawn and of t-SNE
TRAINING = 5000  # training galaxies in Figure 6, as in the paper
PERPLEXITY = 30.0  # scikit-learn's default; less where there are fewer galaxies than three times as many
# By Euclidean distance, which t-SNE goes by, a class counts as torn apart where its features differ much in length,
# even if all of them point the same way; by angle it does not. Both are measured.
METRICS = ("euclidean", "cosine")
BATCH = 64
ABOVE_SKY = 5.0  # 3 takes in ragged sky around the galaxies, 10 cuts their outskirts off
# EfficientNet-B1 at the paper's 240 pixels ends in maps of 8 x 8. At 64 pixels the last map is one of 2 x 2, which
# cannot tell the centre from the rest, so the last layer with a map of at least so many cells a side is measured too.
FINE = 7
LAYERS = ("last", "fine")
SHEET = 200  # errors a sheet
COLUMNS = 20

Masks = npt.NDArray[np.bool_]


def main() -> None:
    """Measure and draw.

    Raises:
        HiwlError: models, reports and data do not belong together.
    """
    keep_freed_memory()
    classifier = Classifier(CHOICE_FILE, lambda node, file: NODES / node / file, device_of(settings().accelerator))
    tree = classifier.tree
    choice = read_evaluated()
    _check_data(choice)
    answers = pd.read_csv(REPORTS / "answers.csv.gz").drop(columns="class")
    images, table = read_images(), read_table()
    table["node"] = table["class"].map(nodes_above(tree))
    test = table[table["split"] == "test"].merge(answers, on=ID, validate="one_to_one")
    training = table[table["split"] == "training"]
    training = training.sample(min(TRAINING, len(training)), random_state=SEED)
    shown = pd.concat([training, test[training.columns]]).sort_values(ID, ignore_index=True)

    embedded, silhouettes = _embed_nodes(classifier, images, shown)
    attention, sides = _attend(classifier, images, test)
    seen = summarise_attention(attention, tree.classes)
    wrong = errors(test)
    numbers = {
        "key": choice.key,
        **choice.columns,
        "classes": tree.classes,
        "nodes": nodes_above(tree),
        "galaxies": {"training": len(training), "test": len(test), "wrong": len(wrong)},
        "explain_seed": SEED,
        "silhouette": silhouettes,
        "gradcam": {"above_sky": ABOVE_SKY, "map_sides": sides} | seen,
    }
    with replacing_folder(EXPLAINED) as beside:
        _draw_embedding(embedded, tree.classes, silhouettes, beside / "tsne.png")
        _draw_attention(classifier, images, test, sides, beside / "gradcam.png")
        _draw_errors(images, wrong, len(test), beside)
        asked = reading.questions(test, tree.classes)
        (beside / "reading").mkdir()
        reading.draw(asked, classifier.crop, beside / "reading")
        asked.to_csv(beside / "reading/reading.csv", index=False)
        wrong.drop(columns="row").to_csv(beside / "errors.csv", index=False, float_format="%.4f")
        embedded.assign(**{"class": embedded["class"].map(tree.classes.index)}).to_csv(
            beside / "tsne.csv.gz", index=False, float_format="%.2f", compression={"method": "gzip", "mtime": 0}
        )
        write_json(beside / "explained.json", numbers)
    _keep_in_results(choice, numbers)
    print(f"explain: {EXPLAINED}: {len(wrong)} errors in {len(test)} test galaxies")
    for node, values in silhouettes.items():
        print(f"explain: silhouette of {node}: {_in_words(values)}")
    for layer in LAYERS:
        share, uniform = (_spread(seen[layer]["all"][name]) for name in ("share", "uniform"))
        print(f"explain: {layer} layer: {share} of the maps' weight on the galaxy, {uniform} of a uniform map's")


def nodes_above(tree: Tree) -> dict[str, str]:
    """For every class the deepest node above it: the one that has it as a child, whose features and maps are taken."""
    parents = {child: node for node, children in tree.nodes.items() for child in children}
    return {name: parents[name] for name in tree.classes}


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
            for inputs in _batches(node, images, rows):
                node.model.eval()(inputs)
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

    In the feature space, for each of `METRICS`: `all` is the mean over all galaxies, `per_class` over those of a class;
    `pairs` takes two classes at a time as if there were no other, so that trees can be compared whose nodes have
    different classes. Empty where the classes are fewer than two, or as many as the galaxies.
    """
    from sklearn.metrics import silhouette_samples

    names = sorted(set(classes))
    if not 2 <= len(names) < len(classes):
        return {}
    result = {}
    for metric in METRICS:
        samples = silhouette_samples(values, classes, metric=metric)
        pairs = {}
        for pair in itertools.combinations(names, 2):
            either = np.isin(classes, pair)
            if either.sum() > 2:
                of_pair = silhouette_samples(values[either], classes[either], metric=metric)
                pairs[" ".join(pair)] = mean_with_interval(of_pair)
        result[metric] = {
            "all": mean_with_interval(samples),
            "per_class": {name: mean_with_interval(samples[classes == name]) for name in names},
            "pairs": pairs,
        }
    return result


def mean_with_interval(values: Floats) -> dict[str, Any]:
    """Mean of one value a galaxy (None of none), its 95 % bootstrap interval (None of fewer than two), and how many."""
    result = {
        "galaxies": len(values),
        "mean": round(float(values.mean()), 4) if len(values) else None,
        "interval": None,
    }
    if len(values) < 2:
        return result
    return result | {"interval": [round(end, 4) for end in over_galaxies(values)]}


def galaxy_mask(picture: Pixels) -> Masks:
    """Which pixels of (side, side, 3) are the galaxy: (side, side).

    Those connected (by edges) to one of the central four and brighter than sky + `ABOVE_SKY` x noise. Brightness is the
    mean of the bands; sky and noise are the median and 1.4826 x the median absolute deviation of the outermost ring of
    pixels, the noise at least one grey level. What touches the galaxy in the picture counts as the galaxy.
    """
    from scipy.ndimage import label

    light = picture.mean(axis=2)
    ring = np.concatenate([light[0], light[-1], light[1:-1, 0], light[1:-1, -1]])
    sky = np.median(ring)
    noise = max(1.4826 * float(np.median(np.abs(ring - sky))), 1.0)
    regions, _ = label(light > sky + ABOVE_SKY * noise)
    middle = slice(len(light) // 2 - 1, len(light) // 2 + 1)
    central = regions[middle, middle]
    result: Masks = np.isin(regions, central[central > 0])
    return result


def grad_cam(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Grad-CAM (Selvaraju et al. 2017) of (n, 3, side, side) inputs for the logits `targets` (n,).

    Gives for each of `LAYERS` the maps, (n, side, side), enlarged bilinearly from the cells of the layer, and how many
    cells a side those were. `last` is the last layer with a map of more than one cell, `fine` the last one with a map
    of at least `FINE` x `FINE`, or `last` where there is none. Of a transformer both are the embedding of its patches.
    """
    with _maps_of(model) as seen:
        logits = model.eval()(inputs)
    if not seen:
        raise HiwlError(f"explain: {type(model).__name__} has no layer with a map of the picture for Grad-CAM")
    last = seen[-1]
    fine = next((values for values in reversed(seen) if values.shape[-1] >= FINE), last)
    # In evaluation no picture's logits depend on another's, so that the gradient of the sum is that of each.
    gradients = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), [last, fine])
    maps, sides = {}, {}
    for name, values, gradient in zip(LAYERS, (last, fine), gradients, strict=True):
        cells = relu((gradient.mean((2, 3), keepdim=True) * values).sum(1, keepdim=True)).detach().float()
        maps[name] = interpolate(cells, size=inputs.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        sides[name] = values.shape[-1]
    return maps, sides


def share_on(maps: Floats, masks: Masks) -> Floats:
    """Which share of the weight of (n, side, side) `maps` lies on `masks`: (n,), NaN where a map is zero all over."""
    weight = maps.sum((1, 2))
    result: Floats = np.divide((maps * masks).sum((1, 2)), weight, out=np.full(len(maps), np.nan), where=weight > 0)
    return result


def summarise_attention(attention: pd.DataFrame, classes: list[str]) -> dict[str, Any]:
    """Of every layer, over all galaxies and over each class: `share` on the galaxy, `uniform` map's, their `excess`.

    `attention` has a row a galaxy: `class`, `uniform` (the mask's share of the picture) and a share for each of
    `LAYERS`. Left out and counted are galaxies without a mask, and maps that are zero all over.
    """
    found = attention[attention["uniform"] > 0]
    result: dict[str, Any] = {"no_galaxy_found": len(attention) - len(found)}
    for layer in LAYERS:
        seen = found[found[layer].notna()]
        groups = {"all": seen} | {name: seen[seen["class"] == name] for name in classes}
        result[layer] = {"maps_all_zero": len(found) - len(seen)} | {
            name: {
                "share": mean_with_interval(group[layer].to_numpy()),
                "uniform": mean_with_interval(group["uniform"].to_numpy()),
                "excess": mean_with_interval((group[layer] - group["uniform"]).to_numpy()),
            }
            for name, group in groups.items()
        }
    return result


def errors(test: pd.DataFrame) -> pd.DataFrame:
    """The wrongly answered galaxies, with the answer's `probability`, the most confident first."""
    wrong = test[test["class"] != test["answer"]]
    probability = [galaxy[f"p_{galaxy['answer']}"] for galaxy in wrong.to_dict("records")]
    table = wrong[[ID, "class", "answer", "row"]].assign(probability=np.array(probability, np.float64))
    return table.sort_values(["probability", ID], ascending=[False, True], ignore_index=True)


def _check_data(choice: Record) -> None:
    for path in (SPLITS_TABLE, PACKED_INDEX):
        if sha256(path) != choice.data["sources"][path.name]:
            raise HiwlError(f"{path}: not what {CHOICE} was chosen on; `dvc repro evaluate` makes them agree")
    here, there = json.loads(RAW_MANIFEST.read_text())["survey"], choice.parameters["raw"]["survey"]
    if here != there:
        raise HiwlError(
            f"{RAW_MANIFEST}: holds the survey {here}, {CHOICE} is of {there}: `dvc exp run -S survey={there} raw`"
        )


def _batches(node: Node, images: Tensor, rows: Ints) -> Iterator[Tensor]:
    for part in torch.tensor(rows).split(BATCH):
        yield centre(images[part].to(node.device), node.input, node.normalise)


@contextmanager
def _maps_of(model: nn.Module) -> Iterator[list[Tensor]]:
    """Gather every layer's output that is a square map of more than one cell, in the order in which they run."""
    seen: list[Tensor] = []

    def see(layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] == output.shape[-2] > 1:
            seen.append(output)

    # A dropout or softmax may give the square of who attends to whom, which is no map of the picture.
    layers = [layer for layer in model.modules() if not isinstance(layer, nn.Dropout | nn.Softmax)]
    hooks = [layer.register_forward_hook(see) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _embed_nodes(
    classifier: Classifier, images: Tensor, shown: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Coordinates of all galaxies shown (`node`, `split`, `class`, `x`, `y`), and each node's silhouette in test."""
    parts, silhouettes = [], {}
    for name, node, group in _by_node(classifier, shown):
        values = features(node, images, group["row"].to_numpy())
        of_test = (group["split"] == "test").to_numpy()
        silhouettes[name] = silhouette(values[of_test], group["class"].to_numpy(object)[of_test])
        parts.append(group[["node", "split", "class"]].assign(**dict(zip("xy", embed(values).T, strict=True))))
    return pd.concat(parts), silhouettes


def _attend(classifier: Classifier, images: Tensor, test: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """For `summarise_attention`; and the cells a side of each layer's maps, the same in all nodes."""
    parts = []
    sides: dict[str, int] = {}
    for name, node, galaxies in _by_node(classifier, test):
        labels = classifier.tree.labels(name)
        for start in range(0, len(galaxies), BATCH):
            group = galaxies.iloc[start : start + BATCH]
            rows = group["row"].to_numpy()
            targets = torch.tensor([labels[of_class] for of_class in group["class"]], device=node.device)
            maps, sides = grad_cam(node.model, next(_batches(node, images, rows)), targets)
            masks = np.stack([galaxy_mask(picture) for picture in _seen(images, rows, node.input)])
            shares = {layer: share_on(maps[layer].cpu().double().numpy(), masks) for layer in LAYERS}
            parts.append(group[["class"]].assign(uniform=masks.mean((1, 2)), **shares))
    return pd.concat(parts), sides


def _by_node(classifier: Classifier, table: pd.DataFrame) -> Iterator[tuple[str, Node, pd.DataFrame]]:
    """Each node that stands directly above a class, and its galaxies."""
    for name, node in classifier.nodes.items():
        group = table[table["node"] == name]
        if len(group):
            yield name, node, group


def _seen(images: Tensor, rows: Ints, size: int) -> Pixels:
    """What `centre` takes of the pictures at `rows`: (len(rows), size, size, 3) uint8."""
    start = (images.shape[1] - size) // 2
    result: Pixels = images[torch.tensor(rows)][:, start : start + size, start : start + size].numpy()
    return result


def _draw_embedding(
    embedded: pd.DataFrame, classes: list[str], silhouettes: dict[str, dict[str, Any]], path: Path
) -> None:
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
        panel.set_title(f"features of {node}; silhouette of test:\n{_in_words(values)}", fontsize=10)
        panel.legend(markerscale=3, loc="best")
    figure.supxlabel("t-SNE, each node's features embedded for themselves; pale: training, full: test", fontsize=10)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _draw_attention(
    classifier: Classifier, images: Tensor, test: pd.DataFrame, sides: dict[str, int], path: Path
) -> None:
    """Of each class the test galaxy of median probability of its class."""
    layers = [layer for layer in LAYERS if layer == "last" or sides[layer] != sides["last"]]
    classes = [name for name in classifier.tree.classes if (test["class"] == name).any()]
    pyplot = headless_pyplot()
    figure, panels = pyplot.subplots(
        1 + len(layers),
        len(classes),
        figsize=(2.4 * len(classes), 2.5 * (1 + len(layers))),
        squeeze=False,
        layout="constrained",
    )
    for column, name in zip(panels.T, classes, strict=True):
        of_class = test[test["class"] == name].sort_values(f"p_{name}")
        galaxy = of_class.iloc[(len(of_class) - 1) // 2]
        node = classifier.nodes[galaxy["node"]]
        rows = np.array([galaxy["row"]])
        target = torch.tensor([classifier.tree.labels(galaxy["node"])[name]], device=node.device)
        maps, _ = grad_cam(node.model, next(_batches(node, images, rows)), target)
        picture = _seen(images, rows, node.input)[0]
        mask = galaxy_mask(picture)
        column[0].imshow(picture)
        column[0].set_title(f"{name}, p = {galaxy[f'p_{name}']:.2f}")
        for panel, layer in zip(column[1:], layers, strict=True):
            weight = maps[layer].cpu().double().numpy()
            panel.imshow(picture)
            panel.imshow(weight[0], cmap="plasma", alpha=0.7 * weight[0] / max(weight.max(), 1e-12))
            if mask.any():
                panel.contour(mask, levels=[0.5], colors="white", linewidths=0.8)
            panel.set_title(
                f"{share_on(weight, mask[None])[0]:.0%} of the map on {mask.mean():.0%} of the area", fontsize=8
            )
        for panel in column:
            panel.set(xticks=[], yticks=[])
    for panel, layer in zip(panels[1:, 0], layers, strict=True):
        panel.set_ylabel(f"{layer} layer\n{sides[layer]} x {sides[layer]} cells")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _draw_errors(images: Tensor, wrong: pd.DataFrame, tested: int, folder: Path) -> None:
    pyplot = headless_pyplot()
    height = 1.38  # of a picture of width 1 with its two lines of text
    for start in range(0, max(len(wrong), 1), SHEET):
        part = wrong.iloc[start : start + SHEET]
        lines = max(math.ceil(len(part) / COLUMNS), 1)
        figure, panel = pyplot.subplots(figsize=(COLUMNS, height * lines + 0.5), layout="constrained")
        for place, galaxy in enumerate(part.to_dict("records")):
            left, top = place % COLUMNS, height * (place // COLUMNS)
            panel.imshow(images[galaxy["row"]].numpy(), extent=(left, left + 0.96, top + 0.96, top))
            said = f"{galaxy[ID]}\n{galaxy['class']}, said {galaxy['answer']} {galaxy['probability']:.2f}"
            panel.text(left + 0.48, top + 0.98, said, fontsize=7, ha="center", va="top", linespacing=1.1)
        panel.set(xlim=(0, COLUMNS), ylim=(height * lines, 0))
        panel.set_axis_off()
        shown = f"{start + 1} to {start + len(part)} of {len(wrong)}" if len(part) else "none"
        panel.set_title(f"errors: {shown}, the most confident first; {tested} test galaxies", loc="left")
        number = start // SHEET + 1
        figure.savefig(folder / ("errors.png" if number == 1 else f"errors-{number}.png"), dpi=120)
        pyplot.close(figure)


def _in_words(of_metrics: dict[str, Any]) -> str:
    return (
        ", ".join(f"{metric} {_spread(found['all'])}" for metric, found in of_metrics.items()) or "of one class, none"
    )


def _spread(value: dict[str, Any]) -> str:
    if value["interval"] is None:
        return str(value["mean"])
    low, high = value["interval"]
    return f"{value['mean']:.3f} ({low:.3f} to {high:.3f})"


def _keep_in_results(choice: Record, numbers: dict[str, Any]) -> None:
    """Leave numbers and coordinates beside the choice's record (`hiwl.record.keep_in_results`), of a real survey."""
    folder = results_folder(choice.parameters["raw"])
    if folder is None:
        return
    write_json(folder / f"{stem(choice)}.explained.json", numbers)
    with replacing(folder / f"{stem(choice)}.tsne.csv.gz") as beside:
        beside.write_bytes((EXPLAINED / "tsne.csv.gz").read_bytes())
