"""Tables of features, as `embed` leaves them, and the index of their nearest neighbours."""

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import digest, replacing
from hiwl.core.settings import settings
from hiwl.model.components import Features
from hiwl.model.tree import Ints
from hiwl.survey.pictures import shown_by
from hiwl.verbs.embed import ERROR, FEATURE, MADE_BY, PICTURE, How

PATH, ROW = "path", "row"

if TYPE_CHECKING:
    from usearch.index import Index


class FeatureTable:
    """A Parquet file of `embed`, read as far as it is needed."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = pq.ParquetFile(path)
            self.how = How(**json.loads(self._file.schema_arrow.metadata[MADE_BY]))
        except FileNotFoundError:
            raise HiwlError(f"{path}: not found; `hiwl embed` makes it") from None
        except (pa.ArrowInvalid, KeyError, TypeError):
            raise HiwlError(f"{path}: not a table of features; `hiwl embed` makes one") from None
        self.path = path
        self.width: int = self._file.schema_arrow.field(FEATURE).type.list_size
        groups = [self._file.metadata.row_group(number).num_rows for number in range(self._file.num_row_groups)]
        self._starts = np.cumsum([0, *groups])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def given(self) -> pd.DataFrame:
        """All but features and pictures, a row a galaxy."""
        names = [name for name in self._file.schema_arrow.names if name not in (FEATURE, PICTURE)]
        table: pd.DataFrame = self._file.read(names).to_pandas()
        return table

    def features(self) -> Features:
        """(n, width); not numbers where a picture could not be read."""
        parts = [self._of_group(number) for number in range(len(self._starts) - 1)]
        return np.concatenate(parts) if parts else np.zeros((0, self.width), np.float32)

    def feature(self, row: int) -> Features:
        """(width,) of one row."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        feature: Features = self._of_group(group)[row - self._starts[group]]
        return feature

    def pictures(self, rows: Ints) -> list[bytes | None]:
        """JPEGs of the pictures at `rows`."""
        found: dict[int, bytes | None] = {}
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        for group in np.unique(groups):
            column = self._file.read_row_group(int(group), [PICTURE])[PICTURE]
            found |= {int(row): column[int(row - self._starts[group])].as_py() for row in rows[groups == group]}
        return [found[int(row)] for row in rows]

    def row(self, name: str) -> int | None:
        """The row that `name` tells: its path, the file's name with or without its ending, or a value of any column.

        Raises:
            HiwlError: several rows are told so.
        """
        text = {column: self.given[column].astype(str) for column in self.given}
        if "path" in text:
            text |= {" file": text["path"].str.rsplit("/", n=1).str[-1], " galaxy": text["path"].map(shown_by)}
        rows = sorted({row for values in text.values() for row in np.flatnonzero(values == name).tolist()})
        if len(rows) > 1:
            raise HiwlError(f"{name}: {len(rows)} rows of {self.path} are told so; name one by its path")
        return rows[0] if rows else None

    def index(self) -> "Index":
        """Of nearest neighbours by cosine distance, made beside the table where there is none for it as it is."""
        from usearch.index import Index

        state = self.path.stat()
        own = digest([self.path.name, state.st_size, state.st_mtime_ns])[:16]
        place = self.path.with_name(f".{self.path.stem}.{own}.usearch")
        if not place.exists():
            for old in self.path.parent.glob(f".{self.path.stem}.*.usearch"):
                old.unlink()
            index = Index(ndim=self.width, metric="cos", dtype="f16")
            with tqdm(total=len(self), unit="galaxy", desc="indexing") as progress:
                for number in range(len(self._starts) - 1):
                    features = self._of_group(number)
                    rows = np.flatnonzero(~np.isnan(features[:, 0]))
                    index.add(rows + self._starts[number], features[rows], threads=settings().threads)
                    progress.update(len(features))
            with replacing(place) as beside:
                index.save(str(beside))
        opened = Index.restore(str(place), view=True)
        assert opened is not None
        return opened

    def _of_group(self, number: int) -> Features:
        column = self._file.read_row_group(number, [FEATURE])[FEATURE].combine_chunks()
        values: Features = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.width).astype(np.float32)
        return values


def telling(given: pd.DataFrame) -> dict[str, pd.Series]:
    """The columns of a table of features that tell its galaxies apart, and the number of the row, as text."""
    columns = [name for name in given if name not in (ERROR, ROW) and given[name].is_unique]
    return {str(name): given[name].astype(str) for name in columns} | {
        ROW: pd.Series(range(len(given)), name=ROW).astype(str)
    }


def names_of(given: pd.DataFrame) -> pd.Series:
    """What its galaxies are called: by their paths, else by the first column that tells them apart."""
    columns = telling(given)
    return columns.get(PATH, next(iter(columns.values())))


def naming(given: pd.DataFrame, other: pd.DataFrame) -> pd.Series | None:
    """What another table, of text, calls the galaxies of a table of features, under the name of its column that says
    so: of those that tell these apart, or of IDs after which their files are named, the one that names most. Paths and
    IDs go before others, as ranks and numbers tell apart too; None without any.
    """
    columns = {name: values for name, values in telling(given).items() if name in other}
    if PATH in given and (galaxies := given[PATH].astype(str).map(shown_by)).is_unique:
        columns |= {str(name): galaxies for name in other if str(name).lower().endswith("id") and name not in columns}
    known = {name: int(other[name].isin(values).sum()) for name, values in columns.items()}
    named = [name for name in known if known[name] and name.lower().endswith(("path", "id"))]
    best = max(named or known, key=lambda name: known[name], default=None)
    return None if best is None else columns[best].rename(best)
