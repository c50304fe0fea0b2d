import subprocess
from pathlib import Path

import pytest

from hiwl.core.errors import HiwlError
from hiwl.verbs import study
from runs import MINE, keep


def test_a_study_runs_what_is_missing_and_nothing_else(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(1, "one", [0])
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(study, "_experiments", lambda: dict.fromkeys([command[5] for command in commands], "a commit"))
    monkeypatch.setattr(study, "_keep", lambda commit, title: None)
    study.main("trees", queue=False)
    assert "4 runs, 1 on record" in capsys.readouterr().out
    assert [command[5] for command in commands] == ["trees_two_seed1", "trees_two_seed2", "trees_one_seed2"]
    choices = [{part.removeprefix("--set-param=") for part in command[6:-1]} for command in commands]
    assert choices == [
        {*MINE, "hierarchy=paper", "train.seed=1"},
        {*MINE, "hierarchy=paper", "train.seed=2"},
        {*MINE, "hierarchy=flat", "train.seed=2"},
    ]
    for command in commands:
        assert command[:5] == ["dvc", "exp", "run", "--temp", "--name"]
        assert command[-1] == "evaluate"
    commands.clear()
    study.main("trees", queue=True)
    assert all(command[3] == "--queue" for command in commands)
    assert "`dvc queue start` runs 3" in capsys.readouterr().out


def test_a_run_that_fails_stops_the_study_at_its_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, stdout=""))
    monkeypatch.setattr(study, "_experiments", dict)
    with pytest.raises(HiwlError, match="stopped at trees_two_seed1"):
        study.main("trees", queue=False)
