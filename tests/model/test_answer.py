import base64
import time
from collections.abc import Callable
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
    warnings = answers["warning"].fillna("")
    assert warnings.str.startswith("20 x 20 pixels, smaller than 256 x 256: enlarged").tolist() == [
        *[False] * 2,
        *[True] * 2,
        False,
    ]
    assert len(model([])) == 0


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "a data: URI": lambda text: f"data:image/jpeg;base64,{text}",
    "line breaks": lambda text: "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76)),
    "the alphabet of URLs": lambda text: text.replace("+", "-").replace("/", "_"),
    "no padding": lambda text: text.rstrip("="),
    "blanks around it": lambda text: f"  {text}\n",
}


def test_base64_is_taken_as_people_send_it(model: Model) -> None:
    picture = next(one for seed in range(20) if len(one := jpeg(seed)) % 3)  # one that is padded
    table = pd.DataFrame({"image": [change(base64.b64encode(picture).decode()) for change in FORMS.values()]})
    answers = model.answer(table)
    assert answers["error"].isna().all()
    assert answers["probability"].nunique() == 1


def test_what_holds_nothing_costs_nothing_and_what_is_of_one_colour_is_no_galaxy(model: Model) -> None:
    nothing = [None, "", b"", float("nan"), pd.NA]
    flat = [encode(np.full((256, 256, 3), value, np.uint8)) for value in (0, 128, (90, 20, 7))]
    odd = [[255, 216, 255], {"b64": "x"}, 7, [[[0, 0, 0]]]]
    answers = model.answer(pd.DataFrame({"image": pd.Series([*nothing, *flat, *odd], dtype=object)}))
    assert len(answers) == 12
    assert answers["answer"].isna().all()
    assert answers["error"].tolist()[:5] == ["empty"] * 5
    assert answers["error"].str.startswith("blank")[5:8].all()
    assert answers["error"].str.contains("send the bytes of the picture's file")[8:].all()
    many = model.answer(pd.DataFrame({"image": [None] * 200_000}), until=time.monotonic() + 10)
    assert len(many) == 200_000


def test_every_answer_says_how_far_it_can_be_trusted(model: Model) -> None:
    answers = model(galaxies(6), alpha=0.4)
    shares = answers[[f"p_{name}" for name in model.classifier.tree.classes]].to_numpy(float)
    assert answers["entropy"].to_numpy(float) == pytest.approx(-(shares * np.log(shares)).sum(axis=1))
    for _, answer in answers.iterrows():
        likeliest = max(model.classifier.tree.classes, key=lambda name: answer[f"p_{name}"])
        assert likeliest in answer["prediction_set"].split()
    wider = model(galaxies(6), alpha=0.01)["prediction_set"]
    assert all(set(a.split()) <= set(b.split()) for a, b in zip(answers["prediction_set"], wider, strict=True))
    assert (answers["unlike"] == (answers["distance"].astype(float) > 1)).all()
    assert (answers["views"] == 1).all()
    for wrong in (0.0, 1.0, -1.0):
        with pytest.raises(HiwlError, match="alpha is"):
            model(galaxies(1), alpha=wrong)


def test_pictures_of_another_scale_are_enlarged_by_as_much(model: Model) -> None:
    from PIL import Image

    picture = np.asarray(Image.open(ROOT / "src/hiwl/model/galaxy.jpg").convert("RGB"))
    small = np.asarray(Image.fromarray(picture).resize([side // 2 for side in picture.shape[1::-1]]))
    table = pd.DataFrame({"image": pd.Series([picture, small, small], dtype=object)})
    answers = model.answer(table, scale=np.array([1.0, 2.0, 1.0]))
    shares = answers[[f"p_{name}" for name in model.classifier.tree.classes]].to_numpy(float)
    assert np.abs(shares[0] - shares[1]).max() < 0.1
    assert answers["warning"].isna().tolist()[:2] == [True, True]
    for wrong in (0.0, -2.0, float("nan"), 1000.0):
        with pytest.raises(HiwlError, match="a scale must lie between"):
            model.answer(table, scale=wrong)


def test_one_picture_by_itself_gets_one_row(model: Model, tmp_path: Path) -> None:
    (picture,) = galaxies(1)
    path = tmp_path / "galaxy.png"
    path.write_bytes(encode(picture))
    for one in (picture, path, str(path), path.read_bytes()):
        assert model(one)["answer"].tolist() == model([picture])["answer"].tolist()
    for wrong in (np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3)), np.zeros(3)):
        (error,) = model(wrong)["error"]
        assert error == f"expected (height, width, 3) uint8, found {wrong.shape} {wrong.dtype}"


def test_work_that_nobody_waits_for_stops(model: Model) -> None:
    with pytest.raises(TimeoutError):
        model.answer(pd.DataFrame({"image": galaxies(40)}), until=time.monotonic() - 1)


def test_published_weights_are_loaded_by_name_or_folder_and_a_wrong_name_says_which_there_are() -> None:
    answers = hiwl.load("small")([ROOT / "src/hiwl/model/galaxy.jpg"])
    assert answers.loc[0, "answer"] == "SPI"
    assert hiwl.load(ROOT / "pretrained/small")([ROOT / "src/hiwl/model/galaxy.jpg"]).equals(answers)
    with pytest.raises(HiwlError, match=r"large: not a folder .* published weights are best, hiwl, small"):
        hiwl.load("large")
