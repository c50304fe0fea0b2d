import numpy as np
import pytest

from hiwl.model.measures import NAMES, measure


def blob(width: float, colour: tuple[float, float, float] = (1, 1, 1), side: int = 64, sky: float = 10) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    light = 200 * np.exp(-(x**2 + y**2) / (2 * width**2))[..., None] * np.array(colour)
    picture: np.ndarray = (light + sky).clip(0, 255).astype(np.uint8)
    return picture


def test_larger_redder_and_brighter_galaxies_measure_so() -> None:
    measured = measure(np.stack([blob(4), blob(10), blob(4, (1, 0.7, 0.4)), blob(4, (0.4, 0.4, 0.4))]))
    assert set(measured) == set(NAMES)
    assert measured["size"][1] > 2 * measured["size"][0] > 0
    assert measured["size"][0] == pytest.approx(4 * 1.18 / 64, abs=0.01)  # of a Gaussian
    assert measured["colour"][2] > 0.05 > abs(measured["colour"][0])
    assert measured["brightness"][0] > 2 * measured["brightness"][3]
    assert measured["sky"] == pytest.approx(10, abs=1)
    assert measured["sharpness"][0] > measured["sharpness"][1]


def test_turning_or_mirroring_changes_no_measure_but_what_looks_along_rows() -> None:
    picture = blob(6)
    seen = measure(np.stack([picture, np.rot90(picture), picture[:, ::-1]]))
    for name in NAMES:
        assert seen[name] == pytest.approx(seen[name][0], rel=1e-3)


def test_a_picture_without_light_has_no_size() -> None:
    measured = measure(np.full((2, 16, 16, 3), 7, np.uint8))
    assert measured["size"].tolist() == measured["colour"].tolist() == [0, 0]
