import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from hiwl.core.errors import HiwlError
from hiwl.verbs import classify, parts
from pictures import encode, folder_of, jpeg, noise
from project import Project, environment

OPTIONS: dict[str, Any] = {"weights": "models/choice", "alpha": 0.05, "scale": 1.0, "arcsec": None, "radius": None}


def run(paths: list[Path], output: Path, **options: Any) -> None:
    classify.main([str(path) for path in paths], str(output), **OPTIONS | options)


@pytest.fixture
def pictures(evaluated: Project, tmp_path: Path) -> Path:
    return folder_of(tmp_path / "pictures", 12)


def test_a_folder_becomes_a_table_in_each_format_with_a_row_for_every_picture(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ("parquet", "csv", "fits", "vot"):
        run([pictures], tmp_path / f"answers.{ending}")
    assert "14 images" in capsys.readouterr().out
    tables = {
        "parquet": pd.read_parquet(tmp_path / "answers.parquet"),
        "csv": pd.read_csv(tmp_path / "answers.csv"),
        "fits": Table.read(tmp_path / "answers.fits", character_as_bytes=False).to_pandas(),
        "vot": Table.read(tmp_path / "answers.vot").to_pandas(),
    }
    wanted = tables["parquet"]
    assert wanted["error"].notna().tolist() == [False] * 12 + [True] * 2
    for kind, table in tables.items():
        assert list(table) == list(wanted), kind
        assert table["answer"].fillna("").tolist() == wanted["answer"].fillna("").tolist(), kind
        assert table["probability"].to_numpy(float) == pytest.approx(wanted["probability"].to_numpy(float), nan_ok=True)
        assert table["views"].dropna().astype(int).tolist()[:12] == [1] * 12
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "answers.csv",
        "answers.fits",
        "answers.parquet",
        "answers.vot",
        "p",
        "pictures",
    ]


def test_columns_of_a_table_come_back_and_scales_follow_from_its_radii(pictures: Path, tmp_path: Path) -> None:
    table = pd.DataFrame({"file": sorted(path.name for path in pictures.glob("0*.jpg")), "ra": np.arange(10) / 4 + 0.1})
    table["petroR90_r"] = 10.0
    table.to_csv(pictures / "table.csv", index=False)
    run([pictures / "table.csv"], tmp_path / "a.parquet", arcsec=0.4, radius="petroR90_r")
    run([pictures / "table.csv"], tmp_path / "b.parquet", scale=2.0)
    first, second = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in "ab")
    assert list(first)[:4] == ["path", "ra", "petroR90_r", "answer"]
    assert first["ra"].tolist() == table["ra"].tolist()
    pd.testing.assert_frame_equal(first, second)  # 50 pixels of .4 are 20 arcseconds, twice 10
    with pytest.raises(HiwlError, match="--radius r90: there is path, ra, petroR90_r"):
        run([pictures / "table.csv"], tmp_path / "c.parquet", arcsec=0.4, radius="r90")
    with pytest.raises(HiwlError, match="--arcsec and --radius belong together"):
        run([pictures / "table.csv"], tmp_path / "d.parquet", arcsec=0.4)


