"""`hiwl classify PATH... -o answers.parquet`: one's own pictures, answered into a table.

A run that was killed goes on where it was. A picture that cannot be read is a row that says so.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hiwl.core.files import replacing
from hiwl.core.registry import weights_folder
from hiwl.model.answer import Model
from hiwl.verbs.parts import given_as_arrow, inputs_of, parts_of
from hiwl.verbs.scales import Scales
from hiwl.verbs.tables import writer_of


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
    inputs, scales = inputs_of(paths, out), Scales(how.scale, how.arcsec, how.radius)
    scales.check(inputs)
    folder = weights_folder(how.weights)
    with parts_of(out, inputs, folder, how._asdict()) as parts:
        start = time.perf_counter()
        model = Model.load(folder)

        def answer(table: pd.DataFrame, each: Callable[[int], object]) -> pa.Table:
            return _as_arrow(model.answer(table, how.alpha, scales.of(table), each=each), model.columns)

        fresh = parts.work(answer, "classifying")
        seconds = time.perf_counter() - start
        with replacing(out) as beside:
            write(parts.files, beside)
        print(_summary(parts.files, out, fresh, seconds))


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
