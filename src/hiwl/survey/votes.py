"""The Galaxy Zoo 2 decision tree, how volunteers walk it, and the competition's table of vote fractions.

The table has a column `GalaxyID` and 37 columns `Class<task>.<answer>`. Fractions are weighted down the tree: each
task's answers sum to the fraction of votes that reached the task (Willett et al. 2013, Table 2).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SUM_TOLERANCE = 5e-6  # the published table's rounding stays within 2.3e-6 on 13,397 of its rows


class Task(NamedTuple):
    """One question: how many answers it has, and the column whose fraction reaches it (None: everyone)."""

    answers: int
    reached_by: str | None

    def columns(self, number: int) -> list[str]:
        """The table's columns for the answers of task `number`."""
        return [f"Class{number}.{answer}" for answer in range(1, self.answers + 1)]


TASKS: dict[int, Task] = {
    1: Task(3, None),  # smooth; features or disk; star or artefact
    2: Task(2, "Class1.2"),  # edge-on: yes; no
    3: Task(2, "Class2.2"),  # bar: yes; no
    4: Task(2, "Class2.2"),  # spiral arms: yes; no
    5: Task(4, "Class2.2"),  # bulge: none; just noticeable; obvious; dominant
    6: Task(2, None),  # anything odd: yes; no
    7: Task(3, "Class1.1"),  # completely round; in between; cigar-shaped
    8: Task(7, "Class6.1"),  # ring; lens or arc; disturbed; irregular; other; merger; dust lane
    9: Task(3, "Class2.1"),  # bulge seen edge-on: rounded; boxy; none
    10: Task(3, "Class4.1"),  # arms: tight; medium; loose
    11: Task(6, "Class4.1"),  # arms: 1; 2; 3; 4; more than 4; can't tell
}
COLUMNS: list[str] = [column for number, task in TASKS.items() for column in task.columns(number)]


def task_of(column: str) -> int:
    """The task of a column `Class<task>.<answer>`."""
    return int(column.removeprefix("Class").split(".")[0])


def volunteers_column(task: int) -> str:
    """Where a table says how many people answered `task`, if it does."""
    return f"volunteers_{task}"


BY_VOLUNTEERS = [*COLUMNS, *map(volunteers_column, TASKS)]
"""All columns that a table in the project's form has on votes."""


def walk(
    chances: dict[int, NDArray[np.float64]], volunteers: int, rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Send `volunteers` people down the tree for each galaxy; by column, the fractions (galaxies,) of all of them.

    `chances` are each task's, (galaxies, answers): how likely someone who reaches it is to give each answer.
    """
    counts: dict[str, NDArray[np.int64]] = {}
    for number, task in TASKS.items():
        reached = volunteers if task.reached_by is None else counts[task.reached_by]
        answers = rng.multinomial(reached, chances[number])
        counts |= zip(task.columns(number), answers.T, strict=True)
    return {column: count / volunteers for column, count in counts.items()}
