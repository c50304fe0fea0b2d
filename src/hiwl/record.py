"""What is kept of a run: enough to rebuild it in MLflow and to make every table from. Plain JSON.

Every run writes its record into its stage's output; runs on real galaxies also leave one in ``results`` in the
project's root, which git keeps.
"""

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from hiwl.errors import HiwlError
from hiwl.files import digest, replacing, sha256, write_json
from hiwl.layout import CHOICE, NODES, PACKED_IMAGES, PACKED_INDEX, REPORTS, SPLITS_TABLE
from hiwl.params import read_section
from hiwl.settings import project_root

# The sections of params.yaml that define a run's result.
DEFINING = ("raw", "select", "split", "pack", "hierarchy", "train", "choose")


class Record(BaseModel):
    """One run: the training of a node, or a choice of checkpoints with its evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    """The same for the same run, wherever it is logged."""
    kind: Literal["node", "choice"]
    name: str
    columns: dict[str, str | int | float]
    """What a person compares runs by, in a table."""
    parameters: dict[str, Any]
    data: dict[str, Any]
    environment: dict[str, str]
    started: int | None = None
    """Milliseconds since 1970, where it is known."""
    history: list[dict[str, float]] = []
    """One row an epoch."""
    metrics: dict[str, float] = {}
    nodes: dict[str, str] = {}
    """Of a choice: the key of each node's run."""
    is_finished: bool = False

    def with_history(self, history: list[dict[str, float]]) -> Self:
        """The record so far."""
        return self.model_copy(update={"history": list(history)})

    def finished(self, metrics: dict[str, float]) -> Self:
        """The record of a run that has ended, with what it measured."""
        return self.model_copy(update={"metrics": self.metrics | metrics, "is_finished": True})

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return self.model_dump(mode="json")


def new_record(
    *,
    key: str,
    kind: Literal["node", "choice"],
    name: str,
    columns: dict[str, str | int | float],
    parameters: dict[str, Any],
    data: dict[str, Any],
    hardware: dict[str, str],
) -> Record:
    """A record of a run that starts here and now."""
    survey = read_section("raw")["survey"]
    environment = {
        "commit": _git_commit(),
        "dvc_stage": os.environ.get("DVC_STAGE", "by hand"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    } | hardware
    return Record(
        key=key,
        kind=kind,
        name=f"{survey}: {name}",
        columns={"survey": survey} | columns,
        parameters=parameters,
        data=data,
        environment=environment,
        started=round(1000 * time.time()),
    )


def definition(parameters: dict[str, Any]) -> str:
    """Names what the defining sections of `parameters` define: equal for equal values, however numbers are written.

    Of `select` the rules alone: what they are expected to find changes no result.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [plain(part) for part in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    defining = {name: parameters[name] for name in DEFINING}
    return digest(plain(defining | {"select": defining["select"]["rules"]}))[:16]


def results() -> Path:
    """The folder of everything that git keeps of runs on real galaxies, one folder a survey."""
    return project_root() / "results"


def results_folder(raw: dict[str, Any]) -> Path | None:
    """Where what is found on the survey of a section `raw` is kept; None where its galaxies are simulated."""
    return None if raw["source"]["kind"] == "simulated" else results() / str(raw["survey"])


def stem(choice: Record) -> str:
    """The name, without endings, of what is kept of a choice."""
    return f"{choice.columns['tree']}-seed{choice.columns['seed']}-{choice.key[:8]}"


def keep_in_results(choice: Record, nodes: dict[str, Record], answers: Path | None = None) -> None:
    """Leave a choice, its nodes' runs and each test galaxy's answer in ``results``, if this is a real survey."""
    folder = results_folder(choice.parameters["raw"])
    if folder is None:
        return
    name = stem(choice)
    content = {"choice": choice.to_json(), "nodes": {node: run.to_json() for node, run in nodes.items()}}
    write_json(folder / f"{name}.json", content)
    if answers is not None:
        with replacing(folder / f"{name}.answers.csv.gz") as beside:
            beside.write_bytes(answers.read_bytes())


class Kept(NamedTuple):
    """What ``results`` holds of one choice."""

    path: Path
    choice: Record
    nodes: dict[str, Record]

    @property
    def answers(self) -> Path:
        """Each test galaxy's answer; there once the choice has been evaluated."""
        return self.path.with_suffix(".answers.csv.gz")


def read_results() -> list[Kept]:
    """Every choice in ``results``, whatever its survey."""
    found = []
    for path in sorted(results().glob("*/*.json")):
        content = json.loads(path.read_text())
        if "choice" in content:  # and not what else is kept there
            nodes = {name: Record.model_validate(part) for name, part in content["nodes"].items()}
            found.append(Kept(path, Record.model_validate(content["choice"]), nodes))
    return found


def read_evaluated() -> Record:
    """The record in ``reports``, which must be that of ``models/choice``.

    Raises:
        HiwlError: it is another choice's.
    """
    evaluated, chosen = (
        Record.model_validate_json((folder / "record.json").read_text()) for folder in (REPORTS, CHOICE)
    )
    if evaluated.key != chosen.key:
        raise HiwlError(f"{REPORTS} is of another choice than {CHOICE}: `dvc repro evaluate` makes them agree")
    return evaluated


def check_data() -> None:
    """See to it that pictures and split are those that the models in ``models/nodes`` were trained on.

    Raises:
        HiwlError: naming the file that is not.
    """
    trained = Record.model_validate_json((NODES / "root/record.json").read_text())
    for path in (PACKED_IMAGES, PACKED_INDEX, SPLITS_TABLE):
        if sha256(path) != trained.data["sources"][path.name]:
            raise HiwlError(f"{path}: not what {NODES} was trained on; `dvc repro evaluate` makes them agree")


def _git_commit() -> str:
    """The code's commit, and `-dirty` where ``src`` has changed since.

    params.yaml counts for nothing here: every experiment writes it anew, and the record holds what it says.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()

    try:
        commit, changed = git("rev-parse", "--verify", "HEAD"), git("status", "--porcelain", "--", "src")
    except FileNotFoundError:
        return "none"
    return commit + ("-dirty" if changed else "") if commit else "none"
