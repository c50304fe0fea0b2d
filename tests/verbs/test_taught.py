"""The curves of `hiwl worth --train`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiwl.core.errors import HiwlError
from hiwl.measure import worth
from hiwl.measure.worth import Tag
from hiwl.verbs import learn
from hiwl.verbs.taught import Curves
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


def curves() -> Curves:
    return Curves("blobs", START, "all", {"galaxies": 60})


def test_networks_learn_the_draws_of_the_probes_and_are_gone_on_with(
    paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {"red": Tag("red", np.arange(60) % 2 == 0, np.full(60, True))}
    taught, teach = [], learn.teach

    def counted(*given: Any, **more: Any) -> Any:
        taught.append(given)
        return teach(*given, **more)

    monkeypatch.setattr(learn, "teach", counted)
    curves().measure(paths, tags)
    record = json.loads(curves().path.read_text())
    assert record["galaxies"] == 60
    by_seed = record["learning"]["red"]["20"]
    assert list(by_seed) == ["1", "2"]
    assert all(told["auroc"] > 0.9 for told in by_seed.values())
    assert len(taught) == 2

    del by_seed["2"]
    curves().path.write_text(json.dumps(record))
    curves().measure(paths, tags)
    assert len(taught) == 3
    assert list(json.loads(curves().path.read_text())["learning"]["red"]["20"]) == ["1", "2"]


def test_a_picture_that_is_gone_is_named(paths: list[str]) -> None:
    Path(paths[3]).unlink()
    with pytest.raises(HiwlError, match=r"3\.png"):
        curves().measure(paths, {"red": Tag("red", np.arange(60) % 2 == 0, np.full(60, True))})
