"""Training in several processes: started by the project, by torchrun on one machine, and on two."""

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256
from hiwl.core.settings import settings
from hiwl.stages.train import _launch
from project import Project, environment, free_port

TRAIN = ("-m", "hiwl.cli", "train", "root")
CURVE = "reports/curves/root.csv"


@pytest.fixture
def packed(finished_once: Project, tmp_path: Path) -> Project:
    """A project with all that a training reads, and nothing that one wrote."""
    project = finished_once.copy(tmp_path / "p")
    shutil.rmtree(project.folder / "models/nodes/flat")
    (project.folder / CURVE).unlink()
    return project


def check_node(project: Project) -> None:
    """The node was written once and whole, by two processes."""
    node = project.folder / "models/nodes/flat/root"
    kept = {checkpoint["file"] for checkpoint in json.loads((node / "node.json").read_text())["checkpoints"]}
    assert len(kept) == 2
    assert {path.name for path in node.iterdir()} == kept | {"node.json", "record.json"}
    assert len(pd.read_csv(project.folder / CURVE)) == 2
    record = json.loads((node / "record.json").read_text())
    assert record["is_finished"]
    assert record["environment"]["processes"] == "2"
    assert not list(project.folder.glob(".work/train/*/"))
    with sqlite3.connect(project.folder / "mlflow.db") as store:
        assert store.execute("select status from runs").fetchall() == [("FINISHED",)]


def test_more_processes_than_the_settings_say_are_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # as torchrun starts a process
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(HiwlError, match=r"torchrun started 2 processes, but .* is 1: set HIWL_DEVICES"):
        _launch(settings())


def test_two_processes_of_one_machine_write_one_node(packed: Project) -> None:
    command = ("torchrun", "--standalone", "--nproc-per-node", "2", *TRAIN)
    packed.run(*command, HIWL_DEVICES="2", HIWL_THREADS="2")
    check_node(packed)


def test_of_two_machines_the_first_writes_all(packed: Project, tmp_path: Path) -> None:
    first, second = packed, Project(tmp_path / "second")
    second.folder.mkdir()
    shutil.copytree(first.folder / "data", second.folder / "data")
    shutil.copy(first.folder / "params.yaml", second.folder)
    meet = ("--master-addr", "127.0.0.1", "--master-port", str(free_port()))
    started = [
        subprocess.Popen(
            ("torchrun", "--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1", *meet, *TRAIN),
            cwd=machine.folder,
            env=environment(HIWL_MACHINES="2"),
        )
        for rank, machine in enumerate((first, second))
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    check_node(first)
    assert {path.name for path in second.folder.iterdir()} == {"data", "params.yaml"}


def test_two_processes_train_as_one_does(finished_once: Project, packed: Project) -> None:
    packed.run("hiwl", "train", "root", HIWL_DEVICES="2", HIWL_THREADS="2")
    alone, history = (pd.read_csv(project.folder / CURVE) for project in (finished_once, packed))
    assert len(history) == len(alone) == 2
    # The same galaxies in the same order, drawn alike: only batch normalisation sees smaller batches.
    assert history["training_loss"].to_numpy() == pytest.approx(alone["training_loss"].to_numpy(), rel=0.25)
    record = json.loads((packed.folder / "models/nodes/flat/root/record.json").read_text())
    assert record["environment"]["processes"] == "2"


def test_a_node_starts_from_the_best_of_the_node_above(packed: Project) -> None:
    packed.plant("paper")
    packed.stages(("train", "root"))
    train = packed.read()["train"]
    own = train["nodes"]["narrow"] | {"start": "paper/root", "learning_rate": 0.05, "backbone_rate": 1e-9}
    packed.change(train=train | {"nodes": train["nodes"] | {"narrow": own}})
    packed.stages(("train", "narrow"))
    above, below = (packed.folder / "models/nodes/paper" / node for node in ("root", "narrow"))
    best, kept = (
        folder / json.loads((folder / "node.json").read_text())["checkpoints"][0]["file"] for folder in (above, below)
    )
    record = json.loads((below / "record.json").read_text())
    assert record["columns"]["started_from"] == f"paper/root: {best.name} (SHA-256 {sha256(best)[:12]})"
    start, end = load_file(best), load_file(kept)
    counted = ("running_mean", "running_var", "num_batches_tracked")
    for name, value in start.items():
        if not name.startswith("fc.") and not name.endswith(counted):  # at so small a rate they stay
            torch.testing.assert_close(end[name], value)
    assert end["fc.weight"].shape == (2, start["fc.weight"].shape[1])

    shutil.rmtree(above)
    with pytest.raises(SystemExit):
        packed.stages(("train", "narrow"))
