"""Stage `split`: training, validation and test set, 8:1:1 within each class (paper, Table 2).

Writes to ``data/splits``: ``splits.csv`` (GalaxyID, class, split) and the contract's results.
"""

import zlib

import numpy as np
import pandas as pd
from pydantic import Field

from hiwl import contracts
from hiwl.files import replacing
from hiwl.layout import CLEAN_TABLE, SPLITS, SPLITS_TABLE
from hiwl.params import Section, read_section
from hiwl.votes import ID

NAMES = ("training", "validation", "test")


class SplitParams(Section):
    """Section `split`."""

    seed: int = Field(ge=0)
    held_out: float = Field(gt=0, lt=1)
    """Share of each class kept from training; half of it validates, half tests."""


def main() -> None:
    """Split the clean selection and hold the result to its contract."""
    params = SplitParams.parse(read_section("split"), "split")
    clean = pd.read_csv(CLEAN_TABLE, usecols=[ID, "class"])
    splits = split(clean, params)
    check(splits, clean, params)
    with replacing(SPLITS_TABLE) as beside:
        splits.to_csv(beside, index=False)
    print(f"split: {splits['split'].value_counts()[list(NAMES)].to_dict()}")


def counts(galaxies: int, held_out: float) -> dict[str, int]:
    """How many of a class's galaxies go where.

    round(galaxies x held_out) are held out; the first half of these, rounded down, validate, the rest test. With
    .2 this gives the paper's Table 2 for each class.
    """
    held = round(galaxies * held_out)
    return {"training": galaxies - held, "validation": held // 2, "test": held - held // 2}


def split(clean: pd.DataFrame, params: SplitParams) -> pd.DataFrame:
    """Draw the splits: a class's draw depends on the seed and on the class's own galaxies alone."""
    parts = []
    for name, galaxies in clean.sort_values(ID).groupby("class"):
        rng = np.random.default_rng([params.seed, zlib.crc32(str(name).encode())])
        number = counts(len(galaxies), params.held_out)
        labels = np.repeat(
            ["validation", "test", "training"], [number[key] for key in ("validation", "test", "training")]
        )
        parts.append(galaxies.assign(split=rng.permutation(labels)))
    return pd.concat(parts).sort_values(ID, ignore_index=True)


def check(splits: pd.DataFrame, clean: pd.DataFrame, params: SplitParams) -> None:
    """Hold the splits to their contract: disjoint, complete, and as many of each class as the rule says."""
    import great_expectations.expectations as gxe

    expected = {
        f"{name} {part}": number
        for name, galaxies in clean["class"].value_counts().items()
        for part, number in counts(int(galaxies), params.held_out).items()
    }
    frame = splits.assign(
        class_and_split=splits["class"] + " " + splits["split"], is_clean=splits[ID].isin(set(clean[ID]))
    )
    contracts.enforce(
        "split",
        frame,
        [
            gxe.ExpectColumnValuesToBeUnique(column=ID),
            gxe.ExpectColumnValuesToBeInSet(column="is_clean", value_set=[True]),
            gxe.ExpectTableRowCountToEqual(value=len(clean)),
            *contracts.counts("class_and_split", expected),
        ],
        SPLITS / "validation",
    )
