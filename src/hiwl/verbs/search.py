"""The galaxies of a table of features, what a person answered about them, and which to ask about next (`hiwl odd`)."""

import csv
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing
from hiwl.measure.interest import ANSWERS, AT_ONCE, NEIGHBOUR, Interest
from hiwl.model.tree import Floats
from hiwl.survey.text_table import read_text_table
from hiwl.verbs.embed import ERROR
from hiwl.verbs.features import ROW, FeatureTable, names_of, naming, telling

ANSWER = "answer"
_OWN = (ROW, "apart", "expected", "deviation", ANSWER)


class Search:
    """The galaxies of a table, what was answered about them, and which to ask about next."""

    def __init__(self, table: FeatureTable, kept: Path) -> None:
        """Go on with the answers in the file `kept`, if it is there; whatever else it says stays in it."""
        self.table, self.kept = table, kept
        features = table.features()
        self._rows = np.flatnonzero(~np.isnan(features[:, 0]))
        if len(self._rows) < 2 * NEIGHBOUR:
            raise HiwlError(
                f"{table.path}: {len(self._rows)} galaxies with features; at least {2 * NEIGHBOUR} are needed"
            )
        self._place = {int(row): place for place, row in enumerate(self._rows)}
        self.apart = from_neighbours(table, features[self._rows])
        self._interest = Interest(features[self._rows], self.apart)
        self._kept = Kept(kept, table)
        self.answers = self._kept.answers
        """By row of the table, in the order in which they were given."""
        self._given: list[tuple[int, int | None]] = []
        """Rows in the order of this session's answers, and what was answered to each before."""
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
            self._given.append((row, self.answers.pop(row, None)))
            self.answers[row] = answer
            self._kept.write(self.answers)
            if row in self._queue:
                self._queue.remove(row)
            if not self._queue:
                self._learn()

    def undo(self) -> None:
        """Take this session's last answer back, and ask again; answers of earlier sessions stay."""
        with self._lock:
            if self._given:
                row, before = self._given.pop()
                del self.answers[row]
                if before is not None:
                    self.answers[row] = before
                self._kept.write(self.answers)
                self._queue.insert(0, row)

    def check_kept(self) -> None:
        """Before answers are written.

        Raises:
            HiwlError: the file that keeps them would lose by it.
        """
        self._kept.check_plain()

    def ranking(self) -> pd.DataFrame:
        """A row a galaxy, the oddest first: what the table says of it, `apart` (cosine distance from its fifth
        neighbour), `expected` answer and its `deviation`, and the `answer` given."""
        with self._lock:
            self._interest.learn(self._known())
            ranked = self.table.given.iloc[self._rows].drop(columns=ERROR)
            ranked = ranked.rename(columns={name: f"given_{name}" for name in ranked if name in _OWN})
            own = {
                ROW: self._rows,
                "apart": self.apart.round(5),
                "expected": self._interest.mean.round(4),
                "deviation": self._interest.deviation.round(4),
                ANSWER: pd.array([self.answers.get(int(row)) for row in self._rows], "Int64"),
            }
            ranked = ranked.reset_index(drop=True).assign(**own)
            by = "expected" if self.answers else "apart"
            return ranked.sort_values(by, ascending=False, kind="stable", ignore_index=True)

    def _learn(self) -> None:
        self._interest.learn(self._known())
        self._queue = self._rows[self._interest.next(AT_ONCE)].tolist()

    def _known(self) -> dict[int, float]:
        return {self._place[row]: float(answer) for row, answer in self.answers.items()}


def from_neighbours(table: FeatureTable, features: "np.ndarray[Any, np.dtype[np.float32]]") -> Floats:
    """(n,) cosine distances from the fifth nearest other."""
    index, parts = table.index(), []
    for start in tqdm(range(0, len(features), 1000), "looking at neighbours", unit="thousand", leave=False):
        found = index.search(features[start : start + 1000], NEIGHBOUR + 1)
        parts.append(np.asarray(found.distances, float).reshape(-1, NEIGHBOUR + 1)[:, -1])  # of one vector, 1-D
    return np.concatenate(parts)


class Kept:
    """A person's table of answers: a column that names galaxies, `answer`, and whatever else it says."""

    def __init__(self, path: Path, table: FeatureTable) -> None:
        """The one in the file `path`, if it is there; else a new one.

        Raises:
            HiwlError: it has no such columns, or an answer that is none, or none to a galaxy of the `table`.
        """
        self.path, self._names = path, names_of(table.given)
        """What the file calls the galaxies of the table of features."""
        self._told = pd.DataFrame(columns=[self._names.name, ANSWER], dtype=str)
        self._rows: list[int | None] = []
        """Of the table of features, a line."""
        self.answers: dict[int, int] = {}
        """By row of the table of features, in the order of the file."""
        if path.exists():
            self._read(table)

    def check_plain(self) -> None:
        """As it would be written again.

        Raises:
            HiwlError: it is packed, has comments, columns without a name or other separators, which would be lost.
        """
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            header = next(csv.reader(file), [])
        if header != list(self._told):
            raise HiwlError(
                f"{self.path}: answers are written as plain CSV; save it so (one header, commas), and go on"
            )

    def write(self, answers: dict[int, int]) -> None:
        """Write these answers by row: where the file names a galaxy there, others below."""
        told = self._told.copy()
        told[ANSWER] = [
            said if row is None else str(answers.get(row, ""))
            for row, said in zip(self._rows, told[ANSWER], strict=True)
        ]
        new = [row for row in answers if row not in self._rows]
        more = pd.DataFrame({self._names.name: self._names.iloc[new], ANSWER: [str(answers[row]) for row in new]})
        with replacing(self.path) as beside:
            pd.concat([told, more]).to_csv(beside, index=False)

    def _read(self, table: FeatureTable) -> None:
        self._told = read_text_table(self.path)
        names = naming(table.given, self._told)
        if ANSWER not in self._told or names is None:
            raise HiwlError(
                f"{self.path}: a column {ANSWER!r} and one that tells galaxies as in {table.path} are needed "
                f"({', '.join(telling(table.given))}, or an ID after which their files are named); found "
                f"{', '.join(map(str, self._told))}"
            )
        self._names, key = names, names.name
        row_of = {name: row for row, name in enumerate(names)}
        readable = table.given[ERROR].isna().to_numpy()
        self._rows = [row_of.get(name) for name in self._told[key]]
        for name, said, row in zip(self._told[key], self._told[ANSWER], self._rows, strict=True):
            if not said:
                continue
            if (answer := said.removesuffix(".0")) not in map(str, ANSWERS):  # .0 as pandas writes beside empty cells
                raise HiwlError(f"{self.path}: {name}: answer {said!r}; answers are 1 (dull) to 5")
            if row is None or not readable[row]:
                raise HiwlError(f"{self.path}: {name}: no galaxy of {table.path} that could be read")
            if self.answers.setdefault(row, int(answer)) != int(answer):
                raise HiwlError(
                    f"{self.path}: {name}: answered {self.answers[row]} and {answer}; keep one of the lines"
                )
