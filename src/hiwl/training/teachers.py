"""What other models answer, to be learned from (Hinton et al. 2015): tables that `hiwl classify` wrote."""

import pandas as pd

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256
from hiwl.core.settings import settings
from hiwl.survey.pictures import shown_by


def read_teachers(hashes: list[str], classes: list[str]) -> pd.DataFrame:
    """By galaxy, a column for each of the `classes`: the mean of the tables' probabilities of it.

    Raises:
        HiwlError: a table is not there or lacks a class.
    """
    tables = [_read(expected, [f"p_{name}" for name in classes]) for expected in hashes]
    if not tables:
        raise HiwlError(
            "train.recipe.loss.teachers asks for teachers, but train.teachers names none: give the SHA-256 of each of "
            "their tables, which `hiwl classify` writes"
        )
    return pd.concat(tables).groupby(level=0).mean().set_axis(classes, axis=1)


def _read(expected: str, columns: list[str]) -> pd.DataFrame:
    folder = settings().teachers
    if folder is None:
        raise HiwlError(
            "train.teachers names tables of answers, but HIWL_TEACHERS does not say in which folder they are"
        )
    path = next((path for path in sorted(folder.glob("*.parquet")) if sha256(path) == expected), None)
    if path is None:
        raise HiwlError(f"HIWL_TEACHERS: {folder} holds no Parquet table whose SHA-256 is {expected} (train.teachers)")
    table = pd.read_parquet(path)
    if missing := [name for name in ("path", *columns) if name not in table]:
        raise HiwlError(
            f"{path}: no column {', '.join(missing)}; expected what `hiwl classify` writes of these classes"
        )
    answered = table[columns].set_axis(table["path"].map(shown_by), axis=0).dropna()
    return answered[~answered.index.duplicated()]
