"""What a person gives to be classified: pictures, folders, globs, zip archives, tables of paths or of pictures' bytes.

Whatever it is, it comes as tables of some rows at a time: the columns that were given, `path`, and `image`.
"""

import glob
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from hiwl.core.errors import HiwlError
from hiwl.core.files import digest
from hiwl.model.answer import IMAGE
from hiwl.model.pixels import BadImageError
from hiwl.survey.pictures import SUFFIXES, Pictures, look
from hiwl.survey.text_table import read_text_table

TABLES = (".csv", ".tsv", ".txt", ".dat", ".ecsv", ".csv.gz", ".parquet", ".pq", ".vot", ".xml")
PATH = "path"
PATH_COLUMNS = ("path", "image", "file", "filename", "file_name", "image_path")
WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?|nan|", re.IGNORECASE)


class Input(Protocol):
    """One of the things given."""

    def __len__(self) -> int:
        """How many pictures."""

    @property
    def names(self) -> object:
        """What tells this input from another one."""

    @property
    def columns(self) -> list[str]:
        """What is given beside the pictures."""

    def tables(self, start: int, size: int) -> Iterator[pd.DataFrame]:
        """From row `start` on, `size` rows at a time."""


@dataclass
class Files:
    """A folder or an archive, or files and what a table says of them."""

    given: pd.DataFrame
    """A row a picture: `path`, and a table's other columns."""
    archive: Pictures | None = None
    folder: Path = Path()

    def __len__(self) -> int:
        return len(self.given)

    @property
    def names(self) -> object:
        """The paths, what the table says of them, and what shows that a file is another one by now."""
        said = self.given.astype(str).to_numpy().tolist()
        if self.archive is not None:
            return digest([said, [str(content) for content in self.archive.files.values()]])
        return digest([str(self.folder), said, [_state(self.folder / name) for name in self.given[PATH]]])

    @property
    def columns(self) -> list[str]:
        """`path`, and the table's other columns."""
        return [str(name) for name in self.given]

    def tables(self, start: int, size: int) -> Iterator[pd.DataFrame]:
        """From row `start` on, `size` rows at a time."""
        for first in range(start, len(self.given), size):
            table = self.given.iloc[first : first + size].reset_index(drop=True)
            table[IMAGE] = pd.Series(self._images(table[PATH].tolist()), dtype=object)
            yield table

    def _images(self, names: list[str]) -> list[Any]:
        if self.archive is None:
            return [self.folder / name if name else None for name in names]  # read where they are decoded, side by side
        source = self.archive.source
        inside = [name.removeprefix(f"{source}/") for name in names]
        with zipfile.ZipFile(source) as archive:
            return [_member(archive, name) for name in inside]


@dataclass
class Bytes:
    """A Parquet table with a column of pictures' bytes."""

    path: Path
    column: str
    rows: int

    def __len__(self) -> int:
        return self.rows

    @property
    def names(self) -> object:
        """The file, its size and when it was changed."""
        return [str(self.path.resolve()), _state(self.path)]

    @property
    def columns(self) -> list[str]:
        """Those beside the pictures."""
        import pyarrow.parquet as pq

        return [name for name in pq.read_schema(self.path).names if name != self.column]

    def tables(self, start: int, size: int) -> Iterator[pd.DataFrame]:
        """From row `start` on, up to `size` rows at a time."""
        import pyarrow.parquet as pq

        done = 0
        for batch in pq.ParquetFile(self.path).iter_batches(size):
            done += len(batch)
            if done > start:
                table = _as_pandas(batch.slice(max(0, len(batch) - (done - start))))
                yield _cleared(table, self.column, IMAGE)


def find(given: list[str]) -> list[Input]:
    """The inputs that `given` names, in their order.

    Raises:
        HiwlError: nothing is there, or a table has no column of paths or pictures.
    """
    inputs: list[Input] = []
    loose: list[str] = []

    def close() -> None:
        if loose:
            inputs.append(Files(pd.DataFrame({PATH: list(loose)})))
            loose.clear()

    for name in given:
        for path in _expanded(name):
            kind = path.name.lower()
            if path.is_dir() or kind.endswith(".zip"):
                close()
                inputs.append(_of_pictures(path))
            elif kind.endswith(TABLES):
                close()
                inputs.append(_of_table(path))
            else:
                loose.append(str(path))
    close()
    return inputs


