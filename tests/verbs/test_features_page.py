"""The page of `hiwl worth`, from the records that the repository holds."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hiwl.core.errors import HiwlError
from hiwl.measure import worth
from hiwl.survey.votes import COLUMNS
from hiwl.verbs.embed import ERROR, FEATURE, MADE_BY, PICTURE
from hiwl.verbs.worth import PAGE, RECORDS, main, write_page
from pictures import encode

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / RECORDS, RECORDS)


def test_the_page_is_what_the_records_say() -> None:
    write_page()
    assert PAGE.read_text() == (ROOT / PAGE).read_text()


def test_a_group_has_a_table_of_its_own() -> None:
    (RECORDS / "mine").mkdir()
    shutil.copy(RECORDS / "best.json", RECORDS / "mine/other.json")
    write_page()
    section = PAGE.read_text().split("## mine\n")[1]
    assert section.count("| other |") == 1
    assert "| other |" not in PAGE.read_text().split("## mine\n")[0]


@pytest.mark.parametrize("name", ["imagenet", "mine/other"])
def test_records_of_other_galaxies_are_not_set_side_by_side(name: str) -> None:
    record = RECORDS / f"{name}.json"
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps(json.loads((RECORDS / "imagenet.json").read_text()) | {"galaxies": 7}))
    with pytest.raises(HiwlError, match=rf"{name}\.json: of other galaxies"):
        write_page()


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The arguments for features of 300 galaxies, and tables of votes and splits that are not the records'."""
    monkeypatch.setattr(worth, "ANSWERS", (0, 10))
    monkeypatch.setattr(worth, "SEEDS", (1, 2))
    monkeypatch.setattr(worth, "LABELS", (20,))
    rng = np.random.default_rng(0)
    votes = pd.DataFrame(rng.uniform(size=(300, len(COLUMNS))), columns=COLUMNS).rename_axis("GalaxyID").reset_index()
    votes.to_csv("votes.csv", index=False)
    votes.to_csv("mixture.csv", index=False)
    galaxies = {"GalaxyID": votes["GalaxyID"], "class": ["CRS", "SPI"] * 150, "split": "test"}
    pd.DataFrame(galaxies).to_csv("splits.csv", index=False)
    how = {"weights": str(ROOT / "pretrained/best"), "node": "root", "components": None, "model": "m"}
    features = pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=300 * 8).astype(np.float16)), 8)
    columns = {"path": [f"{number}.jpg" for number in range(300)], FEATURE: features}
    columns |= {PICTURE: [encode(np.full((32, 32, 3), number % 250, np.uint8)) for number in range(300)]}
    table = pa.table(columns | {ERROR: pa.nulls(300, pa.string())})
    pq.write_table(table.replace_schema_metadata({MADE_BY: json.dumps(how)}), "mine.parquet")
    return {"votes": "votes.csv", "mixture": "mixture.csv", "splits": "splits.csv"}


def test_features_are_measured_and_those_of_another_split_are_told(
    judged: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(RECORDS)
    main(["mine=mine.parquet"], train=None, **judged)
    assert "best was trained on another split than splits.csv" in capsys.readouterr().out
    record = json.loads((RECORDS / "mine.json").read_text())
    assert record["galaxies"] == 300
    assert list(record["data"]) == ["votes", "mixture", "splits"]
    assert "| mine |" in PAGE.read_text()
    assert (RECORDS / "pixels.json").exists()


def test_what_cannot_stand_beside_the_records_is_refused_before_it_is_measured(judged: dict[str, str]) -> None:
    before = (RECORDS / "pixels.json").read_bytes()
    with pytest.raises(HiwlError, match=r"answers\.json: of other galaxies or tables than those given"):
        main(["mine=mine.parquet"], train=None, **judged)
    assert not (RECORDS / "mine.json").exists()
    assert (RECORDS / "pixels.json").read_bytes() == before


def test_what_asks_for_no_measurement_is_refused(judged: dict[str, str]) -> None:
    with pytest.raises(HiwlError, match="--votes, --mixture and --train are for features: name some"):
        main([], train=None, **judged)
    with pytest.raises(HiwlError, match=r"nowhere\.csv: not found"):
        main(["mine=mine.parquet"], train=None, **judged | {"mixture": "nowhere.csv"})
