"""`hiwl similar GALAXY --in features.parquet`: the galaxies that look most like one, to the network that saw them.

By cosine distance of their features. GALAXY is one of the table (a path, a file's name, an ID) or a picture.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hiwl.core.errors import HiwlError
from hiwl.core.files import write_text
from hiwl.core.pages import page
from hiwl.core.registry import weights_folder
from hiwl.core.sums import digest_of_sums
from hiwl.model.answer import IMAGE, Model
from hiwl.model.components import Features
from hiwl.verbs.embed import ERROR, Eye, link, thumbnail
from hiwl.verbs.features import FeatureTable

TEMPLATE = Path(__file__).with_name("similar.html.jinja")


def main(galaxy: str, features: str, number: int, output: str) -> None:
    """Print the `number` nearest and write them as a page with pictures.

    Raises:
        HiwlError: there is no such galaxy, or no such table.
    """
    if number < 1:
        raise HiwlError(f"--number {number}: at least 1")
    table = FeatureTable(Path(features))
    row = table.row(galaxy)
    asked, picture = _in(table, row) if row is not None else _of_picture(table, galaxy)
    found = table.index().search(asked, number + 1)
    keys, distances = np.asarray(found.keys, np.int64), np.asarray(found.distances, float)
    others = keys != row
    keys, distances = keys[others][:number], distances[others][:number]
    near = table.given.iloc[keys].drop(columns=ERROR).reset_index(drop=True)
    near.insert(0, "distance", distances.round(4))
    print(near.to_string(index=False))
    values: dict[str, Any] = {
        "galaxy": galaxy,
        "picture": link(picture),
        "table": features,
        "size": len(table),
        "how": table.how,
        "near": [
            {"picture": link(jpeg), "told": {name: cell for name, cell in one.items() if not pd.isna(cell)}}
            for jpeg, one in zip(table.pictures(keys), near.to_dict("records"), strict=True)
        ],
    }
    write_text(Path(output), page(TEMPLATE, values))
    print(f"similar: {output} shows them")


def _in(table: FeatureTable, row: int) -> tuple[Features, bytes | None]:
    if not pd.isna(error := table.given[ERROR][row]):
        raise HiwlError(f"{table.path}: the picture of this row could not be read: {error}")
    return table.feature(row), table.pictures(np.array([row]))[0]


def _of_picture(table: FeatureTable, name: str) -> tuple[Features, bytes | None]:
    if not Path(name).is_file():
        raise HiwlError(f"{name}: neither a galaxy of {table.path} nor a picture")
    try:
        folder = weights_folder(table.how.weights)
    except HiwlError as error:
        raise HiwlError(
            f"{table.path}: made by the model {table.how.weights}, which a picture must be shown to, but: {error}"
        ) from None
    if digest_of_sums(folder) != table.how.model:
        raise HiwlError(f"{table.path}: made by other weights than {table.how.weights} holds now; `hiwl embed` it anew")
    seen = Eye(Model.load(folder), folder, table.how)(pd.DataFrame({IMAGE: [Path(name)]}))
    if seen.errors[0] is not None:
        raise HiwlError(f"{name}: {seen.errors[0]}")
    return seen.features[0], thumbnail(seen.pictures[0])
