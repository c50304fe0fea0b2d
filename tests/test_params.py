from pathlib import Path
from typing import Any

import pytest
import yaml

from hiwl.core.errors import HiwlError
from hiwl.core.section import read_section
from hiwl.model.pixels import PackParams
from hiwl.model.tree import Tree
from hiwl.params import Params, check_params, chosen_differently, definition
from hiwl.studies.plan import compose, plan, read_study
from hiwl.training.params import CrossEntropy, RecipeParams, Shuffled, TrainParams, Weighted


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
    with pytest.raises(HiwlError, match=r"^conf/study/odd\.yaml: not valid YAML"):
        read_study("odd")


def test_parameters_are_frozen() -> None:
    params = PackParams(crop=256, side=64)
    with pytest.raises(ValueError, match="frozen"):
        params.side = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pack: [", "not valid YAML"),
        ("- 1", "expected sections such as"),
        ("raw: {}", "pack is missing"),
    ],
)
def test_a_wrong_file_is_told_so(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HiwlError, match="not found"):
        read_section("pack")
    Path("params.yaml").write_text(text)
    with pytest.raises(HiwlError, match=said):
        read_section("pack")


def test_a_node_without_a_recipe_and_a_wrong_override_are_named(committed: dict[str, Any]) -> None:
    params = TrainParams.parse(committed["train"], "train")
    assert isinstance(params.recipe_of("narrow").sampling, Weighted)
    assert isinstance(params.recipe_of("root").sampling, Shuffled)
    with pytest.raises(HiwlError, match=r"train\.nodes: deep is missing"):
        params.recipe_of("deep")
    wrong = TrainParams.parse(committed["train"] | {"nodes": {"root": {"sampling": {"kind": "fair"}}}}, "train")
    with pytest.raises(HiwlError, match=r"train\.nodes\.root\.sampling"):
        wrong.recipe_of("root")


def chosen(group: str) -> list[str]:
    return sorted(path.stem for path in (Path(__file__).parents[1] / "conf" / group).glob("[!_]*.yaml"))


GROUPS = ("survey", "hierarchy", "recipe", "backbone")


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in chosen(group)])
def test_every_choice_in_conf_is_valid(group: str, name: str) -> None:
    params = Params.parse(compose([f"{group}={name}"]))
    params.train.check_nodes(Tree(params.hierarchy.nodes), params.hierarchy.name)


@pytest.mark.parametrize("name", chosen("study"))
def test_every_run_of_every_study_is_valid_and_no_run_is_another(name: str) -> None:
    study = read_study(name)
    planned = plan(study)
    assert len({run.definition for run in planned}) == len(planned)
    for run in planned:
        if run.seed == study.seeds[0]:
            params = Params.parse(compose(run.choices))
            assert 0.85 * params.pack.side <= params.train.input <= params.pack.side


def test_params_yaml_is_the_composition_of_conf(committed: dict[str, Any]) -> None:
    assert compose([]) == committed


def test_no_parameter_has_a_name_that_the_run_cache_overlooks(committed: dict[str, Any]) -> None:
    # DVC leaves keys of these names out of what it looks runs up by: a run with another value would count as done.
    def names(content: object) -> set[str]:
        if not isinstance(content, dict):
            return set()
        return set(content) | {name for value in content.values() for name in names(value)}

    assert not names(committed) & {"size", "nfiles"}


def test_the_neutral_recipe_is_what_the_classes_have_by_default() -> None:
    text = (Path(__file__).parents[1] / "conf/recipe/_neutral.yaml").read_text()
    named = RecipeParams.parse(yaml.safe_load(text) | {"name": "n", "epochs": 1, "batch": 2, "learning_rate": 1})
    assert named == RecipeParams(name="n", epochs=1, batch=2, learning_rate=1)
    of_each_recipe, of_each_node = {"name", "epochs", "batch", "learning_rate"}, {"start"}
    assert set(yaml.safe_load(text)) == set(RecipeParams.model_fields) - of_each_recipe - of_each_node


