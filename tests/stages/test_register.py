import base64
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import timm
import torch
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from safetensors.torch import save_file

import hiwl
from hiwl.core import tracking
from hiwl.core.errors import HiwlError
from hiwl.core.files import write_json
from hiwl.core.sums import check_sums, write_sums
from hiwl.model import backbones
from hiwl.model.classifier import CHOICE_FILE, Classifier
from hiwl.model.pixels import PackParams, decode
from hiwl.stages import register
from hiwl.verbs import adopt, promote, publish, restore
from pictures import bomb, jpeg
from project import TREES, Project, environment, free_port, store, wait_for

CROP, SIZE = 40, 32
pytestmark = pytest.mark.xdist_group("served")  # one server for all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of the paper's tree with random but outspoken weights."""
    folder = tmp_path_factory.mktemp("model")
    here = Path.cwd()
    os.chdir(folder)
    try:
        torch.manual_seed(1)
        nodes = {}
        choice = folder / "choice"
        for name, children in TREES["paper"].items():
            model = backbones.create("test_resnet", len(children), "scratch", None).model
            with torch.no_grad():
                model.get_parameter("fc.weight").normal_(0, 8)
            (choice / name).mkdir(parents=True)
            save_file(model.state_dict(), choice / name / "best.safetensors")
            nodes[name] = {
                "node": name,
                "children": children,
                "backbone": "test_resnet",
                "input": SIZE if name == "root" else SIZE - 8,  # a node may see less of what is packed
                "mean": [0.046, 0.041, 0.030],
                "std": [0.090, 0.075, 0.065],
                "file": "best.safetensors",
            }
        shares = {"CRS": 5, "IBS": 5, "SPI": 5, "CSS": 1, "EO": 4}
        content = {"hierarchy": TREES["paper"], "crop": CROP, "side": SIZE, "shares": shares, "nodes": nodes}
        content |= {"views": 1, "routing": "hard", "temperatures": {"root": 1.0, "narrow": 1.0}}
        write_json(choice / "choice.json", content)
        write_sums(choice)
        register.save(folder / "served", choice)
    finally:
        os.chdir(here)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return mlflow.pyfunc.load_model(str(folder / "served"))


PICTURES = [jpeg(seed) for seed in range(60)]
BAD = [b"", b"hello", PICTURES[0][:200], b"II*\0" + bytes(50), b"\xff\xd8\xff" + bytes(1000)]


def test_the_pyfunc_and_the_classifier_agree_whatever_the_batch(folder: Path, model: Any) -> None:
    classifier = Classifier.load(folder / "choice", "cpu")
    routed = classifier(
        np.stack([decode(picture, PackParams(crop=CROP, side=SIZE)).pixels for picture in PICTURES])
    ).routed
    assert {len(path) for path in routed.routes} == {2, 3}  # some stop after the first layer, some do not
    for batch in (1, 7, len(PICTURES)):
        parts = [
            model.predict(pd.DataFrame({"image": PICTURES[start : start + batch]}))
            for start in range(0, len(PICTURES), batch)
        ]
        answers = pd.concat(parts, ignore_index=True)
        assert answers["answer"].tolist() == [classifier.tree.classes[label] for label in routed.label]
        assert answers["route"].tolist() == [" > ".join(path) for path in routed.routes]
        found = answers[[f"p_{name}" for name in classifier.tree.classes]].to_numpy(float)
        assert np.abs(found - routed.probabilities).max() < 1e-5
        assert answers["error"].isna().all()


def test_bad_images_become_rows_that_say_so_and_the_others_are_answered(model: Any) -> None:
    values = [PICTURES[0], *BAD, base64.b64encode(PICTURES[0]).decode(), "no base64!", None, 7, PICTURES[1]]
    answers = model.unwrap_python_model().predict(None, pd.DataFrame({"image": pd.Series(values, dtype=object)}))
    good = [0, 6, 10]
    assert answers["error"].isna().tolist() == [row in good for row in range(len(values))]
    assert answers["answer"].notna().tolist() == [row in good for row in range(len(values))]
    assert answers.loc[0].drop("error").equals(answers.loc[6].drop("error"))


