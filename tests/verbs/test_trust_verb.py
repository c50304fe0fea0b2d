import shutil
from pathlib import Path
from typing import Any

import pytest

from hiwl.core.files import sha256
from hiwl.core.layout import PRETRAINED
from hiwl.core.sums import read_sums
from hiwl.verbs import trust


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
