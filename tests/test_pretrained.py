"""The weights that come with the repository: whole, small enough, and answering."""

import json
from pathlib import Path

import numpy as np
import pytest

from hiwl.core.sums import SUMS, check_sums
from hiwl.model.classifier import CHOICE_FILE, Classifier
from hiwl.model.pixels import decode

ROOT = Path(__file__).parents[1]
MODELS = sorted(path.parent for path in ROOT.glob(f"pretrained/*/{SUMS}"))


def test_there_are_some_and_together_they_are_small() -> None:
    assert [path.name for path in MODELS] == ["best", "hiwl", "small"]
    assert sum(path.stat().st_size for path in ROOT.glob("pretrained/**/*") if path.is_file()) < 60e6


@pytest.mark.parametrize("folder", MODELS, ids=lambda path: path.name)
def test_they_are_what_their_sums_and_cards_say(folder: Path) -> None:
    check_sums(folder, CHOICE_FILE)
    card = (folder / "README.md").read_text()
    assert all(line.split()[0] in card for line in (folder / SUMS).read_text().splitlines())
    metrics = json.loads((folder / "record.json").read_text())["metrics"]
    assert f"accuracy {100 * metrics['test_accuracy']:.2f} %" in card


@pytest.mark.parametrize("folder", MODELS, ids=lambda path: path.name)
def test_they_answer_and_know_a_spiral(folder: Path) -> None:
    classifier = Classifier.load(folder, "cpu")
    picture = decode((ROOT / "src/hiwl/model/galaxy.jpg").read_bytes(), classifier.pack).pixels
    routed = classifier(np.stack([picture, picture[::-1]])).routed
    assert [classifier.tree.classes[label] for label in routed.label] == ["SPI", "SPI"]
    assert routed.probabilities.sum(axis=1) == pytest.approx([1, 1])
