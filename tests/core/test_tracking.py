from pathlib import Path

import mlflow
import pandas as pd
import pytest

from hiwl.core import tracking
from hiwl.verbs import restore
from runs import keep, node


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
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert tracking.log_run(node(1, 2)) is None
    assert not Path("mlflow.db").exists()
