"""What is kept of a run: enough to rebuild it in MLflow and to make every table from. Plain JSON.

Every run writes its record into its stage's output. Of runs on real galaxies ``results`` in the project's root, which
git keeps, holds a copy: :func:`keep_run` puts it there.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, model_validator

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing, sha256, write_json
from hiwl.core.layout import CHOICE, NODES, PACKED_IMAGES, PACKED_INDEX, REPORTS, SPLITS_TABLE
from hiwl.core.migrations import VERSION, migrate
from hiwl.core.settings import project_root


class Record(BaseModel):
    """One run: the training of a node, or a choice of checkpoints with its evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 0
    """Of the names of its parameters (``migrations``)."""
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
    ended: int | None = None
    """Milliseconds since 1970, where they are known."""
    history: list[dict[str, float]] = []
    """One row an epoch."""
    metrics: dict[str, float] = {}
    nodes: dict[str, str] = {}
    """Of a choice: the key of each node's run."""
    is_finished: bool = False

    @model_validator(mode="before")
    @classmethod
    def _by_todays_names(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        parameters = migrate(content.get("parameters", {}), content.get("version", 0))
        return content | {"parameters": parameters, "version": VERSION}

    def with_history(self, history: list[dict[str, float]]) -> Self:
        """The record so far."""
        return self.model_copy(update={"history": list(history)})

    def finished(self, metrics: dict[str, float]) -> Self:
        """The record of a run that has ended, with what it measured."""
        ended = round(1000 * time.time())
        return self.model_copy(update={"metrics": self.metrics | metrics, "is_finished": True, "ended": ended})

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return self.model_dump(mode="json")


def started_here(hardware: dict[str, str]) -> dict[str, Any]:
    """The part of a record that says where, when and by which code a run was started: here and now."""
    environment = {
        "commit": _git_commit(),
        "dvc_stage": os.environ.get("DVC_STAGE", "by hand"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }
    named = {"dvc_experiment": "DVC_EXP_NAME", "dvc_baseline": "DVC_EXP_BASELINE_REV"}
    environment |= {name: os.environ[variable] for name, variable in named.items() if variable in os.environ}
    return {"version": VERSION, "environment": environment | hardware, "started": round(1000 * time.time())}


def run_name(columns: dict[str, str | int | float], key: str) -> str:
    """What a run is called: as DVC's experiment that it belongs to, else by what it is; a node's, with the node."""
    parts = [str(columns[name]) for name in ("survey", "tree", "backbone", "recipe")]
    named = os.environ.get("DVC_EXP_NAME") or "-".join([*parts, f"seed{columns['seed']}", key[:4]])
    return f"{named} {columns['node']}" if "node" in columns else named


def results() -> Path:
    """The folder of everything that git keeps of runs on real galaxies, one folder a survey."""
    return project_root() / "results"


def results_folder(raw: dict[str, Any]) -> Path | None:
    """Where what is found on the survey of a section `raw` is kept; None where its galaxies are simulated."""
    return None if raw["source"]["kind"] == "simulated" else results() / str(raw["survey"])


def stem(choice: Record) -> str:
    """The name, without endings, of what is kept of a choice."""
    return f"{choice.columns['tree']}-seed{choice.columns['seed']}-{choice.key[:8]}"


class Kept(NamedTuple):
    """What ``results`` holds of one choice."""

    path: Path
    choice: Record
    nodes: dict[str, Record]

    def beside(self, ending: str) -> Path:
        """Another file of the same run."""
        return self.path.with_suffix(ending)

    @property
    def answers(self) -> Path:
        """Each test galaxy's answer; there once the choice has been evaluated."""
        return self.beside(".answers.csv.gz")


def keep_run(read: Callable[[Path], bytes | None]) -> Path | None:
    """Leave a choice, its nodes' runs and each test galaxy's answer in ``results``, if its galaxies are real.

    `read` gives the content of a stage's output, or None where that stage has not run. Gives the record's file; None
    where nothing is kept.
    """
    found = read(CHOICE / "record.json")
    if found is None:
        return None
    choice, answers = Record.model_validate_json(found), None
    evaluated = read(REPORTS / "record.json")
    if evaluated is not None and (tested := Record.model_validate_json(evaluated)).key == choice.key:
        choice, answers = tested, read(REPORTS / "answers.csv.gz")
    folder = results_folder(choice.parameters["raw"])
    if folder is None:
        return None
    nodes: dict[str, Any] = {}
    for node in choice.nodes:
        place = nodes_of(choice) / node / "record.json"
        content = read(place)
        if content is None:
            raise HiwlError(f"{place}: not found; `dvc repro` makes it, `dvc pull` brings it")
        nodes[node] = json.loads(content)
    path = folder / "runs" / f"{stem(choice)}.json"
    if answers is not None:
        with replacing(path.with_suffix(".answers.csv.gz")) as beside:
            beside.write_bytes(answers)
    known = json.loads(path.read_text())["choice"]["metrics"] if path.exists() else {}
    if len(choice.metrics) > len(known):  # a record is never replaced by one that says less, or the same
        write_json(path, {"choice": choice.to_json(), "nodes": nodes})
    return path


def nodes_of(choice: Record) -> Path:
    """The folder of the models that a choice is made from, one folder a node."""
    return NODES / str(choice.parameters["hierarchy"]["name"])


def read_output(path: Path) -> bytes | None:
    """For :func:`keep_run`: an output of the pipeline in this folder."""
    return path.read_bytes() if path.exists() else None


def read_results() -> list[Kept]:
    """Every choice in ``results``, whatever its survey."""
    found = []
    for path in sorted(results().glob("*/runs/*.json")):
        if len(path.suffixes) == 1:  # and not what stands beside a record
            content = json.loads(path.read_text())
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
        raise HiwlError(f"{REPORTS} belongs to another choice than {CHOICE}: `dvc repro evaluate` makes them agree")
    return evaluated


def check_data() -> None:
    """See to it that pictures and split are those that the evaluated models were trained on.

    Raises:
        HiwlError: naming the file that is not.
    """
    nodes = nodes_of(read_evaluated())
    trained = Record.model_validate_json((nodes / "root/record.json").read_text())
    for path in (PACKED_IMAGES, PACKED_INDEX, SPLITS_TABLE):
        if sha256(path) != trained.data["sources"][path.name]:
            raise HiwlError(f"{path}: not what {nodes} was trained on; `dvc repro evaluate` makes them agree")


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
