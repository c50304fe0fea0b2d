"""The pipeline's description against the code: what a stage runs is what it depends on."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hiwl import register
from hiwl.cli import COMMANDS, main
from hiwl.params import SECTIONS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "hiwl"
STAGES = ["raw", "select", "split", "pack", "train", "choose", "evaluate", "register"]
# What carries parameters, files, messages and records about, and computes nothing of a stage's result: a change in it
# is no reason to train again.
CARRIERS = {
    "_torchvision_compat",
    "errors",
    "figures",
    "files",
    "layout",
    "memory",
    "params",
    "record",
    "settings",
    "tracking",
}


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return content


def description(pipeline: dict[str, Any], stage: str) -> dict[str, Any]:
    found: dict[str, Any] = pipeline[stage].get("do", pipeline[stage])
    return found


def modules_of(name: str, found: set[str]) -> set[str]:
    """`name` and every module of the package that it imports, here or inside a function."""
    if name in found:
        return found
    found.add(name)
    for node in ast.walk(ast.parse((SOURCE / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "hiwl":
            below = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hiwl."):
            below = [str(node.module).removeprefix("hiwl.")]
        else:
            continue
        for module in below:
            modules_of(module, found)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_modules_that_it_runs(stage: str, pipeline: dict[str, Any]) -> None:
    needed = modules_of(stage, set()) - CARRIERS
    if stage == "register":
        needed |= set(register.MODULES)
    listed = {Path(path).stem for path in description(pipeline, stage)["deps"] if path.startswith("src/hiwl/")}
    assert listed == needed


def test_the_served_model_carries_every_module_that_it_runs() -> None:
    assert set(register.MODULES) == modules_of("served", set()) | modules_of("__init__", set())


def test_the_stages_stand_in_the_order_of_the_flow_and_are_commands(pipeline: dict[str, Any]) -> None:
    assert list(pipeline) == STAGES
    for stage in STAGES:
        assert stage in COMMANDS
        assert description(pipeline, stage)["cmd"].startswith(f"hiwl {stage}")


def test_a_new_split_seed_does_not_concern_the_pack(pipeline: dict[str, Any]) -> None:
    assert not any("split" in str(item) for item in description(pipeline, "pack")["deps"])
    assert not any("split" in str(item) for item in description(pipeline, "pack")["params"])


def test_every_section_of_the_parameters_is_read_by_a_stage(pipeline: dict[str, Any], committed: Any) -> None:
    read = {str(item).split(".")[0] for stage in STAGES for item in description(pipeline, stage)["params"]}
    assert read == set(committed)
    assert set(committed) <= set(SECTIONS)


def test_a_stage_without_its_inputs_says_what_is_missing_and_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"hiwl split: data/clean/clean\.csv: not there.*dvc repro"):
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
