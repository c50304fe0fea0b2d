"""Surveys of experts' Hubble stages, on a replica in the form of the published archives."""

import io
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256
from hiwl.core.layout import CLEAN_TABLE
from hiwl.core.settings import settings
from hiwl.params import check_params
from hiwl.stages import raw, select
from hiwl.studies.plan import compose
from hiwl.survey.pictures import content_of, look
from hiwl.survey.sources import Simulated
from hiwl.survey.sources.simulated import simulate
from hiwl.survey.tables import read_table
from project import ROOT

STAGES = [-6, -5, -4, -3, 0, 2, 5, 7, 9, 10, 11, 1]
CLASSES = ["E", "E", "E", "S0", "Sa", "Sb", "Sc", "Sd", "Sm", "Im", "dE", "Sa"]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and beside it PNGs of 255 pixels by PGC name and a table of stages, their limits and an attribute."""
    (tmp_path / "png").mkdir()
    names = [f"PGC{number:07}" for number in range(len(STAGES))]
    for number, name in enumerate(names, 1):
        picture = Image.open(io.BytesIO(simulate(Simulated(galaxies=20, seed=1, volunteers=20), number).jpeg))
        picture.crop((84, 84, 339, 339)).save(tmp_path / f"png/{name}.png")
    table = pd.DataFrame({"PGCname": names, "name": names, "T": STAGES})
    table = table.assign(T_inf=table["T"] - 1, T_sup=table["T"] + 1, Arm_Strength=-1)
    table.to_csv(tmp_path / "labels.csv", index=False)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    shutil.copytree(ROOT / "conf", "conf")
    monkeypatch.setenv("HIWL_IMAGES", str(tmp_path / "png"))
    monkeypatch.setenv("HIWL_TABLE", str(tmp_path / "labels.csv"))
    return tmp_path


def run(archive: Path, survey: str) -> pd.DataFrame:
    content = {"images": content_of(look(archive / "png")), "table": sha256(archive / "labels.csv")}
    known = [f"raw.source.{name}_sha256={value}" for name, value in content.items()]
    Path("params.yaml").write_text(yaml.safe_dump(compose([f"survey={survey}", *known])))
    settings.cache_clear()
    check_params()
    raw.main()
    select.main()
    return read_table(CLEAN_TABLE)


@pytest.mark.parametrize("survey", ["efigi", "rsa"])
def test_hubble_stages_become_nine_classes(survey: str, archive: Path) -> None:
    assert run(archive, survey)["class"].tolist() == CLASSES


def test_a_stage_that_belongs_to_no_class_is_told(archive: Path) -> None:
    table = pd.read_csv(archive / "labels.csv")
    table.assign(T=[*STAGES[:-1], 12]).to_csv(archive / "labels.csv", index=False)
    with pytest.raises(HiwlError, match=r"row 12: T is 12, which is in none of raw\.source\.steps"):
        run(archive, "efigi")
