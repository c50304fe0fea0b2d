"""The project's own tables: a row a galaxy. IDs and classes are text, whatever they look like."""

from pathlib import Path

import pandas as pd

from hiwl.core.layout import ID

TEXT = dict.fromkeys((ID, "class", "label", "answer"), str)


def read_table(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A table that a stage or a verb wrote, or `columns` of it; an empty cell alone is a missing value."""
    return pd.read_csv(path, usecols=columns, dtype=TEXT, keep_default_na=False, na_values=[""])


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """`table` by its IDs: as numbers where all of them are, else as text."""
    ids = table[ID].tolist()
    if all(galaxy.isdecimal() for galaxy in ids):
        order = sorted(range(len(ids)), key=lambda row: (int(ids[row]), ids[row]))
    else:
        order = sorted(range(len(ids)), key=ids.__getitem__)
    return table.iloc[order].reset_index(drop=True)
