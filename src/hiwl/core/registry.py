"""Versions of the registered model: which of two is better, which is the champion, whether its files are whole."""

import re
import tempfile
from pathlib import Path
from typing import Any

from hiwl.core.errors import HiwlError
from hiwl.core.files import digest, sha256
from hiwl.core.layout import pretrained

CHAMPION, CHALLENGER = "champion", "challenger"
CONTENT = "hiwl.content"  # the tag of a version that says what its files contain


def compare(made: Any, champion: Any) -> tuple[bool, str]:
    """Whether a version is better than the `champion` (None: there is none), and why."""
    mine, theirs = (float(one.tags.get("validation_accuracy", "nan")) if one else 0.0 for one in (made, champion))
    accuracy = f"validation accuracy {mine:.4f}"
    if champion is None:
        return True, f"{accuracy}, and there was none before"
    if champion.version == made.version:
        return False, accuracy
    if champion.tags.get("split") != made.tags.get("split"):
        return False, f"{accuracy}; version {champion.version} was not validated on the same galaxies, as its tags say"
    return mine > theirs, f"{accuracy} against {theirs:.4f} of version {champion.version}"


def promote(client: Any, version: Any, champion: Any) -> None:
    """Make `version` the champion in place of `champion`, which its tags then name."""
    if champion is not None and champion.version != version.version:
        client.set_model_version_tag(version.name, version.version, "replaced", champion.version)
    client.set_registered_model_alias(version.name, CHAMPION, version.version)
    challenger = version_of(client, version.name, CHALLENGER)
    if challenger is not None and challenger.version == version.version:
        client.delete_registered_model_alias(version.name, CHALLENGER)


def version_of(client: Any, name: str, alias: str) -> Any:
    """The version of the registered model `name` with this alias; None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def content_of(folder: Path) -> str:
    """Names what the files of a saved model contain, but for those that say when, by which run and with which pip."""
    passed_over = {"MLmodel", "registered_model_meta", "conda.yaml", "python_env.yaml"}
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return digest({str(p.relative_to(folder)): sha256(p) for p in files if p.name not in passed_over})[:16]


def weights_folder(weights: str | Path) -> Path:
    """The folder of a model: of published weights, as :func:`hiwl.core.layout.pretrained` finds them, or of a
    registered or logged model, by MLflow's URI (``models:/hiwl@champion``).

    Raises:
        HiwlError: there is no such model.
    """
    if not re.match(r"\w{2,}:/", str(weights)):
        return pretrained(weights)
    from hiwl.core import store  # before MLflow, which it tells to keep to itself

    if re.match("(models|runs):/", str(weights)) and not store.is_there():
        raise HiwlError(f"{weights}: no MLflow store here; go to the project's root folder, or set MLFLOW_TRACKING_URI")
    import mlflow

    store.client()  # which tells MLflow where the registry is
    try:
        folder = Path(mlflow.artifacts.download_artifacts(str(weights))) / "artifacts/choice"
    except Exception as error:  # of whatever store
        raise HiwlError(f"{weights}: {str(error).splitlines()[0]}") from None
    if not (folder / "choice.json").exists():
        raise HiwlError(f"{weights}: not a model of hiwl")
    return folder


def is_whole(version: Any) -> bool:
    """Whether the files of a registered version are there and what they were when it was made."""
    import mlflow

    with tempfile.TemporaryDirectory() as scratch:
        try:
            files = mlflow.artifacts.download_artifacts(version.source, dst_path=scratch)
        except (mlflow.exceptions.MlflowException, FileNotFoundError, NotADirectoryError):
            return False
        return content_of(Path(files)) == str(version.tags.get(CONTENT))