def _expanded(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.exists():
        return [path]
    if not (
        matching := sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  (of any folder)
    ):
        raise HiwlError(f"{name}: not found")
    whole = [Path(one) for one in matching]
    # `**` names folders and what is in them; folders are looked through as they are.
    folders = [path for path in whole if path.is_dir()] if "**" not in name else []
    # `*.csv` means tables, `*` does not.
    wanted = (*SUFFIXES, ".zip", *(TABLES if name.lower().endswith(TABLES) else ()))
    return folders + [path for path in whole if path.name.lower().endswith(wanted) and path.is_file()]


def _of_pictures(source: Path) -> Files:
    pictures = look(source)
    if pictures.passed_over:
        print(pictures.in_words())
    table = pd.DataFrame({PATH: [f"{source}/{name}" for name in pictures.files]})
    return Files(table, archive=None if source.is_dir() else pictures)


def _of_table(path: Path) -> Input:
    if path.name.lower().endswith((".parquet", ".pq")):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise HiwlError(f"{path}: not a Parquet file that can be read ({error})") from None
        binary = [
            field.name
            for field in file.schema_arrow
            if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
        ]
        if len(binary) > 1 and IMAGE not in binary:
            raise HiwlError(f"{path}: {', '.join(binary)} hold bytes; call the one of pictures {IMAGE!r}")
        if binary:
            return Bytes(path, IMAGE if IMAGE in binary else binary[0], file.metadata.num_rows)
        table = _as_pandas(file.read())
    elif path.name.lower().endswith((".vot", ".xml")):
        from astropy.table import Table

        try:
            table = Table.read(path, format="votable").to_pandas()
            whole = table.select_dtypes("integer").columns
            table = table.astype(dict.fromkeys(whole, "Int64"))  # whole also beside rows that have none
        except Exception as error:
            raise HiwlError(f"{path}: not a VOTable of plain columns that can be read ({error})") from None
    else:
        table = _with_numbers(read_text_table(path))
    column = _path_column(path, table)
    table = _cleared(table, column, PATH).reset_index(drop=True)
    if IMAGE in table:
        table = table.rename(columns={IMAGE: f"given_{IMAGE}"})
    table[PATH] = table[PATH].fillna("").astype(str)
    return Files(table, folder=path.parent)


def _path_column(path: Path, table: pd.DataFrame) -> str:
    text = [str(name) for name in table if any(isinstance(cell, str) for cell in table[name].tolist())]
    named = [name for name in text if name.lower() in PATH_COLUMNS]
    for name in (*named, *text):
        ends = table[name].astype(str).str.lower().str.endswith(SUFFIXES)
        if ends.mean() > 0.5:
            return name
    raise HiwlError(
        f"{path}: no column of paths of pictures ({', '.join(SUFFIXES[:4])}, ...) among {', '.join(map(str, table))}. "
        "Paths are taken from the table's folder"
    )


def _with_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of numbers as numbers, as whoever opens the answers expects; what may be an ID loses no digit."""
    result = table.copy()
    for name in table:
        if table[name].map(lambda cell: bool(WHOLE.fullmatch(cell))).all():
            result[name] = table[name].astype("int64").astype("Int64")  # whole also beside rows that have none
        elif (
            table[name].str.contains(".", regex=False).any()
            and table[name].map(lambda cell: bool(DECIMAL.fullmatch(cell))).all()
        ):
            result[name] = pd.to_numeric(table[name])
    return result


def _as_pandas(table: Any) -> pd.DataFrame:
    """Of an arrow table: types as they are, so that whole numbers stay whole, and an index is a column."""
    result: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    return result


def _cleared(table: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    """`column` called `name`; another one of that name makes room."""
    if column != name and name in table:
        table = table.rename(columns={name: f"given_{name}"})
    return table.rename(columns={column: name})


def _state(path: Path) -> list[int] | None:
    try:
        state = path.stat()
    except OSError:
        return None  # it will be a row that says so
    return [state.st_size, state.st_mtime_ns]


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    try:
        return archive.read(name)
    except Exception as error:  # of whatever kind of damage
        return BadImageError(f"damaged in the archive ({error})")
