"""Folders and archives as people have them."""

import os
import unicodedata
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiwl.core.errors import HiwlError
from hiwl.survey.pictures import SUFFIXES, archive_folder, content_of, look, shown_by, slashed, without_suffix


def archive(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            member = zipfile.ZipInfo("x")
            member.filename = name  # as it is, whatever the system
            file.writestr(member, content)
    return path


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / "given" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root / "given"


MIXED = {
    "x/12.jpg": b"a",
    "13.PNG": b"b",
    "deep/er/J094651.40-010228.5.fits": b"c",
    "readme.txt": b"",
    "__MACOSX/._12.jpg": b"m",
    "x/.ipynb_checkpoints/12-checkpoint.jpg": b"d",
    ".DS_Store": b"",
    "587722981742084097.fits.gz": b"e",
    "x/preview.jpg": b"p",
}


@pytest.mark.parametrize("kind", [archive, folder])
def test_pictures_are_found_by_galaxy_and_what_is_passed_over_is_counted(kind: object, tmp_path: Path) -> None:
    pictures = look(kind(tmp_path, MIXED))  # type: ignore[operator]
    assert pictures.of("12") == "x/12.jpg"
    assert pictures.of("13") == "13.PNG"
    assert pictures.of("J094651.40-010228.5") == "deep/er/J094651.40-010228.5.fits"
    assert pictures.of("587722981742084097") == "587722981742084097.fits.gz"
    assert pictures.of("x/12") == "x/12.jpg"
    assert pictures.of("14") is None
    assert len(pictures) == 5
    assert {why: len(names) for why, names in pictures.passed_over.items()} == {"hidden": 3, "files of other kinds": 1}
    assert "readme.txt" in pictures.in_words()


@pytest.mark.parametrize("kind", [archive, folder])
def test_copies_count_once_and_different_pictures_of_one_galaxy_are_told_when_it_is_asked_for(
    kind: object, tmp_path: Path
) -> None:
    files = {"train/1.jpg": b"a", "test/1.jpg": b"a", "train/2.jpg": b"b", "test/2.png": b"c"}
    pictures = look(source := kind(tmp_path, files))  # type: ignore[operator]
    assert pictures.of("1") in ("train/1.jpg", "test/1.jpg")
    assert pictures.of("train/2") == "train/2.jpg"
    with pytest.raises(HiwlError) as told:
        pictures.of("2")
    assert str(source) in str(told.value)
    assert "train/2.jpg" in str(told.value) and "test/2.png" in str(told.value)


def test_links_are_followed_once_and_those_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    given = folder(tmp_path, {"a/1.jpg": b"a"})
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "2.jpg").write_bytes(b"b")
    (given / "survey").symlink_to(elsewhere)
    (given / "again").symlink_to(given)
    (given / "3.jpg").symlink_to("/nowhere/3.jpg")
    (given / "424.jpg").mkdir()  # a folder that is called like a picture
    (given / "424.jpg/5.jpg").write_bytes(b"c")
    pictures = look(given)
    assert [pictures.of(name) for name in ("1", "2", "3", "424", "5")] == [
        "a/1.jpg",
        "survey/2.jpg",
        None,
        None,
        "424.jpg/5.jpg",
    ]
    assert pictures.passed_over["links that lead nowhere"] == ["3.jpg"]
    assert len(pictures.passed_over) == 2


def test_names_with_backslashes_are_read_and_those_that_leave_the_archive_are_not(tmp_path: Path) -> None:
    pictures = look(archive(tmp_path, {"images\\101.jpg": b"a", "../102.jpg": b"b", "/103.jpg": b"", "C:/4.jpg": b""}))
    assert pictures.of("101") == "images\\101.jpg"
    assert list(pictures.read(["images\\101.jpg"])) == [b"a"]
    assert pictures.passed_over == {"names that leave the archive": ["../102.jpg", "/103.jpg", "C:/4.jpg"]}


def test_names_are_matched_however_they_are_encoded(tmp_path: Path) -> None:
    given = folder(tmp_path, {unicodedata.normalize("NFD", "Müller.jpg"): b"a"})
    (given / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"b")
    pictures = look(given)
    assert pictures.of("Müller") is not None
    assert len(pictures) == 1
    assert "names that are not UTF-8: 1" in pictures.in_words()


def test_archives_that_cannot_be_read_are_told_with_a_remedy(tmp_path: Path) -> None:
    path = archive(tmp_path, {"1.jpg": b"a"})
    whole = path.read_bytes()
    place = whole.rindex(b"PK\x01\x02")
    encrypted = bytearray(whole)
    encrypted[place + 8] |= 1
    packed = bytearray(whole)
    packed[place + 10] = 9  # Deflate64
    for content, said in (
        (whole[:20], "not a zip archive"),
        (b"", "not a zip archive"),
        (b"\x1f\x8b tar", "unpack it and give the folder"),
        (bytes(encrypted), "1.jpg is encrypted"),
        (bytes(packed), "1.jpg is packed by a method"),
    ):
        path.write_bytes(content)
        with pytest.raises(HiwlError, match=said):
            look(path)


def test_a_folder_is_archived_to_the_same_bytes_and_known_by_what_it_contains(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    files = {"b/2.jpg": b"2", "1.jpg": b"1"}
    given = [look(folder(root, dict(items))) for root, items in ((first, files), (second, reversed(files.items())))]
    for pictures, name in zip(given, ("1.zip", "2.zip"), strict=True):
        archive_folder(pictures, tmp_path / name)
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    assert sorted(look(tmp_path / "1.zip").files) == ["1.jpg", "b/2.jpg"]
    assert content_of(given[0]) == content_of(given[1])
    (second / "given/1.jpg").write_bytes(b"x")
    assert content_of(given[0]) != content_of(given[1])


@given(st.text(min_size=1), st.sampled_from(SUFFIXES))
def test_a_suffix_goes_and_nothing_else(name: str, suffix: str) -> None:
    assert without_suffix(name + suffix) == name
    assert without_suffix(name + suffix.upper()) == name
    assert "\\" not in slashed(name)


@pytest.mark.parametrize("path", ["101.jpg", "a/b/101.fits.gz", r"C:\night\101.PNG", "101"])
def test_a_picture_shows_the_galaxy_that_its_file_is_named_after(path: str) -> None:
    assert shown_by(path) == "101"
