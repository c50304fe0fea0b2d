"""Studies: a question, the runs that answer it, and which of these are on record.

A study (``conf/study/<name>.yaml``) is a list of cells, each a set of choices for `dvc exp run -S`, run for every seed
(and fold). A run is known by what its parameters define (:func:`hiwl.params.definition`), so one that another study
shares is not run twice, and a study that was stopped goes on where it was.
"""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import yaml
from pydantic import Field, model_validator

from hiwl.core.errors import HiwlError
from hiwl.core.record import Kept
from hiwl.core.section import Section
from hiwl.params import definition
from hiwl.training.params import merge

CONF = Path("conf")
STUDIES = CONF / "study"


class Cell(Section):
    """One row of a study."""

    title: str
    choices: list[str]
    """For `dvc exp run -S`, beyond those that all cells share."""
    against: str | None = None
    """The cell that this one is compared with; null: the study's own."""
    paper: str | None = None
    """Which of the paper's figures stands beside it (:data:`hiwl.studies.paper.ACCURACY`)."""


class Study(Section):
    """One file of ``conf/study``."""

    question: str
    """What it is to answer, in a sentence or two."""
    finding: str = ""
    """What it found, in a sentence: a Jinja template over its numbers (:func:`hiwl.studies.study_page.finding`)."""
    until: Literal["choose", "evaluate"]
    """The last stage of its runs: ideas are judged on validation and never see the test set."""
    superseded: bool = False
    """Kept for what it measured; another study asks its question anew."""
    seeds: list[int] = Field(min_length=1)
    folds: list[int] = Field([])
    """Folds to test on; empty: the paper's one split."""
    common: list[str]
    """Choices that all cells share."""
    against: str | None = None
    """The cell that the others are compared with, where they do not name another."""
    cells: dict[str, Cell]

    @model_validator(mode="after")
    def _knows_its_cells(self) -> Self:
        named = {self.against, *(cell.against for cell in self.cells.values())} - {None}
        if unknown := named - self.cells.keys():
            raise ValueError(f"against: there is no cell {', '.join(sorted(map(str, unknown)))}")
        return self

    def base_of(self, cell: str) -> str | None:
        """The cell that `cell` is compared with."""
        base = self.cells[cell].against or self.against
        return None if base == cell else base


class Planned(NamedTuple):
    """One run of a study."""

    cell: str
    seed: int
    fold: int | None
    choices: list[str]
    """For `dvc exp run -S`."""
    definition: str


def read_study(name: str) -> Study:
    """One study by name.

    Raises:
        HiwlError: there is none of that name, or its file is not in order.
    """
    path = STUDIES / f"{name}.yaml"
    if not path.exists():
        raise HiwlError(f"{path}: not found; the studies are {', '.join(study_names())}")
    try:
        return Study.parse(yaml.safe_load(path.read_text()), file=path)
    except yaml.YAMLError as error:
        raise HiwlError(f"{path}: not valid YAML: {error}") from None


def study_names() -> list[str]:
    """All studies."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def questions_of(run: str) -> dict[str, str]:
    """By name, what the studies ask that have a run of this definition."""
    studies = {name: read_study(name) for name in study_names()}
    return {name: one.question for name, one in studies.items() if run in {cell.definition for cell in plan(one)}}


def plan(study: Study) -> list[Planned]:
    """Every run of a study: all cells with the first seed, then all with the second, and so on."""
    folds: list[int | None] = [*study.folds] or [None]
    return [
        _planned(name, seed, fold, [*study.common, *cell.choices])
        for seed in study.seeds
        for fold in folds
        for name, cell in study.cells.items()
    ]


def _planned(cell: str, seed: int, fold: int | None, choices: list[str]) -> Planned:
    choices = [*choices, f"train.seed={seed}"] + ([] if fold is None else [f"split.fold={fold}"])
    own = list({choice.split("=")[0]: choice for choice in choices}.values())  # a cell's own go before common ones
    return Planned(cell, seed, fold, own, definition(compose(own)))


def on_record(study: Study, kept: list[Kept]) -> dict[str, Kept]:
    """Of the records those that have got as far as the study's runs are to get, by what defines them.

    Raises:
        HiwlError: two of one run.
    """
    found: dict[str, Kept] = {}
    for one in kept:
        if study.until == "evaluate" and not one.answers.exists():
            continue
        name = definition_of(one)
        if name in found:
            raise HiwlError(f"{found[name].path} and {one.path}: two records of one run; delete the older one")
        found[name] = one
    return found


def definition_of(kept: Kept) -> str:
    """What defines the run of a record, once for each file."""
    name = _DEFINITIONS.get(kept.path)
    if name is None:
        name = _DEFINITIONS[kept.path] = definition(kept.choice.parameters)
    return name


_DEFINITIONS: dict[Path, str] = {}


def compose(choices: list[str]) -> dict[str, Any]:
    """params.yaml as `dvc exp run` would compose it from ``conf`` with these choices.

    Hydra composes once for each choice of whole files; single values are then set as Hydra would set them.

    Raises:
        HiwlError: a choice that Hydra would refuse.
    """
    files = [choice for choice in choices if (CONF / choice.split("=")[0]).is_dir()]
    composed: dict[str, Any] = deepcopy(_composed(CONF.resolve(), tuple(sorted(files))))
    for choice in choices:
        if choice not in files:
            override = _parsed(choice)
            *path, name = override.key_or_group.split(".")
            at = composed
            for part in path:
                at = at.setdefault(part, {}) if override.is_add() else at.get(part, {})
            if name not in at and not override.is_add():
                raise HiwlError(f"{choice}: no such parameter in {CONF}; put '+' before a name to add it")
            at[name] = merge(at.get(name), override.value())
    return composed


@cache
def _parsed(choice: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides([choice])[0]


@cache
def _composed(conf: Path, files: tuple[str, ...]) -> Any:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf), version_base=None):
        return OmegaConf.to_container(hydra_compose("config", overrides=list(files)))
