import json
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from hiwl.core import store, tracking
from hiwl.verbs import restore
from runs import keep, node


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of no runs, which takes seconds to make."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture(autouse=True)
def made(project: Path, empty: Path) -> None:
    shutil.copy(empty, "mlflow.db")


def logged(project: Path) -> pd.DataFrame:
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    found = mlflow.search_runs(experiment_names=["hiwl"])
    assert isinstance(found, pd.DataFrame)
    return found


def test_a_run_logged_while_it_grows_is_one_run_with_every_epoch_once(project: Path) -> None:
    first = node(1, 1)
    assert first.started is not None
    assert tracking.log_run(first) == tracking.log_run(node(1, 1))
    for epochs in (2, 1, 2, 4):  # an older record in between takes nothing back
        run_id = tracking.log_run(node(1, epochs))
    ended = first.started + 60_000
    for best in (0.6, 0.5):  # the later value is the one shown, not the larger
        done = node(1, 4).finished({"best_validation_accuracy": best})
        tracking.log_run(done.model_copy(update={"ended": ended}))
        ended += 1
    table = logged(project)
    assert len(table) == 1
    assert table.loc[0, "status"] == "FINISHED"
    assert table.loc[0, "metrics.best_validation_accuracy"] == 0.5
    assert table.loc[0, "params.train.recipe.augment.scale"] == "[0.9, 1.0]"
    assert (table["end_time"] - table["start_time"]).dt.total_seconds().tolist() == pytest.approx([60], abs=0.01)
    history = store.client().get_metric_history(run_id, "training_loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]

    # What was trained anew by force is another run.
    other = node(1, 4)
    again = other.with_history([row | {"training_loss": 9.0} for row in other.history])
    second = tracking.log_run(again)
    assert run_id != second == tracking.log_run(again.finished({"best_validation_accuracy": 0.5}))
    assert len(logged(project)) == 2


def test_records_of_real_runs_rebuild_mlflow_with_choices_linked_to_their_nodes(project: Path) -> None:
    for seed in (1, 2):
        keep(seed, "one", [0, 1, 2])
        keep(seed, "two", [0, 7])
    restore.main()
    restore.main()
    table = logged(project)
    assert table["tags.hiwl.kind"].value_counts().to_dict() == {"choice": 4, "node": 2}
    links = table.loc[table["tags.hiwl.kind"] == "choice", "tags.hiwl.run.root"]
    assert set(links) == set(table.loc[table["tags.hiwl.kind"] == "node", "run_id"])


def test_without_mlflow_the_record_waits_for_restore(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mlflow.db").unlink()
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert tracking.log_run(node(1, 2)) is None
    assert not Path("mlflow.db").exists()


def test_runs_are_named_and_tagged_after_their_study_cell_seed_and_fold(project: Path) -> None:
    path = keep(1, "one", [0])
    Path("results/mine/runs.csv").write_text(f"study,cell,seed,fold,file\ntrees,one,1,3,runs/{path.name}\n")
    restore.main()
    table = logged(project).set_index("tags.hiwl.kind")
    assert table["tags.mlflow.runName"].to_dict() == {
        "choice": "trees_one_seed1_fold3",
        "node": "trees_one_seed1_fold3 root",
    }
    of_choice = table.loc["choice"]
    assert [of_choice[f"tags.{name}"] for name in ("study", "cell", "seed", "fold")] == ["trees", "one", "1", "3"]
    assert table.loc["node", "run_id"] in of_choice["tags.mlflow.note.content"]
    assert of_choice["tags.mlflow.source.name"] == "by hand"
    assert of_choice["tags.mlflow.user"]


def test_a_run_of_dvcs_experiment_is_found_by_its_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "trees_one_seed2")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "a" * 40)
    tracking.log_run(node(2, 1))
    (run,) = logged(project).to_dict("records")
    assert (run["tags.study"], run["tags.cell"], run["tags.seed"]) == ("trees", "one", "2")
    assert run["tags.hiwl.dvc_experiment"] == "trees_one_seed2"
    assert run["tags.hiwl.dvc_baseline"] == "a" * 40


def test_each_run_has_datasets_of_its_own_counts_that_mlflow_can_read(project: Path) -> None:
    Path("data/splits").mkdir(parents=True)
    Path("data/splits/splits.csv").write_text("GalaxyID,class,split\n")
    few, many = node(1, 1), node(2, 1)
    many = many.model_copy(update={"data": many.data | {"counts": {"training": 400, "validation": 50}}})
    counts = {}
    for record in (few, many):
        run = store.client().get_run(tracking.log_run(record))
        for one in run.inputs.dataset_inputs:
            (context,) = (tag.value for tag in one.tags)
            counts[record.key, context] = json.loads(one.dataset.profile)["galaxies"]
            assert Path(mlflow.data.get_source(one.dataset).load()).read_text().startswith("GalaxyID")
    assert list(counts.values()) == [40, 5, 400, 50]


def test_logging_that_was_cut_off_is_made_up_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    record = node(1, 3).finished({"best_validation_accuracy": 0.5})
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", cut_off)
        with pytest.raises(KeyboardInterrupt):
            tracking.log_run(record)
    tracking.log_run(record)
    (run,) = logged(project).to_dict("records")
    assert run["metrics.training_loss"] == pytest.approx(1 / 3)
    assert run["params.train.recipe.batch"] == "64"


def test_an_experiment_that_a_user_named_is_no_studys(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lite1_mixup_seed2_long", "a_b_seedling", "stuck-hulk"):
        monkeypatch.setenv("DVC_EXP_NAME", name)
        assert tracking.log_run(node(1, 1)) is not None


def test_a_training_begun_anew_after_it_had_ended_is_another_run(project: Path) -> None:
    first = tracking.log_run(node(1, 3).finished({"best_validation_accuracy": 0.5}))
    second = tracking.log_run(node(1, 1))
    assert second != first
    assert tracking.log_run(node(1, 3)) == second
