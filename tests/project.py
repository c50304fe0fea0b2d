"""A copy of the project in a folder of its own, with a tiny survey, for tests of the whole pipeline."""

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from hiwl.cli import main
from hiwl.core.settings import settings

if TYPE_CHECKING:
    import mlflow

ROOT = Path(__file__).parents[1]
TINY = {
    "raw": {"survey": "simulated", "source": {"kind": "simulated", "galaxies": 260, "seed": 1, "volunteers": 44}},
    "pack": {"crop": 256, "side": 32},
    "register": {"name": "hiwl", "gate": {"test_accuracy": 0.0}},
}
TREES: dict[str, dict[str, list[str]]] = {
    "flat": {"root": ["CRS", "IBS", "CSS", "EO", "SPI"]},
    "paper": {"root": ["CRS", "IBS", "SPI", "narrow"], "narrow": ["CSS", "EO"]},
    "three": {"root": ["smooth", "SPI"], "smooth": ["CRS", "IBS", "narrow"], "narrow": ["CSS", "EO"]},
}


@dataclass(frozen=True)
class Project:
    """The folder, and ways to work in it as its user would."""

    folder: Path

    def run(
        self, *command: str, check: bool = True, folder: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's folder or another; what it printed is in `stdout`, errors included."""
        done = subprocess.run(
            command,
            cwd=folder or self.folder,
            env=environment(**variables),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} failed:\n{done.stdout}")
        return done

    def stages(self, *commands: tuple[str, ...]) -> None:
        """Run stages and verbs in this process, which spares the imports."""
        before = Path.cwd()
        os.chdir(self.folder)
        settings.cache_clear()
        try:
            for command in commands:
                main(list(command))
        finally:
            os.chdir(before)

    def commit(self) -> None:
        """Commit everything as it stands."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "tiny")

    def read(self) -> dict[str, Any]:
        """The parameters."""
        content: dict[str, Any] = yaml.safe_load((self.folder / "params.yaml").read_text())
        return content

    def change(self, **sections: Any) -> None:
        """Replace sections of the parameters."""
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.read() | sections, sort_keys=False))

    def plant(self, tree: str) -> None:
        """Make `tree` the hierarchy."""
        self.change(
            hierarchy={"name": tree, "nodes": TREES[tree]}, train=self.read()["train"] | {"nodes": recipes(tree)}
        )

    def copy(self, folder: Path) -> "Project":
        """The same project elsewhere, with its cache and outputs."""
        shutil.copytree(self.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("mlflow.db", "mlruns"))
        return Project(folder)


def recipes(tree: str) -> dict[str, Any]:
    """For `train.nodes`."""
    found = {name: {"start": "pretrained"} for name in TREES[tree]}
    return found | ({"narrow": {"start": "pretrained", "sampling": {"kind": "weighted"}}} if "narrow" in found else {})


def tiny_params(tree: str) -> dict[str, Any]:
    """Parameters that run in seconds: 260 galaxies, two epochs of a tiny network."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    train = params["train"] | {"backbone": "test_resnet", "input": 32, "keep": 2, "nodes": recipes(tree)}
    train["recipe"] |= {"epochs": 2, "batch": 16}
    return (
        params
        | TINY
        | {"select": params["select"] | {"expected": None}, "train": train}
        | {"hierarchy": {"name": tree, "nodes": TREES[tree]}}
    )


def store(project: Project) -> "mlflow.MlflowClient":
    """A client of the project's MLflow store."""
    import mlflow

    uri = f"sqlite:///{project.folder}/mlflow.db"
    return mlflow.MlflowClient(uri, uri)


def runs(project: Project) -> pd.DataFrame:
    """The project's runs in MLflow."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{project.folder}/mlflow.db")
    found = mlflow.search_runs(experiment_names=["hiwl"])
    assert isinstance(found, pd.DataFrame)
    return found


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def wait_for(server: "subprocess.Popen[bytes]", address: str) -> None:
    """Until `server`, which was just started, answers at `address`."""
    import requests

    deadline = time.monotonic() + 120
    while True:
        assert server.poll() is None, "the server has ended"
        try:
            if requests.get(address, timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        assert time.monotonic() < deadline, f"{address} does not answer"
        time.sleep(0.3)


def environment(**variables: str) -> dict[str, str]:
    """The tests' environment, without settings of the machine that they run on."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HIWL_", "DVC_", "MLFLOW_"))}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # the same modules are imported many times
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    own = {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "HIWL_ACCELERATOR": "cpu", "HIWL_THREADS": "1"}
    who = {f"GIT_{role}_{key}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    return kept | own | who | variables


def make(folder: Path, tree: str = "flat") -> Project:
    """A new project with the tiny survey."""
    folder.mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc" / name)
    (folder / "models/nodes").mkdir(parents=True)
    for name in (".gitignore", "pretrained"):
        shutil.copy(ROOT / "models/nodes" / name, folder / "models/nodes" / name)
    project = Project(folder)
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    project.change(**tiny_params(tree))
    project.commit()
    return project
