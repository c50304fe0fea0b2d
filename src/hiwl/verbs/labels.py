"""What a person has labelled: which pictures, and as what."""

from pathlib import Path

import numpy as np
import pandas as pd

from hiwl.core.errors import HiwlError
from hiwl.model.tree import NAME, Floats
from hiwl.survey.inputs import PATH, Files, find
from hiwl.survey.pictures import look
from hiwl.survey.text_table import read_text_table

MOST_CLASSES = 100
NAMES = ("class", "label", "type", "morphology", "category")
"""What people call the column of the labels."""
RATED = "answer"  # as in the tables of `hiwl odd`


def read_labels(path: Path, images: str | None, columns: list[str]) -> tuple[Files, list[str], Floats]:
    """The labelled pictures of a table, the classes, and for every picture their shares: 1 and 0, or the fractions in
    several `columns`. The table has paths, or, where `images` are given, a column that names them.

    Rows without a label are left out, and counted.

    Raises:
        HiwlError: a table, a column or a cell is not what is needed, or a picture is labelled twice.
    """
    files = _pictures(path, images)
    classes, shares = read_targets(path, files.given, columns)
    labelled = np.flatnonzero(~np.isnan(shares).any(axis=1))
    if without := len(shares) - len(labelled):
        print(f"learn: {without:,} of {len(shares):,} rows have no label, and are left out")
    given = files.given.iloc[labelled].reset_index(drop=True)
    if (again := given[PATH].duplicated()).any():
        raise HiwlError(f"{path}: {given[PATH][again].iloc[0]} is labelled twice; keep one row of it")
    return Files(given, files.archive, files.folder), classes, shares[labelled]


def read_targets(path: Path, table: pd.DataFrame, columns: list[str]) -> tuple[list[str], Floats]:
    """The classes and the shares of them in every row of a `table` (from `path`); not numbers where there is no label.

    Raises:
        HiwlError: no such column, fewer than two classes, a cell that is no fraction.
    """
    columns = list(dict.fromkeys(columns))
    names = {str(name).lower(): str(name) for name in table}
    columns = columns or [names[name] for name in (*NAMES, RATED) if name in names][:1]
    if not columns or (unknown := [name for name in columns if name not in table]):
        told = f"no column {', '.join(unknown)}" if columns else "which column has the labels is not clear"
        raise HiwlError(f"{path}: {told}; name it with --column, of {', '.join(map(str, table))}")
    text = table[columns].astype("string").apply(lambda column: column.str.strip())
    text = text.mask(text.isin(["", "nan", "NaN"]))
    if len(columns) > 1:
        classes, shares = columns, _fractions(path, text)
    else:
        labels = text[columns[0]]
        if labels.dropna().str.fullmatch(r"-?\d+\.0").all():  # as pandas writes whole numbers beside empty cells
            labels = labels.str.removesuffix(".0")
        if labels.nunique() > MOST_CLASSES:
            raise HiwlError(
                f"{path}: {columns[0]} holds {labels.nunique():,} labels, such as {labels.dropna().iloc[0]!r}; at "
                f"most {MOST_CLASSES} are classes, and fractions need a --column for each class"
            )
        classes = sorted(labels.dropna().unique().tolist())
        shares = np.eye(len(classes))[pd.Categorical(labels, classes).codes] if classes else np.zeros((len(table), 0))
        shares[labels.isna().to_numpy(bool)] = np.nan
    if len(classes) < 2:
        raise HiwlError(f"{path}: {', '.join(columns)} holds {len(classes)} class; two are needed to tell them apart")
    if wrong_names := [name for name in classes if not NAME.fullmatch(name)]:
        raise HiwlError(f"{path}: {wrong_names[0]!r} is no name for a class; use letters, digits, '-' and '_'")
    return classes, shares


def _fractions(path: Path, text: pd.DataFrame) -> Floats:
    numbers = text.apply(pd.to_numeric, errors="coerce")
    wrong = (numbers.isna() & text.notna()) | (numbers < 0) | (numbers > 1)
    if wrong.any(axis=None):
        row = int(np.argmax(wrong.any(axis=1)))
        column = str(wrong.columns[int(np.argmax(wrong.iloc[row]))])
        raise HiwlError(f"{path}: {column} is {text[column].iloc[row]!r}; fractions are numbers between 0 and 1")
    values = numbers.to_numpy(np.float64, na_value=np.nan)
    if nowhere := [str(name) for name, total in zip(numbers, np.nansum(values, axis=0), strict=True) if not total]:
        raise HiwlError(f"{path}: {nowhere[0]} is above 0 nowhere; leave that --column out")
    totals = values.sum(axis=1, keepdims=True)
    return np.where(totals > 0, values / np.where(totals > 0, totals, 1), np.nan)


def _pictures(path: Path, images: str | None) -> Files:
    """A row a picture."""
    if missing := [one for one in (path, Path(images or path)) if not one.exists()]:
        raise HiwlError(f"{missing[0]}: not found")
    if images is None:
        found = find([str(path)])[0]
        if not isinstance(found, Files) or found.archive is not None or PATH not in found.given:
            raise HiwlError(f"{path}: a table with a column of pictures' paths is needed, or --images and one of IDs")
        return found
    pictures, table = look(Path(images)), read_text_table(path)
    known = {str(name): [pictures.knows(cell) for cell in table[name]] for name in table}
    ids = max(known, key=lambda name: sum(known[name]))
    if not any(known[ids]):
        raise HiwlError(f"{path}: no column names a picture of {images}; its columns are {', '.join(known)}")
    if lost := len(table) - sum(known[ids]):
        print(f"learn: {lost:,} of {len(table):,} rows name no picture of {images} (by {ids}), and are left out")
    table = table[known[ids]].reset_index(drop=True)
    table[PATH] = [f"{Path(images)}/{pictures.of(cell)}" for cell in table[ids]]
    return Files(table, archive=None if Path(images).is_dir() else pictures)
