import zipfile
from pathlib import Path

import pytest

from hiwl.core.errors import HiwlError
from hiwl.survey.archives import members


def archive(folder: Path, *names: str) -> Path:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"")
    return path


def test_pictures_of_an_archive_are_found_by_galaxy(tmp_path: Path) -> None:
    found = members(archive(tmp_path, "x/12.jpg", "13.PNG", "readme.txt", "__MACOSX/._12.jpg"))
    assert found == {12: "x/12.jpg", 13: "13.PNG"}


@pytest.mark.parametrize(("names", "said"), [(("a.jpg",), "a.jpg"), (("1.jpg", "x/1.png"), "galaxy 1 has two")])
def test_an_odd_archive_is_told_so(names: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(HiwlError, match=said):
        members(archive(tmp_path, *names))


def test_a_truncated_archive_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(HiwlError, match="not a zip archive"):
        members(tmp_path / "a.zip")
