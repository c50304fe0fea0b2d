"""Stage `register`: the evaluated choice as one pyfunc model in MLflow's registry, behind a gate.

Writes ``models/served``, the saved model, and registers it as the `challenger`. Where it is better on validation than
the `champion`, on the same split, it becomes the champion; else `hiwl promote` makes it so. Below any threshold of the
gate the stage fails and no alias moves.
"""

import ast
import base64
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from packaging.version import Version
from pydantic import Field

import hiwl
from hiwl.core import store, tracking
from hiwl.core.errors import HiwlError
from hiwl.core.files import digest, replacing_folder
from hiwl.core.layout import CHOICE, SERVED
from hiwl.core.record import Record, read_evaluated
from hiwl.core.registry import CHALLENGER, CHAMPION, CONTENT, compare, content_of, is_whole, promote, version_of
from hiwl.core.section import Section, read_section

CODE = ("core", "model")  # the folders that the served model runs: saved with it, so that it answers as it did
KINDS = {str: "string", float: "double", int: "long", bool: "boolean"}
EXAMPLE = Path(str(hiwl.__file__)).parent / "model/galaxy.jpg"  # a simulated spiral


class RegisterParams(Section):
    """Section `register`."""

    name: str = Field(min_length=1)
    """The registered model; `mlflow models serve -m models:/<name>@champion` serves the best of its versions."""
    gate: dict[str, float]
    """Measured values (as in MLflow: test_accuracy, test_recall_CSS, ...) and the least that each must reach."""


def main() -> None:
    """Save, pass the gate, register."""
    params = RegisterParams.parse(read_section("register"), "register")
    record = read_evaluated()
    pass_gate(record.metrics, params.gate)  # before anything is written
    check_engine(CHOICE)
    with replacing_folder(SERVED) as beside:
        beside.rmdir()  # MLflow makes it
        save(beside, CHOICE)
    register(SERVED, record, params, CHOICE)


def pass_gate(metrics: dict[str, float], gate: dict[str, float]) -> None:
    """Raise HiwlError, naming each value that is missing or below its threshold."""
    if unknown := set(gate) - set(metrics):
        raise HiwlError(f"register.gate: {', '.join(sorted(unknown))} was not measured; there is {', '.join(metrics)}")
    low = [f"{name} is {metrics[name]:.4f}, below {least}" for name, least in gate.items() if metrics[name] < least]
    if low:
        raise HiwlError(f"register.gate: {'; '.join(low)}. Nothing was registered and no alias was moved.")


def check_engine(choice: Path) -> None:
    """See to it that the engine answers as torch does, at every node, for every test galaxy."""
    import numpy as np

    from hiwl.model.classifier import Classifier
    from hiwl.survey.packed import read_split
    from hiwl.training.export import check_export

    classifier = Classifier.load(choice, "cpu")
    _, images, labels = read_split("test", classifier.tree)
    for node in classifier.nodes.values():
        check_export(node, images, np.arange(len(labels)))


def save(folder: Path, choice: Path) -> None:
    """Save the model in the folder `choice`, and the code that answers, as an MLflow model `folder`."""
    import mlflow
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    from hiwl.model.answer import IMAGE, Model
    from hiwl.model.classifier import copy_model
    from hiwl.model.trust import ALPHA

    outputs = Model.load(choice).columns
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch, "choice")  # MLflow keeps the folders' names
        weights.mkdir()
        copy_model(choice, weights)
        code = copy_code(Path(scratch))
        with _importable(code):
            mlflow.pyfunc.save_model(
                folder,
                python_model=code / "model" / "pyfunc.py",
                artifacts={"choice": str(weights)},
                code_paths=[str(code)],
                signature=ModelSignature(
                    # None of inputs: MLflow would drop every column beside `image`, and they are to come back.
                    outputs=Schema([ColSpec(KINDS[kind], name, required=False) for name, kind in outputs.items()]),
                    params=ParamSchema([ParamSpec("alpha", "double", ALPHA), ParamSpec("scale", "double", 1.0)]),
                ),
                input_example=pd.DataFrame({IMAGE: [base64.b64encode(EXAMPLE.read_bytes()).decode()]}),
                pip_requirements=requirements(code),
            )


def copy_code(to: Path) -> Path:
    """Bring the code that answers into the folder `to`, as a package named after its content.

    So two versions of a model in one process each run their own code.
    """
    package = Path(str(hiwl.__file__)).parent
    files = [package / "__init__.py", *(path for name in CODE for path in sorted(package.glob(f"{name}/**/*.py")))]
    content = {str(path.relative_to(package)): path.read_text() for path in files}
    own = f"hiwl_{digest(content)[:8]}"
    for name, text in content.items():
        path = to / own / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"^(\s*(?:from|import) )hiwl\b", rf"\g<1>{own}", text, flags=re.MULTILINE))
    return to / own


@contextmanager
def _importable(package: Path) -> Iterator[None]:
    """MLflow runs the model's code to see what it is: let it find `package`, and forget it again."""
    sys.path.insert(0, str(package.parent))
    try:
        yield
    finally:
        sys.path.remove(str(package.parent))
        for name in [name for name in sys.modules if name.split(".")[0] == package.name]:
            del sys.modules[name]


