"""Runs in MLflow, from their records: while they happen, when they end, and again on another machine.

There is one way of logging, :func:`log_run`. It can be called as often as one likes with the same or a grown record
and adds only what MLflow does not yet have. Where MLflow is not installed (a borrowed GPU, say), the record stays in
the stage's output, and `hiwl restore` logs it at home.
"""

import getpass
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from hiwl.core import store
from hiwl.core.files import digest
from hiwl.core.layout import PARTS, SPLITS_TABLE
from hiwl.core.record import Record

KEY = "hiwl.key"
EPOCHS, HISTORY = "hiwl.epochs", "hiwl.history"  # how many are logged, and which
BATCH = 1000  # metrics, and
FEW = 100  # params or tags: the most that MLflow takes in one request


class Origin(NamedTuple):
    """What a run was made for; a choice's nodes are named for it too."""

    study: str
    cell: str
    seed: int
    fold: int | None

    @property
    def title(self) -> str:
        """As DVC's experiment is named."""
        return f"{self.study}_{self.cell}_seed{self.seed}" + ("" if self.fold is None else f"_fold{self.fold}")


class Log:
    """The project's experiment in MLflow, and which runs it has. Each call brings in what is new of one record."""

    def __init__(self, keys: list[str] | None = None) -> None:
        """Look up the runs of `keys`, or of all records."""
        self.client = store.client()
        self.experiment = store.experiment(self.client)
        self.runs: dict[str, Any] = {}
        for query in [""] if keys is None else [f"tags.`{KEY}` = '{key}'" for key in keys]:
            token = None
            while True:
                page = self.client.search_runs([self.experiment], query, max_results=1000, page_token=token)
                self.runs |= {run.data.tags[KEY]: run for run in page if KEY in run.data.tags}
                if not (token := page.token):
                    break

    def add(self, record: Record, origin: Origin | None = None) -> str:
        """Bring `record` in and give its run's ID."""
        from mlflow.entities import Metric, Param

        run = self.runs.get(record.key)
        if run is not None and not _grew(run, record):  # trained again by force: another run
            self.client.set_tag(run.info.run_id, KEY, f"{record.key} replaced")
            run = None
        is_new = run is None
        tags = self._tags(record, origin)
        if run is None:
            name = origin.title if origin else record.name
            if origin and record.kind == "node":
                name += f" {record.columns['node']}"
            run = self.client.create_run(self.experiment, start_time=record.started, run_name=name, tags=tags)
            self.runs[record.key] = run
        run_id: str = run.info.run_id
        known = 0 if is_new else int(run.data.tags.get(EPOCHS, 0))
        start = run.info.start_time
        datasets = _datasets(record)
        times = _times(start, record.history)
        metrics = [
            Metric(name, value, timestamp=when, step=int(row["epoch"]))
            for row, when in list(zip(record.history, times, strict=True))[known:]
            for name, value in row.items()
            if name != "epoch"
        ]
        ended = max(record.ended or 0, (times or [start])[-1])
        # Of two values of one step MLflow shows the later one.
        metrics += [
            Metric(name, value, timestamp=ended, step=0)
            for name, value in record.metrics.items()
            if run.data.metrics.get(name) != value
        ]
        # Each call loads the whole run: the longest part comes last.
        seen = set() if is_new else {one.dataset.name for one in run.inputs.dataset_inputs}
        if new := [one for one in datasets.values() if one.name not in seen]:
            self.client.log_inputs(run_id, datasets=[_input(one) for one in new])
        if record.is_finished and (run.info.status != "FINISHED" or (run.info.end_time or 0) < ended):
            self.client.set_terminated(run_id, end_time=ended)
        params = {key: str(value) for key, value in record.columns.items()} | _flatten(record.parameters)
        missing = [Param(key, value) for key, value in params.items() if is_new or key not in run.data.params]
        self._batches(run_id, _changed(run, tags), missing, metrics)
        # Which epochs are logged is said last, so that whoever is stopped in between goes on where it was.
        if len(record.history) >= known:  # an older record takes nothing back
            logged = {EPOCHS: str(len(record.history)), HISTORY: digest(record.history)}
            self._batches(run_id, _changed(run, logged), [], [])
        return run_id

    def _batches(self, run_id: str, tags: list[Any], params: list[Any], metrics: list[Any]) -> None:
        while tags or params or metrics:
            room = BATCH - len(tags[:FEW]) - len(params[:FEW])
            self.client.log_batch(run_id, metrics[:room], params[:FEW], tags[:FEW])
            tags, params, metrics = tags[FEW:], params[FEW:], metrics[room:]

    def _tags(self, record: Record, origin: Origin | None) -> dict[str, str]:
        environment = record.environment
        tags = {
            KEY: record.key,
            "hiwl.kind": record.kind,
            "mlflow.source.name": environment["dvc_stage"],
            "mlflow.source.type": "PROJECT",
            "mlflow.source.git.commit": environment["commit"],
            "mlflow.user": _user(),
            "mlflow.note.content": self._note(record),
        } | {f"hiwl.{name}": value for name, value in environment.items()}
        tags |= {name: str(record.columns[name]) for name in ("tree", "seed") if name in record.columns}
        if origin := origin or _origin(environment.get("dvc_experiment", "")):
            tags |= {name: str(value) for name, value in origin._asdict().items() if value is not None}
        for node, key in record.nodes.items():
            if key in self.runs:
                tags[f"hiwl.run.{node}"] = self.runs[key].info.run_id
        return tags

    def _note(self, record: Record) -> str:
        """The run's description, in Markdown."""
        columns = record.columns
        said = f"`{columns['backbone']}` at {columns['input']} px, recipe `{columns['recipe']}`, seed {columns['seed']}"
        if record.kind == "node":
            return f"Training of the node `{columns['node']}` on the survey `{columns['survey']}`: {said}."
        links = [
            f"[{node}](#/experiments/{self.experiment}/runs/{self.runs[key].info.run_id})"
            for node, key in record.nodes.items()
            if key in self.runs
        ]
        return f"Choice of checkpoints on the survey `{columns['survey']}`: {said}. Its nodes: {', '.join(links)}."


