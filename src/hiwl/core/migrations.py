"""Parameters of earlier versions, brought to today's names when they are read. Records on disk are never edited.

A record says which version of the parameters it was written with (0 where it says nothing). Whoever renames or moves a
parameter adds a function here. A new parameter needs none: it has a neutral default.
"""

from collections.abc import Callable
from typing import Any


def migrate(parameters: dict[str, Any], version: int) -> dict[str, Any]:
    """`parameters`, written with `version`, as today's version has them."""
    for step in STEPS[version:]:
        parameters = step(parameters)
    return parameters


def _recipes_have_parts(parameters: dict[str, Any]) -> dict[str, Any]:
    """1: a recipe's loss, optimiser and sampling are parts of their own, each of a `kind`."""
    if "train" not in parameters:
        return parameters
    train = dict(parameters["train"])
    if "recipe" in train:
        train["recipe"] = _with_parts(train["recipe"])
    if "nodes" in train:
        train["nodes"] = {node: _with_parts(own) for node, own in train["nodes"].items()}
    return parameters | {"train": train}


def _with_parts(recipe: dict[str, Any]) -> dict[str, Any]:
    parts = {
        "loss": ("smoothing", "smoothing_by", "votes", "logit_adjustment"),
        "optimiser": ("momentum", "weight_decay"),
    }
    moved = {name for names in parts.values() for name in names}
    found = {name: value for name, value in recipe.items() if name not in moved}
    if isinstance(recipe.get("sampling"), str):
        found["sampling"] = {"kind": recipe["sampling"]}
    for part, names in parts.items():
        if own := {name: recipe[name] for name in names if name in recipe}:
            found[part] = own
    return found


def _trees_have_names(parameters: dict[str, Any]) -> dict[str, Any]:
    """2: a hierarchy has a name beside its nodes."""
    nodes = parameters.get("hierarchy")
    return parameters if nodes is None else parameters | {"hierarchy": {"name": "-".join(nodes), "nodes": nodes}}


def _losses_are_of_kinds(parameters: dict[str, Any]) -> dict[str, Any]:
    """3: a recipe's loss says its kind; until then there was one."""
    train = parameters.get("train", {})
    if "loss" not in train.get("recipe", {}):
        return parameters
    recipe = train["recipe"] | {"loss": {"kind": "cross_entropy"} | train["recipe"]["loss"]}
    return parameters | {"train": train | {"recipe": recipe}}


STEPS: list[Callable[[dict[str, Any]], dict[str, Any]]] = [
    _recipes_have_parts,
    _trees_have_names,
    _losses_are_of_kinds,
]
VERSION = len(STEPS)
