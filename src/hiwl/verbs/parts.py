"""Long work on many pictures, a part at a time.

What is done is kept beside the output (``.<name>.parts``) until all is: a run that was killed goes on where it was when
it is started again, to the same bytes.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

import hiwl
from hiwl.core.errors import HiwlError
from hiwl.core.files import alone, digest, make_folder_of, replacing, write_json
from hiwl.core.sums import digest_of_sums
from hiwl.model.answer import is_nothing
from hiwl.survey.inputs import Input, find

PART = 1024  # rows
Work = Callable[[pd.DataFrame, Callable[[int], object]], pa.Table]
"""From a table of pictures to what is kept of them; it tells its second argument how many rows more are done."""


class Parts(NamedTuple):
    """A run's parts, some of which may be done."""

    folder: Path
    inputs: list[Input]
    done: int
    """How many, when the run was started."""

    @property
    def files(self) -> list[Path]:
        """Those that are done, in their order."""
        return sorted(self.folder.glob("*.parquet"))

    def work(self, work: Work, doing: str) -> int:
        """Do what is not done; give of how many pictures that was."""
        total, fresh = sum(map(len, self.inputs)), 0
        known = min(self.done * PART, total)
        with tqdm(total=total, initial=known, unit="image", desc=doing, smoothing=0.05) as progress:
            for number, table in enumerate(_tables(self.inputs, self.done * PART), self.done):
                result = work(table, progress.update)
                with replacing(self.folder / f"{number:06}.parquet") as beside:
                    pq.write_table(result, beside)
                fresh += len(table)
        return fresh


def inputs_of(paths: list[str], out: Path) -> list[Input]:
    """What `paths` name.

    Raises:
        HiwlError: nothing, or the output among it.
    """
    inputs = find(paths)
    if out.resolve() in {Path(path).resolve() for path in paths}:
        raise HiwlError(f"{out}: is among the inputs; name another output")
    if not sum(map(len, inputs)):
        raise HiwlError("no picture was given; there is nothing to do")
    return inputs


@contextmanager
def parts_of(out: Path, inputs: list[Input], weights: Path, options: dict[str, Any]) -> Iterator[Parts]:
    """The parts of the run that makes `out`, whose result depends on `options`; they go when the block ends well.

    Raises:
        HiwlError: parts of another run lie there.
    """
    known_by = options | {"weights": digest_of_sums(weights), "hiwl": hiwl.__version__}
    known_by |= {"inputs": digest([one.names for one in inputs])[:16], "rows": sum(map(len, inputs))}
    folder = out.with_name(f".{out.name}.parts")
    make_folder_of(out)
    with only_writer(out):
        yield Parts(folder, inputs, _begun(folder, known_by))
        shutil.rmtree(folder)


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Wait for whichever process of this machine writes `out`, and let none other do so meanwhile."""
    # Not beside the output, where it would stay.
    lock = Path(tempfile.gettempdir(), f"hiwl-{digest(str(out.resolve()))[:16]}.lock")
    with alone(lock, f"writes {out}"):
        yield


def _begun(parts: Path, known_by: dict[str, Any]) -> int:
    """How many parts of this run are there; it begins if none are."""
    said = parts / "run.json"
    is_begun = (parts / "000000.parquet").exists()
    if is_begun and (before := json.loads(said.read_text())) != known_by:
        differing = [
            f"{name} {before.get(name)}, now {value}" for name, value in known_by.items() if before.get(name) != value
        ]
        raise HiwlError(
            f"{parts} holds parts of another run ({'; '.join(differing)}). Run that one again to finish it, name "
            "another output, or remove the folder"
        )
    parts.mkdir(exist_ok=True)
    write_json(said, known_by)
    done = 0
    while (parts / f"{done:06}.parquet").exists():
        done += 1
    return done


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


def given_as_arrow(column: pd.Series) -> pa.Array:
    """A column as it was given; as text where its cells are of several kinds, or no UTF-8."""
    try:
        return pa.array(column)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        cells = [None if is_nothing(cell) else str(cell) for cell in column.tolist()]
        return pa.array([cell and cell.encode(errors="backslashreplace").decode() for cell in cells], pa.string())
