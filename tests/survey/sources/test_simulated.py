"""The simulated survey: the competition's format, votes that add up, the same bytes each time."""

import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hiwl.core.layout import ID
from hiwl.survey.sources import Simulated
from hiwl.survey.sources.simulated import draw_galaxy, draw_votes, galaxy_generator, write_survey
from hiwl.survey.votes import COLUMNS, SUM_TOLERANCE, TASKS

PARAMS = Simulated(galaxies=20, seed=3, volunteers=40)


def written(folder: Path, params: Simulated, workers: int) -> dict[str, bytes]:
    folder.mkdir()
    write_survey(params, folder / "images.zip", folder / "table.csv", workers)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return written(tmp_path_factory.mktemp("simulated") / "survey", PARAMS, workers=1)


def members(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def table(survey: dict[str, bytes]) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(survey["table.csv"]))


def votes_of(params: Simulated) -> pd.DataFrame:
    """The votes alone, which cost no drawing."""
    rngs = (galaxy_generator(params, number) for number in range(1, params.galaxies + 1))
    return pd.DataFrame([draw_votes(draw_galaxy(rng), params.volunteers, rng) for rng in rngs], columns=COLUMNS)


@pytest.mark.process
def test_two_workers_write_the_same_bytes_as_one(survey: dict[str, bytes], tmp_path: Path) -> None:
    assert written(tmp_path / "two", PARAMS, workers=2) == survey


def test_another_seed_gives_other_galaxies(survey: dict[str, bytes], tmp_path: Path) -> None:
    other = written(tmp_path / "other", PARAMS.model_copy(update={"seed": 4}), workers=1)
    assert all(other[name] != survey[name] for name in ("images.zip", "table.csv"))


def test_more_galaxies_begin_with_the_same_votes(survey: dict[str, bytes]) -> None:
    more = votes_of(PARAMS.model_copy(update={"galaxies": 25}))
    assert np.allclose(table(survey)[COLUMNS], more[: PARAMS.galaxies], atol=5e-7)


def test_table_has_the_competition_s_columns_and_sorted_names(survey: dict[str, bytes]) -> None:
    votes = table(survey)
    assert list(votes.columns) == [ID, *COLUMNS]
    assert len(votes) == PARAMS.galaxies
    assert votes[ID].is_monotonic_increasing and votes[ID].is_unique
    assert votes[ID].between(100_000, 999_999).all()


def test_pictures_are_the_competition_s_kind_and_belong_to_the_table(survey: dict[str, bytes]) -> None:
    pictures = members(survey["images.zip"])
    assert list(pictures) == [f"images_training_rev1/{galaxy}.jpg" for galaxy in table(survey)[ID]]
    for content in pictures.values():
        with Image.open(io.BytesIO(content)) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (424, 424))
            pixels = np.asarray(picture, dtype=float)
        centre, edge = pixels[187:237, 187:237].mean(), np.median(pixels[:40])
        assert edge < 30 and centre > 2 * edge, "a galaxy in the middle of a dark sky"


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), volunteers=st.integers(10, 1000))
def test_votes_add_up_down_the_tree_after_rounding(seed: int, volunteers: int) -> None:
    votes = votes_of(Simulated(galaxies=1, seed=seed, volunteers=volunteers)).round(6).iloc[0]
    for number, task in TASKS.items():
        reached = 1.0 if task.reached_by is None else votes[task.reached_by]
        assert abs(votes[task.columns(number)].sum() - reached) < SUM_TOLERANCE


def test_a_quarter_is_unclear_and_every_class_is_there() -> None:
    votes = votes_of(Simulated(galaxies=2000, seed=11, volunteers=40))
    smooth, featured = votes["Class1.1"] > 0.469, votes["Class1.2"] > 0.430
    selected = {
        "CRS": smooth & (votes["Class7.1"] > 0.50),
        "IBS": smooth & (votes["Class7.2"] > 0.50),
        "CSS": smooth & (votes["Class7.3"] > 0.50),
        "EO": featured & (votes["Class2.1"] > 0.602),
        "SPI": featured & (votes["Class2.2"] > 0.715) & (votes["Class4.1"] > 0.619),
    }
    counts = Counter({name: int(chosen.sum()) for name, chosen in selected.items()})
    assert 0.25 < 1 - counts.total() / len(votes) < 0.45
    shares = {name: count / counts.total() for name, count in counts.items()}
    expected = {"CRS": 0.28, "IBS": 0.27, "CSS": 0.06, "EO": 0.13, "SPI": 0.26}
    assert shares == pytest.approx(expected, abs=0.04)
