"""`hiwl survey`: from files that nobody has prepared to a survey that runs."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from hiwl.core.errors import HiwlError
from hiwl.core.layout import CLEAN_TABLE, ID, RAW_TABLE
from hiwl.core.settings import settings
from hiwl.params import check_params
from hiwl.stages import raw, select
from hiwl.studies import plan
from hiwl.studies.plan import compose
from hiwl.survey import published
from hiwl.survey.sources.files import MARK
from hiwl.survey.tables import read_table
from hiwl.survey.votes import TASKS
from hiwl.verbs import survey
from pictures import jpeg

ROOT = Path(__file__).parents[2]
IDS = ["J094651.40-010228.5", "J123456.78+000001.2", "galaxy_0003", "587722981742084097", "007", "7"]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of six pictures, with a project as working folder."""
    for number, name in enumerate(IDS):
        path = tmp_path / "mine/cutouts/batch 1" / f"{name}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    shutil.copytree(ROOT / "conf", "conf")
    return tmp_path / "mine"


def look(mine: Path, table: pd.DataFrame, name: str = "mine", **options: str) -> None:
    table.to_csv(mine / "table.csv", index=False)
    given = {"votes": None, "id": None, "label": None} | options
    survey.main(name, str(mine / "cutouts"), str(mine / "table.csv"), **given)
    plan._composed.cache_clear()  # in life, each command is a process


def run(name: str = "mine") -> pd.DataFrame:
    """The first stages, as `dvc exp run -S survey=<name>` has them run; the clean selection."""
    Path("params.yaml").write_text(yaml.safe_dump(compose([f"survey={name}"])))
    settings.cache_clear()
    check_params()
    raw.main()
    select.main()
    return read_table(CLEAN_TABLE)


