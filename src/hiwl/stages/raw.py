"""Stage `raw`: bring the survey in, as two files kept whole, and say where they came from.

Writes to ``data/raw``: ``images.zip``, ``table.csv`` (votes, or GalaxyID,class), ``manifest.json``, and the
contract's results.
"""

import pandas as pd

from hiwl.core.files import sha256, write_json
from hiwl.core.layout import ID, RAW, RAW_IMAGES, RAW_MANIFEST, RAW_TABLE
from hiwl.core.section import read_section
from hiwl.survey import contracts, votes
from hiwl.survey.archives import members
from hiwl.survey.sources import Files, Kaggle, RawParams, Simulated


def main() -> None:
    """Bring the survey in and hold its table to the contract."""
    params = RawParams.parse(read_section("raw"), "raw")
    RAW.mkdir(parents=True, exist_ok=True)
    match params.source:
        case Simulated():
            from hiwl.survey.sources import simulated

            simulated.bring(params.source)
        case Files():
            from hiwl.survey.sources import files

            files.bring(params.source, params.survey)
        case Kaggle():
            from hiwl.survey.sources import kaggle

            kaggle.bring(params.source)
    table = pd.read_csv(RAW_TABLE)
    pictures = members(RAW_IMAGES)
    kind = "labels" if isinstance(params.source, Files) and params.source.table == "labels" else "votes"
    _check(table, kind, set(pictures))
    write_json(
        RAW_MANIFEST,
        {
            "survey": params.survey,
            "source": params.source.kind,
            "table": kind,
            "galaxies": len(table),
            "images": len(pictures),
            "files": {
                path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in (RAW_IMAGES, RAW_TABLE)
            },
        },
    )
    print(f"raw: {len(table)} galaxies, {len(pictures)} images ({params.survey})")


def _check(table: pd.DataFrame, kind: str, pictures: set[int]) -> None:
    import great_expectations.expectations as gxe

    from hiwl.survey.contracts.expectations import votes_expectations

    if ID in table:
        table = table.assign(has_image=table[ID].isin(pictures))
    contracts.enforce(
        "raw",
        table,
        votes_expectations()
        if kind == "votes"
        else [
            gxe.ExpectTableColumnsToMatchSet(
                column_set=[ID, "class", "has_image", *(c for c in votes.COLUMNS if c in table)]
            ),
            gxe.ExpectColumnValuesToBeOfType(column=ID, type_="int64"),
            gxe.ExpectColumnValuesToBeUnique(column=ID),
            gxe.ExpectColumnValuesToNotBeNull(column="class"),
            gxe.ExpectColumnValuesToBeInSet(column="has_image", value_set=[True]),
        ],
        RAW / "validation",
    )
