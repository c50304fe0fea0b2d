"""`hiwl map --in features.parquet`: all galaxies of a table on one page, those that look alike near each other.

Places are t-SNE's of the leading components of the features. The page holds all it shows: small pictures, and the
table's columns, any of which colours the galaxies.
"""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.decomposition import PCA
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import write_text
from hiwl.core.pages import page
from hiwl.measure import tsne
from hiwl.model.components import Features, directions
from hiwl.model.tree import Floats, Ints
from hiwl.survey.text_table import read_text_table
from hiwl.verbs.embed import ERROR, link
from hiwl.verbs.features import ROW, FeatureTable, naming, telling

TEMPLATE = Path(__file__).with_name("map.html.jinja")
LEAST, MOST = 5, 50_000
"""Galaxies on a map; of a larger table so many, drawn by chance."""
SHOWN, ACROSS = 48, 40
"""Pixels of a picture's side, and pictures on each side of a sheet."""
CLASSES = 12
"""A column of text with more values than these tells galaxies apart and does not colour them."""
COMPONENTS = 50
SEED = 1


def main(features: str, more: str | None, output: str) -> None:
    """Write the page.

    Raises:
        HiwlError: the table of features, or what is to be shown with it, is not usable.
    """
    table = FeatureTable(Path(features))
    seen = table.features()
    rows = np.flatnonzero(~np.isnan(seen[:, 0]))
    if len(rows) < LEAST:
        raise HiwlError(f"{features}: {len(rows)} galaxies with features; a map needs {LEAST}")
    told = table.given if more is None else _with(table.given, Path(more), table.path)
    rows = np.sort(np.random.default_rng(SEED).permutation(rows)[:MOST])
    print(f"map: placing {len(rows):,} galaxies; tens of thousands take minutes", flush=True)
    places = tsne.embed(_leading(seen[rows]))
    shown = told.iloc[rows].drop(columns=ERROR).reset_index(drop=True)
    values: dict[str, Any] = {
        "table": features,
        "number": f"{len(rows):,}",
        "of": f"{len(table):,}",
        "galaxies": json.dumps(
            {"places": _between(places), "columns": [_column(shown[name]) for name in shown], "across": ACROSS}
            | {"shown": SHOWN, "sheets": _sheets(table, rows)}
        ).replace("<", r"\u003c"),  # so that no cell ends the script
    }
    text = page(TEMPLATE, values)
    write_text(Path(output), text)
    print(f"map: {output}: {len(rows):,} galaxies, {len(text) / 1e6:.1f} MB")


def _leading(features: Features) -> Features:
    """(n, up to 50) components of the directions of (n, width) features, as t-SNE is given them."""
    leading = PCA(min(COMPONENTS, *features.shape), random_state=SEED).fit_transform(directions(features))
    return np.asarray(leading, np.float32)


def _with(given: pd.DataFrame, path: Path, features: Path) -> pd.DataFrame:
    """`given`, and the columns of another table that names its galaxies by one that both have."""
    other = read_text_table(path)
    names = naming(given, other)
    known = 0 if names is None else int(other[names.name].isin(names).sum())
    if names is None or not known:
        raise HiwlError(
            f"{path}: no column tells galaxies as one of {features} does ({', '.join(telling(given))}), or by an ID "
            "after which their files are named"
        )
    key = str(names.name)
    if (again := other[key].duplicated()).any():
        raise HiwlError(f"{path}: {key} {other[key][again].iloc[0]} appears twice; keep one row of it")
    print(f"map: {path} tells of {known:,} of {len(given):,} galaxies, by {key}")
    new = [name for name in other if name not in (*given, key, ROW)]
    told = other.replace("", np.nan).set_index(key)[new].apply(_as_numbers)
    aligned = told.reindex(names).set_axis(given.index)
    return pd.concat([given, aligned], axis=1)


def _as_numbers(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().sum() == column.notna().sum() else column


def _between(places: Floats) -> list[list[int]]:
    """Whole numbers between 0 and 9999, which are short to write; the map in the middle."""
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (places - (low + high) / 2) / max(float((high - low).max()), 1e-9) + 0.5
    whole: list[list[int]] = (scaled * 9999).round().astype(int).tolist()
    return whole


def _column(column: pd.Series) -> dict[str, Any]:
    """A column for the page: numbers, classes (their names and each galaxy's) or plain text."""
    name = str(column.name)
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > 1:
        return {"name": name, "kind": "number", "values": [_shown(cell) for cell in column]}
    text = column.astype("string").fillna("")
    classes = sorted(text.unique().tolist())
    if 1 < len(classes) <= CLASSES:
        return {"name": name, "kind": "class", "classes": classes, "values": text.map(classes.index).tolist()}
    return {"name": name, "kind": "text", "values": text.tolist()}


def _shown(cell: Any) -> int | float | str | None:
    """A number as JSON and a browser take it: whole ones exactly, if need be as text."""
    if pd.isna(cell) or not math.isfinite(cell):
        return None
    if float(cell).is_integer():
        return int(cell) if abs(cell) < 2**53 else str(int(cell))
    return float(f"{cell:.9g}")


def _sheets(table: FeatureTable, rows: Ints) -> list[str]:
    """The pictures in sheets of `ACROSS` by `ACROSS`, as links."""
    sheets = []
    for start in tqdm(range(0, len(rows), ACROSS**2), "pictures", unit="sheet", leave=False):
        part = rows[start : start + ACROSS**2]
        sheet = Image.new("RGB", (ACROSS * SHOWN, -(-len(part) // ACROSS) * SHOWN))
        for place, jpeg in enumerate(table.pictures(part)):
            picture = Image.open(io.BytesIO(jpeg or b"")).resize((SHOWN, SHOWN), Image.Resampling.BOX)
            sheet.paste(picture, (place % ACROSS * SHOWN, place // ACROSS * SHOWN))
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=75)
        sheets.append(link(buffer.getvalue()))
    return sheets
