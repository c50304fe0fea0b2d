import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256
from hiwl.core.layout import ID, RAW_IMAGES, RAW_MANIFEST, RAW_TABLE
from hiwl.core.settings import settings
from hiwl.stages import raw
from hiwl.survey.contracts import ContractError
from hiwl.survey.votes import COLUMNS


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: dict[str, Any]) -> Path:
    """A user's folder: three pictures, a table of labels for two of them; and an empty project as working folder."""
    mine = tmp_path / "mine"
    (mine / "pictures").mkdir(parents=True)
    for name in ("11.jpg", "12.png", "13.jpg"):
        (mine / "pictures" / name).write_bytes(name.encode())
    pd.DataFrame({"GalaxyID": [12, 11], "class": ["CRS", "EO"]}).to_csv(mine / "labels.csv", index=False)
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("HIWL_IMAGES", str(mine / "pictures"))
    monkeypatch.setenv("HIWL_TABLE", str(mine / "labels.csv"))
    settings.cache_clear()
    describe(committed, "a" * 64, sha256(mine / "labels.csv"))
    return mine


def describe(committed: dict[str, Any], images: str, table: str, votes: str | None = None) -> None:
    source = {"kind": "files", "table": "labels"} | {
        "images_sha256": images,
        "table_sha256": table,
        "votes_sha256": votes,
    }
    Path("params.yaml").write_text(yaml.safe_dump(committed | {"raw": {"survey": "mine", "source": source}}))


def test_the_stage_tells_a_users_sha256_and_then_takes_the_files(mine: Path, committed: dict[str, Any]) -> None:
    with pytest.raises(HiwlError, match="images_sha256") as told:
        raw.main()
    assert not RAW_IMAGES.exists()
    describe(committed, *re.findall("_sha256=([0-9a-f]{64})", str(told.value)))
    raw.main()
    assert zipfile.ZipFile(RAW_IMAGES).namelist() == ["11.jpg", "12.png", "13.jpg"]
    assert RAW_TABLE.read_bytes() == (mine / "labels.csv").read_bytes()
    manifest = json.loads(RAW_MANIFEST.read_text())
    assert (manifest["galaxies"], manifest["images"], manifest["table"]) == (2, 3, "labels")
    assert manifest["files"]["images.zip"]["sha256"] == sha256(RAW_IMAGES)


def test_a_table_that_asks_for_a_missing_picture_names_the_galaxy(mine: Path, committed: dict[str, Any]) -> None:
    pd.DataFrame({"GalaxyID": [11, 99], "class": ["CRS", "EO"]}).to_csv(mine / "labels.csv", index=False)
    with pytest.raises(HiwlError) as told:
        raw.main()
    describe(committed, *re.findall("_sha256=([0-9a-f]{64})", str(told.value)))
    with pytest.raises(ContractError, match="99"):
        raw.main()
    assert not RAW_MANIFEST.exists()


def test_votes_on_some_of_the_labelled_galaxies_are_written_beside_the_labels(
    mine: Path, committed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HiwlError) as told:
        raw.main()
    images, table = re.findall("_sha256=([0-9a-f]{64})", str(told.value))
    known = pd.DataFrame([{ID: 11} | dict.fromkeys(COLUMNS, 0.25), {ID: 77} | dict.fromkeys(COLUMNS, 0.5)])
    known.to_csv(mine / "votes.csv", index=False)
    describe(committed, images, table, sha256(mine / "votes.csv"))
    with pytest.raises(HiwlError, match=r"HIWL_VOTES: None: not found"):
        raw.main()
    monkeypatch.setenv("HIWL_VOTES", str(mine / "votes.csv"))
    settings.cache_clear()
    raw.main()
    kept = pd.read_csv(RAW_TABLE, index_col=ID)
    assert kept["class"].to_dict() == {12: "CRS", 11: "EO"}
    assert kept["Class7.1"].isna().to_dict() == {12: True, 11: False}
    describe(committed, images, table, "0" * 64)
    with pytest.raises(HiwlError, match=r"votes\.csv: its SHA-256 is"):
        raw.main()
    settings.cache_clear()


def test_places_that_are_not_set_or_not_there_are_named(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIWL_TABLE", str(mine / "nothing.csv"))
    settings.cache_clear()
    with pytest.raises(HiwlError, match=r"HIWL_TABLE: .*nothing\.csv: not found"):
        raw.main()
    monkeypatch.delenv("HIWL_TABLE")
    settings.cache_clear()
    with pytest.raises(HiwlError, match="HIWL_TABLE is not set"):
        raw.main()
    settings.cache_clear()


def test_kaggle_without_credentials_says_what_to_do(mine: Path, committed: dict[str, Any]) -> None:
    section = {"survey": "kaggle", "source": {"kind": "kaggle", "rows": 61578}}
    Path("params.yaml").write_text(yaml.safe_dump(committed | {"raw": section}))
    with pytest.raises(HiwlError, match="HIWL_KAGGLE"):
        raw.main()