def test_no_image_is_no_error(model: Any) -> None:
    assert len(model.unwrap_python_model().predict(None, pd.DataFrame({"image": []}))) == 0


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        ["mlflow", "models", "serve", "-m", "served", "--env-manager", "local", "-p", str(port)],
        cwd=folder,
        env=environment(),
        start_new_session=True,
    )
    try:
        wait_for(process, f"http://127.0.0.1:{port}/ping")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.process
@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records", "instances", "inputs"])
def test_every_json_form_answers_the_good_pictures_beside_bad_ones(server: str, model: Any, form: str) -> None:
    good = text(PICTURES[0])
    pictures = [good, "no base64!", *map(text, BAD), text(bomb()), "", good]
    body = {
        "dataframe_split": {"columns": ["image"], "data": [[picture] for picture in pictures]},
        "dataframe_records": [{"image": picture} for picture in pictures],
        "instances": [{"image": picture} for picture in pictures],
        "inputs": {"image": pictures},
    }[form]
    answer = requests.post(server, json={form: body}, timeout=60)
    assert answer.status_code == 200
    rows = answer.json()["predictions"]
    assert [row["error"] is None for row in rows] == [True, *[False] * (len(pictures) - 2), True]
    wanted = model.predict(pd.DataFrame({"image": [PICTURES[0]]})).iloc[0]
    for row in (rows[0], rows[-1]):
        assert row["answer"] == wanted["answer"]
        assert row["probability"] == pytest.approx(wanted["probability"], abs=1e-5)


@pytest.mark.process
def test_a_parquet_request_with_a_binary_column_is_answered(server: str) -> None:
    buffer = io.BytesIO()
    pd.DataFrame({"image": PICTURES + BAD}).to_parquet(buffer)
    kind = {"Content-Type": "application/vnd.apache.parquet"}
    answer = requests.post(server, data=buffer.getvalue(), headers=kind, timeout=60)
    assert answer.status_code == 200
    rows = answer.json()["predictions"]
    assert [row["error"] is None for row in rows] == [True] * len(PICTURES) + [False] * len(BAD)


@pytest.mark.process
@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"instances": [{"image": text(bad)} for bad in BAD] + [{"image": "no base64!"}, {"image": ""}]}),
        json.dumps({"inputs": {"image": ["junk!", "äö", text(PICTURES[0][:300])]}}),
        json.dumps({"dataframe_split": {"columns": ["image"], "data": [["no base64!"]]}}),
        json.dumps({"dataframe_split": {"columns": ["picture"], "data": [[text(PICTURES[0])]]}}),
        json.dumps({"instances": [{"image": 7}]}),
        json.dumps({"instances": [{"image": None}]}),
        json.dumps({"image": text(PICTURES[0])}),
        "{",
    ],
)
def test_no_answer_shows_a_stack_trace_or_a_path(server: str, folder: Path, body: str) -> None:
    answer = requests.post(server, data=body, headers={"Content-Type": "application/json"}, timeout=60)
    assert answer.status_code in (200, 400)
    for secret in ("Traceback", "stack_trace", "site-packages", 'File "', "pyfunc.py", str(folder)):
        assert secret not in answer.text


def test_below_the_gate_nothing_is_registered_and_the_alias_stays(registered: Project) -> None:
    before = store(registered).get_model_version_by_alias("hiwl", "champion").version
    for gate, said in (({"test_accuracy": 1.01}, "test_accuracy is .* below 1.01"), ({"x": 0}, "x was not measured")):
        registered.change(register={"name": "hiwl", "gate": gate})
        with pytest.raises(HiwlError, match=said):
            register.main()
    assert store(registered).get_model_version_by_alias("hiwl", "champion").version == before
    assert len(store(registered).search_model_versions("name = 'hiwl'")) == 1


def test_what_was_not_evaluated_is_not_registered_and_no_other_choice_restored(registered: Project) -> None:
    registered.change(choose=registered.read()["choose"] | {"views": 2})
    registered.stages(("choose",))
    with pytest.raises(HiwlError, match="reports belongs to another choice than models/choice"):
        register.main()
    registered.stages(("evaluate",))
    with pytest.raises(HiwlError, match="holds another choice"):
        restore.main()


