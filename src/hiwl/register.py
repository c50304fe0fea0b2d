"""Stage `register`: the evaluated choice as one pyfunc model in MLflow's registry, behind a gate.

Writes ``models/served``, the saved model. Below any threshold of the gate the stage fails and the alias stays where
it is.
"""

import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field

from hiwl import tracking
from hiwl.errors import HiwlError
from hiwl.files import digest, replacing_folder, sha256
from hiwl.hierarchy import Tree
from hiwl.layout import CHOICE_FILE, NODES, SERVED
from hiwl.params import Section, read_section
from hiwl.record import Record, read_evaluated

REQUIREMENTS = (
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "pydantic-settings",
    "pyyaml",
    "safetensors",
    "timm",
    "torch",
    "torchvision",
)
# The modules that the served model runs: saved beside it, so that it answers as it did when it was evaluated.
MODULES = (
    "__init__",
    "_torchvision_compat",
    "architectures",
    "augment",
    "backbone",
    "classifier",
    "errors",
    "files",
    "hierarchy",
    "images",
    "memory",
    "params",
    "served",
    "settings",
)


class RegisterParams(Section):
    """Section `register`."""

    name: str = Field(min_length=1)
    """The registered model."""
    alias: str = Field(min_length=1)
    """What moves to the new version; `mlflow models serve -m models:/<name>@<alias>` serves it."""
    gate: dict[str, float]
    """Measured values (as in MLflow: test_accuracy, test_recall_CSS, ...) and the least that each must reach."""


def main() -> None:
    """Save, pass the gate, register."""
    params = RegisterParams.parse(read_section("register"), "register")
    record = read_evaluated()
    pass_gate(record.metrics, params.gate)  # before anything is written
    with tempfile.TemporaryDirectory() as scratch, replacing_folder(SERVED) as beside:
        beside.rmdir()  # MLflow makes it
        save(beside, bundle(Path(scratch)))
    number = register(SERVED, record, params)
    print(f"register: {params.name} version {number} is {params.alias!r}")


def pass_gate(metrics: dict[str, float], gate: dict[str, float]) -> None:
    """Raise HiwlError, naming each value that is missing or below its threshold."""
    if unknown := set(gate) - set(metrics):
        raise HiwlError(f"register.gate: nothing measured {', '.join(sorted(unknown))}; there is {', '.join(metrics)}")
    low = [f"{name} is {metrics[name]:.4f}, below {least}" for name, least in gate.items() if metrics[name] < least]
    if low:
        raise HiwlError(f"register.gate: {'; '.join(low)}. Nothing was registered and the alias was not moved.")


def bundle(folder: Path) -> Path:
    """Bring the choice (``choice.json``) and the checkpoints that it names (``<node>/<file>``) into `folder`."""
    shutil.copyfile(CHOICE_FILE, folder / "choice.json")
    for node, chosen in json.loads(CHOICE_FILE.read_text())["nodes"].items():
        (folder / node).mkdir()
        shutil.copyfile(NODES / node / chosen["file"], folder / node / chosen["file"])
    return folder


def save(folder: Path, bundle: Path) -> None:
    """Save a bundle (a choice and its checkpoints) and the code that answers as an MLflow model folder."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType

    tree = Tree(json.loads((bundle / "choice.json").read_text())["hierarchy"])
    here = Path(__file__).parent
    outputs = [("class", DataType.string), ("probability", DataType.double)]
    outputs += [(f"p_{name}", DataType.double) for name in tree.classes]
    outputs += [("route", DataType.string), ("error", DataType.string)]
    with tempfile.TemporaryDirectory() as scratch:
        choice = shutil.copytree(bundle, Path(scratch, "choice"))  # MLflow keeps the folder's name
        code = Path(scratch, "hiwl")
        code.mkdir()
        for module in MODULES:
            shutil.copyfile(here / f"{module}.py", code / f"{module}.py")
        mlflow.pyfunc.save_model(
            folder,
            python_model=here / "served.py",
            artifacts={"choice": str(choice)},
            code_paths=[str(code)],
            signature=ModelSignature(
                # Bytes or base64 text; anything else is answered too, by a row that says what is wrong with it.
                inputs=Schema([ColSpec(AnyType(), "image")]),
                outputs=Schema([ColSpec(kind, name, required=False) for name, kind in outputs]),
            ),
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
        )


def register(folder: Path, record: Record, params: RegisterParams, choice: Path = CHOICE_FILE) -> str:
    """Make the saved model a version of the registered model (unless it is one) and move the alias to it.

    Raises:
        HiwlError: the gate is not passed, or `folder` holds another choice than `choice`, which was evaluated.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    pass_gate(record.metrics, params.gate)
    if (folder / "artifacts/choice/choice.json").read_bytes() != choice.read_bytes():
        raise HiwlError(f"{folder} holds another choice than {choice}: `hiwl register` saves the one at hand")
    run_id = tracking.log_run(record)
    assert run_id is not None  # MLflow is here, or saving would have failed
    store = tracking.client()
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name != "MLmodel"
    )  # has the time in it
    content = digest({str(path.relative_to(folder)): sha256(path) for path in files})[:16]
    try:
        store.create_registered_model(params.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    number = _version_with(store, params.name, content)
    if number is None:
        store.log_artifacts(run_id, str(folder), f"model-{content}")
        number = store.create_model_version(
            params.name,
            source=f"{mlflow.get_run(run_id).info.artifact_uri}/model-{content}",
            run_id=run_id,
            tags={"hiwl.content": content, "survey": str(record.columns["survey"])},
            description=f"Trained and evaluated on the survey {record.columns['survey']!r}: "
            f"test accuracy {record.metrics['test_accuracy']:.4f}.",
        ).version
    store.set_registered_model_alias(params.name, params.alias, number)
    return str(number)


def _version_with(store: Any, name: str, content: str) -> str | None:
    for made in store.search_model_versions(f"name = '{name}'"):
        if made.tags.get("hiwl.content") == content:
            return str(made.version)
    return None
