import gzip
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from hiwl import report, restore, tracking
from hiwl.errors import HiwlError
from hiwl.record import Record, keep_in_results, new_record
from hiwl.settings import settings

CLASSES = ["CRS", "IBS", "CSS", "EO", "SPI"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: dict[str, Any]) -> Path:
    """An empty project with a survey of real galaxies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for name in ("HIWL_STUDY", "HIWL_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    source = {"kind": "files", "table": "labels", "images_sha256": "a" * 64, "table_sha256": "b" * 64}
    Path("params.yaml").write_text(yaml.safe_dump(committed | {"raw": {"survey": "mine", "source": source}}))
    return tmp_path


def node(seed: int, epochs: int) -> Record:
    record = new_record(
        key=f"node-{seed}",
        kind="node",
        name=f"root seed {seed}",
        columns={"node": "root", "backbone": "resnet10t", "input": 64, "recipe": "quick", "seed": seed},
        parameters={"train": {"recipe": {"batch": 64, "augment": {"scale": [0.9, 1.0]}}}},
        data={"sources": {"splits.csv": "c" * 64}, "counts": {"training": 40, "validation": 5}},
        hardware={"device": "cpu"},
    )
    rows = [{"epoch": float(e + 1), "training_loss": 1 / (e + 1), "seconds": 2.0} for e in range(epochs)]
    return record.with_history(rows)


def choice(seed: int, tree: str) -> Record:
    done = node(seed, 0)
    columns = {"tree": tree, "backbone": "resnet10t", "input": 64, "recipe": "quick", "seed": seed}
    return done.model_copy(
        update={
            "key": f"choice-{tree}-{seed}",
            "kind": "choice",
            "columns": {"survey": "mine"} | columns,
            "parameters": {"hierarchy": {tree: CLASSES}},
            "nodes": {"root": f"node-{seed}"},
            "metrics": {"validation_accuracy": 0.9, "cost_seconds": 4.0},
            "is_finished": True,
        }
    )


def answers(path: Path, wrong: list[int]) -> Path:
    labels = np.array(CLASSES * 4)
    said = labels.copy()
    said[wrong] = np.roll(labels, 1)[wrong]
    pd.DataFrame({"GalaxyID": range(20), "class": labels, "answer": said}).to_csv(path, index=False)
    return path


def logged(project: Path) -> pd.DataFrame:
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    found = mlflow.search_runs(experiment_names=["hiwl"])
    assert isinstance(found, pd.DataFrame)
    return found


def test_a_run_logged_while_it_grows_is_one_run_with_every_epoch_once(project: Path) -> None:
    assert tracking.log_run(node(1, 1)) == tracking.log_run(node(1, 1))
    for epochs in (2, 1, 2, 4):  # an older record in between takes nothing back
        run_id = tracking.log_run(node(1, epochs))
    for best in (0.6, 0.5):  # the later value is the one shown, not the larger
        tracking.log_run(node(1, 4).finished({"best_validation_accuracy": best}))
    table = logged(project)
    assert len(table) == 1
    assert table.loc[0, "status"] == "FINISHED"
    assert table.loc[0, "metrics.best_validation_accuracy"] == 0.5
    assert table.loc[0, "params.train.recipe.augment.scale"] == "[0.9, 1.0]"
    assert (table["end_time"] - table["start_time"]).dt.total_seconds().tolist() == pytest.approx([8])
    history = tracking.client().get_metric_history(run_id, "training_loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]


def test_records_of_real_runs_are_kept_and_rebuild_mlflow_and_the_report(project: Path) -> None:
    for seed in (1, 2):
        for tree, wrong in (("root", [0, 1, 2]), ("root-narrow", [0, 7])):
            with gzip.open("answers.csv.gz", "wt") as file:
                file.write(answers(Path("plain.csv"), wrong).read_text())
            keep_in_results(choice(seed, tree), {"root": node(seed, 3)}, Path("answers.csv.gz"))
    assert len(list(Path("results/mine").glob("*.json"))) == 4

    restore.main()
    restore.main()
    table = logged(project)
    assert table["tags.hiwl.kind"].value_counts().to_dict() == {"choice": 4, "node": 2}
    links = table.loc[table["tags.hiwl.kind"] == "choice", "tags.hiwl.run.root"]
    assert set(links) == set(table.loc[table["tags.hiwl.kind"] == "node", "run_id"])

    report.main()
    study = yaml.safe_load(Path("docs/results.json").read_text())["studies"]["mine"]
    assert study["kinds"]["root"]["accuracy"] == {"mean": 0.85, "sd": 0.0}
    assert study["kinds"]["root-narrow"]["accuracy"]["mean"] == 0.9
    assert [run["passes"] for run in study["runs"]] == [120] * 4
    first = study["comparisons"][0]
    assert (first["first"], first["only_first_right"], first["only_second_right"]) == ("root-narrow", 2, 1)
    assert first["p"] == pytest.approx(1.0)
    assert "96.32" in Path("docs/results.md").read_text()


def test_what_was_trained_anew_by_force_is_another_run(project: Path) -> None:
    first = tracking.log_run(node(1, 3))
    other = node(1, 3)
    again = other.with_history([row | {"training_loss": 9.0} for row in other.history])
    second = tracking.log_run(again)
    assert first != second == tracking.log_run(again.finished({"best_validation_accuracy": 0.5}))
    assert len(logged(project)) == 2


def test_two_records_of_one_seed_are_not_pooled(project: Path) -> None:
    answers(Path("answers.csv"), [0])
    Path("answers.csv.gz").write_bytes(gzip.compress(Path("answers.csv").read_bytes()))
    for key in ("one", "two"):
        keep_in_results(choice(1, "root").model_copy(update={"key": key}), {"root": node(1, 3)}, Path("answers.csv.gz"))
    with pytest.raises(HiwlError, match="two records of one seed"):
        report.main()


def test_without_mlflow_the_record_waits_for_restore(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert tracking.log_run(node(1, 2)) is None
    assert not Path("mlflow.db").exists()


def test_simulated_runs_leave_nothing_in_results(project: Path, committed: dict[str, Any]) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(committed))
    keep_in_results(choice(1, "root"), {"root": node(1, 3)})
    assert not Path("results").exists()
