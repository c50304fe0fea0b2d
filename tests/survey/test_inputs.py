import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hiwl.core.errors import HiwlError
from hiwl.model.pixels import BadImageError
from hiwl.survey.inputs import Input, find
from pictures import encode, jpeg, noise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cut outs/sub").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "sub/ünï.PNG", "b.fits")):
        (tmp_path / "cut outs" / name).write_bytes(jpeg(number))
    (tmp_path / "cut outs/notes.txt").write_text("none")
    (tmp_path / "cut outs/.DS_Store").write_text("none")
    return tmp_path


def whole(inputs: list[Input], size: int = 2) -> pd.DataFrame:
    return pd.concat([table for one in inputs for table in one.tables(0, size)], ignore_index=True)


def test_folders_files_globs_and_zips_name_their_pictures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for path in ("a.jpg", "sub/ünï.PNG"):
            archive.write(folder / "cut outs" / path, path)
    monkeypatch.chdir(folder)
    paths = whole(find(["cut outs", "cut outs/a.jpg", "cut outs/*.fits", "all.zip"]))["path"].tolist()
    inside = [f"cut outs/{name}" for name in ("a.jpg", "b.fits", "sub/ünï.PNG")]
    assert paths == [*inside, "cut outs/a.jpg", "cut outs/b.fits", "all.zip/a.jpg", "all.zip/sub/ünï.PNG"]
    with pytest.raises(HiwlError, match=r"none.jpg: not found"):
        find(["none.jpg"])
    with pytest.raises(HiwlError, match="0 pictures"):
        (folder / "empty").mkdir()
        find(["empty"])


def test_a_table_of_paths_brings_its_columns_and_numbers_are_numbers_again(folder: Path) -> None:
    (folder / "table.csv").write_text(
        "objid;ra;dec;name;file\n"
        "587722952767439450;150.25;-0.5;J1;cut outs/a.jpg\n"
        "587722952767439451;150.30;1e-3;J2;cut outs/gone.jpg\n"
        "587722952767439452;150.4;;007;cut outs/b.fits\n"
    )
    table = whole(find([str(folder / "table.csv")]))
    assert table["objid"].tolist() == [587722952767439450, 587722952767439451, 587722952767439452]
    assert table["ra"].tolist() == [150.25, 150.30, 150.4]
    assert table["dec"].isna().tolist() == [False, False, True]
    assert table["name"].tolist() == ["J1", "J2", "007"]
    assert table["path"].tolist() == ["cut outs/a.jpg", "cut outs/gone.jpg", "cut outs/b.fits"]
    assert table["image"].tolist() == [folder / name for name in table["path"]]
    (folder / "none.csv").write_text("a,b\n1,2\n")
    with pytest.raises(HiwlError, match="no column of paths of pictures"):
        find([str(folder / "none.csv")])


