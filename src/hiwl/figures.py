"""matplotlib for machines without a screen."""

from typing import Any


def headless_pyplot() -> Any:
    """matplotlib's pyplot, drawing into files only; imported here, since that takes a second."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
