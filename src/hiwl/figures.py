"""What several pictures share: matplotlib for machines without a screen, and a confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def headless_pyplot() -> Any:
    """matplotlib's pyplot, drawing into files only; imported here, since that takes a second."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw_confusion(axes: Any, counts: npt.NDArray[np.int64], classes: Sequence[str], size: float) -> None:
    """A confusion matrix into `axes`: (classes, classes) `counts`, rows true, and shares of each row."""
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.5 else "black"
        text = f"{counts[row, column]}\n{share:.1%}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="said to be", ylabel="is")
