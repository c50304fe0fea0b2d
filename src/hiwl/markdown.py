"""Tables in Markdown, and numbers as they stand in them."""

from collections.abc import Sequence


def table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (header, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(header), *lines[1:], ""])


def percent(value: float) -> str:
    """A share in per cent."""
    return f"{100 * value:.2f}"


def between(ends: Sequence[float]) -> str:
    """An interval of shares in per cent."""
    return f"{percent(ends[0])} to {percent(ends[1])}"


def spread(value: dict[str, float | None] | None, signed: bool = False) -> str:
    """Mean and, where there is one, standard deviation of shares, in per cent; empty without a mean."""
    if value is None or value["mean"] is None:
        return ""
    mean = f"{100 * value['mean']:+z.2f}" if signed else percent(value["mean"])
    return mean if value["sd"] is None else f"{mean} ± {100 * value['sd']:.2f}"


def gaps(values: Sequence[float | None], unit: str) -> str:
    """Differences of shares in per cent, of silhouettes as they are."""
    scale, digits = (100, 2) if unit == "share" else (1, 3)
    return ", ".join("" if value is None else f"{scale * value:+z.{digits}f}" for value in values)
