"""The pipeline's description against the code: what a stage runs is what it depends on."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hiwl.cli import COMMANDS, main
from hiwl.params import Definition, Params
from hiwl.stages import register, train
from hiwl.training.params import TrainParams

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "hiwl"
STAGES = [name for name, command in COMMANDS.items() if command.room == "stages"]


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return content


def description(pipeline: dict[str, Any], stage: str) -> dict[str, Any]:
    found: dict[str, Any] = pipeline[stage].get("do", pipeline[stage])
    return found


def path_of(module: str) -> str | None:
    """The file of a module of the package, below ``src/hiwl``."""
    parts = module.split(".")[1:]
    for file in (Path(*parts, "__init__.py"), Path(*parts).with_suffix(".py") if parts else Path("__init__.py")):
        if (SOURCE / file).is_file():
            return str(file)
    return None


def imported(file: str) -> set[str]:
    """The files of the package that one imports, here or inside a function; and the templates that it names."""
    found: set[str] = set()
    text = (SOURCE / file).read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hiwl":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {path for name in names if (path := path_of(name) or path_of(str(node.module)))}
        elif isinstance(node, ast.Import):
            found |= {path for alias in node.names if alias.name.startswith("hiwl") and (path := path_of(alias.name))}
    return found | {
        str(path.relative_to(SOURCE)) for path in (SOURCE / file).parent.glob("*.jinja") if path.name in text
    }


def runs(file: str, found: set[str]) -> set[str]:
    """`file` and all that it runs of the package, but for ``core``, which computes no result."""
    if file in found or file.startswith("core/") or file == "__init__.py":
        return found
    found.add(file)
    for other in imported(file) if file.endswith(".py") else ():
        runs(other, found)
    return found


def listed(pipeline: dict[str, Any], stage: str) -> list[str]:
    """The code that `dvc.yaml` says a stage depends on, below ``src/hiwl``."""
    deps = description(pipeline, stage)["deps"]
    return [str(Path(path).relative_to("src/hiwl")) for path in deps if path.startswith("src/hiwl/")]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_it_runs_and_on_no_other(stage: str, pipeline: dict[str, Any]) -> None:
    needed, deps = runs(f"stages/{stage}.py", set()), listed(pipeline, stage)
    if stage == "register":  # what it saves
        needed |= {"__init__.py"} | {
            str(path.relative_to(SOURCE)) for name in register.CODE for path in (SOURCE / name).glob("*.py")
        }
    assert [file for file in needed if not any(file == dep or file.startswith(f"{dep}/") for dep in deps)] == []
    assert [dep for dep in deps if not any(file == dep or file.startswith(f"{dep}/") for file in needed)] == []
    assert all((SOURCE / dep).exists() for dep in deps)


def test_the_served_model_carries_all_that_it_runs() -> None:
    seen: set[str] = set()

    def follow(file: str) -> None:
        if file not in seen:
            seen.add(file)
            for other in imported(file) if file.endswith(".py") else ():
                follow(other)

    follow("model/pyfunc.py")
    assert {Path(file).parts[0] for file in seen} - {"__init__.py"} <= set(register.CODE)


def test_a_training_is_known_by_all_the_code_that_it_runs_beside_its_own_stage() -> None:
    rooms = {file.split("/")[0] for file in runs("training/trainer.py", set()) | runs("training/checkpoints.py", set())}
    assert rooms - {"survey"} == set(train.CODE)


def test_dvc_is_told_every_parameter_of_a_training(pipeline: dict[str, Any]) -> None:
    told = [
        item.removeprefix("train.") for item in description(pipeline, "train")["params"] if item.startswith("train.")
    ]
    assert told == [name if name != "nodes" else "nodes.${key}" for name in TrainParams.model_fields]


def test_dvc_is_told_every_section_that_defines_a_choice(pipeline: dict[str, Any]) -> None:
    assert description(pipeline, "choose")["params"] == list(Definition.model_fields)


def test_git_keeps_metrics_and_plots_and_dvc_all_else(pipeline: dict[str, Any]) -> None:
    kept = {"metrics": set[str](), "plots": set[str]()}
    for stage in STAGES:
        described = description(pipeline, stage)
        assert described["desc"], stage
        assert all(isinstance(out, str) or "cache" not in next(iter(out.values())) for out in described["outs"])
        for kind, paths in kept.items():
            for out in described.get(kind, []):
                ((path, how),) = out.items()
                assert how["cache"] is False
                paths.add(path)
    assert kept["metrics"] == {"reports/validation.json", "reports/test.json"}
    assert kept["plots"] == {"reports/curves/${key}.csv", "reports/confusion.csv"}


def test_the_stages_stand_in_the_order_of_the_flow_and_are_commands(pipeline: dict[str, Any]) -> None:
    assert list(pipeline) == STAGES
    for stage in STAGES:
        assert stage in COMMANDS
        assert description(pipeline, stage)["cmd"].startswith(f"hiwl {stage}")


def test_a_new_split_seed_does_not_concern_the_pack(pipeline: dict[str, Any]) -> None:
    assert not any("split" in str(item) for item in description(pipeline, "pack")["deps"])
    assert not any("split" in str(item) for item in description(pipeline, "pack")["params"])


def test_every_section_of_the_parameters_is_read_by_a_stage(pipeline: dict[str, Any], committed: Any) -> None:
    read = {str(item).split(".")[0] for stage in STAGES for item in description(pipeline, stage).get("params", [])}
    assert read == set(committed) == {field.alias or name for name, field in Params.model_fields.items()}


def test_a_stage_without_its_inputs_says_what_is_missing_and_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"hiwl split: data/clean/clean\.csv: not found.*dvc repro"):
        main(["split"])


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys, hiwl.cli\n"
        "try: hiwl.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'pandas', 'mlflow', 'great_expectations', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
