from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import create_model

from hiwl import params
from hiwl.core.errors import HiwlError
from hiwl.core.record import Kept, read_results
from hiwl.params import Definition
from hiwl.studies import plan as plans
from hiwl.studies.plan import compose, on_record, plan, questions_of, read_study
from runs import CELLS, MINE, STUDY, keep, plan_study

ROOT = Path(__file__).parents[2]
REAL = ["ablations", "folds", "ideas"]  # 110 of the records that the repository holds


def test_composing_gives_what_hydra_gives() -> None:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    choices = ["hierarchy=flat", "recipe=paper", "train.recipe.augment.ratio=[0.9,1.1]", "+train.nodes.root.epochs=3"]
    choices += ["select.expected={CRS: 1}", "split.fold=null", "train.recipe.loss.smoothing=0"]
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        theirs = OmegaConf.to_container(hydra_compose("config", overrides=choices), resolve=True)
    assert compose(choices) == theirs
    with pytest.raises(HiwlError, match=r"train\.recipe\.mixing=1: no such parameter"):
        compose(["train.recipe.mixing=1"])


def test_a_study_names_its_file_and_the_cell_that_is_missing(project: Path) -> None:
    plan_study(STUDY | {"against": "three"})
    with pytest.raises(HiwlError, match=r"trees\.yaml: .*against: there is no cell three"):
        read_study("trees")
    with pytest.raises(HiwlError, match=r"shapes\.yaml: not found; the studies are trees"):
        read_study("shapes")


def test_a_study_that_a_run_belongs_to_is_known_by_its_definition(project: Path) -> None:
    run = params.definition(compose([*MINE, *CELLS["one"]["choices"], "train.seed=2"]))
    assert questions_of(run) == {"trees": "Which tree?"}
    assert questions_of("another") == {}


def test_two_records_of_one_run_are_an_error(project: Path) -> None:
    path = keep(1, "one", [0])
    for ending in (".json", ".answers.csv.gz"):
        path.with_name(f"again{ending}").write_bytes(path.with_suffix(ending).read_bytes())
    with pytest.raises(HiwlError, match="two records of one run"):
        on_record(read_study("trees"), read_results())


def test_an_unevaluated_run_counts_for_a_study_of_ideas_alone(project: Path) -> None:
    keep(1, "one", None)
    for until, known in (("evaluate", 0), ("choose", 1)):
        plan_study(STUDY | {"until": until})
        study = read_study("trees")
        assert len(on_record(study, read_results()).keys() & {run.definition for run in plan(study)}) == known


@pytest.fixture(scope="module")
def kept() -> list[Kept]:
    """The records that the repository holds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return read_results()


def found(studies: list[str], kept: list[Kept]) -> int:
    """How many runs of these studies are among the records."""
    plans._DEFINITIONS.clear()
    number = 0
    for name in studies:
        study = read_study(name)
        number += len(on_record(study, kept).keys() & {run.definition for run in plan(study)})
    return number


def test_every_planned_run_that_the_repository_holds_is_found(
    kept: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert found(REAL, kept) == 120


def neutral(base: Any, path: tuple[str, ...]) -> Any:
    """The class `base` with a new neutral parameter in itself, or in the part at `path`."""
    if not path:
        return create_model(base.__name__, __base__=base, a_new_one=(int, 0))
    field = base.model_fields[path[0]]
    kinds = get_args(field.annotation)  # of a part that has several, the one that is there
    part = neutral(type(field.default) if kinds else field.annotation, path[1:])
    changed = (part, ... if field.is_required() else part())
    changes: dict[str, Any] = {path[0]: changed}
    return create_model(base.__name__, __base__=base, **changes)


SECTIONS = [(name,) for name in Definition.model_fields]
PARTS = [
    ("train", "recipe"),
    ("train", "recipe", "loss"),
    ("train", "recipe", "optimiser"),
    ("train", "recipe", "augment"),
]


@pytest.mark.parametrize("path", [*SECTIONS, *PARTS], ids=".".join)
def test_a_new_neutral_parameter_loses_no_record(
    path: tuple[str, ...], kept: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(params, "Definition", neutral(Definition, path))
    assert found(["ablations"], kept) == 18
    values = compose([])
    at = values
    for name in path:
        at = at[name]
    without = params.definition(values)
    at["a_new_one"] = 0
    assert params.definition(values) == without  # an absent key and a neutral one are the same run
    at["a_new_one"] = 1
    assert params.definition(values) != without
