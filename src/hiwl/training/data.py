"""What one node learns from, and in which order."""

from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256
from hiwl.core.layout import CLEAN_TABLE, ID, PACKED_IMAGES, PACKED_INDEX, RAW_TABLE, SPLITS_TABLE
from hiwl.model.tree import Tree
from hiwl.survey.packed import read_images, read_packed
from hiwl.survey.tables import read_table
from hiwl.survey.votes import COLUMNS
from hiwl.training.params import RecipeParams, Shuffled, Weighted
from hiwl.training.teachers import read_teachers


class NodeData(NamedTuple):
    """The galaxies below one node, as rows of the packed images."""

    images: Tensor
    """(galaxies, side, side, 3) uint8: memory-mapped, or on the device."""
    rows: dict[str, Tensor]
    labels: dict[str, Tensor]
    """By split: row and child's index of every galaxy below the node, (n,) int64 each."""
    votes: dict[str, Tensor] | None
    """By split: the volunteers' shares for the node's children, (n, children), NaN where they are not known; None
    where the recipe does not ask for them."""
    teachers: dict[str, Tensor] | None
    """By split: other models' shares for the node's children, as `votes`."""
    answers: dict[str, Tensor] | None
    """By split: the volunteers' answers to all questions, (n, 37) as in the competition's table, NaN where they are not
    known; None where the recipe does not ask for them."""
    children: list[str]
    shares: dict[str, int]
    """How many training galaxies each class below the node has."""
    sources: dict[str, str]
    """SHA-256 of every file read."""


def read_data(tree: Tree, node: str, recipe: RecipeParams, teachers: list[str]) -> NodeData:
    """Everything below `node`, from the pack, the splits and, where the `recipe` asks for it, votes and `teachers`."""
    table = read_packed()
    tree.check_classes(set(table["class"]))
    label_of = tree.labels(node)
    table = table[table["class"].isin(label_of)]
    parts = {name: table[table["split"] == name] for name in ("training", "validation")}
    if untaught := set(label_of) - set(parts["training"]["class"]):
        raise HiwlError(f"train@{node}: no galaxy of {', '.join(sorted(untaught))} to train on; use a larger survey")
    if parts["validation"].empty:
        raise HiwlError(f"train@{node}: no galaxy to validate on; use a larger survey, or raise split.held_out")
    files = [PACKED_IMAGES, PACKED_INDEX, SPLITS_TABLE]
    files += [CLEAN_TABLE] * recipe.needs_votes + [RAW_TABLE] * (recipe.answers > 0)
    return NodeData(
        images=read_images(),
        rows={name: torch.tensor(part["row"].to_numpy()) for name, part in parts.items()},
        labels={name: torch.tensor(part["class"].map(label_of).to_numpy()) for name, part in parts.items()},
        votes=_read_votes(tree, node, parts) if recipe.needs_votes else None,
        teachers=_read_teachers(tree, node, parts, teachers) if recipe.has_teachers else None,
        answers=_read_answers(node, parts) if recipe.answers else None,
        children=tree.nodes[node],
        shares={str(k): int(n) for k, n in parts["training"]["class"].value_counts().items()},
        sources={path.name: sha256(path) for path in files},
    )


def _read_votes(tree: Tree, node: str, parts: dict[str, pd.DataFrame]) -> dict[str, Tensor]:
    clean = read_table(CLEAN_TABLE).set_index(ID)
    if missing := [leaf for leaf in tree.leaves(node) if f"votes_{leaf}" not in clean]:
        raise HiwlError(
            f"{CLEAN_TABLE}: no votes for {', '.join(missing)}, but the recipe of {node} needs them "
            "(train.recipe.loss.votes, .smoothing_by): give them with the survey (raw.source.votes_sha256)"
        )
    return _of_children(tree, node, parts, clean.rename(columns=lambda name: name.removeprefix("votes_")))


def _read_teachers(tree: Tree, node: str, parts: dict[str, pd.DataFrame], hashes: list[str]) -> dict[str, Tensor]:
    said = read_teachers(hashes, tree.leaves(node))
    if not parts["training"][ID].isin(said.index).any():
        raise HiwlError(
            f"train.teachers: they answer for no training galaxy of {node}, such as {parts['training'][ID].iloc[0]}; "
            "pictures must be named after their galaxies"
        )
    return _of_children(tree, node, parts, said)


def _of_children(tree: Tree, node: str, parts: dict[str, pd.DataFrame], of_leaves: pd.DataFrame) -> dict[str, Tensor]:
    """By split, the shares of the node's children from those of the classes below them, a row a galaxy."""
    sums = [of_leaves[tree.leaves(child)].sum(axis=1, skipna=False) for child in tree.nodes[node]]
    of_children = pd.concat(sums, axis=1)
    shares = of_children.div(of_children.sum(axis=1), axis=0)
    return {
        name: torch.tensor(shares.reindex(part[ID]).to_numpy(), dtype=torch.float32) for name, part in parts.items()
    }


def _read_answers(node: str, parts: dict[str, pd.DataFrame]) -> dict[str, Tensor]:
    raw = read_table(RAW_TABLE).set_index(ID).reindex(columns=COLUMNS)
    if not raw.loc[parts["training"][ID]].notna().any(axis=None):
        raise HiwlError(
            f"{RAW_TABLE}: no votes on a training galaxy of {node}, but train.recipe.answers needs them: give them "
            "with the survey (raw.source.votes_sha256)"
        )
    return {name: torch.tensor(raw.loc[part[ID]].to_numpy(), dtype=torch.float32) for name, part in parts.items()}


def epoch_order(labels: Tensor, sampling: Shuffled | Weighted, generator: torch.Generator) -> Tensor:
    """Rows of one epoch in the order in which they are trained on; as many as there are labels."""
    match sampling:
        case Weighted():
            return torch.multinomial(sampling_weights(labels), len(labels), True, generator=generator)
        case Shuffled():
            return torch.randperm(len(labels), generator=generator)


def sampling_weights(labels: Tensor) -> Tensor:
    """Weight of each sample: 1 / (how many samples its class has) (paper, section 3.2)."""
    return (1 / torch.bincount(labels).double())[labels]
