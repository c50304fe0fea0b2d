from pathlib import Path

import pytest

from hiwl.core.files import replacing_folder


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
