"""Runs in MLflow, from their records: while they happen, when they end, and again on another machine.

There is one way of logging, :func:`log_run`. It can be called as often as one likes with the same or a grown record
and adds only what MLflow does not yet have. Where MLflow is not installed (a borrowed GPU, say), the record stays in
the stage's output, and `hiwl restore` logs it at home.
"""

import json
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hiwl.core.files import digest
from hiwl.core.record import Record
from hiwl.core.settings import project_root, settings

EXPERIMENT = "hiwl"
KEY = "hiwl.key"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # the pages for trained models, not those for agents


def client() -> Any:
    """A client of the store: the setting's, else mlflow.db in the project's root, as `mlflow ui` expects it."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    uri = settings().tracking_uri or f"sqlite:///{project_root() / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient()


def log_run(record: Record) -> str | None:
    """Bring `record` into MLflow and give the run's ID; None where MLflow is not installed."""
    if find_spec("mlflow") is None:
        return None
    from mlflow.entities import Metric

    store = client()
    run = _find(store, record.key)
    if run is not None and not _grew(run, record):  # trained again by force: another run
        store.set_tag(run.info.run_id, KEY, f"{record.key} replaced")
        run = None
    run = run or _start(store, record)
    run_id: str = run.info.run_id
    if record.kind == "choice":
        for node, key in record.nodes.items():
            if (part := _find(store, key)) is not None:
                store.set_tag(run_id, f"hiwl.run.{node}", part.info.run_id)
    known = int(run.data.tags.get("hiwl.epochs", 0))
    rows = [
        Metric(name, value, timestamp=when, step=int(row["epoch"]))
        for row, when in list(zip(record.history, _times(run.info.start_time, record.history), strict=True))[known:]
        for name, value in row.items()
        if name != "epoch"
    ]
    now = round(1000 * time.time())  # of two values of one step MLflow shows the later one
    changed = {name: value for name, value in record.metrics.items() if run.data.metrics.get(name) != value}
    final = [Metric(name, value, timestamp=now, step=0) for name, value in changed.items()]
    for start in range(0, len(rows + final), 1000):  # the server's limit for one request
        store.log_batch(run_id, metrics=(rows + final)[start : start + 1000])
    if len(record.history) >= known:  # an older record takes nothing back
        store.set_tag(run_id, "hiwl.epochs", str(len(record.history)))
        store.set_tag(run_id, "hiwl.history", digest(record.history))
    if record.is_finished and run.info.status != "FINISHED":
        store.set_terminated(run_id, end_time=(_times(run.info.start_time, record.history) or [now])[-1])
    return run_id


def log_report(record: Record, folder: Path) -> None:
    """Log an evaluated choice, with the tables and pictures of `folder` among its artifacts."""
    run_id = log_run(record)
    if run_id is not None:
        for name in ("per_class.csv", "confusion.png", "curves.png"):
            client().log_artifact(run_id, str(folder / name))


def _grew(run: Any, record: Record) -> bool:
    """Whether the record's history continues what the run has (or is less of it, on its way back from a resume)."""
    known = int(run.data.tags.get("hiwl.epochs", 0))
    return known > len(record.history) or run.data.tags.get("hiwl.history") in (None, digest(record.history[:known]))


def _times(start: int, history: list[dict[str, float]]) -> list[int]:
    """When each epoch ended, in milliseconds since 1970."""
    seconds = [row.get("seconds", 0) + row.get("validation_seconds", 0) for row in history]
    return [start + round(1000 * sum(seconds[: i + 1])) for i in range(len(seconds))]


def _find(store: Any, key: str) -> Any:
    experiment = store.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return None
    runs = store.search_runs([experiment.experiment_id], f"tags.`{KEY}` = '{key}'", max_results=1)
    return runs[0] if runs else None


def _start(store: Any, record: Record) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    run = store.create_run(
        _experiment(store),
        start_time=record.started,
        run_name=record.name,
        tags={KEY: record.key, "hiwl.kind": record.kind} | {f"hiwl.{k}": v for k, v in record.environment.items()},
    )
    store.set_tag(run.info.run_id, "mlflow.source.git.commit", record.environment["commit"])
    flat = {key: str(value) for key, value in record.columns.items()} | _flatten(record.parameters)
    store.log_batch(run.info.run_id, params=[Param(key, value) for key, value in flat.items()])
    data = Dataset(
        name=str(record.columns["survey"]),
        digest=record.data["sources"]["splits.csv"][:32],
        source_type="dvc",
        source=json.dumps(record.data["sources"]),
        profile=json.dumps(record.data["counts"]),
    )
    store.log_inputs(run.info.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
    return store.get_run(run.info.run_id)


def _experiment(store: Any) -> str:
    found = store.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    # A local store's artifacts belong into mlruns of the project's root, wherever this process runs.
    location = None if settings().tracking_uri else (project_root() / "mlruns" / EXPERIMENT).as_uri()
    return str(store.create_experiment(EXPERIMENT, artifact_location=location, tags=KIND))


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json.dumps(value) if isinstance(value, list | tuple) else str(value)
    return flat


def read_records(paths: list[Path]) -> list[Record]:
    """The records in files as `train`, `choose`, `evaluate` and ``results`` hold them, nodes before choices."""
    found: dict[str, Record] = {}
    for path in paths:
        content = json.loads(path.read_text())
        parts = [*content["nodes"].values(), content["choice"]] if "choice" in content else [content]
        for part in map(Record.model_validate, parts):
            if part.key not in found or len(part.metrics) >= len(found[part.key].metrics):
                found[part.key] = part
    return sorted(found.values(), key=lambda record: record.kind == "choice")
