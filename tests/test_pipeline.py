"""The pipeline as its users run it: `dvc repro` and its relatives on a tiny simulated survey."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from hiwl.study import cells, compose, read_study
from project import TREES, Project, environment, free_port, make, wait_for

NOTHING_TO_DO = "Data and pipelines are up to date."


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose pipeline has run once, flat."""
    project = make(tmp_path_factory.mktemp("finished") / "p")
    project.run("dvc", "repro")
    project.commit()
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, without its MLflow store."""
    return finished.copy(tmp_path / "p")


def answer(project: Project) -> pd.DataFrame:
    """What the registered model says of one of the survey's pictures, asked in the project's own store."""
    code = (
        "import mlflow, pandas, zipfile\n"
        "archive = zipfile.ZipFile('data/raw/images.zip')\n"
        "image = archive.read(archive.namelist()[1])\n"
        "model = mlflow.pyfunc.load_model('models:/hiwl@champion')\n"
        "model.predict(pandas.DataFrame({'image': [image]})).to_json('answer.json', orient='records')\n"
    )
    project.run("python", "-c", code)
    return pd.read_json(project.folder / "answer.json", orient="records")


def store(project: Project) -> mlflow.MlflowClient:
    uri = f"sqlite:///{project.folder}/mlflow.db"
    return mlflow.MlflowClient(uri, uri)


def runs(project: Project) -> pd.DataFrame:
    mlflow.set_tracking_uri(f"sqlite:///{project.folder}/mlflow.db")
    found = mlflow.search_runs(experiment_names=["hiwl"])
    assert isinstance(found, pd.DataFrame)
    return found


def check_outputs(project: Project, tree: str) -> None:
    folder, nodes = project.folder, TREES[tree]
    assert {path.name for path in (folder / "models/nodes").iterdir() if path.is_dir()} == set(nodes)
    for name in ("data/packed/images.npy", "models/nodes/root/node.json", "reports/answers.csv.gz"):
        assert (folder / name).stat().st_nlink > 1, f"{name} lies on disk twice: here and in the cache"
    combinations = pd.read_csv(folder / "models/choice/combinations.csv")
    assert len(combinations) == 2 ** len(nodes)
    assert combinations["accuracy"].is_monotonic_decreasing
    answers = pd.read_csv(folder / "reports/answers.csv.gz")
    splits = pd.read_csv(folder / "data/splits/splits.csv")
    assert answers["GalaxyID"].tolist() == sorted(splits.loc[splits["split"] == "test", "GalaxyID"])
    metrics = json.loads((folder / "reports/metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx((answers["class"] == answers["answer"]).mean())
    version = store(project).get_model_version_by_alias("hiwl", "champion")
    registered = Path(str(version.source).removeprefix("file://"), "artifacts/choice/choice.json")
    assert registered.read_bytes() == (folder / "models/choice/choice.json").read_bytes()
    assert version.tags["survey"] == "simulated"
    row = answer(project).iloc[0]
    steps = row["route"].split(" > ")
    assert steps[0] == "root"
    assert steps[-1] == row["class"]
    assert sum(row[f"p_{name}"] for name in ("CRS", "IBS", "CSS", "EO", "SPI")) == pytest.approx(1, abs=1e-5)


def test_a_flat_and_a_three_layer_tree_run_from_raw_to_a_served_answer(finished: Project) -> None:
    check_outputs(finished, "flat")
    assert NOTHING_TO_DO in finished.run("dvc", "repro").stdout

    finished.plant("three")
    said = finished.run("dvc", "repro").stdout
    assert "Stage 'pack' didn't change, skipping" in said
    check_outputs(finished, "three")
    assert NOTHING_TO_DO in finished.run("dvc", "repro").stdout

    table = runs(finished)
    assert set(table["tags.hiwl.kind"]) == {"node", "choice"}
    assert len(table) == 1 + 1 + 3 + 1
    for column in ("survey", "backbone", "input", "recipe", "seed"):
        assert table[f"params.{column}"].notna().all()
    choices = table[table["tags.hiwl.kind"] == "choice"]
    measured = ("validation_accuracy", "test_accuracy", "test_recall_CSS", "cost_seconds")
    assert choices[[f"metrics.{name}" for name in measured]].notna().all(axis=None)
    linked = choices.loc[choices["params.tree"] == "root-smooth-narrow", "tags.hiwl.run.narrow"]
    assert linked.isin(table["run_id"]).all()
    assert (table["status"] == "FINISHED").all()
    # Back to what was run before: nothing is trained again, and the alias follows.
    finished.plant("flat")
    assert "Running stage 'train" not in finished.run("dvc", "repro").stdout
    check_outputs(finished, "flat")


def test_a_new_split_seed_reruns_the_split_and_what_follows_but_not_the_pack(project: Project) -> None:
    project.change(split=project.read()["split"] | {"seed": 2})
    said = project.run("dvc", "repro", "split", "pack").stdout
    assert "Running stage 'split'" in said
    assert "Stage 'pack' didn't change" in said
    assert "Stage 'select' didn't change" in said
    changed = json.loads(project.run("dvc", "status", "--json").stdout.splitlines()[-1])
    assert set(changed) == {"train@root", "choose", "evaluate"}


def test_training_killed_and_run_again_ends_with_the_same_bits(project: Project) -> None:
    train = project.read()["train"]
    project.change(train=train | {"seed": 5, "recipe": train["recipe"] | {"epochs": 4}})
    project.run("hiwl", "train", "root")
    whole = weights(project)
    shutil.rmtree(project.folder / "models/nodes/root")
    command = ["dvc", "repro", "train@root"]
    first = subprocess.Popen(command, cwd=project.folder, env=environment(), start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(project.folder.glob(".work/train/*/state.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert "going on after epoch" in project.run(*command).stdout
    assert weights(project) == whole
    assert not list(project.folder.glob(".work/train/*"))


def weights(project: Project) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project.folder / "models/nodes/root").glob("*.safetensors")}


def test_two_processes_train_together(project: Project) -> None:
    file = project.folder / "models/nodes/root/history.csv"
    alone = pd.read_csv(file)
    project.run("hiwl", "train", "root", HIWL_DEVICES="2", HIWL_THREADS="2")
    history = pd.read_csv(file)
    assert len(history) == len(alone) == 2
    # The same galaxies in the same order, drawn alike: only batch normalisation sees smaller batches.
    assert history["training_loss"].to_numpy() == pytest.approx(alone["training_loss"].to_numpy(), rel=0.25)
    record = json.loads((project.folder / "models/nodes/root/record.json").read_text())
    assert record["environment"]["processes"] == "2"


def test_below_the_gate_the_stage_fails_and_the_alias_stays(project: Project) -> None:
    project.run("hiwl", "restore")
    before = store(project).get_model_version_by_alias("hiwl", "champion").version
    project.change(register={"name": "hiwl", "alias": "champion", "gate": {"test_accuracy": 1.01}})
    done = project.run("dvc", "repro", check=False)
    assert done.returncode != 0
    assert "test_accuracy is" in done.stdout
    assert "below 1.01" in done.stdout
    assert store(project).get_model_version_by_alias("hiwl", "champion").version == before
    assert len(store(project).search_model_versions("name = 'hiwl'")) == 1


def test_a_broken_contract_leaves_nothing_downstream_changed(project: Project) -> None:
    before = (project.folder / "models/choice/choice.json").read_bytes()
    project.change(select=project.read()["select"] | {"expected": {"CRS": 1, "IBS": 1, "CSS": 1, "EO": 1, "SPI": 1}})
    done = project.run("dvc", "repro", check=False)
    assert done.returncode != 0
    assert "expect_table_row_count_to_equal" in done.stdout
    assert (project.folder / ".work/contracts/select/validation.html").exists()
    assert (project.folder / "models/choice/choice.json").read_bytes() == before


def test_what_was_pushed_is_pulled_elsewhere_and_restored(project: Project, tmp_path: Path) -> None:
    project.run("dvc", "remote", "add", "--default", "shelf", str(tmp_path / "shelf"))
    project.commit()
    project.run("dvc", "push")
    project.run("git", "clone", "--quiet", str(project.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "pull")
    assert NOTHING_TO_DO in clone.run("dvc", "status").stdout
    assert NOTHING_TO_DO in clone.run("dvc", "repro").stdout
    clone.run("hiwl", "restore")
    assert len(runs(clone)) == 2
    check_outputs(clone, "flat")
    clone.run("hiwl", "restore")
    assert len(runs(clone)) == 2
    assert len(store(clone).search_model_versions("name = 'hiwl'")) == 1


def test_a_borrowed_machine_trains_without_dvc_mlflow_and_great_expectations(project: Project, tmp_path: Path) -> None:
    absent = ("dvc", "mlflow", "great_expectations", "galsim")
    there = tmp_path / "there"
    there.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.lower().startswith(absent):
            (there / path.name).symlink_to(path)
    project.change(train=project.read()["train"] | {"seed": 2})
    for command in (["train", "root"], ["choose"], ["evaluate"]):
        # -S: nothing of what is installed here but what lies in `there`.
        python = [sys.executable, "-S", "-m", "hiwl.cli"]
        said = project.run(*python, *command, PYTHONPATH=f"src{os.pathsep}{there}").stdout
        assert "Traceback" not in said
    assert not (project.folder / "mlflow.db").exists()
    assert "`hiwl register` saves the one at hand" in project.run("hiwl", "restore", check=False).stdout
    project.run("hiwl", "register")
    project.run("hiwl", "restore")
    table = runs(project)
    assert set(table["tags.hiwl.kind"]) == {"node", "choice"}
    assert set(table["params.seed"]) == {"2"}
    project.run("dvc", "commit", "--force")
    assert NOTHING_TO_DO in project.run("dvc", "repro").stdout


def test_the_papers_recipe_runs_as_its_study_says_on_a_small_network_and_for_a_few_epochs(project: Project) -> None:
    study = read_study("paper")
    papers = compose(next(cell for cell in cells(study) if cell.name == "HIWL").choices)
    train = papers["train"]
    train |= {"backbone": "test_efficientnet", "pretrained": "scratch", "recipe": train["recipe"] | {"epochs": 3}}
    project.change(train=train, **{name: papers[name] for name in ("pack", "hierarchy", "choose")})
    project.run("dvc", "repro", "choose")
    pairs = pd.read_csv(project.folder / "models/choice/combinations.csv")
    assert len(pairs) == 9
    described = json.loads((project.folder / "models/nodes/narrow/node.json").read_text())
    assert described["input"] == 240


def test_what_was_not_evaluated_is_not_registered(project: Project) -> None:
    project.change(choose=project.read()["choose"] | {"views": 2})
    project.run("hiwl", "choose")
    done = project.run("hiwl", "register", check=False)
    assert done.returncode == 1
    assert "reports is of another choice than models/choice" in done.stdout


def test_restore_does_not_pair_a_served_model_with_another_choice(project: Project) -> None:
    project.change(train=project.read()["train"] | {"seed": 9})
    project.run("dvc", "repro", "evaluate")
    done = project.run("hiwl", "restore", check=False)
    assert done.returncode == 1
    assert "holds another choice" in done.stdout


def test_published_weights_are_half_as_large_measured_anew_and_adopted_by_one_command(project: Project) -> None:
    assert "simulated galaxies" in project.run("hiwl", "publish", "small", check=False).stdout
    file = project.folder / "reports/record.json"
    record = json.loads(file.read_text())
    for change, said in (({"key": "other"}, "is of another choice"), ({}, "publish: pretrained/small")):
        file.unlink()  # a link into the cache
        real = {"survey": "mine", "source": {"kind": "files"}}
        shown = {"columns": record["columns"] | {"survey": "mine"}, "parameters": record["parameters"] | {"raw": real}}
        file.write_text(json.dumps(record | shown | change))
        assert said in project.run("hiwl", "publish", "small", check=False).stdout
    folder = project.folder / "pretrained/small"
    weights = next(folder.glob("root/*.safetensors"))
    whole = project.folder / "models/nodes/root" / weights.name
    assert weights.stat().st_size < 0.6 * whole.stat().st_size
    project.run("sha256sum", "--check", "SHA256SUMS", folder=folder)
    card = (folder / "README.md").read_text()
    accuracy = json.loads((folder / "record.json").read_text())["metrics"]["test_accuracy"]
    assert f"accuracy {100 * accuracy:.2f} %" in card
    assert all(f"| {name} |" in card for name in ("CRS", "IBS", "CSS", "EO", "SPI"))

    project.run("hiwl", "adopt", "small")
    version = store(project).get_model_version_by_alias("hiwl-small", "champion")
    assert version.tags["survey"] == "mine"
    project.run("hiwl", "adopt", "small")
    assert store(project).get_model_version_by_alias("hiwl-small", "champion").version == version.version
    assert "holds small" in project.run("hiwl", "adopt", "large", check=False).stdout
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    told = project.run("hiwl", "adopt", "small", check=False)
    assert told.returncode == 1
    assert f"root/{weights.name}: not as in SHA256SUMS" in told.stdout


def test_runs_of_temporary_experiments_arrive_in_the_same_store(project: Project) -> None:
    # Experiments compose params.yaml from conf, so the tiny survey has to stand there too.
    (project.folder / "conf/config.yaml").write_text((project.folder / "params.yaml").read_text())
    project.commit()
    project.run("dvc", "exp", "run", "--temp", "-S", "train.seed=7")
    table = runs(project)
    assert set(table["params.seed"]) == {"7"}
    assert set(table["tags.hiwl.kind"]) == {"node", "choice"}
    assert not (project.folder / "mlruns").is_symlink()
    assert store(project).get_model_version_by_alias("hiwl", "champion").version


def test_mlflow_ui_without_arguments_shows_the_runs(project: Project) -> None:
    import requests

    project.run("hiwl", "restore")
    port = str(free_port())
    server = subprocess.Popen(
        ["mlflow", "ui"], cwd=project.folder, env=environment(MLFLOW_PORT=port), start_new_session=True
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(server, f"{address}/health")
        found = requests.post(f"{address}/api/2.0/mlflow/experiments/search", json={"max_results": 9}, timeout=30)
        names = {experiment["name"]: experiment["experiment_id"] for experiment in found.json()["experiments"]}
        asked = {"experiment_ids": [names["hiwl"]]}
        shown = requests.post(f"{address}/api/2.0/mlflow/runs/search", json=asked, timeout=30).json()["runs"]
        assert len(shown) == 2
        for run in shown:
            params = {item["key"] for item in run["data"]["params"]}
            assert {"survey", "backbone", "input", "recipe", "seed"} <= params
            assert "validation_accuracy" in {item["key"] for item in run["data"]["metrics"]}
        measured = {item["key"] for run in shown for item in run["data"]["metrics"]}
        assert {"test_accuracy", "test_recall_CSS", "cost_seconds", "best_validation_accuracy"} <= measured
    finally:
        os.killpg(server.pid, signal.SIGKILL)
