"""Numbers as people read them, and the templates that use them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from hiwl.core.pages import page
from hiwl.studies import paper


def percent(share: Any, digits: int = 2) -> str:
    """A share in per cent; empty where it was not measured."""
    return "" if share is None or pd.isna(share) else f"{100 * share:.{digits}f}"


def signed(share: Any, unit: float = 100, digits: int = 2) -> str:
    """A difference, in per cent or another unit."""
    return "" if share is None or pd.isna(share) else f"{round(unit * share, digits) + 0.0:+.{digits}f}"  # no "-0.00"


def spread(of: Any, with_sign: bool = False, unit: float = 100) -> str:
    """Mean and standard deviation, in per cent or another unit, of ``{"mean", "sd"}`` or of a column of runs."""
    if of is None:
        return ""
    if isinstance(of, pd.Series):
        of = {"mean": of.mean(), "sd": of.std(ddof=1) if len(of) > 1 else None}
    if of["mean"] is None or pd.isna(of["mean"]):
        return ""
    text = signed(of["mean"], unit) if with_sign else f"{unit * of['mean']:.2f}"
    return text if of["sd"] is None or pd.isna(of["sd"]) else f"{text} ± {unit * of['sd']:.2f}"


def between(interval: Any, with_sign: bool = False, unit: float = 100, digits: int = 2) -> str:
    """The ends of an interval, in per cent or another unit."""
    sign = "+" if with_sign else ""
    return "" if not interval else " to ".join(f"{unit * end:{sign}.{digits}f}" for end in interval)


FORMATS: dict[str, Callable[..., str]] = {"percent": percent, "signed": signed, "spread": spread, "between": between}
"""What templates call to write numbers."""


def render(template: str, **values: Any) -> str:
    """A page in Markdown, from the templates beside this file."""
    return page(Path(__file__).with_name(f"{template}.md.jinja"), values | {"paper": paper}, FORMATS)
