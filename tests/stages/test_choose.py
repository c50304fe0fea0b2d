import json
from pathlib import Path

import pandas as pd

from hiwl.model.answer import Model
from pictures import noise
from project import Project


def test_the_choice_is_a_model_to_load(evaluated: Project) -> None:
    choice = json.loads(Path("models/choice/choice.json").read_text())
    for name, node in choice["nodes"].items():
        copied, trained = (Path(folder, name, node["file"]) for folder in ("models/choice", "models/nodes/paper"))
        assert copied.read_bytes() == trained.read_bytes()
    best = pd.read_csv("models/choice/combinations.csv").iloc[0]
    assert {name: node["file"] for name, node in choice["nodes"].items()} == {
        name: best[name] for name in choice["nodes"]
    }
    assert len(Model.load(Path("models/choice"))([noise(256, 256)])) == 1
