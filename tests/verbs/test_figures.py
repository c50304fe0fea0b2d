"""`hiwl figures` on an evaluated project."""

import json
from pathlib import Path

import pandas as pd
import pytest

from hiwl.core.errors import HiwlError
from hiwl.core.sums import write_sums
from hiwl.measure.gradcam import LAYERS
from hiwl.model.tree import Tree
from hiwl.verbs import figures
from hiwl.verbs.figures import errors, nodes_above
from project import TREES, Project


def test_a_galaxy_is_seen_by_the_deepest_node_above_its_class() -> None:
    above = {tree: nodes_above(Tree(nodes)) for tree, nodes in TREES.items()}
    assert set(above["flat"].values()) == {"root"}
    assert above["paper"] == {"CRS": "root", "IBS": "root", "SPI": "root", "CSS": "narrow", "EO": "narrow"}
    assert above["three"] == {"CRS": "smooth", "IBS": "smooth", "CSS": "narrow", "EO": "narrow", "SPI": "root"}


def test_errors_come_with_the_answers_probability_the_most_confident_first() -> None:
    answers = pd.DataFrame(
        {"GalaxyID": ["3", "1", "2"], "class": ["A", "A", "B"], "answer": ["B", "A", "A"], "row": [0, 1, 2]}
    )
    table = errors(answers.assign(p_A=[0.4, 0.9, 0.7], p_B=[0.6, 0.1, 0.3]))
    assert table["GalaxyID"].tolist() == ["2", "3"]
    assert table["probability"].tolist() == [0.7, 0.6]


def test_a_pack_that_the_models_do_not_know_is_refused(evaluated: Project) -> None:
    evaluated.change(pack={"crop": 256, "side": 40})  # the same galaxies in larger pictures
    evaluated.stages(("pack",))
    with pytest.raises(HiwlError, match=r"data/packed/images\.npy: not what models/nodes/paper was trained on"):
        figures.main()


def test_another_choices_evaluation_is_refused(evaluated: Project) -> None:
    file = Path("reports/record.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"key": "0" * 16}))
    with pytest.raises(HiwlError, match="dvc repro evaluate"):
        figures.main()


def test_figures_are_drawn_and_only_numbers_of_real_galaxies_are_kept(
    evaluated: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    figures.main()
    assert "errors in" in capsys.readouterr().out
    assert not Path("results").exists()
    numbers = json.loads(Path("figures/figures.json").read_text())
    record = json.loads(Path("reports/record.json").read_text())
    answers = pd.read_csv("reports/answers.csv.gz")
    wrong = answers[answers["label"] != answers["answer"]]
    assert numbers["key"] == record["key"]
    assert numbers["galaxies"]["test"] == len(answers)
    assert numbers["galaxies"]["wrong"] == len(wrong)
    assert set(numbers["silhouette"]) == {"root", "narrow"}
    for layer in LAYERS:
        seen = numbers["gradcam"][layer]
        lost = numbers["gradcam"]["no_galaxy_found"] + seen["maps_all_zero"]
        assert seen["all"]["share"]["galaxies"] == len(answers) - lost
    table = pd.read_csv("figures/errors.csv")
    assert set(table["GalaxyID"]) == set(wrong["GalaxyID"])
    assert table["probability"].is_monotonic_decreasing
    points = pd.read_csv("figures/tsne.csv.gz")
    splits = pd.read_csv("data/splits/splits.csv")
    assert points["split"].value_counts().to_dict() == (
        splits.loc[splits["split"] != "validation", "split"].value_counts().to_dict()
    )
    seen_by = points["class"].map(dict(enumerate(numbers["classes"]))).map(numbers["nodes"])
    assert (points["node"] == seen_by).all()
    for name in ("tsne.png", "gradcam.png", "errors.png"):
        assert Path("figures", name).stat().st_size > 10_000

    raw = {"survey": "mine", "source": {"kind": "files", "table": "labels"}}
    real = record | {"parameters": record["parameters"] | {"raw": raw}}
    for file in (Path("reports/record.json"), Path("models/choice/record.json")):
        file.write_text(json.dumps(real))
    write_sums(Path("models/choice"))
    with pytest.raises(HiwlError, match="holds the survey simulated"):
        figures.main()
    manifest = Path("data/raw/manifest.json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"survey": "mine"}))
    figures.main()
    stem = f"root-narrow-seed1-{record['key'][:8]}"
    kept = {path.name for path in Path("results/mine/runs").iterdir()}
    assert kept == {f"{stem}.figures.json", f"{stem}.tsne.csv.gz"}
    assert json.loads(Path(f"results/mine/runs/{stem}.figures.json").read_text()) == numbers
