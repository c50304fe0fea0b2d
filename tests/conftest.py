import os
import shutil

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one worker a core; before torch is imported
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from filelock import FileLock

from hiwl.core import tracking
from hiwl.core.settings import settings
from hiwl.model.torchvision_mend import mend_torchvision
from hiwl.studies.plan import compose
from hiwl.verbs import embed
from pictures import folder_of
from project import TREES, Project, make, tiny_params
from runs import MINE, STUDY, plan_study

ROOT = Path(__file__).parents[1]

mend_torchvision()  # some tests import torchvision and timm themselves
# Tests state behaviour, on however busy a machine; thirty examples a run are many over a hundred runs.
hypothesis.settings.register_profile("untimed", deadline=None, max_examples=30)
hypothesis.settings.register_profile("many", deadline=None, max_examples=10_000)  # pytest --hypothesis-profile many
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--elsewhere` runs the tests that need a browser or a Java, and no others."""
    parser.addoption("--elsewhere", action="store_true", help="the tests that need Chromium, Java and pyspark, alone")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of trained models take long; those of the evaluated project on one worker, so that no other waits while it
    is made; of those that need a finished pipeline one at the very start, which makes it, and the others at the end."""
    elsewhere = config.getoption("--elsewhere")
    items[:] = [item for item in items if (item.get_closest_marker("elsewhere") is not None) == elsewhere]
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "evaluated_once" in fixtures and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("evaluated"))
        if {"evaluated_once", "finished_once", "registered"} & set(fixtures):
            item.add_marker(pytest.mark.process)
    of_pipeline = [item for item in items if "finished_once" in getattr(item, "fixturenames", ())]
    others = [item for item in items if item not in of_pipeline]
    items[:] = [*of_pipeline[:1], *others, *of_pipeline[1:]]


@pytest.fixture(autouse=True)
def plain_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings of the machine that the tests run on, and each test reads its own."""
    for name in list(os.environ):
        if name.startswith(("HIWL_", "DVC_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HIWL_ACCELERATOR", "cpu")
    monkeypatch.setenv("HIWL_WORKERS", "1")
    monkeypatch.setenv("HIWL_THREADS", "1")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="session")
def committed() -> dict[str, Any]:
    """The parameters as committed."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return content


@pytest.fixture(scope="session")
def evaluated_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """The paper's tree on the tiny survey, from `raw` to `evaluate`, without MLflow; made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    project = Project((base if worker_id == "master" else base.parent) / "evaluated")
    with FileLock(f"{project.folder}.lock"):
        if not project.folder.exists():
            evaluate(project)
    return project


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """A project whose pipeline has run once, flat, by `dvc repro`; made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "finished"
    with FileLock(f"{folder}.lock"):
        if not (folder / ".done").exists():
            project = make(folder)
            project.run("dvc", "repro")
            project.commit()
            (folder / ".done").touch()
    return Project(folder)


def evaluate(project: Project) -> None:
    project.folder.mkdir()
    (project.folder / "params.yaml").write_text(yaml.safe_dump(tiny_params("paper"), sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIWL_ACCELERATOR", "cpu")
        patch.setenv("HIWL_WORKERS", "1")
        patch.setenv("HIWL_THREADS", "1")
        settings.cache_clear()
        patch.setattr(tracking, "find_spec", lambda name: None)
        nodes = [("train", node) for node in TREES["paper"]]
        project.stages(("raw",), ("select",), ("split",), ("pack",), *nodes, ("choose",), ("evaluate",))
    settings.cache_clear()


@pytest.fixture
def evaluated(evaluated_once: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it, as working folder, with MLflow out of the way."""
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    project = evaluated_once.copy(tmp_path / "p")
    monkeypatch.chdir(project.folder)
    return project


@pytest.fixture
def features(evaluated: Project, tmp_path: Path) -> Path:
    """The table of features of forty pictures, a broken and a blank one, by that project's model."""
    folder_of(tmp_path / "pictures", 40)
    embed.main(
        [str(tmp_path / "pictures")],
        str(tmp_path / "features.parquet"),
        weights="models/choice",
        node="root",
        components=None,
    )
    return tmp_path / "features.parquet"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with a survey of real galaxies and a study `trees`."""
    from hiwl.studies import table

    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "conf", "conf")
    shutil.rmtree("conf/study")
    plan_study(STUDY)
    Path("params.yaml").write_text(yaml.safe_dump(compose(MINE)))
    table.answers_of.cache_clear()
    return tmp_path
