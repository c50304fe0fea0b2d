"""Tables of made-up votes."""

import numpy as np
import pandas as pd

from hiwl.core.layout import ID
from hiwl.survey.votes import COLUMNS, TASKS

RULES = {
    "CRS": {"Class1.1": 0.469, "Class7.1": 0.50},
    "IBS": {"Class1.1": 0.469, "Class7.2": 0.50},
    "CSS": {"Class1.1": 0.469, "Class7.3": 0.50},
    "EO": {"Class1.2": 0.430, "Class2.1": 0.602},
    "SPI": {"Class1.2": 0.430, "Class2.2": 0.715, "Class4.1": 0.619},
}


def table(rows: list[dict[int, list[float]]]) -> pd.DataFrame:
    """Votes on one galaxy a row: by task, the shares of its answers; a task left out gets its last answer alone."""
    votes = []
    for row in rows:
        fractions: dict[str, float] = {}
        for number, task in TASKS.items():
            reached = 1.0 if task.reached_by is None else fractions[task.reached_by]
            shares = np.array(row.get(number, [0.0] * (task.answers - 1) + [1.0]), float)
            # Six digits, as published.
            values = (f"{reached * share:.6g}" for share in shares / shares.sum())
            fractions |= zip(task.columns(number), map(float, values), strict=True)
        votes.append(fractions)
    return pd.DataFrame(votes, columns=COLUMNS).assign(**{ID: range(100, 100 + len(votes))})
