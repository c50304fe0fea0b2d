"""Stage `raw`: bring the survey in, as two files kept whole, and say where they came from.

Writes to ``data/raw``: ``images.zip``, ``table.csv`` (GalaxyID; `class` or votes; what else the survey's table says),
``manifest.json``, and the contract's results.
"""

import pandas as pd

from hiwl.core.files import sha256, write_json
from hiwl.core.layout import ID, RAW, RAW_IMAGES, RAW_MANIFEST, RAW_TABLE
from hiwl.core.section import read_section
from hiwl.survey import contracts
from hiwl.survey.pictures import look
from hiwl.survey.sources import Files, Kaggle, RawParams, Simulated
from hiwl.survey.tables import read_table


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
    table = read_table(RAW_TABLE)
    pictures = look(RAW_IMAGES)
    kind = "labels" if isinstance(params.source, Files) and params.source.table == "labels" else "votes"
    _check(table.assign(has_image=[pictures.of(galaxy) is not None for galaxy in table[ID]]), kind)
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


def _check(table: pd.DataFrame, kind: str) -> None:
    from hiwl.survey.contracts.expectations import labels_expectations, survey_expectations, votes_expectations

    expectations = survey_expectations()
    if kind == "labels":
        expectations += labels_expectations()
    if "Class1.1" in table:
        expectations += votes_expectations(some=kind == "labels")
    contracts.enforce("raw", table, expectations, RAW / "validation")