def test_what_is_begun_goes_on_and_parts_of_another_run_are_left_alone(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART", 5)
    run([pictures], tmp_path / "whole.parquet")
    written, write = 0, pq.write_table

    def fails_at_the_third(table: Any, path: Path) -> None:
        nonlocal written
        written += 1
        if written == 3:
            raise OSError(28, "No space left on device")
        write(table, path)

    monkeypatch.setattr(pq, "write_table", fails_at_the_third)
    with pytest.raises(OSError, match="No space left"):
        run([pictures], tmp_path / "answers.parquet")
    assert not (tmp_path / "answers.parquet").exists()
    with pytest.raises(HiwlError, match=r"holds parts of another run \(alpha 0.05, now 0.1\)"):
        run([pictures], tmp_path / "answers.parquet", alpha=0.1)
    run([pictures], tmp_path / "answers.parquet")
    assert written == 4
    assert (tmp_path / "answers.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_mistakes_are_told_before_any_work(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(HiwlError, match=r"answers.xlsx: tables end in .parquet, .csv, .fits, .vot"):
        run([pictures], tmp_path / "answers.xlsx")
    (pictures / "t.csv").write_text("path\n00.jpg\n")
    with pytest.raises(HiwlError, match="is among the inputs"):
        run([pictures / "t.csv"], pictures / "t.csv")
    assert (pictures / "t.csv").read_text() == "path\n00.jpg\n"
    with pytest.raises(HiwlError, match="large: not a folder"):
        run([pictures], tmp_path / "a.csv", weights="large")
    assert not list(tmp_path.glob(".a.csv*"))


@pytest.mark.process
def test_killed_at_any_moment_it_ends_in_the_same_bytes(evaluated: Project, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(32):
        (folder / f"{number}.jpg").write_bytes(jpeg(number, side=256))
    code = "import sys; from hiwl.verbs import parts; parts.PART = 4; from hiwl.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "classify", str(folder), "--weights", "models/choice", "-o"]
    subprocess.run([*command, str(tmp_path / "whole.parquet")], check=True, env=environment(), capture_output=True)
    again, parts = [*command, str(tmp_path / "answers.parquet")], tmp_path / ".answers.parquet.parts"
    choose = random.Random(1)
    for _ in range(4):
        before = len(list(parts.glob("*.parquet")))
        process = subprocess.Popen(again, env=environment(), stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(parts.glob("*.parquet"))) == before:
            time.sleep(0.01)
        time.sleep(choose.random() / 20)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run(again, check=True, env=environment(), capture_output=True)
    assert (tmp_path / "answers.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not list(tmp_path.glob(".answers*"))


def test_a_large_picture_is_answered(evaluated: Project, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "large/large.png").write_bytes(encode(noise(64, 64).repeat(40, 0).repeat(40, 1)))
    run([tmp_path / "large"], tmp_path / "a.csv")
    assert pd.read_csv(tmp_path / "a.csv")["answer"].notna().all()


def test_inputs_of_all_kinds_share_a_table_whatever_their_columns(pictures: Path, tmp_path: Path) -> None:
    files = sorted(path.name for path in pictures.glob("0*.jpg"))
    pd.DataFrame(
        {"file": files[:2], "objid": [1237648720693755918, 2], "distance": [7.5, 8.5], "größe": [1, 2]}
    ).to_csv(pictures / "a.csv", index=False)
    pd.DataFrame({"file": files[2:4], "objid": ["007", "x"], "DISTANCE": [1, 2]}).to_csv(
        pictures / "b.csv", index=False
    )
    for kind in ("parquet", "csv", "fits", "vot"):
        run([pictures / "a.csv", pictures / "b.csv", pictures / files[5]], tmp_path / f"answers.{kind}")
    answers = pd.read_parquet(tmp_path / "answers.parquet")
    assert answers["objid"].tolist()[:4] == ["1237648720693755918", "2", "007", "x"]
    assert answers["given_distance"].tolist()[:2] == [7.5, 8.5]
    assert answers["answer"].notna().all()
    assert len(Table.read(tmp_path / "answers.fits")) == len(Table.read(tmp_path / "answers.vot")) == 5


def test_a_radius_that_makes_no_sense_takes_the_scale_and_a_mistyped_option_locks_nothing(
    pictures: Path, tmp_path: Path
) -> None:
    (pictures / "t.csv").write_text("file,r\n00.jpg,10\n01.jpg,0.01\n02.jpg,\n")
    (pictures / "notes.md").write_text("no picture")
    with pytest.raises(HiwlError, match="alpha is 5"):
        run([pictures / "t.csv"], tmp_path / "a.parquet", alpha=5.0)
    run([pictures / "t.csv", pictures / "03.jpg"], tmp_path / "a.parquet", arcsec=0.4, radius="r")
    assert pd.read_parquet(tmp_path / "a.parquet")["answer"].notna().all()
    with pytest.raises(HiwlError, match="no picture was given"):
        run([pictures / "*.md"], tmp_path / "b.parquet")
