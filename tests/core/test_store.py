"""The MLflow store: how it is made, and what it survives."""

import platform
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from hiwl.core import store, tracking
from hiwl.core.errors import HiwlError
from hiwl.core.registry import weights_folder
from project import environment
from runs import node


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.mark.process
def test_several_first_runs_at_once_all_end_well(folder: Path) -> None:
    code = "from hiwl.core import store; print(store.experiment(store.client()))"
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in started] == ["1", "1"]
    assert [process.returncode for process in started] == [0, 0]


def test_asking_for_a_model_makes_no_store(folder: Path) -> None:
    with pytest.raises(HiwlError, match="models:/hiwl@champion: no MLflow store here; go to the project's root folder"):
        weights_folder("models:/hiwl@champion")
    assert not list(folder.iterdir())


def test_what_was_killed_while_it_made_the_store_leaves_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "search_experiments", killed)
        with pytest.raises(KeyboardInterrupt):
            store.client()
    assert not Path("mlflow.db").exists()
    monkeypatch.setattr(platform, "node", lambda: "later")  # MLflow remembers what it has made, by name
    assert store.experiment(store.client()) == "1"
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("content", [b"not a database", b""])
def test_a_foreign_database_is_told_with_the_remedy_and_left_as_it_is(content: bytes) -> None:
    Path("mlflow.db").write_bytes(content or b"SQLite format 3\0 and nothing more")
    with pytest.raises(HiwlError, match=r"mlflow\.db: MLflow cannot use it.*move it away.*hiwl restore"):
        store.client()


@pytest.mark.process
def test_a_moved_project_finds_its_runs_and_artifacts_and_leaves_nothing_at_the_old_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("report.txt").write_text("found")
    Path("record.json").write_text(node(1, 1).model_dump_json())
    code = (
        "from hiwl.core import store, tracking\n"
        "from pathlib import Path\n"
        "run = tracking.log_run(tracking.Record.model_validate_json(Path('record.json').read_text()))\n"
        "store.client().log_artifact(run, 'report.txt')\n"
        "print(run)"
    )
    command = [sys.executable, "-c", code]  # another process, since MLflow keeps artifacts' places in mind
    run = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    moved = folder.with_name("moved")
    folder.rename(moved)
    monkeypatch.chdir(moved)
    client = store.client()
    assert str(folder) in capsys.readouterr().out
    assert Path(client.download_artifacts(run, "report.txt")).read_text() == "found"
    client.log_artifact(run, "report.txt", "again")
    assert tracking.log_run(node(1, 1)) == run
    assert not folder.exists()
    store.client()
    assert capsys.readouterr().out == ""  # once is enough


def test_a_deleted_experiment_is_told_and_costs_no_training_its_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    client = store.client()
    client.delete_experiment(store.experiment(client))
    with pytest.raises(HiwlError, match="`mlflow experiments restore -x 1`"):
        tracking.log_run(node(1, 1))
    assert tracking.try_to_log(node(1, 1)) is None
    assert "not logged to MLflow" in capsys.readouterr().err
    client.restore_experiment("1")
    assert tracking.try_to_log(node(1, 1)) is not None
