import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hiwl.core.errors import HiwlError
from hiwl.core.migrations import STEPS, VERSION, migrate
from hiwl.core.record import Record, check_data, keep_run, read_evaluated, read_output, read_results
from project import Project
from runs import keep, node


@pytest.mark.process
def test_a_record_names_the_codes_commit_and_whether_the_code_has_changed_since(project: Path) -> None:
    assert node(1, 0).environment["commit"] == "none"
    code = project / "src/module.py"
    code.parent.mkdir()
    code.touch()
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *command], check=True)
    Path("params.yaml").write_text(Path("params.yaml").read_text() + "# an experiment's own\n")
    clean = node(1, 0).environment["commit"]
    assert len(clean) == 40
    code.write_text("changed = True\n")
    assert node(1, 0).environment["commit"] == f"{clean}-dirty"


def test_a_run_of_real_galaxies_is_kept_with_its_answers_and_read_again(project: Path) -> None:
    path = keep(1, "one", [0, 1])
    assert path.parent == project / "results/mine/runs"
    (kept,) = read_results()
    assert (kept.path, kept.choice.columns["seed"], set(kept.nodes)) == (path, 1, {"root"})
    assert kept.answers.exists()
    assert not keep(2, "one", None).with_suffix(".answers.csv.gz").exists()


def test_what_a_run_left_in_this_folder_is_kept_once_and_simulated_galaxies_never(evaluated: Project) -> None:
    assert keep_run(read_output) is None
    assert not Path("results").exists()
    raw = {"survey": "mine", "source": {"kind": "files", "table": "labels"}}
    for path in (Path("models/choice/record.json"), Path("reports/record.json")):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"parameters": record["parameters"] | {"raw": raw}}))
    kept = keep_run(read_output)
    assert kept is not None
    assert json.loads(kept.read_text())["choice"]["metrics"].keys() >= {"test_accuracy", "validation_accuracy"}
    before = kept.stat().st_mtime_ns
    assert keep_run(read_output) == kept
    assert kept.stat().st_mtime_ns == before  # a record that is there is not written again
    Path("reports/record.json").unlink()
    assert keep_run(read_output) == kept
    assert kept.stat().st_mtime_ns == before  # nor by one that says less
    Path("models/nodes/paper/root/record.json").unlink()
    with pytest.raises(HiwlError, match=r"models/nodes/paper/root/record\.json: not found"):
        keep_run(read_output)


def test_reports_of_another_choice_and_other_data_are_refused(evaluated: Project) -> None:
    check_data()
    read_evaluated()
    with Path("data/splits/splits.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(HiwlError, match=r"data/splits/splits\.csv: not what models/nodes/paper was trained on"):
        check_data()
    path = Path("reports/record.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"key": "other"}))
    with pytest.raises(HiwlError, match="reports belongs to another choice than models/choice"):
        read_evaluated()


OLD: dict[str, Any] = {
    "name": "quick",
    "epochs": 4,
    "sampling": "weighted",
    "smoothing": 0.05,
    "smoothing_by": "even",
    "votes": 0,
    "logit_adjustment": 1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "mixup": 0,
}


def test_a_record_of_an_earlier_version_is_read_by_todays_names() -> None:
    parameters: dict[str, Any] = {
        "train": {"recipe": OLD, "nodes": {"root": {}, "narrow": {"sampling": "shuffled", "smoothing": 0}}}
    }
    parameters["hierarchy"] = {"root": ["A", "narrow"], "narrow": ["B", "C"]}
    content = json.loads(node(1, 0).model_dump_json()) | {"parameters": parameters}
    del content["version"]
    record = Record.model_validate(content)
    assert record.version == VERSION == len(STEPS)
    assert record.parameters["hierarchy"] == {"name": "root-narrow", "nodes": parameters["hierarchy"]}
    assert record.parameters["train"] == {
        "recipe": {
            "name": "quick",
            "epochs": 4,
            "sampling": {"kind": "weighted"},
            "mixup": 0,
            "loss": {"smoothing": 0.05, "smoothing_by": "even", "votes": 0, "logit_adjustment": 1}
            | {"kind": "cross_entropy"},
            "optimiser": {"momentum": 0.9, "weight_decay": 1e-4},
        },
        "nodes": {"root": {}, "narrow": {"sampling": {"kind": "shuffled"}, "loss": {"smoothing": 0}}},
    }
    assert Record.model_validate_json(record.model_dump_json()) == record  # once is enough
    assert migrate(parameters, VERSION) == parameters
