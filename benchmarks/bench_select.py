"""Selection of 61,578 rows, against reading the table that it selects from."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from common import machine, seconds, spread
from hiwl.core.layout import ID
from hiwl.survey.selection import select
from hiwl.survey.votes import COLUMNS

ROWS = 61_578


def main() -> None:
    rules = yaml.safe_load(Path("params.yaml").read_text())["select"]["rules"]
    votes = pd.DataFrame(np.random.default_rng(1).random((ROWS, len(COLUMNS))).round(6), columns=COLUMNS)
    # Exclusive as in a valid table: what is smooth has no features.
    votes.loc[votes["Class1.1"] > 0.469, "Class1.2"] = 0
    for column in ("Class7.2", "Class7.3"):
        votes.loc[votes["Class7.1"] > 0.5, column] = 0
    votes.loc[votes["Class7.2"] > 0.5, "Class7.3"] = 0
    votes.loc[votes["Class2.1"] > 0.602, "Class2.2"] = 0
    votes.insert(0, ID, range(ROWS))
    text = votes.to_csv(index=False)
    selecting = seconds(lambda: select(votes, rules))
    reading = seconds(lambda: pd.read_csv(io.StringIO(text)))
    print(machine())
    print(f"select {ROWS} rows: {spread(selecting, 's')}; reading them: {spread(reading, 's')}")
    print(f"ratio reading / selecting: {min(reading) / min(selecting):.1f}")


main()
