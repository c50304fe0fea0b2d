"""`hiwl classify PATH... -o answers.parquet`: one's own pictures, answered into a table.

A run that was killed goes on where it was. A picture that cannot be read is a row that says so.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing
from hiwl.core.registry import weights_folder
from hiwl.model.answer import MOST_SCALE, Model
from hiwl.verbs.parts import given_as_arrow, inputs_of, parts_of
from hiwl.verbs.tables import writer_of

R90 = 50.0
"""Petrosian radius (90 %) of every galaxy in Galaxy Zoo 2's pictures, in pixels: they have .02 of it a pixel (Willett
et al. 2013, section 2)."""


class How(NamedTuple):
    """The options."""

    weights: str
    alpha: float
    scale: float
    arcsec: float | None
    radius: str | None


def main(paths: list[str], output: str, **options: Any) -> None:
    """Classify what `paths` name into the table `output`.

    Raises:
        HiwlError: an input or option is not usable, or parts of another run lie beside the output.
    """
    how, out = How(**options), Path(output)
    write = writer_of(out)
    if (how.arcsec is None) != (how.radius is None):
        raise HiwlError(
            "--arcsec and --radius belong together: arcseconds a pixel, and the column of radii in arcseconds"
        )
    inputs = inputs_of(paths, out)
    if how.radius is not None and not any(how.radius in one.columns for one in inputs):
        columns = dict.fromkeys(name for one in inputs for name in one.columns)
        raise HiwlError(f"--radius {how.radius}: there is {', '.join(columns)}")
    folder = weights_folder(how.weights)
    with parts_of(out, inputs, folder, how._asdict()) as parts:
        start = time.perf_counter()
        model = Model.load(folder)

        def answer(table: pd.DataFrame, each: Callable[[int], object]) -> pa.Table:
            return _as_arrow(model.answer(table, how.alpha, _scales(table, how), each=each), model.columns)

        fresh = parts.work(answer, "classifying")
        seconds = time.perf_counter() - start
        with replacing(out) as beside:
            write(parts.files, beside)
        print(_summary(parts.files, out, fresh, seconds))


def _scales(table: pd.DataFrame, how: How) -> Any:
    if how.arcsec is None:
        return how.scale
    if how.radius not in table:
        return how.scale
    radii = pd.to_numeric(table[how.radius], errors="coerce").to_numpy(float, na_value=np.nan)
    scales = R90 * how.arcsec / np.where(radii > 0, radii, np.nan)
    is_sensible = (scales >= 1 / MOST_SCALE) & (scales <= MOST_SCALE)
    return np.where(is_sensible, scales, how.scale)


def _as_arrow(answers: pd.DataFrame, columns: dict[str, type]) -> pa.Table:
    kinds = {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
    arrays = {
        str(name): pa.array(answers[name].tolist(), kinds[columns[name]])
        if name in columns
        else given_as_arrow(answers[name])
        for name in answers
    }
    return pa.table(arrays)


def _summary(files: list[Path], out: Path, fresh: int, seconds: float) -> str:
    columns = ["answer", "error", *(["unlike"] if files and "unlike" in pq.read_schema(files[0]).names else [])]
    seen = (
        pd.concat([pq.read_table(file, columns=columns).to_pandas() for file in files])
        if files
        else pd.DataFrame(columns=columns)
    )
    counts = ", ".join(f"{name} {number:,}" for name, number in seen["answer"].value_counts().items())
    speed = f"{fresh / seconds:,.0f} images/s" if fresh and not math.isclose(seconds, 0) else "all were there"
    told = [f"classify: {out}: {len(seen):,} images ({speed}): {counts or 'no answer'}"]
    if "unlike" in seen and (unlike := int(seen["unlike"].fillna(False).sum())):
        told.append(f"  unlike anything in training: {unlike:,} (`unlike`)")
    if errors := int(seen["error"].notna().sum()):
        told.append(f"  not answered: {errors:,} (`error` says why), such as: {seen['error'].dropna().iloc[0]}")
    return "\n".join(told)