def requirements(code: Path) -> list[str]:
    """The distributions that the modules in `code` import, each at the version that is installed here.

    Without the local part of a version (`+cpu`), which no registry has.
    """
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
    return [f"{name}=={Version(version(name)).public}" for name in sorted(found, key=str.lower)]


def register(folder: Path, record: Record, params: RegisterParams, choice: Path, promoted: bool = False) -> None:
    """Make the saved model a version of the registered model, unless it is one, and say what became of it.

    It becomes the champion where it is better than the present one, or is to be `promoted` in any case.

    Raises:
        HiwlError: the gate is not passed, or `folder` holds another model than the folder `choice`, which was
            evaluated.
    """
    pass_gate(record.metrics, params.gate)
    if (folder / "artifacts/choice/choice.json").read_bytes() != (choice / "choice.json").read_bytes():
        raise HiwlError(f"{folder} holds another choice than {choice}: `hiwl register` saves the one at hand")
    with store.registering():
        run_id = tracking.log_run(record)
        client = store.client()
        made = _version_with(client, params.name, content_of(folder))
        if made is None:
            made = _log(client, folder, params.name, record, str(run_id))
        champion = version_of(client, params.name, CHAMPION)
        is_better, why = compare(made, champion)
        alias = CHALLENGER
        if champion is not None and champion.version == made.version:
            alias = CHAMPION
        elif is_better or promoted:
            alias = CHAMPION
            promote(client, made, champion)
        else:
            client.set_registered_model_alias(params.name, CHALLENGER, made.version)
    print(f"{params.name} version {made.version} is the {alias}: {why}")
    if alias == CHALLENGER:
        print("  make it the champion:  hiwl promote")
    print("  look at it:            mlflow ui, then Model training, Model registry")
    print(
        f"  serve it:              mlflow models serve -m models:/{params.name}@{alias} --env-manager local --port 5001"
    )


def _version_with(client: Any, name: str, content: str) -> Any:
    for made in client.search_model_versions(f"name = '{name}'"):
        if made.tags.get(CONTENT) == content:
            if is_whole(made):
                return made
            print(f"{name} version {made.version}: its files at {made.source} are gone or damaged; registering it anew")
            client.delete_model_version_tag(name, made.version, CONTENT)
    return None


def _log(client: Any, folder: Path, name: str, record: Record, run_id: str) -> Any:
    """Log the saved model with its run, as MLflow saves it anew, and register it; give the version."""
    import mlflow
    from mlflow.entities import Metric
    from mlflow.models import Model as Saved

    saved = Saved.load(folder)
    (code,) = (folder / "code").glob("hiwl_*")
    mlflow.set_experiment(experiment_id=store.experiment(client))
    with _importable(code):
        # What pyfunc.log_model calls; that one would open the run again, and end it now.
        info = Saved.log(
            artifact_path=None,
            name=name,
            flavor=mlflow.pyfunc,
            run_id=run_id,
            step=1,  # of step 0 MLflow would take the metrics without their datasets
            registered_model_name=name,
            python_model=code / "model" / "pyfunc.py",
            artifacts={"choice": str(folder / "artifacts/choice")},
            code_paths=[str(code)],
            signature=saved.signature,
            input_example=saved.load_input_example(str(folder)),
            pip_requirements=(folder / "requirements.txt").read_text().split(),
        )
    measured = tracking.metrics_of(record)
    client.log_batch(run_id, [Metric(**dict(metric) | {"model_id": info.model_id}) for metric in measured])
    number = str(info.registered_model_version)
    for key, value in {CONTENT: content_of(folder), **_tags(record)}.items():
        client.set_model_version_tag(name, number, key, value)
    client.update_model_version(name, number, description=describe(record))
    made = client.get_model_version(name, number)
    if not is_whole(made):
        client.delete_model_version(name, number)
        raise HiwlError(f"{made.source}: holds other files than {folder}; `hiwl register` registers it anew")
    return made


def _tags(record: Record) -> dict[str, str]:
    tags = {name: str(record.columns[name]) for name in ("survey", "tree", "backbone", "seed")}
    tags |= {name: f"{record.metrics[name]:.6f}" for name in ("validation_accuracy", "test_accuracy")}
    tags |= {"commit": record.environment["commit"], "split": record.data["sources"]["splits.csv"]}
    return tags | {k: record.environment[k] for k in ("dvc_experiment",) if k in record.environment}


def describe(record: Record) -> str:
    """A version's description, in Markdown."""
    columns, metrics, counts = record.columns, record.metrics, record.data["counts"]
    recall = {
        name.removeprefix("test_recall_"): f"{value:.4f}"
        for name, value in metrics.items()
        if name.startswith("test_recall_")
    }
    low, high = (metrics.get(f"test_accuracy_{end}") for end in ("low", "high"))
    interval = "" if low is None or high is None else f" ({low:.4f} to {high:.4f}, Wilson, 95 %)"
    return (
        f"`{columns['backbone']}` at {columns['input']} px, tree `{columns['tree']}`, recipe `{columns['recipe']}`, "
        f"seed {columns['seed']}, trained on {counts['training']} galaxies of the survey `{columns['survey']}`.\n\n"
        f"- validation accuracy {metrics['validation_accuracy']:.4f} on {counts['validation']} galaxies\n"
        f"- test accuracy {metrics['test_accuracy']:.4f}{interval}\n"
        f"- recall on test: {', '.join(f'{name} {value}' for name, value in recall.items())}\n"
    )
