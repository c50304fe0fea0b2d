"""Training, validation and test set, 8:1:1 within each class (paper, Table 2), or one of ten folds."""

import zlib
from typing import Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from hiwl.core.errors import HiwlError
from hiwl.core.section import Section
from hiwl.survey.tables import in_order


class SplitParams(Section):
    """Section `split`."""

    seed: int = Field(ge=0)
    held_out: float = Field(gt=0, lt=1)
    """Share of each class kept from training; half of it validates, half tests."""
    fold: int | None = Field(None, ge=0)
    """Cross-validation: with this number the survey falls into 2 / held_out folds, of which this one tests, the next
    one validates and the rest trains; null: the paper's one split."""
    training: int | None = Field(None, gt=0)
    """Train on so many galaxies alone, drawn within each class; null: on all that are not held out."""

    @property
    def folds(self) -> int:
        """How many folds the survey falls into."""
        return round(2 / self.held_out)

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold is not None and not self.fold < self.folds:
            raise ValueError(f"fold {self.fold}: with held_out {self.held_out} there are folds 0 to {self.folds - 1}")
        return self


def counts(galaxies: int, params: SplitParams) -> dict[str, int]:
    """How many of a class's galaxies go where, before training is thinned.

    round(galaxies x held_out) are held out; the first half of these, rounded down, validate, the rest test. With
    .2 this gives the paper's Table 2 for each class. Of a fold, every `folds`-th galaxy tests, counted from the fold's
    number.
    """
    if params.fold is None:
        held = round(galaxies * params.held_out)
        test, validation = held - held // 2, held // 2
    else:
        test, validation = (
            len(range(fold % params.folds, galaxies, params.folds)) for fold in (params.fold, params.fold + 1)
        )
    return {"training": galaxies - test - validation, "validation": validation, "test": test}


def split(clean: pd.DataFrame, params: SplitParams) -> pd.DataFrame:
    """Draw the splits: a class's draw depends on the seed and on the class's own galaxies alone.

    Raises:
        HiwlError: `training` asks for more galaxies than are left to train on, or for a number that cannot be drawn
            within each class.
    """
    parts = []
    for name, galaxies in in_order(clean).groupby("class"):
        rng = np.random.default_rng([params.seed, zlib.crc32(str(name).encode())])
        if params.fold is None:
            number = counts(len(galaxies), params)
            order = ("validation", "test", "training")
            labels = rng.permutation(np.repeat(order, [number[part] for part in order]))
        else:
            dealt = rng.permutation(len(galaxies)) % params.folds
            labels = np.select(
                [dealt == params.fold, dealt == (params.fold + 1) % params.folds], ["test", "validation"], "training"
            )
        parts.append(galaxies.assign(split=labels))
    splits = in_order(pd.concat(parts))
    return splits if params.training is None else _thin(splits, params.training, params.seed)


def _thin(splits: pd.DataFrame, number: int, seed: int) -> pd.DataFrame:
    """The same validation and test set, and `number` training galaxies, of each class in proportion."""
    training = splits[splits["split"] == "training"]
    if number == len(training):
        return splits
    if number > len(training):
        raise HiwlError(f"split.training is {number}, but only {len(training)} galaxies are left to train on")
    from sklearn.model_selection import train_test_split  # takes seconds

    try:
        kept, _ = train_test_split(training, train_size=number, stratify=training["class"], random_state=seed)
    except ValueError as error:  # too few of a class, or too few left
        raise HiwlError(f"split.training is {number} of {len(training)} galaxies: {error}") from None
    return in_order(pd.concat([splits[splits["split"] != "training"], kept]))
