from pathlib import Path
from typing import Any

import pytest

from hiwl import study
from hiwl.choose import ChooseParams
from hiwl.claims import CLAIMING
from hiwl.errors import HiwlError
from hiwl.pack import PackParams
from hiwl.params import read_section
from hiwl.raw import RawParams
from hiwl.register import RegisterParams
from hiwl.select import SelectParams
from hiwl.split import SplitParams
from hiwl.study import cells, read_study
from hiwl.train import TrainParams


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"crop": 256, "side": 64, "colour": 1}, r"pack\.colour: no such parameter \(value 1\)"),
        ({"crop": 256}, r"pack\.side: is missing"),
        ({"crop": "256", "side": 64}, r"pack\.crop: .*integer.*'256'"),
        ({"crop": 256, "side": 0}, r"pack\.side: .*greater than 0.*0"),
        ({"crop": 64, "side": 256}, r"side \(256\) must not exceed crop \(64\)"),
        ([], r"pack: "),
    ],
)
def test_a_wrong_parameter_names_itself_and_what_was_expected(values: Any, said: str) -> None:
    with pytest.raises(HiwlError, match=said):
        PackParams.parse(values, "pack")


def test_a_study_that_is_not_in_order_names_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("conf/study").mkdir(parents=True)
    Path("conf/study/odd.yaml").write_text("seeds: [1]")
    with pytest.raises(HiwlError, match=r"^conf/study/odd\.yaml: question: is missing"):
        read_study("odd")
    Path("conf/study/odd.yaml").write_text("seeds: [")
    with pytest.raises(HiwlError, match=r"^conf/study/odd\.yaml: no YAML"):
        read_study("odd")


def test_parameters_are_frozen() -> None:
    params = PackParams(crop=256, side=64)
    with pytest.raises(ValueError, match="frozen"):
        params.side = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pack: [", "no YAML"),
        ("- 1", "expected the sections"),
        ("packs: {}", "unknown section packs"),
        ("raw: {}", "section pack is missing"),
    ],
)
def test_a_wrong_file_is_told_so(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(HiwlError, match=said):
        read_section("pack", tmp_path / "params.yaml")
    with pytest.raises(HiwlError, match="not there"):
        read_section("pack", tmp_path / "other.yaml")


def test_a_node_without_a_recipe_and_a_wrong_override_are_named(committed: dict[str, Any]) -> None:
    params = TrainParams.parse(committed["train"], "train")
    assert params.recipe_of("narrow").sampling == "weighted"
    assert params.recipe_of("root").sampling == "shuffled"
    with pytest.raises(HiwlError, match=r"train\.nodes: deep is missing"):
        params.recipe_of("deep")
    wrong = TrainParams.parse(committed["train"] | {"nodes": {"root": {"sampling": "fair"}}}, "train")
    with pytest.raises(HiwlError, match=r"train\.nodes\.root\.sampling"):
        wrong.recipe_of("root")


def chosen(group: str) -> list[str]:
    return sorted(path.stem for path in (Path(__file__).parents[1] / "conf" / group).glob("*.yaml"))


@pytest.mark.parametrize("survey", chosen("survey"))
@pytest.mark.parametrize("hierarchy", chosen("hierarchy"))
def test_every_choice_in_conf_is_valid(survey: str, hierarchy: str) -> None:
    for recipe in chosen("recipe"):
        for backbone in chosen("backbone"):
            choices = [f"survey={survey}", f"hierarchy={hierarchy}", f"recipe={recipe}", f"backbone={backbone}"]
            if survey == "files":
                choices += [f"raw.source.{name}_sha256={64 * 'a'}" for name in ("images", "table")]
            params = study.compose(choices)
            RawParams.parse(params["raw"], "raw")
            SelectParams.parse(params["select"], "select")
            SplitParams.parse(params["split"], "split")
            PackParams.parse(params["pack"], "pack")
            RegisterParams.parse(params["register"], "register")
            train = TrainParams.parse(params["train"], "train")
            for node in params["hierarchy"]:
                train.recipe_of(node)


@pytest.mark.parametrize("name", chosen("study"))
def test_every_run_of_every_study_is_valid_and_no_run_is_another(name: str) -> None:
    study_of_name = read_study(name)
    planned = cells(study_of_name)
    assert len({cell.definition for cell in planned}) == len(planned)
    for cell in planned:
        if cell.seed == study_of_name.seeds[0]:
            params = study.compose(cell.choices)
            PackParams.parse(params["pack"], "pack")
            SplitParams.parse(params["split"], "split")
            ChooseParams.parse(params["choose"], "choose")
            train = TrainParams.parse(params["train"], "train")
            assert 0.85 * params["pack"]["side"] <= train.input <= params["pack"]["side"]
            for node in params["hierarchy"]:
                train.recipe_of(node)


def test_params_yaml_is_the_composition_of_conf(committed: dict[str, Any]) -> None:
    assert study.compose([]) == committed


def test_no_parameter_has_a_name_that_the_run_cache_overlooks(committed: dict[str, Any]) -> None:
    # DVC leaves keys of these names out of what it looks runs up by: a run with another value would count as done.
    def names(content: object) -> set[str]:
        if not isinstance(content, dict):
            return set()
        return set(content) | {name for value in content.values() for name in names(value)}

    assert not names(committed) & {"size", "nfiles"}


def test_the_papers_claims_are_weighed_by_the_ablations_and_by_the_paper_to_the_letter() -> None:
    assert {name for name in chosen("study") if read_study(name).cells.keys() >= CLAIMING} == {"ablations", "paper"}
