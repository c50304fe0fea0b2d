import json
from pathlib import Path

import pandas as pd
import pytest

from hiwl.model.answer import Model
from hiwl.studies.plan import compose, plan, read_study
from pictures import noise
from project import Project

ROOT = Path(__file__).parents[2]


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


@pytest.mark.process
def test_the_papers_recipe_runs_as_its_study_says_on_a_small_network_and_for_a_few_epochs(
    evaluated: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.chdir(ROOT)
        papers = compose(next(run for run in plan(read_study("paper")) if run.cell == "hiwl").choices)
    train = papers["train"]
    train |= {"backbone": "test_efficientnet", "pretrained": "scratch", "recipe": train["recipe"] | {"epochs": 3}}
    evaluated.change(train=train, **{name: papers[name] for name in ("pack", "hierarchy", "choose")})
    evaluated.change(split=evaluated.read()["split"] | {"training": 50})
    evaluated.stages(("split",), ("pack",), ("train", "root"), ("train", "narrow"), ("choose",))
    assert len(pd.read_csv("models/choice/combinations.csv")) == 9
    described = json.loads(Path("models/nodes/paper/narrow/node.json").read_text())
    assert described["input"] == 240
