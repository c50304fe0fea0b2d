"""Stage `register`: the evaluated choice as one pyfunc model in MLflow's registry, behind a gate.

Writes ``models/served``, the saved model. Below any threshold of the gate the stage fails and the alias stays where
it is.
"""

import ast
import shutil
import tempfile
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from pydantic import Field

import hiwl
from hiwl.core import tracking
from hiwl.core.errors import HiwlError
from hiwl.core.files import digest, replacing_folder, sha256
from hiwl.core.layout import CHOICE, SERVED
from hiwl.core.record import Record, read_evaluated
from hiwl.core.section import Section, read_section

CODE = ("core", "model")  # the folders that the served model runs: saved with it, so that it answers as it did


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
    with replacing_folder(SERVED) as beside:
        beside.rmdir()  # MLflow makes it
        save(beside, CHOICE)
    number = register(SERVED, record, params, CHOICE)
    print(f"register: {params.name} version {number} is {params.alias!r}")


def pass_gate(metrics: dict[str, float], gate: dict[str, float]) -> None:
    """Raise HiwlError, naming each value that is missing or below its threshold."""
    if unknown := set(gate) - set(metrics):
        raise HiwlError(f"register.gate: {', '.join(sorted(unknown))} was not measured; there is {', '.join(metrics)}")
    low = [f"{name} is {metrics[name]:.4f}, below {least}" for name, least in gate.items() if metrics[name] < least]
    if low:
        raise HiwlError(f"register.gate: {'; '.join(low)}. Nothing was registered and the alias was not moved.")


def save(folder: Path, choice: Path) -> None:
    """Save the model in the folder `choice`, and the code that answers, as an MLflow model `folder`."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType

    from hiwl.model.classifier import Classifier, copy_model

    classes = Classifier.load(choice, "cpu").tree.classes
    outputs = [("answer", DataType.string), ("probability", DataType.double)]
    outputs += [(f"p_{name}", DataType.double) for name in classes]
    outputs += [("route", DataType.string), ("error", DataType.string)]
    package = Path(str(hiwl.__file__)).parent
    with tempfile.TemporaryDirectory() as scratch:
        weights, code = Path(scratch, "choice"), Path(scratch, "hiwl")  # MLflow keeps the folders' names
        weights.mkdir()
        copy_model(choice, weights)
        code.mkdir()
        shutil.copyfile(package / "__init__.py", code / "__init__.py")
        for name in CODE:
            shutil.copytree(package / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
        mlflow.pyfunc.save_model(
            folder,
            python_model=package / "model" / "pyfunc.py",
            artifacts={"choice": str(weights)},
            code_paths=[str(code)],
            signature=ModelSignature(
                # Bytes or base64 text; anything else is answered too, by a row that says what is wrong with it.
                inputs=Schema([ColSpec(AnyType(), "image")]),
                outputs=Schema([ColSpec(kind, name, required=False) for name, kind in outputs]),
            ),
            pip_requirements=requirements(code),
        )


def requirements(code: Path) -> list[str]:
    """The distributions that the modules in `code` import, each at the version that is installed here."""
    imported: set[str] = set()
    for path in code.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module)
    installed = packages_distributions()
    roots = {name.split(".")[0] for name in imported} & installed.keys()
    # Several distributions may bring one package (mlflow, mlflow-skinny): the one of its own name is meant.
    found = {name if name in installed[name] else min(installed[name]) for name in roots}
    return [f"{name}=={version(name)}" for name in sorted(found - {"hiwl"}, key=str.lower)]


def register(folder: Path, record: Record, params: RegisterParams, choice: Path) -> str:
    """Make the saved model a version of the registered model (unless it is one) and move the alias to it.

    Raises:
        HiwlError: the gate is not passed, or `folder` holds another model than the folder `choice`, which was
            evaluated.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    pass_gate(record.metrics, params.gate)
    if (folder / "artifacts/choice/choice.json").read_bytes() != (choice / "choice.json").read_bytes():
        raise HiwlError(f"{folder} holds another choice than {choice}: `hiwl register` saves the one at hand")
    run_id = tracking.log_run(record)
    assert run_id is not None  # MLflow is here, or saving would have failed
    store = tracking.client()
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "MLmodel"]  # has the time in it
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