def test_a_survey_with_ids_of_text_is_written_down_and_runs(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame({"iauname": IDS, "ra": "150.1234567890123", "Type": ["CRS", "IBS", "CSS", "EO", "SPI", "SPI"]})
    look(mine, table)
    said = capsys.readouterr().out
    for words in ("6 pictures", "6 rows, 6 of them", "iauname", "SPI 2", "60 x 60", "pack.crop", "-S survey=mine"):
        assert words in said
    assert not Path("conf/hierarchy/mine.yaml").exists()
    clean = run()
    assert clean[ID].tolist() == sorted(IDS)
    assert clean.set_index(ID)["class"]["007"] == "SPI"
    assert pd.read_csv(RAW_TABLE, dtype=str)["ra"].eq("150.1234567890123").all()


def test_other_classes_bring_a_tree_of_their_own_which_is_kept(mine: Path) -> None:
    table = pd.DataFrame({"file": [f"{name}.JPG" for name in IDS], "class": ["1", "0", "1", "0", "1", "NA"]})
    look(mine, table)
    params = compose(["survey=mine"])
    assert params["hierarchy"] == {"name": "mine", "nodes": {"root": ["1", "0", "NA"]}}
    assert params["train"]["nodes"] == {"root": {"start": "pretrained"}}  # without which DVC reads no stage
    assert params["select"]["expected"] == {"1": 3, "0": 2, "NA": 1}
    assert run().set_index(ID)["class"].to_dict() == dict(zip(IDS, table["class"], strict=True))
    tree = Path("conf/hierarchy/mine.yaml")
    tree.write_text(tree.read_text().replace("- NA", "- NA # what nobody could name"))
    kept = tree.read_text()
    look(mine, table)
    assert tree.read_text() == kept
    tree.write_text(kept.replace("start: pretrained", "epochs: 3"))
    with pytest.raises(HiwlError, match=r"train\.nodes\.root does not say what it starts from"):
        look(mine, table)
    with pytest.raises(HiwlError, match="new is missing from the tree"):
        look(mine, table.assign(**{"class": ["1", "0", "new"] * 2}))
    assert compose(["survey=mine", "hierarchy=flat"])["hierarchy"]["name"] == "flat"


def test_an_edited_survey_keeps_its_edits(mine: Path) -> None:
    table = pd.DataFrame({"id": IDS, "class": ["CRS", "EO"] * 3, "kind": ["a", "b", "c"] * 2})
    look(mine, table, label="kind")
    path = Path("conf/survey/mine.yaml")
    path.write_text(path.read_text().replace("hiwl-mine", "better-name"))
    with pytest.raises(HiwlError, match="something else") as told:
        (mine / "table.csv").write_text(table[:5].to_csv(index=False))
        run()
    command = str(told.value).splitlines()[1].split()
    assert command[1:3] == ["survey", "mine"] and command[-4:] == ["--id", "id", "--label", "kind"]
    look(mine, table[:5])
    params = compose(["survey=mine"])
    assert params["register"]["name"] == "better-name"
    assert params["select"]["expected"] == {"a": 2, "b": 2, "c": 1}


def test_steps_that_make_classes_of_numbers_stay(mine: Path) -> None:
    table = pd.DataFrame({"id": IDS, "T": ["0", "1", "2", "5", "6", "7"]})
    look(mine, table, label="T")
    path = Path("conf/survey/mine.yaml")
    path.write_text(path.read_text().replace("steps: {}", "steps: {early: [0, 2], late: [5, 7]}"))
    tree = Path("conf/hierarchy/mine.yaml")
    tree.write_text(re.sub(r"root:\n(\s+- .*\n)+", "root: [early, late]\n", tree.read_text()))
    look(mine, table)
    source = compose(["survey=mine"])["raw"]["source"]
    assert source["steps"] == {"early": [0, 2], "late": [5, 7]}
    assert run()["class"].value_counts().to_dict() == {"early": 3, "late": 3}
    path.write_text(path.read_text().replace("- 0.0\n", ""))
    with pytest.raises(HiwlError, match=r"raw\.source\.steps"):
        look(mine, table)


def test_a_catalogue_whose_files_are_not_known_says_how_to_name_them(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pd.DataFrame({"PGCname": IDS, "T": range(6)}).to_csv(mine / "table.csv", index=False)
    monkeypatch.setenv("HIWL_IMAGES", str(mine / "cutouts"))
    monkeypatch.setenv("HIWL_TABLE", str(mine / "table.csv"))
    with pytest.raises(HiwlError, match=r"dvc exp run -S survey=efigi -S raw\.source\.images_sha256=") as told:
        run("efigi")
    named = [choice.removeprefix("-S ") for choice in str(told.value).split("survey=efigi ")[1].split(" -S ")]
    Path("params.yaml").write_text(yaml.safe_dump(compose(["survey=efigi", *named])))
    raw.main()
    assert set(read_table(RAW_TABLE)["class"]) == {"Sa", "Sb", "Sc"}


def test_the_column_of_the_id_names_each_picture_once(mine: Path) -> None:
    for number in range(1, 7):
        (mine / f"cutouts/batch 1/{number}.jpg").write_bytes(jpeg(number))
    table = pd.DataFrame({"arms": [2, 2, 3, 1, 2, 2], "rank": range(1, 7), "id": [3, 1, 2, 6, 5, 4]})
    table["class"] = list("aabbcc")
    with pytest.raises(HiwlError, match=r"rank and id name as many pictures .6.: say with --id"):
        look(mine, table)
    look(mine, table, id="id")
    assert run().set_index(ID)["class"].to_dict() == dict(zip("312654", "aabbcc", strict=True))
    look(mine, table.rename(columns={"id": ID}), name="other")
    assert compose(["survey=other"])["raw"]["source"]["id"] == ID


def test_a_damaged_description_is_told_with_its_file(mine: Path) -> None:
    table = pd.DataFrame({"id": IDS, "class": ["a", "b"] * 3})
    look(mine, table)
    for path, text in (
        (Path("conf/hierarchy/mine.yaml"), "hierarchy: 1"),
        (Path("conf/survey/mine.yaml"), f"# {MARK}\nraw: ["),
    ):
        whole = path.read_text()
        path.write_text(text)
        with pytest.raises(HiwlError, match=str(path)):
            look(mine, table)
        path.write_text(whole)
    plan._composed.cache_clear()
    shutil.rmtree(mine / "cutouts")
    with pytest.raises(HiwlError, match=rf"{mine}.cutouts: not found, where `hiwl survey` had seen it"):
        run()


def test_rows_without_a_picture_are_counted_and_passed_over(mine: Path) -> None:
    table = pd.DataFrame({"id": [*IDS, "1", "2"], "class": ["CRS", "EO"] * 4})
    look(mine, table)
    assert compose(["survey=mine"])["raw"]["source"]["galaxies"] == 6
    assert len(run()) == 6
    (mine / "cutouts/batch 1/1.jpg").write_bytes(jpeg(9))
    with pytest.raises(HiwlError, match="something else"):
        run()


def catalogue(shape: str, people: int) -> dict[str, float]:
    """A row of Galaxy Zoo 2's catalogue: all who were asked said that it is `shape`."""
    row = {c: 0.0 for n in TASKS for kind in ("debiased", "count") for c in published.columns(n, kind)}
    said = {"SPI": {1: 1, 2: 1, 3: 1, 4: 0, 5: 1, 6: 1, 10: 0, 11: 1}, "CSS": {1: 0, 6: 1, 7: 2}}[shape]
    for task, answer in said.items():
        row[published.columns(task, "debiased")[answer]] = 1.0
        row[published.columns(task, "count")[answer]] = people
    return row


def test_the_published_catalogue_is_read_as_votes_of_enough_people(mine: Path) -> None:
    shapes = [("SPI", 40), ("SPI", 20), ("SPI", 19), ("CSS", 40), ("CSS", 7), ("CSS", 30)]
    table = pd.DataFrame([catalogue(*each) for each in shapes])
    table.insert(0, "dr7objid", IDS)
    table = table.assign(ra=1.5, gz2_class="Sc", t01_smooth_or_features_a01_smooth_flag=1)
    look(mine, table)
    params = compose(["survey=mine"])
    assert params["raw"]["source"]["table"] == "votes"
    assert params["hierarchy"]["nodes"] == {"root": ["SPI", "CSS"]}
    assert run()["class"].value_counts().to_dict() == {"SPI": 2, "CSS": 2}
    kept = pd.read_csv(RAW_TABLE, dtype={ID: str})
    assert {"ra", "gz2_class", "volunteers_7"} <= set(kept)
    assert not any(str(column).startswith("t01") for column in kept)
    with pytest.raises(HiwlError, match=r"no column t03_bar_a06_bar_debiased.*raw\.source\.fractions"):
        look(mine, table.drop(columns=published.columns(3, "debiased")))


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        ({"id": ["1", "2"], "class": ["a", "b"]}, {}, r"no column .id, class. names a picture of"),
        ({"id": IDS, "class": ["a"] * 6}, {}, "two classes are needed"),
        ({"id": IDS, "class": ["a", "b c"] * 3}, {}, "'b c' is not a name"),
        ({"id": IDS, "z": ["0.1"] * 6}, {}, "--label"),
        ({"id": IDS, "class": ["a", "b"] * 3}, {"id": "name"}, "no column name"),
        ({"id": [*IDS[:5], ""], "class": ["a", "b"] * 3}, {}, "no id in row 6"),
        ({"id": IDS, "class": ["a", "b"] * 3}, {"name": "My survey"}, "lower-case letters"),
        ({"id": IDS, "class": ["a", "b"] * 3}, {"name": "simulated"}, "take another name"),
        ({"id": IDS, "class": ["a", "b"] * 3}, {"name": "labels"}, "take another name"),
        ({"id": IDS, "class": ["a", "root"] * 3}, {}, "'root' is not a name"),
        ({"id": IDS, "class": ["a", "1e5"] * 3}, {}, "'1e5' is not a name"),
        ({"id": IDS, "${x}": ["a", "b"] * 3}, {"label": "${x}"}, "rename columns"),
        ({"id": IDS, "class": ["a", "b"] * 3}, {"name": "null"}, "lower-case letters"),
        ({"id": [*IDS[:4], "7", "batch 1/7"], "class": ["a", "b"] * 3}, {}, "name one picture"),
        ({"id": [*IDS[:5], IDS[0]], "class": ["a", "b"] * 3}, {}, "appears twice"),
        ({"id": IDS, "class": ["a", "b", ""] * 2}, {}, "no class in row 3, 6"),
    ],
)
def test_what_is_no_survey_is_told_and_nothing_is_written(
    table: dict[str, list[str]], options: dict[str, str], said: str, mine: Path
) -> None:
    before = sorted(Path("conf").rglob("*"))
    with pytest.raises(HiwlError, match=said):
        look(mine, pd.DataFrame(table), **options)
    assert sorted(Path("conf").rglob("*")) == before
    assert not Path(".work").exists()
