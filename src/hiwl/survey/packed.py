"""The packed galaxies with their classes and splits, as `train`, `choose` and `evaluate` read them."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hiwl.core.layout import ID, PACKED_IMAGES, PACKED_INDEX, SPLITS_TABLE
from hiwl.model.tree import Ints, Tree
from hiwl.survey.tables import in_order, read_table


class Part(NamedTuple):
    """The galaxies of one split, by GalaxyID."""

    galaxies: list[str]
    """n GalaxyIDs."""
    images: Tensor
    """(n, side, side, 3) uint8."""
    labels: Ints
    """(n,) indices into the tree's classes."""


def read_packed() -> pd.DataFrame:
    """One row a galaxy, by GalaxyID: `class`, `split`, and its `row` in the packed images."""
    index = read_table(PACKED_INDEX).reset_index(names="row")
    return in_order(read_table(SPLITS_TABLE).merge(index, on=ID, validate="one_to_one"))


def read_images() -> Tensor:
    """(galaxies, side, side, 3) uint8, memory-mapped; writing to it changes no file."""
    return torch.from_numpy(np.load(PACKED_IMAGES, mmap_mode="c"))


def read_split(name: str, tree: Tree) -> Part:
    """All of one split, its pictures in memory."""
    table = read_packed()
    part = table[table["split"] == name]
    return Part(
        galaxies=part[ID].tolist(),
        images=read_images()[torch.tensor(part["row"].to_numpy())],
        labels=part["class"].map(tree.classes.index).to_numpy(np.int64),
    )
