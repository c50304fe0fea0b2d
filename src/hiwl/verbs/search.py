"""The galaxies of a table of features, what a person answered about them, and which to ask about next (`hiwl odd`)."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing
from hiwl.measure.interest import ANSWERS, AT_ONCE, Interest
from hiwl.model.tree import Floats
from hiwl.survey.text_table import read_text_table
from hiwl.verbs.embed import ERROR
from hiwl.verbs.features import FeatureTable

ANSWER, PATH = "answer", "path"
NEIGHBOUR = 5
_OWN = ("row", "apart", "expected", "deviation", ANSWER)


class Search:
    """The galaxies of a table, what was answered about them, and which to ask about next."""

    def __init__(self, table: FeatureTable, kept: Path) -> None:
        """Go on with the answers in the file `kept`, if it is there."""
        self.table, self.kept = table, kept
        features = table.features()
        self._rows = np.flatnonzero(~np.isnan(features[:, 0]))
        if len(self._rows) < 2 * NEIGHBOUR:
            raise HiwlError(
                f"{table.path}: {len(self._rows)} galaxies with features; at least {2 * NEIGHBOUR} are needed"
            )
        self._place = {int(row): place for place, row in enumerate(self._rows)}
        self.apart = _from_neighbours(table, features[self._rows])
        self._interest = Interest(features[self._rows], self.apart)
        self.answers: dict[int, int] = _read(kept, table) if kept.exists() else {}
        """By row of the table, in the order in which they were given."""
        self._queue: list[int] = []
        self._lock = threading.RLock()
        self._learn()

    def current(self) -> int | None:
        """The row to ask about; None where all were."""
        with self._lock:
            return self._queue[0] if self._queue else None

    def answer(self, row: int, answer: int) -> None:
        """Keep an answer; after ten of them the rest is looked at anew.

        Raises:
            HiwlError: there is no such galaxy or answer.
        """
        if row not in self._place or answer not in ANSWERS:
            raise HiwlError(f"row {row}, answer {answer}: answers are 1 to 5, to rows of galaxies")
        with self._lock:
            self.answers.pop(row, None)
            self.answers[row] = answer
            self._keep()
            if row in self._queue:
                self._queue.remove(row)
            if not self._queue:
                self._learn()

    def undo(self) -> None:
        """Take the last answer back, and ask again."""
        with self._lock:
            if self.answers:
                row, _ = self.answers.popitem()
                self._keep()
                self._queue.insert(0, row)

    def ranking(self) -> pd.DataFrame:
        """A row a galaxy, the oddest first: what the table says of it, `apart` (cosine distance from its fifth
        neighbour), `expected` answer and its `deviation`, and the `answer` given."""
        with self._lock:
            self._interest.learn(self._known())
            ranked = self.table.given.iloc[self._rows].drop(columns=ERROR)
            ranked = ranked.rename(columns={name: f"given_{name}" for name in ranked if name in _OWN})
            own = {
                "row": self._rows,
                "apart": self.apart.round(5),
                "expected": self._interest.mean.round(4),
                "deviation": self._interest.deviation.round(4),
                ANSWER: pd.array([self.answers.get(int(row)) for row in self._rows], "Int64"),
            }
            ranked = ranked.reset_index(drop=True).assign(**own)
            by = "expected" if self.answers else "apart"
            return ranked.sort_values(by, ascending=False, kind="stable", ignore_index=True)

    def names(self) -> pd.Series:
        """By what a table of answers knows galaxies: path, else the first column that tells them apart, else row."""
        names = _telling(self.table)
        return names[next(column for column in (PATH, *names) if column in names)]

    def _learn(self) -> None:
        self._interest.learn(self._known())
        self._queue = self._rows[self._interest.next(AT_ONCE)].tolist()

    def _known(self) -> dict[int, float]:
        return {self._place[row]: float(answer) for row, answer in self.answers.items()}

    def _keep(self) -> None:
        names = self.names()
        kept = pd.DataFrame(
            {names.name: names.iloc[list(self.answers)].to_numpy(), ANSWER: list(self.answers.values())}
        )
        with replacing(self.kept) as beside:
            kept.to_csv(beside, index=False)


def _from_neighbours(table: FeatureTable, features: "np.ndarray[Any, np.dtype[np.float32]]") -> Floats:
    """(n,) cosine distances from the fifth nearest other."""
    index, parts = table.index(), []
    for start in tqdm(range(0, len(features), 1000), "looking at neighbours", unit="thousand", leave=False):
        found = index.search(features[start : start + 1000], NEIGHBOUR + 1)
        parts.append(np.asarray(found.distances, float)[:, -1])
    return np.concatenate(parts)


def _telling(table: FeatureTable) -> dict[str, pd.Series]:
    """The columns that tell galaxies apart, and the number of the row, as text."""
    given = table.given.drop(columns=ERROR)
    telling = {str(name): given[name].astype(str) for name in given if given[name].is_unique and name != "row"}
    return telling | {"row": pd.Series(range(len(table)), name="row").astype(str)}


def _read(kept: Path, table: FeatureTable) -> dict[int, int]:
    """The answers in a table, by row."""
    said, telling = read_text_table(kept), _telling(table)
    shared = [name for name in said if name != ANSWER and name in telling]
    if ANSWER not in said or not shared:
        raise HiwlError(
            f"{kept}: a column {ANSWER!r} and one that tells galaxies as in {table.path} are needed "
            f"({', '.join(telling)}); found {', '.join(map(str, said))}"
        )
    row_of = {name: row for row, name in enumerate(telling[shared[0]])}
    readable = table.given[ERROR].isna().to_numpy()
    answers: dict[int, int] = {}
    for name, answer in zip(said[shared[0]], said[ANSWER], strict=True):
        if str(answer).strip() not in map(str, ANSWERS):
            raise HiwlError(f"{kept}: {name}: answer {answer!r}; answers are 1 (dull) to 5")
        if (row := row_of.get(str(name))) is None or not readable[row]:
            raise HiwlError(f"{kept}: {name}: no galaxy of {table.path} that could be read")
        answers[row] = int(str(answer))
    return answers
