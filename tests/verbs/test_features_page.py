"""The page of `hiwl worth`, from the records that the repository holds."""

import json
import shutil
from pathlib import Path

import pytest

from hiwl.core.errors import HiwlError
from hiwl.verbs.worth import PAGE, RECORDS, write_page

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
