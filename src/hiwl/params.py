"""``params.yaml`` as a whole: one typed class a section; and what of it a run is known by."""

from typing import Any

from pydantic import Field

from hiwl.core.files import digest
from hiwl.core.section import PARAMS, Section, read_params
from hiwl.model.pixels import PackParams
from hiwl.model.tree import ChooseParams, HierarchyParams, Tree
from hiwl.stages.register import RegisterParams
from hiwl.survey.selection import SelectParams
from hiwl.survey.sources import RawParams
from hiwl.survey.splits import SplitParams
from hiwl.training.params import TrainParams


class Definition(Section):
    """The sections that a run's result follows from."""

    raw: RawParams
    select: SelectParams
    split: SplitParams
    pack: PackParams
    hierarchy: HierarchyParams
    train: TrainParams
    choose: ChooseParams


class Params(Definition):
    """All of ``params.yaml``."""

    registration: RegisterParams = Field(alias="register")


def check_params() -> None:
    """Raise HiwlError unless every section of params.yaml is in order, so that no stage starts on half of them."""
    params = Params.parse(read_params())
    tree = Tree(params.hierarchy.nodes)
    params.train.check_nodes(tree, params.hierarchy.name)
    if params.select.expected is not None:
        tree.check_classes({name for name, number in params.select.expected.items() if number})


def definition(parameters: dict[str, Any]) -> str:
    """Names the run that `parameters` define: the same for the same result.

    A parameter at its default counts as one that is absent, so that a new parameter leaves every earlier run what it
    was. Each node's recipe counts as a whole, wherever its values stand. What a tree is called and what the rules of
    `select` are expected to find do not count: they change no result.
    """
    chosen = Definition.parse({name: parameters[name] for name in Definition.model_fields}, file=PARAMS)
    content = {name: chosen_differently(getattr(chosen, name)) for name in Definition.model_fields}
    content["select"].pop("expected", None)
    content["hierarchy"].pop("name")
    for name in ("recipe", "nodes"):
        content["train"].pop(name)
    recipes = {node: chosen_differently(chosen.train.recipe_of(node)) for node in chosen.hierarchy.nodes}
    for recipe in recipes.values():
        if "start" in recipe:
            recipe["start"] = recipe["start"].rpartition("/")[2]  # without the tree's name
    return digest([content, recipes])[:16]


def chosen_differently(part: Section) -> dict[str, Any]:
    """What of `part` does not stand at its default; of a part that has a `kind`, with it."""
    found: dict[str, Any] = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if name == "kind" or field.is_required() or value != field.default:
            is_part = isinstance(value, Section)
            found[name] = chosen_differently(value) if is_part else part.model_dump(mode="json", include={name})[name]
    return found
