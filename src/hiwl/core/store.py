"""The project's MLflow store: the setting's server, else ``mlflow.db`` and ``mlruns`` in the project's root.

A local store is made beside its place, under a lock, and renamed: whoever is killed meanwhile leaves none, and of
several first runs one makes it. It knows artifacts by absolute paths; where the project has moved, they are brought
along.
"""

import os
import re
import sqlite3
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

from hiwl.core.errors import HiwlError
from hiwl.core.files import alone, replacing
from hiwl.core.layout import WORK
from hiwl.core.settings import project_root, settings

# MLflow reads these when it is imported: it keeps to itself, and speaks when something is wrong.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a server that is away holds no training up for minutes

DATABASE, ARTIFACTS = "mlflow.db", "mlruns"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # the pages for trained models, not those for agents
PATHS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Where MLflow's tables hold absolute paths of artifacts."""


def is_there() -> bool:
    """Whether there is a store to read from: a server, or one that was made here."""
    is_elsewhere = settings().tracking_uri is not None or bool(os.environ.get("MLFLOW_REGISTRY_URI"))
    return is_elsewhere or (project_root() / DATABASE).exists()


def client() -> Any:
    """A client of the store, for tracking and registry; it is made where it is not there yet.

    Raises:
        HiwlError: the store cannot be used, and what to do about it.
    """
    import mlflow

    own = project_root() / DATABASE
    uri = settings().tracking_uri or _sqlite(own)
    if settings().tracking_uri is None and not own.exists():
        _make(own)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(os.environ.get("MLFLOW_REGISTRY_URI") or uri)
    try:
        store = mlflow.MlflowClient()
        found = store.get_experiment_by_name(settings().experiment_name)
    except Exception as error:
        if settings().tracking_uri is not None:
            raise HiwlError(f"{uri}: MLflow's store does not answer: {_first_line(error)}") from None
        raise HiwlError(
            f"{own}: MLflow cannot use it: {_first_line(error)}. If it is of an earlier MLflow, `mlflow db upgrade "
            f"{_sqlite(own)}` brings it up to date; else move it away, and `hiwl restore` makes it anew"
        ) from None
    if found is not None and settings().tracking_uri is None:
        _bring_along(own, found.artifact_location)
    return store


def experiment(store: Any) -> str:
    """The ID of the experiment that holds the project's runs; it is made where it is not there yet.

    Raises:
        HiwlError: it was deleted in MLflow.
    """
    name = settings().experiment_name
    found = store.get_experiment_by_name(name)
    if found is None:
        with _changing():
            found = store.get_experiment_by_name(name)
            made = found.experiment_id if found else store.create_experiment(name, _location(name), tags=KIND)
            return str(made)
    if found.lifecycle_stage == "deleted":
        raise HiwlError(
            f"MLflow's experiment {name!r} was deleted: `mlflow experiments restore -x {found.experiment_id}` brings "
            "it back, `mlflow gc` removes it for good"
        )
    return str(found.experiment_id)


def rebuild_unsynced() -> None:
    """Before a client is made, by a command that logs much at once: do not wait for the disk after each change.

    Killed meanwhile, the store stays whole; a power cut may spoil it, and then it is made anew. A server is as it is.
    """
    if settings().tracking_uri is None:
        from sqlalchemy import Engine, event

        event.listen(Engine, "connect", lambda connection, _: connection.execute("pragma synchronous = off"))


def registering() -> AbstractContextManager[None]:
    """One process at a time adds versions or moves aliases."""
    return alone(project_root() / WORK / "registry.lock", "works on MLflow's registry")


def _changing() -> AbstractContextManager[None]:
    return alone(project_root() / WORK / "mlflow.lock", "makes or changes MLflow's store")


def _location(name: str) -> str | None:
    """A local store's artifacts belong into the project's root, wherever this process runs; a server has its own."""
    uri = settings().tracking_uri
    folder = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    return (project_root() / ARTIFACTS / folder).as_uri() if uri is None or uri.startswith("sqlite:") else None


def _sqlite(path: Path) -> str:
    return f"sqlite:///{path}"


def _make(path: Path) -> None:
    import mlflow

    with _changing():
        if path.exists():  # another process made it meanwhile
            return
        with replacing(path) as beside:
            mlflow.MlflowClient(_sqlite(beside), _sqlite(beside)).search_experiments(max_results=1)


def _bring_along(database: Path, location: str) -> None:
    """Lead the store's paths here, where the project lay elsewhere when it was made."""
    here = (project_root() / ARTIFACTS).as_uri()
    there = location.rpartition(f"/{ARTIFACTS}/")[0] + f"/{ARTIFACTS}"
    if there == here or not location.startswith("file:") or f"/{ARTIFACTS}/" not in location:
        return
    pairs = [(there, here), (there.removeprefix("file://"), here.removeprefix("file://"))]
    with _changing(), closing(sqlite3.connect(database, timeout=60)) as store, store:
        for table, columns in PATHS.items():
            for column in columns:
                for old, new in pairs:
                    store.execute(
                        f"update {table} set {column} = ? || substr({column}, ?) where substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, len(old) + 1, f"{old}/"),
                    )
    print(f"{database}: the project lay at {pairs[1][0].removesuffix(f'/{ARTIFACTS}')} before; its paths lead here now")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