def test_published_weights_are_half_as_large_measured_anew_and_adopted_by_one_command(
    registered: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(HiwlError, match="simulated galaxies"):
        publish.main("tiny")
    record = json.loads(Path("reports/record.json").read_text())
    real = {"survey": "mine", "source": {"kind": "files", "table": "labels"}}
    shown = {"columns": record["columns"] | {"survey": "mine"}, "parameters": record["parameters"] | {"raw": real}}
    Path("reports/record.json").write_text(json.dumps(record | shown | {"key": "other"}))
    with pytest.raises(HiwlError, match="belongs to another choice"):
        publish.main("tiny")
    Path("reports/record.json").write_text(json.dumps(record | shown))
    publish.main("tiny")
    folder = Path("pretrained/tiny")
    weights = folder / "root/model.safetensors"
    (whole,) = Path("models/choice/root").glob("epoch*.safetensors")
    assert weights.stat().st_size < 0.6 * whole.stat().st_size
    mine = Classifier.load(folder, "cpu").nodes["root"]
    timms = timm.create_model(f"local-dir:{folder / 'root'}", pretrained=True).eval()
    seen = torch.rand(2, 3, *timms.pretrained_cfg["input_size"][1:])
    assert torch.allclose(timms(seen), mine.model.eval()(seen), atol=1e-5)
    assert tuple(timms.pretrained_cfg["mean"]) == mine.preprocess.mean
    check_sums(folder, CHOICE_FILE)
    card = (folder / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "timm"  # what a model hub reads
    accuracy = json.loads((folder / "record.json").read_text())["metrics"]["test_accuracy"]
    assert f"accuracy {100 * accuracy:.2f} %" in card
    assert all(f"| {name} |" in card for name in ("CRS", "IBS", "CSS", "EO", "SPI"))
    assert "`conf/survey/mine.yaml` says which files it is made from" in card and "Galaxy Zoo" not in card

    adopt.main("tiny")
    adopt.main("tiny")
    assert "hiwl-tiny version 1 is the champion" in capsys.readouterr().out.splitlines()[-3]
    assert store(registered).get_model_version_by_alias("hiwl-tiny", "champion").tags["survey"] == "mine"
    assert len(store(registered).search_model_versions("name = 'hiwl-tiny'")) == 1
    with pytest.raises(HiwlError, match="published weights are best, hiwl, small, tiny"):
        adopt.main("large")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(HiwlError, match=f"root/{weights.name}: missing, or not as in SHA256SUMS"):
        adopt.main("tiny")


def test_what_is_registered_is_a_logged_model_with_an_example_and_what_it_measured_on_which_galaxies(
    registered: Project,
) -> None:
    client = store(registered)
    version = client.get_model_version_by_alias("hiwl", "champion")
    metrics = json.loads(Path("reports/test.json").read_text())
    assert version.tags["commit"] == json.loads(Path("reports/record.json").read_text())["environment"]["commit"]
    assert version.tags["tree"] == "root-narrow"
    assert f"test accuracy {metrics['test_accuracy']:.4f}" in str(version.description)
    (logged,) = client.search_logged_models(["1"])
    assert (logged.name, logged.source_run_id) == ("hiwl", version.run_id)
    on = {metric.key: metric.dataset_name for metric in logged.metrics or []}
    assert on["test_accuracy"] == "simulated-all-test"
    assert on["validation_accuracy"] == "simulated-all-validation"
    example = mlflow.models.Model.load(f"models:/{logged.model_id}").load_input_example()
    answers = mlflow.pyfunc.load_model("models:/hiwl@champion").predict(example)
    assert answers["error"].isna().all()


def test_its_requirements_are_versions_that_every_registry_has(registered: Project) -> None:
    listed = [Requirement(line) for line in Path("models/served/requirements.txt").read_text().splitlines()]
    assert {"torch", "timm", "mlflow", "pandas"} <= {one.name for one in listed}
    assert all(Version(next(iter(one.specifier)).version).local is None for one in listed)


def test_a_saved_model_is_registered_also_with_another_pip_than_it_was_saved_with(
    registered: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = registered.copy(tmp_path / "elsewhere")
    monkeypatch.chdir(elsewhere.folder)
    for name in ("python_env.yaml", "conda.yaml"):
        path = Path("models/served", name)
        path.write_text(path.read_text().replace("pip==", "pip==1.") + "# another\n")
    elsewhere.stages(("restore",))
    assert "hiwl version 1 is the champion" in capsys.readouterr().out


def test_two_versions_in_one_process_each_answer_with_their_own_code(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "hiwl"
    shutil.copytree(hiwl.__path__[0], changed, ignore=shutil.ignore_patterns("__pycache__"))
    answer = changed / "model/answer.py"
    answer.write_text(answer.read_text().replace('" > ".join', '" then ".join'))
    monkeypatch.setattr(hiwl, "__file__", str(changed / "__init__.py"))
    register.save(tmp_path / "changed", folder / "choice")
    monkeypatch.undo()
    models = [mlflow.pyfunc.load_model(str(path)) for path in (folder / "served", tmp_path / "changed")]
    asked = pd.DataFrame({"image": PICTURES[:1]})
    first, second = (model.predict(asked).loc[0, "route"] for model in models)
    assert first.replace(" > ", " then ") == second != first


def test_the_challenger_becomes_the_champion_when_it_is_better_on_the_same_galaxies_or_is_promoted(
    registered: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    client = store(registered)

    def evaluate(accuracy: float, views: int, **sources: str) -> None:
        """Register another model, which had this accuracy on validation."""
        registered.change(choose=registered.read()["choose"] | {"views": views})
        registered.stages(("choose",), ("evaluate",))
        path = Path("reports/record.json")
        record = json.loads(path.read_text())
        record["metrics"]["validation_accuracy"] = accuracy
        record["data"]["sources"] |= sources
        path.write_text(json.dumps(record))
        registered.stages(("register",))

    def aliases() -> dict[str, str]:
        return {key: str(value) for key, value in client.get_registered_model("hiwl").aliases.items()}

    assert aliases() == {"champion": "1"}
    with pytest.raises(HiwlError, match="hiwl has no challenger"):
        promote.main(None)
    evaluate(0.1, 2)
    assert aliases() == {"champion": "1", "challenger": "2"}
    evaluate(0.9, 3)
    assert aliases() == {"champion": "3", "challenger": "2"}
    assert client.get_model_version("hiwl", "3").tags["replaced"] == "1"
    evaluate(0.99, 4, **{"splits.csv": "another"})
    assert "version 3 was not validated on the same galaxies" in capsys.readouterr().out
    assert aliases() == {"champion": "3", "challenger": "4"}
    promote.main(None)
    assert aliases() == {"champion": "4"}
    promote.main(2)
    assert aliases() == {"champion": "2"}
    assert client.get_model_version("hiwl", "2").tags["replaced"] == "4"
    with pytest.raises(HiwlError, match="no version 9"):
        promote.main(9)


def test_a_version_whose_files_are_damaged_is_not_called_champion_but_registered_anew(
    registered: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    client = store(registered)
    version = client.get_model_version_by_alias("hiwl", "champion")
    files = Path(mlflow.artifacts.download_artifacts("models:/hiwl@champion"))
    (weights,) = (files / "artifacts/choice/root").glob("epoch*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(HiwlError, match=f"root/{weights.name}: missing, or not as in SHA256SUMS"):
        Classifier.load(files / "artifacts/choice")
    with pytest.raises(HiwlError, match="gone or damaged"):
        promote.main(int(version.version))
    restore.main()
    assert "version 1: its files at" in capsys.readouterr().out
    assert str(client.get_model_version_by_alias("hiwl", "challenger").version) == "2"
    shutil.rmtree(files.parent)
    with pytest.raises(HiwlError, match=r"version 1: its files at .* are gone"):
        promote.main(1)
    promote.main(None)
    assert Classifier.load(Path(mlflow.artifacts.download_artifacts("models:/hiwl@champion")) / "artifacts/choice")


@pytest.fixture
def registered(evaluated: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The evaluated project, its model registered in a store of its own."""
    monkeypatch.setattr(tracking, "find_spec", importlib.util.find_spec)
    evaluated.stages(("register",))
    return evaluated