@pytest.mark.parametrize("tree", [path.stem for path in Path("conf/hierarchy").glob("*.yaml")])
def test_every_node_of_a_tree_says_what_it_starts_from(tree: str) -> None:
    params = compose([f"hierarchy={tree}"])  # DVC makes a dependency of it
    assert {node: own["start"] for node, own in params["train"]["nodes"].items()} == dict.fromkeys(
        params["hierarchy"]["nodes"], "pretrained"
    )


def test_teachers_that_nobody_learns_from_are_told(committed: dict[str, Any]) -> None:
    params = TrainParams.parse(committed["train"] | {"teachers": ["00"]}, "train")
    with pytest.raises(HiwlError, match=r"train\.teachers: no node learns from them"):
        params.check_nodes(Tree(committed["hierarchy"]["nodes"]), "paper")


@pytest.mark.parametrize(
    ("node", "start", "said"),
    [
        ("narrow", "paper/root", None),
        ("root", "paper/root", "is none of pretrained$"),
        ("narrow", "root", "is none of pretrained, paper/root"),
    ],
)
def test_a_node_starts_from_what_is_pretrained_or_the_node_above(
    committed: dict[str, Any], node: str, start: str, said: str | None
) -> None:
    train = committed["train"] | {"nodes": committed["train"]["nodes"] | {node: {"start": start}}}
    params, tree = TrainParams.parse(train, "train"), Tree(committed["hierarchy"]["nodes"])
    if said is None:
        params.check_nodes(tree, "paper")
    else:
        with pytest.raises(HiwlError, match=rf"train\.nodes\.{node}\.start: '{start}' {said}"):
            params.check_nodes(tree, "paper")


def test_a_part_of_a_recipe_is_merged_and_one_of_another_kind_replaces_it(committed: dict[str, Any]) -> None:
    nodes = {"root": {"loss": {"votes": 0.5}}, "narrow": {"optimiser": {"kind": "sgd", "momentum": 0.5}}}
    params = TrainParams.parse(committed["train"] | {"nodes": nodes}, "train")
    assert params.recipe_of("root").loss == CrossEntropy(smoothing=0.05, votes=0.5)
    assert params.recipe_of("narrow").optimiser.momentum == 0.5
    assert params.recipe_of("narrow").optimiser.weight_decay == 1e-4


def test_every_section_is_checked_before_a_stage_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    for change, said in (
        ({"train": committed["train"] | {"recipe": committed["train"]["recipe"] | {"epochs": "abc"}}}, "recipe.epochs"),
        ({"choose": {"views": 9}}, "choose.views"),
        ({"packs": {}}, "packs: no such parameter"),
        ({"hierarchy": {"name": "a", "nodes": {"root": ["A"]}}}, "at least two children"),
    ):
        Path("params.yaml").write_text(yaml.safe_dump(committed | change))
        with pytest.raises(HiwlError, match=said):
            check_params()
    Path("params.yaml").write_text(yaml.safe_dump(committed))
    check_params()


def test_a_run_is_another_by_what_defines_its_result() -> None:
    base = definition(compose([]))
    assert definition(compose(["train.recipe.learning_rate=0.040"])) == base
    assert definition(compose(["select.expected={CRS: 1}", "register.name=other"])) == base
    assert definition(compose(["+train.nodes.root.epochs=16"])) == base  # as the recipe has it
    for other in ("train.seed=2", "split.fold=1", "raw.source.galaxies=7", "train.nodes.narrow.sampling.kind=shuffled"):
        assert definition(compose([other])) != base
    assert chosen_differently(Weighted()) == {"kind": "weighted"}  # lest another kind at its defaults be the same run
    assert chosen_differently(Shuffled()) != chosen_differently(Weighted())
    selected = compose([])
    selected["select"]["rules"]["EO"]["Class2.1"] = 0.7
    assert definition(selected) != base
