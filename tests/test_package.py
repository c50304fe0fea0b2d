"""The package as one: what the wheel carries, and that it answers outside of the repository."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import hiwl

ROOT = Path(__file__).parents[1]
CODE = """
import json, sys
import hiwl
from pathlib import Path
picture = Path(hiwl.__file__).parent / "model/galaxy.jpg"
answers = hiwl.load("small")([picture])
import timm  # whatever torchvision lies beside torch, as the cards show
lean = [name for name in ("mlflow", "dvc", "great_expectations", "galsim", "hydra", "requests") if name in sys.modules]
print(json.dumps([hiwl.__file__, answers.loc[0, "answer"], lean]))
"""


@pytest.mark.process
def test_the_wheel_answers_a_picture_where_nothing_else_of_the_repository_is(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob(f"hiwl-{hiwl.__version__}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {f"hiwl/pretrained/{name}/choice.json" for name in ("best", "hiwl", "small")} <= names
    assert {"hiwl/verbs/card.md.jinja", "hiwl/service/page.html", "hiwl/py.typed"} <= names
    assert not [name for name in names if "tests" in name]
    # -S: nothing of what is installed here but what the wheel holds and the packages that it asks for.
    path = os.pathsep.join([str(tmp_path / "site"), *_others(tmp_path / "others")])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "HOME": str(tmp_path)}
    said = subprocess.run([sys.executable, "-S", "-c", CODE], cwd=tmp_path, env=environment, capture_output=True)
    assert said.returncode == 0, said.stderr.decode()
    where, answer, lean = json.loads(said.stdout.splitlines()[-1])
    assert where.startswith(str(tmp_path))
    assert (answer, lean) == ("SPI", [])


def _others(folder: Path) -> list[str]:
    """Every installed package but this one and those of the extras."""
    absent = (
        "hiwl",
        "_hiwl",
        "__editable__",
        "dvc",
        "mlflow",
        "great_expectations",
        "galsim",
        "hydra",
        "jinja2",
        "onnx",
    )
    folder.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.lower().startswith(absent):
            (folder / path.name).symlink_to(path)
    return [str(folder)]


@pytest.mark.process
def test_the_quickstart_notebook_runs(tmp_path: Path) -> None:
    import nbclient
    import nbformat

    notebook = nbformat.read(ROOT / "docs/quickstart.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "strip the outputs before committing"
    done = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    shown = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2
    assert any("SPI" in str(output.get("data", {}).get("text/html")) for output in shown)


def test_the_changelog_and_the_citation_are_of_this_version() -> None:
    assert f"## {hiwl.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {hiwl.__version__}" in (ROOT / "CITATION.cff").read_text()
