"""How commands begin and end, whatever they do."""

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import hiwl
from hiwl import cli
from hiwl.stages import raw
from hiwl.verbs import adopt

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with nothing but the parameters."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def end(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> str | int | None:
    """What a stage exits with that ends with `error`."""

    def ended() -> None:
        raise error

    monkeypatch.setattr(raw, "main", ended)
    with pytest.raises(SystemExit) as status:
        cli.main(["raw"])
    return status.value.code


def test_hiwl_alone_prints_its_help_and_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([])
    assert "register" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.strip() == f"hiwl {hiwl.__version__}"


@pytest.mark.parametrize("command", [["restore"], ["raw"], ["adopt", "small"], ["report"], ["promote"]])
def test_outside_the_projects_root_every_command_says_where_to_run(
    folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "conf/survey").mkdir(parents=True)
    inside = folder / "src/deep"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    with pytest.raises(SystemExit) as status:
        cli.main(command)
    assert f"cd {folder}" in str(status.value.code)
    assert list(inside.iterdir()) == []


def test_published_weights_are_adopted_where_there_is_no_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopt, "main", lambda name: print(name))
    (folder / "other").mkdir()
    monkeypatch.chdir(folder / "other")  # below a params.yaml of something else
    cli.main(["adopt", "small"])
    (folder / "params.yaml").unlink()
    cli.main(["adopt", "small"])
    with pytest.raises(SystemExit, match="has no params"):
        cli.main(["restore"])


def test_ctrl_c_a_full_disk_and_a_read_only_folder_end_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert end(monkeypatch, KeyboardInterrupt()) == 130
    assert "the disk is full" in str(end(monkeypatch, OSError(errno.ENOSPC, "No space left on device")))
    full = OSError(errno.ENOSPC, "No space left on device", "/dev/shm/answers.csv")
    assert "/dev/shm: the disk is full" in str(end(monkeypatch, full))
    said = str(end(monkeypatch, PermissionError(errno.EACCES, "Permission denied", "data/raw/table.csv")))
    assert said.startswith("hiwl raw: data/raw/table.csv: Permission denied")
    # A library that tells of it in its own words, on a disk where nothing is free.
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    assert "the disk is full (100 bytes free)" in str(end(monkeypatch, RuntimeError("file write failed")))


def test_a_fault_in_the_code_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(raw, "main", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["raw"])


def test_parameters_edited_while_a_stage_runs_fail_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from hiwl.core.section import read_section

    def edited() -> None:
        read_section("raw")
        Path("params.yaml").write_text(Path("params.yaml").read_text().replace("galaxies: 5000", "galaxies: 50"))

    monkeypatch.setattr(raw, "main", edited)
    with pytest.raises(SystemExit, match=r"hiwl raw: params\.yaml was edited while this stage ran: raw"):
        cli.main(["raw"])


def test_a_wrong_value_of_any_section_is_told_before_the_first_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "main", lambda: pytest.fail("it ran"))
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("epochs: 16", "epochs: abc"))
    with pytest.raises(SystemExit, match=r"train\.recipe\.epochs: .*'abc'"):
        cli.main(["raw"])
