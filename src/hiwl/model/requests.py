"""Requests to a served model: the forms in which tables of pictures arrive, and what one request may ask for."""

import gc
import os
import time
from typing import Any

import numpy as np
import pandas as pd
import torch

from hiwl.core.errors import HiwlError
from hiwl.model.answer import IMAGE, Model, is_nothing, to_bytes
from hiwl.model.pixels import area
from hiwl.model.tree import ROOT

MOST_ROWS = 100_000
MOST_PIXELS = 2**28
"""Of all pictures of a request together: 16 of the largest, 1,493 of 424 x 424."""
SHARE = 0.5
"""Of the time limit: what a request may need by the server's own measure, so that it can be answered beside others."""


def to_table(given: Any) -> pd.DataFrame:
    """The table of a request, with a column `image`.

    MLflow gives a table for its forms `dataframe_split`, `dataframe_records`, CSV and Parquet, and a dictionary of
    columns or a list for `instances` and `inputs`.

    Raises:
        HiwlError: it has no such column, or columns of several lengths.
    """
    if isinstance(given, pd.DataFrame):
        table = given
    elif isinstance(given, dict):
        columns = {name: _column(values) for name, values in given.items()}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise HiwlError(f"columns of one length are needed; found {', '.join(map(str, lengths.values()))}")
        table = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    else:
        table = pd.DataFrame({IMAGE: pd.Series(_column(given), dtype=object)})
    if IMAGE not in table and list(map(str, table)) == ["0"]:
        table = table.set_axis([IMAGE], axis=1)  # Spark passes one column without its name
    if IMAGE not in table:
        raise HiwlError(f"a column {IMAGE!r} of pictures is needed; none of the {len(table.columns)} is called so")
    return table.reset_index(drop=True)


def _column(values: Any) -> list[Any]:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    cells = list(values) if isinstance(values, list | tuple) else [values]
    # Where nulls are among its cells, MLflow makes each cell of `instances` an array without a dimension.
    return [cell.item() if isinstance(cell, np.ndarray) and cell.ndim == 0 else cell for cell in cells]


class Server:
    """What a scoring server of this model takes in one request."""

    def __init__(self, model: Model, seconds: float) -> None:
        self._seconds = seconds
        gc.freeze()  # or the collector goes through all modules again and again, for a tenth of the time
        self.most = max(1, int(_rate(model) * seconds * SHARE))

    def check(self, table: pd.DataFrame) -> None:
        """Refuse, before any work, what could not be answered in time.

        Raises:
            HiwlError: too many rows, pictures or pixels, and how many are taken.
        """
        if len(table) > MOST_ROWS:
            raise HiwlError(f"{len(table)} rows; a request may hold {MOST_ROWS}")
        pictures = [cell for cell in table[IMAGE] if not is_nothing(cell)]
        if len(pictures) > self.most:
            raise HiwlError(
                f"{len(pictures)} pictures; this server answers about {self.most} in half of its time limit of "
                f"{self._seconds:.0f} s, and takes as many in a request. Send several requests, have the server "
                "started with a longer --timeout, or use `hiwl classify`, which has none"
            )
        pixels = sum(area(to_bytes(cell)) for cell in pictures if isinstance(cell, bytes | str))
        if pixels > MOST_PIXELS:
            raise HiwlError(
                f"pictures of {pixels} pixels in all; a request may hold {MOST_PIXELS}. Send several requests"
            )

    def until(self) -> float:
        """When, of the monotonic clock, nobody waits any more for the answer to a request that begins now."""
        return time.monotonic() + self._seconds


def seconds_of_server() -> float | None:
    """The time limit of the scoring server that this process is, None where it is none."""
    if os.environ.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT") != "true":  # MLflow's word
        return None
    return float(os.environ.get("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT") or 60)


def _rate(model: Model) -> float:
    """Pictures a second, by a try of the root at 32 of noise: by all views, or by two, which is what galaxies need on
    average where one can decide alone (docs/trust.md)."""
    classifier = model.classifier
    can_decide_alone = bool(classifier.sure) and max(classifier.sure.values()) < 1
    side, views = classifier.pack.side, min(classifier.views, 2 if can_decide_alone else 8)
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (32, side, side, 3), np.uint8))
    rows = np.arange(len(noise))
    classifier.nodes[ROOT].ask(noise, rows[:1])  # what is made at the first call
    start = time.perf_counter()
    classifier.nodes[ROOT].ask(noise, rows, range(views))
    nodes = len(classifier.nodes) if classifier.routing == "soft" else 1
    return len(noise) / (time.perf_counter() - start) / nodes
