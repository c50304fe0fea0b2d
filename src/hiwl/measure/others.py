"""Pictures that are no galaxies like those of training, made or at hand everywhere: does the model notice?"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from hiwl.model.pixels import PackParams, Pixels, central

NUMBER = 400
SEED = 1


def made(galaxies: Pixels, whole: list[Pixels], params: PackParams) -> Iterator[tuple[str, Pixels]]:
    """By name: what becomes of packed `galaxies`, and of `whole` pictures before packing; noise; photographs."""
    rng = np.random.default_rng(SEED)
    side = params.side
    yield "colour-swapped", galaxies[..., ::-1]
    yield "inverted", 255 - galaxies
    yield "noise", rng.integers(0, 256, galaxies.shape, np.uint8)
    yield "sky and noise alone", rng.normal(8, 4, galaxies.shape).clip(0, 255).astype(np.uint8)
    yield "a corner without the galaxy", np.stack([_corner(picture, side) for picture in whole])
    photographs = [part for path in _photographs() for part in _parts(_opened(path), params.crop, rng)]
    yield "photographs", np.stack([central(part, params).pixels for part in photographs])


def simulated(params: PackParams) -> Pixels:
    """Galaxies of the simulated survey."""
    from hiwl.survey.sources import Simulated, simulated

    survey = Simulated(galaxies=NUMBER, seed=SEED, volunteers=44)
    drawn = []
    for number in range(1, NUMBER + 1):
        rng = simulated.galaxy_generator(survey, number)
        light = simulated.draw_light(simulated.draw_galaxy(rng), rng)
        picture = Image.fromarray(simulated.stretch(light)).resize((simulated.SIDE, simulated.SIDE))
        drawn.append(central(np.asarray(picture), params).pixels)
    return np.stack(drawn)


def _corner(picture: Pixels, side: int) -> Pixels:
    third = min(picture.shape[:2]) // 3
    return np.asarray(Image.fromarray(picture[:third, :third]).resize((side, side), Image.Resampling.BICUBIC))


def _photographs() -> list[Path]:
    """Those that matplotlib and scikit-learn bring along."""
    import matplotlib
    import sklearn.datasets

    folders = [Path(str(sklearn.datasets.__file__)).parent / "images", Path(matplotlib.get_data_path(), "sample_data")]
    return sorted(path for folder in folders for path in folder.glob("*.jpg"))


def _opened(path: Path) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


def _parts(picture: Pixels, crop: int, rng: np.random.Generator) -> Iterator[Pixels]:
    height, width = picture.shape[:2]
    for _ in range(20):
        top, left = rng.integers(0, max(1, height - crop)), rng.integers(0, max(1, width - crop))
        yield np.ascontiguousarray(picture[top : top + crop, left : left + crop])
