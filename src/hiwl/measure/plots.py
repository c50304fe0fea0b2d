"""Pictures that several commands draw, and the one way to save them."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def headless_pyplot() -> Any:
    """matplotlib's pyplot, drawing into files only; imported here, since that takes a second."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "hiwl"  # the same bytes for the same picture
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, file: Path | io.BytesIO) -> None:
    """Write `figure`: by the file's ending, or as SVG into memory; the same bytes for the same picture."""
    if isinstance(file, io.BytesIO) or file.suffix == ".svg":
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    else:
        figure.savefig(file, dpi=120)
    headless_pyplot().close(figure)


def draw_confusion(counts: Counts, classes: Sequence[str], title: str, axes: Any = None) -> Any:
    """A confusion matrix: (classes, classes) `counts`, rows true, and shares of each row. Gives the figure."""
    if axes is None:
        axes = headless_pyplot().subplots(figsize=(4.6, 4.4), layout="constrained")[1]
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.5 else "black"
        text = f"{counts[row, column]}\n{share:.1%}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="answer", ylabel="label")
    axes.set_title(title, fontsize=10)
    return axes.figure


def draw_history(runs: dict[str, list[dict[str, float]]]) -> Any:
    """Loss and validation accuracy against epochs (paper, Figure 5), of runs by name. Gives the figure."""
    figure, (losses, accuracies) = headless_pyplot().subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for number, (name, history) in enumerate(runs.items()):
        epochs, colour = [row["epoch"] for row in history], f"C{number % 10}"
        losses.plot(epochs, [row["training_loss"] for row in history], color=colour, label=name)
        losses.plot(epochs, [row["validation_loss"] for row in history], color=colour, linestyle="--")
        accuracies.plot(epochs, [row["validation_accuracy"] for row in history], color=colour, marker=".", label=name)
    losses.set(xlabel="epoch", ylabel="loss (dashed: validation)", yscale="log")
    accuracies.set(xlabel="epoch", ylabel="validation accuracy of the node")
    if len(runs) <= 10:
        accuracies.legend(fontsize=8)
    return figure
