from pathlib import Path
from typing import get_args

import pytest
import timm
import torch
from safetensors.torch import save_file

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256
from hiwl.model import backbones
from hiwl.studies.paper import BACKBONES
from hiwl.studies.plan import compose, plan, read_study
from hiwl.training.params import Head


@pytest.mark.parametrize("name", ["resnet10t", "squeezenet1_1"])
def test_models_of_both_libraries_are_made_by_name(name: str) -> None:
    made = backbones.create(name, 5, "scratch", None)
    assert made.model.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
    assert made.started_from == "scratch"


def test_all_but_the_last_layer_comes_from_the_users_file(tmp_path: Path) -> None:
    other = backbones.create("resnet10t", 7, "scratch", None).model
    path = tmp_path / "resnet10t.safetensors"
    save_file(other.state_dict(), path)
    for place in (tmp_path, path):
        made = backbones.create("resnet10t", 5, sha256(path), place)
        own, theirs = made.model.state_dict(), other.state_dict()
        assert all(torch.equal(own[key], theirs[key]) for key in own if not key.startswith("fc."))
        assert own["fc.weight"].shape == (5, 512)
        assert sha256(path)[:12] in made.started_from


def test_weights_that_are_not_there_are_an_error_and_never_a_random_start(tmp_path: Path) -> None:
    with pytest.raises(HiwlError, match="HIWL_WEIGHTS does not say where"):
        backbones.create("resnet10t", 5, "0" * 64, None)
    with pytest.raises(HiwlError, match=r"resnet10t\.safetensors: not found"):
        backbones.create("resnet10t", 5, "0" * 64, tmp_path)
    with pytest.raises(HiwlError, match="neither scratch, hub, hub:<tag> nor"):
        backbones.create("resnet10t", 5, "imagenet", tmp_path)
    path = tmp_path / "resnet10t.safetensors"
    path.write_bytes(b"no weights")
    with pytest.raises(HiwlError, match="its SHA-256 is"):
        backbones.create("resnet10t", 5, "0" * 64, tmp_path)
    with pytest.raises(HiwlError, match="not a safetensors file"):
        backbones.create("resnet10t", 5, sha256(path), tmp_path)
    save_file(backbones.create("resnet14t", 5, "scratch", None).model.state_dict(), path)
    with pytest.raises(HiwlError, match="does not fit resnet10t"):
        backbones.create("resnet10t", 5, sha256(path), tmp_path)


def test_a_body_that_lacks_one_layer_is_refused_and_a_head_that_fits_is_left(tmp_path: Path) -> None:
    other = backbones.create("resnet10t", 5, "scratch", None).model.state_dict()
    path = tmp_path / "resnet10t.safetensors"
    save_file(other, path)
    made = backbones.create("resnet10t", 5, sha256(path), path).model
    assert not torch.equal(made.state_dict()["fc.weight"], other["fc.weight"])
    del other["layer1.0.conv1.weight"]
    save_file(other, path)
    with pytest.raises(HiwlError, match=r"1 tensors differ, first layer1\.0\.conv1\.weight"):
        backbones.create("resnet10t", 5, sha256(path), path)


@pytest.mark.parametrize("is_pretrained", [True, False])
def test_the_last_layer_can_start_small_after_pretrained_weights_and_from_scratch(
    is_pretrained: bool, tmp_path: Path
) -> None:
    name = "tf_efficientnet_lite0"
    path = tmp_path / f"{name}.safetensors"
    save_file(backbones.create(name, 9, "scratch", None).model.state_dict(), path)
    pretrained = sha256(path) if is_pretrained else "scratch"
    models = []
    for head in get_args(Head):
        torch.manual_seed(0)
        models.append(backbones.create(name, 4, pretrained, path, head).model)
    library, linear = models
    for model, bound in ((library, 4**-0.5), (linear, 1280**-0.5)):
        assert 0.9 * bound < model.state_dict()["classifier.weight"].abs().max() <= bound
    bodies = [{k: v for k, v in m.state_dict().items() if "classifier" not in k} for m in (library, linear)]
    assert all(torch.equal(bodies[0][key], bodies[1][key]) for key in bodies[0])


def test_googlenet_trains_with_its_auxiliary_outputs_behind_the_main_one_and_answers_with_one() -> None:
    model = backbones.create("googlenet", 5, "scratch", None).model.train()
    assert [output.shape for output in model(torch.zeros(2, 3, 64, 64))] == 3 * [(2, 5)]
    assert model.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_the_papers_own_networks_are_made_by_name_and_have_no_published_weights() -> None:
    for name in ("dieleman", "zhu_resnet26"):
        assert backbones.create(name, 5, "scratch", None).model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
        with pytest.raises(HiwlError, match="none were published"):
            backbones.create(name, 5, "hub", None)


def test_every_backbone_of_the_papers_table_answers_at_its_input() -> None:
    trained = [compose(cell.choices)["train"] for cell in plan(read_study("backbones-paper"))]
    inputs = {train["backbone"]: train["input"] for train in trained}
    assert len(inputs) == len(BACKBONES)
    for name, side in inputs.items():
        with torch.inference_mode(), torch.device("meta"):  # shapes alone
            model = backbones.create(name, 5, "scratch", None, "linear").model.eval()
            assert model(torch.zeros(2, 3, side, side)).shape == (2, 5)


def test_a_hub_that_cannot_be_reached_is_an_error_that_says_what_else_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(HiwlError, match=r"no route to host.*HIWL_WEIGHTS.*scratch"):
        backbones.create("resnet10t", 5, "hub", None)


def test_an_unknown_model_is_named_with_some_near_it() -> None:
    with pytest.raises(HiwlError, match=r"'my_resnet10t'.*resnet10t"):
        backbones.create("my_resnet10t", 5, "scratch", None)


def test_published_weights_are_found_by_what_they_contain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pretrained/mine/root/model.safetensors"
    path.parent.mkdir(parents=True)
    other = backbones.create("resnet10t", 5, "scratch", None).model.state_dict()
    save_file(other, path)
    (tmp_path / "pretrained/mine/SHA256SUMS").write_text(f"{sha256(path)}  root/model.safetensors\n")
    made = backbones.create("resnet10t", 3, sha256(path), None)
    assert torch.equal(made.model.state_dict()["conv1.0.weight"], other["conv1.0.weight"])
    assert sha256(path)[:12] in made.started_from
