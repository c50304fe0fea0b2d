"""`hiwl classify PATH... -o answers.parquet`: one's own pictures, answered into a table.

What is done is kept beside the output (``.<name>.parts``) until all is: a run that was killed goes on where it was when
it is started again, to the same bytes. A picture that cannot be read is a row that says so.
"""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

import hiwl
from hiwl.core.errors import HiwlError
from hiwl.core.files import alone, digest, replacing, write_json
from hiwl.core.registry import weights_folder
from hiwl.model.answer import MOST_SCALE, Model, is_nothing
from hiwl.model.classifier import SUMS
from hiwl.survey.inputs import Input, find
from hiwl.verbs.tables import writer_of

PART = 1024  # rows
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
    inputs = find(paths)
    if out.resolve() in {Path(path).resolve() for path in paths}:
        raise HiwlError(f"{out}: is among the inputs; name another output")
    if not sum(map(len, inputs)):
        raise HiwlError("no picture was given; there is nothing to classify")
    if how.radius is not None and not any(how.radius in one.columns for one in inputs):
        columns = dict.fromkeys(name for one in inputs for name in one.columns)
        raise HiwlError(f"--radius {how.radius}: there is {', '.join(columns)}")
    folder = weights_folder(how.weights)
    parts = out.with_name(f".{out.name}.parts")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Not beside the output, where it would stay.
    lock = Path(tempfile.gettempdir(), f"hiwl-{digest(str(out.resolve()))[:16]}.lock")
    with alone(lock, f"classifies into {out}"):
        done = _begun(parts, _known_by(folder, inputs, how))
        start = time.perf_counter()
        fresh = _classify(Model.load(folder), inputs, how, parts, done)
        seconds = time.perf_counter() - start
        files = sorted(parts.glob("*.parquet"))
        with replacing(out) as beside:
            write(files, beside)
        print(_summary(files, out, fresh, seconds))
        shutil.rmtree(parts)


def _known_by(folder: Path, inputs: list[Input], how: How) -> dict[str, Any]:
    options = how._asdict() | {"weights": digest((folder / SUMS).read_text())[:16], "hiwl": hiwl.__version__}
    return options | {"inputs": digest([one.names for one in inputs])[:16], "rows": sum(map(len, inputs))}


def _begun(parts: Path, known_by: dict[str, Any]) -> int:
    """How many parts of this run are there; it begins if none are."""
    said = parts / "run.json"
    is_begun = (parts / "000000.parquet").exists()
    if is_begun and (before := json.loads(said.read_text())) != known_by:
        differing = [
            f"{name} {before.get(name)}, now {value}" for name, value in known_by.items() if before.get(name) != value
        ]
        raise HiwlError(
            f"{parts} holds answers of another run ({'; '.join(differing)}). Run that one again to finish it, name "
            "another output, or remove the folder"
        )
    parts.mkdir(exist_ok=True)
    write_json(said, known_by)
    done = 0
    while (parts / f"{done:06}.parquet").exists():
        done += 1
    return done


def _classify(model: Model, inputs: list[Input], how: How, parts: Path, done: int) -> int:
    """Answer what is not, a part at a time; give how many pictures that were."""
    total = sum(map(len, inputs))
    fresh = 0
    with tqdm(
        total=total, initial=min(done * PART, total), unit="image", desc="classifying", smoothing=0.05
    ) as progress:
        for number, table in enumerate(_tables(inputs, done * PART), done):
            answers = model.answer(table, how.alpha, _scales(table, how), each=progress.update)
            with replacing(parts / f"{number:06}.parquet") as beside:
                pq.write_table(_as_arrow(answers, model.columns), beside)
            fresh += len(answers)
    return fresh


def _tables(inputs: list[Input], start: int) -> Iterator[pd.DataFrame]:
    """Rows of all inputs from `start` on, `PART` at a time, whatever the inputs' sizes."""
    held: list[pd.DataFrame] = []
    for one in inputs:
        if start >= len(one):
            start -= len(one)
            continue
        for table in one.tables(start, PART):
            held.append(table)
            while sum(map(len, held)) >= PART:
                whole = pd.concat(held, ignore_index=True)
                yield whole[:PART]
                held = [whole[PART:]]
        start = 0
    if rest := [table for table in held if len(table)]:
        yield pd.concat(rest, ignore_index=True)


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
        str(name): pa.array(answers[name].tolist(), kinds[columns[name]]) if name in columns else _given(answers[name])
        for name in answers
    }
    return pa.table(arrays)


def _given(column: pd.Series) -> pa.Array:
    """A column as it was given; as text where its cells are of several kinds, or no UTF-8."""
    try:
        return pa.array(column)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        cells = [None if is_nothing(cell) else str(cell) for cell in column.tolist()]
        return pa.array([cell and cell.encode(errors="backslashreplace").decode() for cell in cells], pa.string())


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
