"""The paper's Figure 7 as a measurement: where the models look, by Grad-CAM, and how much of that is the galaxy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.measure.intervals import mean_with_interval
from hiwl.measure.plots import headless_pyplot
from hiwl.model.classifier import Classifier
from hiwl.model.pixels import Pixels
from hiwl.model.tree import Floats

BATCH = 64
ABOVE_SKY = 5.0  # 3 takes in ragged sky around the galaxies, 10 cuts their outskirts off
# EfficientNet-B1 at the paper's 240 pixels ends in maps of 8 x 8. At 64 pixels the last map is one of 2 x 2, which
# cannot tell the centre from the rest, so the last layer with a map of at least so many cells a side is measured too.
FINE = 7
LAYERS = ("last", "fine")

Masks = npt.NDArray[np.bool_]


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
        raise HiwlError(f"{type(model).__name__} has no layer with a map of the picture for Grad-CAM")
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


def summarise(attention: pd.DataFrame, classes: list[str]) -> dict[str, Any]:
    """Of every layer, over all galaxies and over each class: `share` on the galaxy, and a `uniform` map's.

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
            }
            for name, group in groups.items()
        }
    return result


def attend(classifier: Classifier, images: Tensor, test: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """For :func:`summarise`; and the cells a side of each layer's maps, the same in all nodes."""
    parts = []
    sides: dict[str, int] = {}
    for name, node in classifier.nodes.items():
        galaxies = test[test["node"] == name]
        labels = classifier.tree.labels(name)
        for start in tqdm(range(0, len(galaxies), BATCH), f"Grad-CAM of {name}", unit="batch"):
            group = galaxies.iloc[start : start + BATCH]
            rows = group["row"].to_numpy()
            targets = torch.tensor([labels[of_class] for of_class in group["class"]], device=node.device)
            seen = node.preprocess.centre(images[torch.tensor(rows)])
            maps, sides = grad_cam(node.model, node.preprocess(seen.to(node.device)), targets)
            masks = np.stack([galaxy_mask(picture) for picture in seen.numpy()])
            shares = {layer: share_on(maps[layer].cpu().double().numpy(), masks) for layer in LAYERS}
            parts.append(group[["class"]].assign(uniform=masks.mean((1, 2)), **shares))
    return pd.concat(parts), sides


def draw(classifier: Classifier, images: Tensor, test: pd.DataFrame, sides: dict[str, int]) -> Any:
    """Of each class the test galaxy of median probability of its class. Gives the figure."""
    layers = [layer for layer in LAYERS if layer == "last" or sides[layer] != sides["last"]]
    classes = [name for name in classifier.tree.classes if (test["class"] == name).any()]
    figure, panels = headless_pyplot().subplots(
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
        seen = node.preprocess.centre(images[[int(galaxy["row"])]])
        target = torch.tensor([classifier.tree.labels(galaxy["node"])[name]], device=node.device)
        maps, _ = grad_cam(node.model, node.preprocess(seen.to(node.device)), target)
        picture = seen[0].numpy()
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
    return figure


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