def log_run(record: Record) -> str | None:
    """Bring `record` into MLflow and give the run's ID; None where MLflow is not installed.

    Raises:
        HiwlError: the store cannot be used.
    """
    if find_spec("mlflow") is None:
        return None
    return Log([record.key, *record.nodes.values()]).add(record)


def try_to_log(record: Record) -> str | None:
    """As :func:`log_run`, but what fails is told and no more: the record is safe in the stage's output."""
    try:
        return log_run(record)
    except Exception as error:
        print(f"{record.name}: not logged to MLflow ({error}); `hiwl restore` makes up for it", file=sys.stderr)
        return None


def log_report(record: Record, folder: Path) -> None:
    """Log an evaluated choice, with the tables and pictures of `folder` among its artifacts."""
    run_id = try_to_log(record)
    if run_id is None:
        return
    try:
        client = store.client()
        for name in ("per_class.csv", "confusion.png", "curves.png"):
            client.log_artifact(run_id, str(folder / name))
    except Exception as error:  # of a server's artifact store
        print(f"{record.name}: {folder} not logged to MLflow ({error})", file=sys.stderr)


@contextmanager
def watched(run_id: str | None) -> Iterator[None]:
    """Log the use of processors, memory, disk and GPU to a run meanwhile, every ten seconds."""
    if run_id is None or find_spec("psutil") is None:
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, resume_logging=True)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def _origin(experiment: str) -> Origin | None:
    """Of an experiment that `hiwl study` named."""
    found = re.fullmatch(r"([^_]+)_([^_]+)_seed(\d+)(?:_fold(\d+))?", experiment)
    if found is None:
        return None
    study, cell, seed, fold = found.groups()
    return Origin(study, cell, int(seed), None if fold is None else int(fold))


def _datasets(record: Record) -> dict[str, Any]:
    """By part of the split: the galaxies of it that the run has seen, as MLflow's dataset."""
    from mlflow.entities import Dataset

    # A relative place: MLflow reads it in the project's root, wherever that is.
    source = json.dumps({"uri": str(SPLITS_TABLE)})
    of = f"{record.columns['survey']}-{record.columns.get('node', 'all')}"
    found = {}
    for part in PARTS:
        if (galaxies := record.data["counts"].get(part)) is not None:
            content = digest([record.data["sources"], of, part, galaxies])[:32]
            profile = json.dumps({"galaxies": galaxies, "sha256": record.data["sources"]})
            found[part] = Dataset(f"{of}-{part}", content, "local", source, profile=profile)
    return found


def _input(dataset: Any) -> Any:
    from mlflow.entities import DatasetInput, InputTag

    return DatasetInput(dataset, [InputTag("mlflow.data.context", dataset.name.rpartition("-")[2])])


def metrics_of(record: Record) -> list[Any]:
    """What a finished run measured, each value with the dataset that it was measured on, where its name says so."""
    from mlflow.entities import Metric

    found, datasets = [], _datasets(record)
    for name, value in record.metrics.items():
        of = datasets.get(name.split("_")[0])
        on = {"dataset_name": of.name, "dataset_digest": of.digest} if of else {}
        found.append(Metric(name, value, timestamp=record.ended or record.started or 0, step=0, **on))
    return found


def _changed(run: Any, tags: dict[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in tags.items() if run.data.tags.get(key) != value]


def _grew(run: Any, record: Record) -> bool:
    """Whether the record's history continues what the run has (or is less of it, on its way back from a resume)."""
    known = int(run.data.tags.get(EPOCHS, 0))
    if known > len(record.history) and run.info.status == "FINISHED" and not record.is_finished:
        return False  # trained anew from the start
    return known > len(record.history) or run.data.tags.get(HISTORY) in (None, digest(record.history[:known]))


def _times(start: int, history: list[dict[str, float]]) -> list[int]:
    """When each epoch ended, in milliseconds since 1970."""
    seconds = [row.get("seconds", 0) + row.get("validation_seconds", 0) for row in history]
    return [start + round(1000 * sum(seconds[: i + 1])) for i in range(len(seconds))]


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
