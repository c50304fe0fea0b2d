"""The curves of `hiwl worth --train`."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiwl.core.errors import HiwlError
from hiwl.measure import worth
from hiwl.measure.worth import Tag
from hiwl.verbs import learn
from hiwl.verbs.taught import DATA, Taught
from pictures import encode

START = "test_resnet:scratch"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sixty blobs, every other one red."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worth, "LABELS", (20,))
    monkeypatch.setattr(worth, "SEEDS", (1, 2))
    monkeypatch.setattr(learn, "STEPS", 12)
    rng = np.random.default_rng(0)
    for number in range(60):
        pixels = rng.integers(0, 40, (200, 200, 3), dtype=np.uint8)
        pixels[60:140, 60:140, 2 * (number % 2)] += 150
        (tmp_path / f"{number}.png").write_bytes(encode(pixels))
    return [f"{number}.png" for number in range(60)]


def record() -> Taught:
    return Taught("blobs", START, "all", {"galaxies": 60, "data": dict.fromkeys(DATA, "0" * 64)})


@pytest.mark.process
def test_networks_learn_the_draws_of_the_probes_and_are_gone_on_with(
    paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {"red": Tag("red", np.arange(60) % 2 == 0, np.full(60, True))}
    taught, teach = [], learn.teach

    def counted(*given: Any, **more: Any) -> Any:
        taught.append(given)
        return teach(*given, **more)

    monkeypatch.setattr(learn, "teach", counted)
    record().measure(paths, tags)
    held = json.loads(record().path.read_text())
    assert held["galaxies"] == 60
    by_seed = held["learning"]["red"]["20"]
    assert list(by_seed) == ["1", "2"]
    assert all(told["auroc"] > 0.9 for told in by_seed.values())
    assert len(taught) == 2

    del by_seed["2"]
    record().path.write_text(json.dumps(held))
    record().measure(paths, tags)
    assert len(taught) == 3
    assert list(json.loads(record().path.read_text())["learning"]["red"]["20"]) == ["1", "2"]


def test_a_picture_that_is_gone_is_named(paths: list[str]) -> None:
    Path(paths[3]).unlink()
    with pytest.raises(HiwlError, match=r"3\.png"):
        record().measure(paths, {"red": Tag("red", np.arange(60) % 2 == 0, np.full(60, True))})


@pytest.mark.process
def test_pictures_are_read_from_an_archive_too_and_a_record_of_other_weights_is_kept(paths: list[str]) -> None:
    with zipfile.ZipFile("all.zip", "w") as archive:
        for path in paths:
            archive.write(path, f"in/{path}")
            Path(path).unlink()
    tags = {"red": Tag("red", np.arange(60) % 2 == 0, np.full(60, True))}
    record().measure([f"all.zip/in/{path}" for path in paths], tags)
    held = json.loads(record().path.read_text())
    assert list(held["learning"]["red"]["20"]) == ["1", "2"]
    record().path.write_text(json.dumps(held | {"weights": "others"}))
    with pytest.raises(HiwlError, match="of other weights"):
        record()
