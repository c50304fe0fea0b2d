"""Stage `split`: training, validation and test set (paper, Table 2).

Writes to ``data/splits``: ``splits.csv`` (GalaxyID, class, split) and the contract's results.
"""

import sys

import pandas as pd

from hiwl.core.files import replacing
from hiwl.core.layout import CLEAN_TABLE, ID, PARTS, SPLITS, SPLITS_TABLE
from hiwl.core.section import read_section
from hiwl.survey import contracts
from hiwl.survey.splits import SplitParams, counts, split
from hiwl.survey.tables import read_table


def main() -> None:
    """Split the clean selection and hold the result to its contract."""
    params = SplitParams.parse(read_section("split"), "split")
    clean = read_table(CLEAN_TABLE, [ID, "class"])
    splits = split(clean, params)
    tell_of_gaps(splits)
    check(splits, clean, params)
    with replacing(SPLITS_TABLE) as beside:
        splits.to_csv(beside, index=False)
    print(f"split: {splits['split'].value_counts().reindex(list(PARTS), fill_value=0).to_dict()}")


def tell_of_gaps(splits: pd.DataFrame) -> None:
    """Say which classes are missing from a part: there they will not be measured."""
    counted = splits.groupby(["class", "split"]).size().unstack(fill_value=0).reindex(columns=list(PARTS), fill_value=0)
    for name in PARTS:
        if missing := counted.index[counted[name] == 0].tolist():
            print(f"split: warning: {name} has no galaxy of {', '.join(missing)}", file=sys.stderr)


def check(splits: pd.DataFrame, clean: pd.DataFrame, params: SplitParams) -> None:
    """Hold the splits to their contract: disjoint, complete, and as many of each class as the rule says."""
    import great_expectations.expectations as gxe

    number = {name: counts(int(n), params) for name, n in clean["class"].value_counts().items()}
    checked = PARTS if params.training is None else PARTS[1:]  # of thinned training, the total alone
    training = params.training or sum(parts["training"] for parts in number.values())
    contracts.enforce(
        "split",
        splits.assign(
            class_and_split=splits["class"] + " " + splits["split"], is_clean=splits[ID].isin(set(clean[ID]))
        ),
        [
            gxe.ExpectColumnValuesToBeUnique(column=ID),
            gxe.ExpectColumnValuesToBeInSet(column="is_clean", value_set=[True]),
            gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(PARTS)),
            *contracts.counts("split", {"training": training}),
            *contracts.counts(
                "class_and_split", {f"{name} {part}": parts[part] for name, parts in number.items() for part in checked}
            ),
        ],
        SPLITS / "validation",
    )
