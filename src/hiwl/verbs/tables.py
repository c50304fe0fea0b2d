"""Tables of answers in the formats that astronomers open: Parquet, CSV, FITS, VOTable."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hiwl.core.errors import HiwlError

Writer = Callable[[list[Path], Path], None]


def writer_of(path: Path) -> Writer:
    """What joins parts (Parquet files of one schema) into a table of the kind that `path` ends in.

    Raises:
        HiwlError: it ends in none.
    """
    if path.suffix.lower() not in WRITERS:
        raise HiwlError(f"{path}: tables end in {', '.join(WRITERS)}")
    return WRITERS[path.suffix.lower()]


def _parquet(parts: list[Path], to: Path) -> None:
    schema = _schema(parts)
    with pq.ParquetWriter(to, schema) as file:
        for part in parts:
            file.write_table(_in(schema, pq.read_table(part)))


def _csv(parts: list[Path], to: Path) -> None:
    schema = _schema(parts)
    with to.open("w", newline="", encoding="utf-8") as file:
        for number, part in enumerate(parts):
            table = _in(schema, pq.read_table(part)).to_pandas(types_mapper=pd.ArrowDtype)  # whole numbers stay whole
            table.to_csv(file, index=False, header=number == 0)


def _fits(parts: list[Path], to: Path) -> None:
    table = _astropy(parts)
    taken: set[str] = set()
    for name in list(table.colnames):
        if table[name].dtype.kind == "U":  # FITS has no others
            table[name] = np.char.encode(np.asarray(table[name]), "ascii", "backslashreplace")
        own = name.encode("ascii", "backslashreplace").decode()
        while own.lower() in taken:  # to FITS, capitals are no difference
            own += "_"
        taken.add(own.lower())
        if own != name:
            table.rename_column(name, own)
    table.write(to, format="fits")


def _votable(parts: list[Path], to: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of IDs made for names that are no IDs: the names stay
        _astropy(parts).write(to, format="votable")


WRITERS: dict[str, Writer] = {".parquet": _parquet, ".csv": _csv, ".fits": _fits, ".vot": _votable}


def _astropy(parts: list[Path]) -> Any:
    """As astropy's table. What is missing is an empty text, not a number, 0 or false: FITS knows nothing else."""
    from astropy.table import Table

    schema = _schema(parts)
    whole = pa.concat_tables([_in(schema, pq.read_table(part)) for part in parts])
    joined = whole.to_pandas(types_mapper=pd.ArrowDtype)
    columns: dict[str, Any] = {}
    for field in schema:
        column = joined[field.name]
        if pa.types.is_floating(field.type):
            columns[field.name] = column.to_numpy(np.float64, na_value=np.nan)
        elif pa.types.is_integer(field.type) and field.type != pa.uint64():
            columns[field.name] = column.fillna(0).to_numpy(np.int64)
        elif pa.types.is_boolean(field.type):
            columns[field.name] = column.fillna(False).to_numpy(bool)
        else:
            cells = whole[field.name].to_pylist()
            columns[field.name] = np.array(["" if cell is None else str(cell) for cell in cells], dtype=str)
    return Table(columns)


def _schema(parts: list[Path]) -> pa.Schema:
    """One for all parts: inputs may bring columns of their own."""
    if not parts:
        raise HiwlError("no picture was given; there is nothing to write")
    kinds: dict[str, list[pa.DataType]] = {}
    for part in parts:
        for field in pq.read_schema(part):
            kinds.setdefault(field.name, []).append(field.type)
    fields = [(name, _common(found)) for name, found in kinds.items()]
    return pa.schema(fields, metadata=pq.read_schema(parts[0]).metadata)


def _common(kinds: list[pa.DataType]) -> pa.DataType:
    """A type for a column of several: text where they have none in common."""
    try:
        fields = [pa.schema([("one", kind)]) for kind in dict.fromkeys(kinds)]
        return pa.unify_schemas(fields, promote_options="permissive").field("one").type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()


def _in(schema: pa.Schema, table: pa.Table) -> pa.Table:
    missing = [field for field in schema if field.name not in table.column_names]
    for field in missing:
        table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names).cast(schema)
