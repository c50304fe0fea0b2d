"""The pipeline as its users run it: `dvc repro` and its relatives on a tiny simulated survey."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml

from hiwl.model.answer import Model
from project import TREES, Project, environment, free_port, runs, store, wait_for

NOTHING_TO_DO = "Data and pipelines are up to date."


@pytest.fixture
def project(finished_once: Project, tmp_path: Path) -> Project:
    """A copy of a project whose pipeline has run once, flat; without its MLflow store."""
    return finished_once.copy(tmp_path / "p")


def check_outputs(project: Project, tree: str) -> None:
    folder, nodes = project.folder, TREES[tree]
    assert {path.name for path in (folder / "models/nodes" / tree).iterdir() if path.is_dir()} == set(nodes)
    combinations = pd.read_csv(folder / "models/choice/combinations.csv")
    assert len(combinations) == 2 ** len(nodes)
    assert combinations["accuracy"].is_monotonic_decreasing
    answers = pd.read_csv(folder / "reports/answers.csv.gz")
    splits = pd.read_csv(folder / "data/splits/splits.csv")
    assert answers["GalaxyID"].tolist() == sorted(splits.loc[splits["split"] == "test", "GalaxyID"])
    metrics = json.loads((folder / "reports/test.json").read_text())
    assert metrics["test_accuracy"] == pytest.approx((answers["label"] == answers["answer"]).mean())
    chosen = (folder / "models/choice/choice.json").read_bytes()
    (served,) = (path for path in registered(project) if path.read_bytes() == chosen)
    with zipfile.ZipFile(folder / "data/raw/images.zip") as archive:
        (row,) = Model.load(served.parent)([archive.read(archive.namelist()[1])]).to_dict("records")
    steps = row["route"].split(" > ")
    assert steps[0] == "root"
    assert steps[-1] == row["answer"]
    assert sum(row[f"p_{name}"] for name in ("CRS", "IBS", "CSS", "EO", "SPI")) == pytest.approx(1, abs=1e-5)


def registered(project: Project) -> list[Path]:
    """The choices of all versions in the registry."""
    found = store(project).search_model_versions("name = 'hiwl'")
    places = [mlflow.artifacts.download_artifacts(f"models:/hiwl/{version.version}") for version in found]
    return [Path(place) / "artifacts/choice/choice.json" for place in places]


def test_outputs_and_dvcs_cache_share_their_files(finished_once: Project) -> None:
    for name in ("data/packed/images.npy", "models/nodes/flat/root/node.json", "reports/answers.csv.gz"):
        assert (finished_once.folder / name).stat().st_nlink > 1, f"{name} lies on disk twice: here and in the cache"


def test_another_tree_runs_from_train_to_register_and_back_again_trains_nothing(project: Project) -> None:
    project.stages(("restore",))
    check_outputs(project, "flat")
    project.plant("three")
    said = project.run("dvc", "repro").stdout
    assert "Stage 'pack' didn't change, skipping" in said
    check_outputs(project, "three")
    assert NOTHING_TO_DO in project.run("dvc", "repro").stdout

    table = runs(project)
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
    # Back to what was run before: nothing is trained or chosen again, and its version is still there.
    project.plant("flat")
    said = project.run("dvc", "repro").stdout
    assert "Running stage 'train" not in said
    assert "Running stage 'choose" not in said
    check_outputs(project, "flat")


def test_a_fresh_clone_shows_metrics_and_plots_without_a_cache(project: Project, tmp_path: Path) -> None:
    project.run("git", "clone", "--quiet", str(project.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    shown = json.loads(clone.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    names = {name for file in shown.values() for name in file["data"]}
    assert {"validation_accuracy", "validation_recall_CSS", "test_accuracy", "test_accuracy_low"} <= names
    assert all(isinstance(value, int | float) for file in shown.values() for value in file["data"].values())
    plots = json.loads(clone.run("dvc", "plots", "show", "--json").stdout)
    assert {"dvc.yaml::reports/curves/root.csv", "reports/curves/root.csv", "reports/confusion.csv"} == set(
        plots["data"]
    )


def test_a_new_split_seed_reruns_the_split_and_what_follows_but_not_the_pack(project: Project) -> None:
    project.change(split=project.read()["split"] | {"seed": 2})
    said = project.run("dvc", "repro", "split", "pack").stdout
    assert "Running stage 'split'" in said
    assert "Stage 'pack' didn't change" in said
    assert "Stage 'select' didn't change" in said
    changed = json.loads(project.run("dvc", "status", "--json").stdout.splitlines()[-1])
    assert set(changed) == {"train@root", "choose", "evaluate", "register"}


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
    assert NOTHING_TO_DO in clone.run("dvc", "repro").stdout
    for _ in range(2):
        clone.stages(("restore",))
        assert len(runs(clone)) == 2
        assert len(store(clone).search_model_versions("name = 'hiwl'")) == 1
    check_outputs(clone, "flat")


def test_a_borrowed_machine_trains_without_dvc_mlflow_and_great_expectations(project: Project, tmp_path: Path) -> None:
    absent, engine = ("dvc", "mlflow", "great_expectations", "galsim", "hydra"), "openvino"
    there, with_engine = tmp_path / "there", tmp_path / "engine"
    for folder in (there, with_engine):
        folder.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.lower().startswith(absent):
            is_engine = path.name.lower().startswith(engine)  # which answers on a CPU, and trains nothing
            ((with_engine if is_engine else there) / path.name).symlink_to(path)
    project.change(train=project.read()["train"] | {"seed": 2})
    for commands, folders in (("['train', 'root'], ['choose']", [there]), ("['evaluate'],", [there, with_engine])):
        # -S: nothing of what is installed here but what lies in these folders.
        python = [sys.executable, "-S", "-c", f"from hiwl.cli import main\nfor command in ({commands}): main(command)"]
        said = project.run(*python, PYTHONPATH=os.pathsep.join(["src", *map(str, folders)])).stdout
        assert "Traceback" not in said
    assert not (project.folder / "mlflow.db").exists()
    with pytest.raises(SystemExit, match="`hiwl register` saves the one at hand"):
        project.stages(("restore",))
    project.stages(("register",), ("restore",))
    table = runs(project)
    assert set(table["tags.hiwl.kind"]) == {"node", "choice"}
    assert set(table["params.seed"]) == {"2"}
    project.run("dvc", "commit", "--force")
    assert NOTHING_TO_DO in project.run("dvc", "repro").stdout


def test_a_study_keeps_the_records_of_its_experiments_also_of_those_that_ran_before(project: Project) -> None:
    folder = project.folder
    votes = folder.parent / "votes.csv"
    shutil.copy(folder / "data/raw/table.csv", votes)
    source = {"kind": "files", "table": "votes"}
    content = project.read()
    content["raw"] = {"survey": "mine", "source": source}
    content["train"]["seed"] = 1
    (folder / "conf/config.yaml").write_text(yaml.safe_dump(content))  # experiments compose params.yaml from conf
    project.change(raw=content["raw"])
    where: dict[str, Any] = {"HIWL_TABLE": str(votes)}
    images = folder.parent / "images.zip"
    shutil.copy(folder / "data/raw/images.zip", images)
    where["HIWL_IMAGES"] = str(images)
    said = project.run("hiwl", "raw", check=False, **where).stdout
    content["raw"]["source"] |= dict(re.findall("([a-z]+_sha256)=([0-9a-f]{64})", said))
    (folder / "conf/config.yaml").write_text(yaml.safe_dump(content))
    shutil.rmtree(folder / "conf/study")
    (folder / "conf/study").mkdir()
    cells = {"one": {"title": "one", "choices": []}}
    study = {"question": "Which?", "until": "choose", "seeds": [3], "common": [], "cells": cells}
    (folder / "conf/study/mine.yaml").write_text(yaml.safe_dump(study))
    project.commit()

    said = project.run("hiwl", "study", "mine", **where).stdout
    assert "mine_one_seed3 is on record" in said
    kept = {path.name: path.read_bytes() for path in (folder / "results/mine/runs").iterdir()}
    assert len(kept) == 1
    table = runs(project)
    assert set(table["params.seed"]) == {"3"}  # of an experiment in a copy of the project, in the same store
    shutil.rmtree(folder / "results")
    said = project.run("hiwl", "study", "mine", **where).stdout
    assert "Running stage" not in said
    assert {path.name: path.read_bytes() for path in (folder / "results/mine/runs").iterdir()} == kept
    assert "1 runs, 1 on record" in project.run("hiwl", "study", "mine", **where).stdout


def test_mlflow_ui_without_arguments_shows_the_runs(project: Project) -> None:
    import requests

    project.stages(("restore",))
    port = str(free_port())
    server = subprocess.Popen(
        ["mlflow", "ui"],
        cwd=project.folder,
        env=environment(MLFLOW_PORT=port, MLFLOW_WORKERS="1"),
        start_new_session=True,
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


def test_training_killed_and_run_again_ends_with_the_same_bits(project: Project) -> None:
    train = project.read()["train"]
    project.change(train=train | {"seed": 5, "recipe": train["recipe"] | {"epochs": 4}})
    project.run("hiwl", "train", "root")
    whole = weights(project)
    shutil.rmtree(project.folder / "models/nodes/flat/root")
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
    assert not list(project.folder.glob(".work/train/*/"))


def weights(project: Project) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project.folder / "models/nodes/flat/root").glob("*.safetensors")}
