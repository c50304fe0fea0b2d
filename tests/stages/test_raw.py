import json
import os
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
from hiwl.survey.pictures import content_of, look
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
    command = str(told.value).splitlines()[1]
    assert command.split() == ["hiwl", "survey", "mine", str(mine / "pictures"), str(mine / "labels.csv")]
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
    with pytest.raises(HiwlError, match=r"1 of 2 rows have a picture.* Without one: 99\.") as told:
        raw.main()
    assert str(mine / "labels.csv") in str(told.value) and str(mine / "pictures") in str(told.value)
    assert not RAW_MANIFEST.exists()


def votes_table(galaxies: list[str]) -> pd.DataFrame:
    """Sound votes on spirals."""
    said: dict[str, str | float] = dict.fromkeys(COLUMNS, 0.0)
    said |= {"Class1.2": 1.0, "Class2.2": 1.0, "Class3.2": 1.0, "Class4.1": 1.0, "Class5.1": 1.0, "Class6.2": 1.0}
    said |= {"Class10.1": 1.0, "Class11.2": 1.0}
    return pd.DataFrame([said | {ID: galaxy} for galaxy in galaxies])


def take(mine: Path, committed: dict[str, Any], votes: pd.DataFrame | None = None, **source: Any) -> pd.DataFrame:
    """Bring the user's files in, as `hiwl survey` would have them written down."""
    if votes is not None:
        votes.to_csv(mine / "votes.csv", index=False)
        os.environ["HIWL_VOTES"] = str(mine / "votes.csv")
    settings.cache_clear()
    hashes = {
        "images_sha256": content_of(look(mine / "pictures")),
        "table_sha256": sha256(mine / "labels.csv"),
        "votes_sha256": None if votes is None else sha256(mine / "votes.csv"),
    }
    section = {"survey": "mine", "source": {"kind": "files", "table": "labels", **hashes, **source}}
    Path("params.yaml").write_text(yaml.safe_dump(committed | {"raw": section}))
    try:
        raw.main()
    finally:
        os.environ.pop("HIWL_VOTES", None)
    return pd.read_csv(RAW_TABLE, dtype={ID: str, "class": str})


def test_votes_on_some_of_the_labelled_galaxies_are_written_beside_the_labels(
    mine: Path, committed: dict[str, Any]
) -> None:
    kept = take(mine, committed, votes_table(["11.jpg", "77"]).rename(columns={ID: "objid"})).set_index(ID)
    assert kept["class"].to_dict() == {"12": "CRS", "11": "EO"}
    assert kept["Class4.1"].fillna(-1).to_dict() == {"12": -1, "11": 1}
    with pytest.raises(HiwlError, match=r"votes_sha256=.*something else.*\n.*--votes"):
        take(mine, committed, votes_table(["12"]), votes_sha256="0" * 64)
    own = pd.read_csv(mine / "labels.csv").merge(votes_table(["11", "12"]).astype({ID: int}))
    own.to_csv(mine / "labels.csv", index=False)
    assert list(take(mine, committed)) == [ID, "class"]


def test_no_galaxy_is_given_the_votes_of_another(mine: Path, committed: dict[str, Any]) -> None:
    for number in (97, 30):
        (mine / f"pictures/5877229817420840{number}.jpg").write_bytes(b"p")
    (mine / "labels.csv").write_text("GalaxyID,class\n587722981742084097,SPI\n587722981742084030,SPI\n")
    votes = votes_table(["587722981742084104", "587722981742084030"])
    kept = take(mine, committed, pd.concat([votes, pd.DataFrame([{}])])).set_index(ID)  # with an empty row
    assert kept["Class4.1"].fillna(-1).to_dict() == {"587722981742084097": -1, "587722981742084030": 1}
    rounded = votes.assign(**{ID: ["5.87722981742084e+17", "5.87722981742085e+17"]})
    with pytest.raises(HiwlError, match=r"votes\.csv: GalaxyID holds 5\.87.*rounded"):
        take(mine, committed, rounded)
    with pytest.raises(HiwlError, match="none of its galaxies"):
        take(mine, committed, votes.iloc[:1])


def test_votes_beside_labels_meet_the_contract_of_votes(mine: Path, committed: dict[str, Any]) -> None:
    with pytest.raises(HiwlError, match=r"votes\.csv: galaxy 11 appears twice"):
        take(mine, committed, votes_table(["11", "11"]))
    with pytest.raises(ContractError, match=r"GalaxyID 11, Class11\.2 7"):
        take(mine, committed, votes_table(["11", "12"]).assign(**{"Class11.2": 7.0}))
    with pytest.raises(HiwlError, match=r"votes\.csv: row 2: Class1\.1 is 'x', not a number"):
        take(mine, committed, votes_table(["11", "12"]).assign(**{"Class1.1": ["0", "x"]}))
    with pytest.raises(HiwlError, match=r"37 vote columns .* 1 are missing .Class8\.3."):
        take(mine, committed, votes_table(["11"]).drop(columns="Class8.3"))


def test_a_users_own_columns_are_taken_as_they_are(mine: Path, committed: dict[str, Any]) -> None:
    (mine / "labels.csv").write_text(
        "RA;name;kind;class;p_el\n150,10;11.jpg;SPI;note;0,90\n2.50;12;CRS;;1\n99;13;CRS;;\n"
    )
    kept = take(mine, committed, id="name", label="kind")
    assert list(kept) == [ID, "class", "RA", "given_class", "p_el"]
    assert RAW_TABLE.read_text().splitlines()[1] == '11,SPI,"150,10",note,"0,90"'
    (mine / "pictures/13.jpg").unlink()
    assert take(mine, committed, id="name", label="kind", galaxies=2)[ID].tolist() == ["11", "12"]
    with pytest.raises(HiwlError, match=r"no column GalaxyID .*there is RA, name, kind, class, p_el"):
        take(mine, committed)
    with pytest.raises(HiwlError, match=r"no column shape .raw\.source\.label."):
        take(mine, committed, id="name", label="shape")


def test_votes_with_decimal_commas_and_whole_numbers_are_taken(mine: Path, committed: dict[str, Any]) -> None:
    text = votes_table(["11", "12"])
    text[["Class1.1", "Class7.1"]] = "0,25"
    text["Class2.2"] = 0.75
    text[["Class1.2", "Class3.2", "Class4.1", "Class5.1", "Class10.1", "Class11.2"]] = "0,75"
    text.to_csv(mine / "labels.csv", index=False, sep=";")
    kept = take(mine, committed, table="votes")
    assert kept["Class1.2"].tolist() == [0.75, 0.75]
    assert kept["Class6.2"].tolist() == [1, 1]


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
