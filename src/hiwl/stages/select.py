"""Stage `select`: the clean selection from the votes (paper, section 2; thresholds of Willett et al. 2013).

Writes to ``data/clean``: ``clean.csv`` (GalaxyID, class; where votes are known, those that decided it and, as
``votes_<class>``, how many of the volunteers described it so) and the contract's results.
"""

import json

import pandas as pd

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing
from hiwl.core.layout import CLEAN, CLEAN_TABLE, ID, RAW_MANIFEST, RAW_TABLE
from hiwl.core.section import read_section
from hiwl.survey import contracts
from hiwl.survey.selection import SelectParams, clean_selection
from hiwl.survey.tables import in_order, read_table


def main() -> None:
    """Select, or where the survey comes with labels, check."""
    params = SelectParams.parse(read_section("select"), "select")
    table = read_table(RAW_TABLE)
    kind = json.loads(RAW_MANIFEST.read_text())["table"]
    clean = clean_selection(table, kind, params)
    if clean.empty:
        raise HiwlError(f"none of {len(table)} galaxies is selected: their votes reach no class of select.rules")
    clean = in_order(clean)
    check(clean, params)
    with replacing(CLEAN_TABLE) as beside:
        clean.to_csv(beside, index=False)
    print(f"select: {len(clean)} of {len(table)} galaxies: {clean['class'].value_counts().to_dict()}")


def check(clean: pd.DataFrame, params: SelectParams) -> None:
    """Hold the clean table to its contract: known classes, each galaxy once, the survey's expected counts."""
    import great_expectations.expectations as gxe

    known = params.expected or (params.rules if params.by == "rules" else {})
    contracts.enforce(
        "select",
        clean,
        [
            gxe.ExpectColumnValuesToBeUnique(column=ID),
            *([gxe.ExpectColumnValuesToBeInSet(column="class", value_set=list(known))] if known else []),
            *([gxe.ExpectTableRowCountToEqual(value=sum(params.expected.values()))] if params.expected else []),
            *contracts.counts("class", params.expected or {}),
        ],
        CLEAN / "validation",
    )
