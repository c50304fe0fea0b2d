import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from hiwl.core.files import sha256
from hiwl.core.layout import PRETRAINED
from hiwl.core.sums import check_sums, read_sums
from hiwl.measure import others
from hiwl.model.classifier import CHOICE_FILE
from hiwl.verbs import trust
from project import Project


def test_it_fits_what_choose_fits_and_measures_on_test(
    evaluated: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others, "NUMBER", 20)
    folder = tmp_path / "weights"
    shutil.copytree("models/choice", folder)
    trust.fit(folder)
    check_sums(folder, CHOICE_FILE)
    chosen, fitted = (load_file(place / "trust.safetensors") for place in (Path("models/choice"), folder))
    for name, array in chosen.items():
        np.testing.assert_allclose(fitted[name], array, atol=1e-3, err_msg=name)
    numbers = trust.measure(folder, {"the survey itself": "data/raw/images.zip"})
    measured = json.loads(Path("reports/test.json").read_text())
    assert numbers["accuracy"] == pytest.approx(measured["test_accuracy"])
    assert numbers["galaxies"]["test"] == sum(numbers["bins"]["galaxies"])
    assert {row["alpha"] for row in numbers["coverage"]} == {0.01, 0.05, 0.1}
    assert numbers["others"]["noise"]["distance"]["auroc"] > 0.7
    assert 0.3 < numbers["others"]["the survey itself"]["distance"]["auroc"] < 0.7


def test_measured_again_a_model_stays_what_its_sums_say(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(__file__).parents[2] / PRETRAINED / "small"
    folder = PRETRAINED / "small"
    shutil.copytree(here, folder)
    for name in ("of_folds", "write_page", "fit"):
        monkeypatch.setattr(trust, name, lambda *_: None)
    monkeypatch.setattr(trust, "_check_data", lambda folder: None)
    numbers: list[dict[str, Any]] = [{"test": 1}, {"test": 2}]
    monkeypatch.setattr(trust, "measure", lambda folder, given: numbers.pop())
    for _ in range(2):
        trust.main("small", [])
        sums = read_sums(folder)
        assert trust.NUMBERS in sums
        assert {name: sha256(folder / name) for name in sums} == sums
        assert sums[trust.NUMBERS] in (folder / "README.md").read_text()
