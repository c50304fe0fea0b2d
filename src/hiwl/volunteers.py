"""How volunteers answer the questions of the Galaxy Zoo 2 tree."""

import numpy as np
from numpy.typing import NDArray

from hiwl.votes import TASKS


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
