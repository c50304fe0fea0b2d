"""`hiwl study <name>`: the runs of a study that no record holds yet, one after the other or into DVC's queue.

A study (``conf/study/<name>.yaml``) is a list of cells, each a set of choices for `dvc exp run -S`, run for every seed
(and fold). A run is known by what its parameters define (:func:`hiwl.record.definition`), so one that another study
shares is not run twice, and a study that was stopped goes on where it was.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import yaml
from pydantic import Field, model_validator

from hiwl.errors import HiwlError
from hiwl.params import Section
from hiwl.record import Kept, definition, read_results

CONF = Path("conf")
STUDIES = CONF / "study"


class Study(Section):
    """One file of ``conf/study``."""

    question: str
    """What it is to answer, in a sentence."""
    until: Literal["choose", "evaluate"]
    """The last stage of its runs: ideas are judged on validation and never see the test set."""
    superseded: bool = False
    """Kept for what it measured; another study asks its question anew."""
    seeds: list[int] = Field(min_length=1)
    folds: list[int]
    """Folds to test on; empty: the paper's one split."""
    common: list[str]
    """Choices that all cells share."""
    cells: dict[str, list[str]]
    """Choices of each cell beyond the common ones."""
    against: dict[str, str] = Field({})
    """Of some cells, another that each is set against besides the first."""

    @model_validator(mode="after")
    def _knows_its_cells(self) -> Self:
        if unknown := {*self.against, *self.against.values()} - self.cells.keys():
            raise ValueError(f"against: no cell is named {', '.join(sorted(unknown))}")
        return self


class Cell(NamedTuple):
    """One run of a study."""

    name: str
    seed: int
    fold: int | None
    choices: list[str]
    """For `dvc exp run -S`."""
    definition: str


def main(name: str, queue: bool) -> None:
    """Run what is missing, or put it into DVC's queue."""
    study = read_study(name)
    known = on_record(study, read_results())
    planned = cells(study)
    missing = [cell for cell in planned if cell.definition not in known]
    print(f"study {name}: {study.question}\n{len(planned)} runs, {len(planned) - len(missing)} on record")
    for number, cell in enumerate(missing, start=1):
        fold = "" if cell.fold is None else f", fold {cell.fold}"
        print(f"study {name}: run {number} of {len(missing)}: {cell.name}, seed {cell.seed}{fold}", flush=True)
        # In a copy of the project, so that params.yaml and dvc.lock here stay as they are.
        how = ["--queue"] if queue else ["--temp"]
        command = ["dvc", "exp", "run", *how, *(f"--set-param={choice}" for choice in cell.choices), study.until]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"hiwl study: stopped at {cell.name}, seed {cell.seed}; started again it goes on here")
    if queue and missing:
        print("`dvc queue start` runs them; MLflow has each while it runs, results/ when it has ended")


def read_study(name: str) -> Study:
    """One study by name.

    Raises:
        HiwlError: there is none of that name, or its file is not in order.
    """
    path = STUDIES / f"{name}.yaml"
    if not path.exists():
        raise HiwlError(f"{path}: not there; the studies are {', '.join(study_names())}")
    try:
        return Study.parse(yaml.safe_load(path.read_text()), file=path)
    except yaml.YAMLError as error:
        raise HiwlError(f"{path}: no YAML: {error}") from None


def study_names() -> list[str]:
    """All studies."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def questions_of(run: str) -> dict[str, str]:
    """By name, what the studies ask that have a run of this definition (:func:`hiwl.record.definition`)."""
    studies = {name: read_study(name) for name in study_names()}
    return {name: one.question for name, one in studies.items() if run in {cell.definition for cell in cells(one)}}


def cells(study: Study) -> list[Cell]:
    """Every run of a study: all cells with the first seed, then all with the second, and so on."""
    folds: list[int | None] = [*study.folds] or [None]
    return [
        _cell(name, seed, fold, [*study.common, *choices])
        for seed in study.seeds
        for fold in folds
        for name, choices in study.cells.items()
    ]


def on_record(study: Study, kept: list[Kept]) -> dict[str, Kept]:
    """Of the records those that have got as far as the study's runs are to get, by what defines them.

    Raises:
        HiwlError: two of one run.
    """
    found: dict[str, Kept] = {}
    for one in kept:
        if study.until == "evaluate" and not one.answers.exists():
            continue
        name = definition(one.choice.parameters)
        if name in found:
            raise HiwlError(f"{found[name].path} and {one.path}: two records of one run; delete the older one")
        found[name] = one
    return found


def compose(choices: list[str]) -> dict[str, Any]:
    """params.yaml as `dvc exp run` would compose it from `conf` with these choices."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF.resolve()), version_base=None):
        composed = OmegaConf.to_container(hydra_compose("config", overrides=choices), resolve=True)
    assert isinstance(composed, dict)
    return {str(name): value for name, value in composed.items()}


def _cell(name: str, seed: int, fold: int | None, choices: list[str]) -> Cell:
    choices = [*choices, f"train.seed={seed}"] + ([] if fold is None else [f"split.fold={fold}"])
    own = list({choice.split("=")[0]: choice for choice in choices}.values())  # a cell's own go before common ones
    return Cell(name, seed, fold, own, definition(compose(own)))