def test_tables_of_bytes_are_read_from_any_row_on(tmp_path: Path) -> None:
    pictures = [jpeg(seed) for seed in range(7)]
    table = pd.DataFrame({"id": range(7), "content": pictures})
    table.to_parquet(tmp_path / "t.parquet", row_group_size=3)
    (one,) = find([str(tmp_path / "t.parquet")])
    assert len(one) == 7
    for start in range(8):
        parts = [*one.tables(start, 2), table[:0]]
        assert pd.concat(parts)["id"].tolist() == list(range(start, 7))
    assert whole([one])["image"].tolist() == pictures
    table.assign(thumb=pictures).to_parquet(tmp_path / "two.parquet")
    with pytest.raises(HiwlError, match="content, thumb hold bytes; call the one of pictures 'image'"):
        find([str(tmp_path / "two.parquet")])
    (tmp_path / "no.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(HiwlError, match="not a Parquet file that can be read"):
        find([str(tmp_path / "no.parquet")])


def test_a_votable_names_pictures_too(folder: Path) -> None:
    from astropy.table import Table

    Table({"ra": [1.5, 2.5], "path": ["cut outs/a.jpg", "cut outs/b.fits"]}).write(folder / "t.vot", format="votable")
    table = whole(find([str(folder / "t.vot")]))
    assert table["ra"].tolist() == [1.5, 2.5]
    assert table["image"].tolist() == [folder / "cut outs/a.jpg", folder / "cut outs/b.fits"]


def test_a_member_that_is_damaged_in_its_archive_is_told_of(tmp_path: Path) -> None:
    content = encode(noise(40, 40))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", content)
        archive.writestr("b.png", content)
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    raw[raw.find(content) + 50] ^= 255
    (tmp_path / "a.zip").write_bytes(raw)
    first, second = whole(find([str(tmp_path / "a.zip")]))["image"]
    assert isinstance(first, BadImageError)
    assert "damaged in the archive" in str(first)
    assert second == content


def test_no_picture_is_read_before_it_is_its_turn(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    (one,) = find([str(tmp_path)])
    (tmp_path / "4.jpg").unlink()
    assert len(one) == 5
    assert np.array([len(table) for table in one.tables(1, 3)]).tolist() == [3, 1]


def test_whole_numbers_stay_whole_beside_rows_that_have_none(folder: Path, tmp_path: Path) -> None:
    large = 1237648720693755918
    table = pd.DataFrame({"objid": pd.array([large, None], "Int64"), "image": [jpeg(1), jpeg(2)]})
    table.to_parquet(tmp_path / "t.parquet")
    assert whole(find([str(tmp_path / "t.parquet")]))["objid"].tolist()[0] == large
    (folder / "t.csv").write_text(f"objid,file\n{large},cut outs/a.jpg\n")
    both = whole(find([str(folder / "t.csv"), str(folder / "cut outs")]))
    assert both["objid"].tolist()[0] == str(large)  # more digits than every integer has
    (folder / "t.csv").write_text("objid,file\n587722952767439450,cut outs/a.jpg\n")
    both = whole(find([str(folder / "t.csv"), str(folder / "cut outs")]))
    assert both["objid"].tolist()[0] == 587722952767439450
    assert both["objid"].isna().sum() == 3

    from astropy.table import Table

    Table({"objid": [587722952767439450], "path": ["cut outs/a.jpg"]}).write(folder / "t.vot", format="votable")
    both = whole(find([str(folder / "t.vot"), str(folder / "cut outs")]))
    assert both["objid"].tolist()[0] == 587722952767439450


def test_columns_that_are_called_as_ours_make_room_and_an_index_is_a_column(folder: Path, tmp_path: Path) -> None:
    (folder / "t.csv").write_text("path,image,filename\nrun7,42,cut outs/a.jpg\n")
    (row,) = whole(find([str(folder / "t.csv")])).to_dict("records")
    assert (row["given_path"], row["given_image"], row["path"]) == ("run7", 42, "cut outs/a.jpg")
    table = pd.DataFrame({"objid": ["x"], "image": ["thumb"], "content": [jpeg(1)]}).set_index("objid")
    table.to_parquet(tmp_path / "t.parquet")
    (row,) = whole(find([str(tmp_path / "t.parquet")])).to_dict("records")
    assert (row["objid"], row["given_image"], row["image"]) == ("x", "thumb", jpeg(1))


def test_another_file_of_the_same_name_is_another_input(folder: Path) -> None:
    before = find([str(folder / "cut outs")])[0].names
    assert find([str(folder / "cut outs")])[0].names == before
    (folder / "cut outs/a.jpg").write_bytes(jpeg(9, side=80))
    assert find([str(folder / "cut outs")])[0].names != before


def test_a_glob_of_everything_takes_each_picture_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert len(whole(find(["cut outs/**"]))) == 3


def test_a_glob_takes_tables_where_it_names_their_ending(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("cut outs/t.csv").write_text("file\na.jpg\n")
    assert len(whole(find(["cut outs/*.csv"]))) == 1
    assert len(whole(find(["cut outs/*"]))) == 3
