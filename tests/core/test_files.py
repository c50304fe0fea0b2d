import errno
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from safetensors.numpy import save_file

from hiwl.core.errors import HiwlError
from hiwl.core.files import alone, replacing, replacing_folder


def write(folder: Path, text: str) -> None:
    with replacing_folder(folder) as beside:
        (beside / "file").write_text(text)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write(folder, "old")
    with pytest.raises(ValueError, match="stopped"), replacing_folder(folder) as beside:
        (beside / "file").write_text("half")
        raise ValueError("stopped")
    assert (folder / "file").read_text() == "old"
    write(folder, "new")
    assert (folder / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [folder]


def test_weights_can_be_read_by_others_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "one.safetensors") as beside:
        save_file({"x": np.zeros(2)}, beside)
    with replacing_folder(tmp_path / "model") as beside:
        (beside / "root").mkdir()
        save_file({"x": np.zeros(2)}, beside / "root/w.safetensors")
    for name in ("one.safetensors", "model/root/w.safetensors"):
        assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_left_beside_its_place_by_a_kill_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    write(folder, "old")

    def killed(source: Path, target: Path) -> None:
        if target == folder:
            raise KeyboardInterrupt
        source.rename(target)

    monkeypatch.setattr("hiwl.core.files.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write(folder, "new")
    assert not folder.exists()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="stopped"), replacing_folder(folder):
        raise ValueError("stopped")
    assert (folder / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_what_killed_processes_left_goes_and_what_others_are_writing_stays(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = platform.node().replace(".", "-")
    (tmp_path / f".other.csv.{host}.{dead.pid}.part").write_text("half")
    (tmp_path / f".folder.{host}.{dead.pid}.part").mkdir()
    living, elsewhere = (
        tmp_path / f".file.{where}.{process}.part" for where, process in ((host, os.getppid()), ("there", dead.pid))
    )
    elsewhere.write_text("being written on another machine")
    living.write_text("being written")
    with replacing(tmp_path / "file") as one, replacing(tmp_path / "file2") as two:
        one.write_text("1")
        two.write_text("2")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "file2", living.name, elsewhere.name}


def test_a_file_where_a_folder_would_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file/a.csv", tmp_path / "file/folder/a.csv"):
        with pytest.raises(HiwlError, match=r"a\.csv: .*file.*; name another place"), replacing(path):
            raise AssertionError


def test_the_second_waits_for_the_first_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock, order = tmp_path / "work/raw.lock", []

    def second() -> None:
        with alone(lock, "runs"):
            order.append("second")

    with alone(lock, "runs"):
        waiting = Thread(target=second)
        waiting.start()
        while "another process runs; waiting for it" not in capsys.readouterr().err:
            time.sleep(0.01)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_an_error_without_a_file_gets_that_which_was_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as error, replacing(tmp_path / "table.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(tmp_path / "table.csv")
