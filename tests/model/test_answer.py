import base64
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hiwl
from hiwl.core.errors import HiwlError
from hiwl.model.answer import Model
from pictures import encode, fits, jpeg, noise
from project import Project

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(evaluated: Project) -> Model:
    return Model.load(Path("models/choice"))


def galaxies(number: int) -> list[np.ndarray]:
    return [noise(256 + row, 256) for row in range(number)]


def test_paths_bytes_base64_and_arrays_of_one_picture_get_one_answer(model: Model, tmp_path: Path) -> None:
    (picture,) = galaxies(1)
    path = tmp_path / "galaxy.png"
    path.write_bytes(encode(picture))
    answers = model([path, path.read_bytes(), picture])
    assert answers["path"].fillna("").tolist() == [str(path), "", ""]
    text = model.answer(pd.DataFrame({"image": [base64.b64encode(path.read_bytes()).decode()]}))
    shares = [f"p_{name}" for name in model.classifier.tree.classes]
    records, (wanted,) = answers.to_dict("records"), text.to_dict("records")
    for record in records:
        assert (record["answer"], record["route"]) == (wanted["answer"], wanted["route"])
        assert [record[name] for name in shares] == pytest.approx([wanted[name] for name in shares], abs=1e-6)


def test_other_columns_of_the_table_come_back_in_front_of_the_answers(model: Model) -> None:
    table = pd.DataFrame({"id": ["a", "b"], "image": galaxies(2), "ra": [1.5, 2.5]}, index=[7, 9])
    answers = model.answer(table)
    assert list(answers)[:4] == ["id", "ra", "answer", "probability"]
    assert answers[["id", "ra"]].to_numpy().tolist() == [["a", 1.5], ["b", 2.5]]
    assert answers["error"].isna().all()
    shares = answers[[f"p_{name}" for name in model.classifier.tree.classes]].to_numpy(float)
    assert shares.sum(axis=1) == pytest.approx([1, 1])


def test_simulated_galaxies_get_one_answer_as_jpeg_and_as_fits_of_three_bands_or_one() -> None:
    from PIL import Image

    from hiwl.survey.sources import Simulated, simulated

    params, files = Simulated(galaxies=100, seed=5, volunteers=44), []
    for number in (1, 2, 3, 4, 5, 6, 7, 8):
        rng = simulated.galaxy_generator(params, number)
        galaxy = simulated.draw_galaxy(rng)
        light = simulated.draw_light(galaxy, rng)
        size = (simulated.SIDE, simulated.SIDE)
        bands = np.stack([np.asarray(Image.fromarray(band).resize(size)) for band in light.astype(np.float32)])
        colours = np.asarray(Image.fromarray(simulated.stretch(light)).resize(size))
        files.append((encode(colours, "JPEG"), fits(bands[::-1, ::-1]), fits(bands[1, ::-1])))
    as_jpeg, *as_fits = (hiwl.load("small")(kind) for kind in zip(*files, strict=True))
    sure = as_jpeg["probability"].astype(float) > 0.9
    assert sure.sum() >= 5
    in_colours, in_grey = ((answers["answer"] == as_jpeg["answer"])[sure] for answers in as_fits)
    assert in_colours.all()
    assert in_grey.mean() >= 0.8  # colour tells some spirals


def test_what_cannot_be_read_is_a_row_that_says_so(model: Model, tmp_path: Path) -> None:
    answers = model([tmp_path / "none.jpg", b"no picture", jpeg(1, side=20), noise(20, 20), galaxies(1)[0]])
    told = answers["error"].tolist()
    for said, wanted in zip(told, ("No such file", "not a JPEG", None, None, None), strict=True):
        assert said is None if wanted is None else wanted in said
    assert answers["answer"].notna().tolist() == [False] * 2 + [True] * 3
    assert answers["warning"].fillna("").tolist() == [
        "",
        "",
        *["20 x 20 pixels, smaller than 256 x 256: enlarged"] * 2,
        "",
    ]
    assert len(model([])) == 0


def test_published_weights_are_loaded_by_name_or_folder_and_a_wrong_name_says_which_there_are() -> None:
    answers = hiwl.load("small")([ROOT / "src/hiwl/model/galaxy.jpg"])
    assert answers.loc[0, "answer"] == "SPI"
    assert hiwl.load(ROOT / "pretrained/small")([ROOT / "src/hiwl/model/galaxy.jpg"]).equals(answers)
    with pytest.raises(HiwlError, match=r"large: not a folder .* published weights are best, small"):
        hiwl.load("large")
