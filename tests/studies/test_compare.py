import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from hiwl.core.errors import HiwlError
from hiwl.core.record import read_results
from hiwl.studies.compare import Claim, compare, mcnemar, over_pairs, pairs, read_claims, verdict, weigh
from hiwl.studies.plan import plan, read_study, study_names
from hiwl.studies.table import runs_table
from runs import ABLATIONS, CELLS, CLASSES, STUDY, edit, keep, plan_study


def runs() -> pd.DataFrame:
    studies = {name: read_study(name) for name in study_names()}
    return runs_table(studies, {name: plan(study) for name, study in studies.items()}, read_results())


def compared() -> dict[str, dict[str, Any]]:
    return {one["cell"]: one for one in compare(read_study("trees"), runs())}


def test_mcnemar_counts_only_where_two_runs_differ() -> None:
    first, second = np.array([True] * 8 + [False] * 4), np.array([True] * 6 + [False] * 5 + [True])
    assert mcnemar(first, second) == (2, 1, 1.0)
    assert mcnemar(first, first) == (0, 0, 1.0)
    assert mcnemar(np.array([True] * 10), np.array([False] * 10))[2] == pytest.approx(2 / 2**10)


def test_only_runs_of_one_seed_fold_and_precision_are_paired() -> None:
    def row(cell: str, seed: int, precision: str, fold: int | None = None) -> dict[str, Any]:
        return {"cell": cell, "seed": seed, "fold": fold, "precision": precision, "file": f"{cell}{seed}"}

    full, half = "32-true", "bf16-mixed"
    base = [row("b", 1, full), row("b", 2, full), row("b", 3, half), row("b", 4, full, fold=1)]
    mine = [row("a", 1, full), row("a", 2, half), row("a", 3, half), row("a", 4, full, fold=2)]
    table = pd.DataFrame(base + mine).astype({"fold": "Int64"})
    assert pairs(table, "a", "b")[["file", "file_base"]].to_numpy().tolist() == [["a1", "b1"], ["a3", "b3"]]


def test_the_interval_over_pairs_is_students_and_needs_three_of_seeds() -> None:
    paired = pd.DataFrame({"fold": pd.Series([None] * 3, dtype="Int64")})
    each = pd.Series([0.1, 0.2, 0.3])
    assert over_pairs(each[:2], paired[:2]) is None
    assert over_pairs(each, paired.assign(fold=4)) is None
    assert over_pairs(each, paired) == pytest.approx([0.2 - 4.303 * 0.1 / 3**0.5, 0.2 + 4.303 * 0.1 / 3**0.5], abs=1e-3)


def test_a_claim_needs_every_interval_on_one_side() -> None:
    assert verdict(3, [0.1, 0.2], [0.1, 0.3]) == "holds"
    assert verdict(3, [0.1, 0.2], None) == "holds"
    assert verdict(3, [0.1, 0.2], [-0.1, 0.3]) == "open"
    assert verdict(3, [-0.1, 0.2], [0.1, 0.3]) == "open"
    assert verdict(3, [-0.2, -0.1], [-0.3, -0.1]) == "contradicted"
    assert verdict(2, None, [0.1, 0.3]) == "too few pairs"
    assert verdict(0, None, None) == "not measured"


def test_cells_are_compared_on_the_same_galaxies(project: Path) -> None:
    for seed in (1, 2):
        keep(seed, "one", [0, 1, 2])
        keep(seed, "two", [0, 7])
    one = compared()["one"]
    assert one["base"] == "two"
    assert one["mcnemar"][0] == (1, 2, pytest.approx(1.0))
    assert one["test"]["mean"] == pytest.approx(-0.05)
    low, high = one["test"]["over_galaxies"]
    assert low < -0.05 < high
    path = next(iter(sorted(Path("results/mine/runs").glob("one*.answers.csv.gz"))))
    answers = pd.read_csv(path)
    answers.assign(GalaxyID=answers["GalaxyID"] + 1).to_csv(path, index=False)
    with pytest.raises(HiwlError, match="tested on different galaxies"):
        from hiwl.studies.table import answers_of

        answers_of.cache_clear()
        compared()


def test_over_folds_every_galaxy_counts_once_for_a_seed(project: Path) -> None:
    plan_study(STUDY | {"seeds": [1], "folds": [0, 1], "against": "one"})
    for fold in (0, 1):
        for cell, wrong in (("one", [fold]), ("two", [0, 2, 7, 12])):
            keep(1, cell, wrong, first=20 * fold, choices=[f"split.fold={fold}"])
    two = compared()["two"]
    assert two["mcnemar"] == [(1, 7, pytest.approx(18 / 256))]
    assert two["test"]["over_pairs"] is None
    assert (two["test_rarest"]["galaxies"], two["test_rarest"]["mean"]) == (8, -0.75)


def test_a_cell_can_be_compared_with_another_than_the_studys_own(project: Path) -> None:
    cells = ABLATIONS | {"hmws": ABLATIONS["hmws"] | {"against": "plain"}}
    plan_study(STUDY | {"seeds": [1], "cells": cells, "against": "hiwl"})
    for cell, wrong in (("hiwl", [0]), ("hmws", [1, 2]), ("plain", [1, 2, 3])):
        keep(1, cell, wrong)
    found = compared()
    assert {cell: (one["base"], one["test"]["mean"]) for cell, one in found.items()} == {
        "hmws": ("plain", pytest.approx(0.05)),
        "plain": ("hiwl", pytest.approx(-0.1)),
    }


def test_what_is_meant_for_cigars_or_calibration_is_judged_by_these_too(project: Path) -> None:
    plan_study(STUDY | {"seeds": [1, 2, 3]})
    for seed in (1, 2, 3):
        for cell, accuracy, cigars in (("two", 0.9, 0.5), ("one", 0.9 - 0.01 * seed, 0.7)):
            edit(keep(seed, cell, [0]), validation_accuracy=accuracy, validation_recall_CSS=cigars)
    one = compared()["one"]
    assert one["validation_accuracy"]["mean"] == pytest.approx(-0.02)
    assert one["validation_accuracy"]["over_pairs"] == pytest.approx([-0.0448, 0.0048], abs=1e-4)
    assert one["validation_accuracy"]["verdict"] == "open"
    assert one["validation_recall_CSS"]["mean"] == pytest.approx(0.2)
    assert "validation_ece" not in one  # which these records do not have


def figures(path: Path, clusters: dict[str, float], share: float) -> None:
    """What `hiwl figures` would leave of a run: silhouettes by `<node> <metric>`, the maps' share on the galaxy."""
    of_layer = {"root": ["CRS IBS", "CRS SPI", "IBS SPI"], "narrow": ["CSS EO"]}
    content = json.loads(path.read_text())["choice"]
    nodes = content["parameters"]["hierarchy"]["nodes"]

    def of_pairs(layer: str, metric: str) -> dict[str, float]:
        """Pairs whose mean is what counts."""
        apart = [-0.2, 0.0, 0.2] if layer == "root" else [0.0]
        return {pair: clusters[f"{layer} {metric}"] + by for pair, by in zip(of_layer[layer], apart, strict=True)}

    def of_node(node: str, metric: str) -> dict[str, Any]:
        """Of a flat tree the root has all classes, and pairs that no claim uses."""
        mixed = {} if "narrow" in nodes else {"CRS EO": -1.0} | of_pairs("narrow", metric)
        return {"all": -1.0, "pairs": of_pairs(node, metric) | mixed}

    numbers = {
        "key": content["key"],
        "classes": CLASSES,
        "nodes": {name: "narrow" if "narrow" in nodes and name in ("CSS", "EO") else "root" for name in CLASSES},
        "silhouette": {node: {metric: of_node(node, metric) for metric in ("euclidean", "cosine")} for node in nodes},
        "gradcam": {layer: {"all": {"share": {"mean": share}}} for layer in ("last", "fine")},
    }
    path.with_suffix(".figures.json").write_text(json.dumps(numbers))


def test_the_papers_claims_are_weighed_by_paired_runs(project: Path) -> None:
    plan_study(STUDY | {"seeds": [1, 2, 3], "cells": ABLATIONS, "against": "hiwl"})
    for seed in (1, 2, 3):
        for cell, wrong in {
            "hiwl": [0, 1],
            "hmws": [0, 1] if seed == 1 else [0],
            "slwslm": [0, 1, 2, 7, 12],
            "smoothing": [0],
            "plain": [0, 1, 3, 4, 5, 6, 8, 9, 10, 11],
        }.items():
            if cell != "slwslm" or seed < 3:
                path = keep(seed, cell, wrong)
                clusters = dict.fromkeys(("root euclidean", "root cosine", "narrow euclidean", "narrow cosine"), 0.5)
                share = 0.3
                if cell == "hiwl":
                    clusters |= {"root euclidean": 0.2, "narrow cosine": 0.6 + 0.01 * seed}
                    share = 0.3 + 0.1 * seed  # above in each pair, and too uneven to settle anything
                if cell != "slwslm":
                    figures(path, clusters, share)
    found = {(one["claim"].measure, one["claim"].below): one for one in weigh(read_claims(), runs())}
    first, second = "CRS_IBS_SPI", "CSS_EO"
    assert {key: one["verdict"] for key, one in found.items()} == {
        ("test_accuracy", "plain"): "holds",
        ("test_accuracy", "hmws"): "open",
        ("test_accuracy", "smoothing"): "open",
        ("test_recall_CSS", "smoothing"): "open",
        ("test_accuracy", "slwslm"): "too few pairs",
        ("test_recall_CSS", "slwslm"): "too few pairs",
        (f"silhouette_euclidean_{first}", "hmws"): "contradicted",
        (f"silhouette_cosine_{first}", "hmws"): "open",
        (f"silhouette_euclidean_{second}", "hmws"): "open",
        (f"silhouette_cosine_{second}", "hmws"): "holds",
        (f"silhouette_euclidean_{second}", "plain"): "open",
        (f"silhouette_cosine_{second}", "plain"): "holds",
        ("gradcam_fine", "plain"): "open",
    }
    gain = found["test_accuracy", "plain"]
    assert gain["each"] == pytest.approx([0.4] * 3)
    assert gain["over_galaxies"][0] <= gain["mean"] <= gain["over_galaxies"][1]
    assert gain["galaxies"] == 20
    assert found["test_recall_CSS", "slwslm"]["each"] == pytest.approx([0.75, 0.75])
    assert found["test_recall_CSS", "slwslm"]["galaxies"] == 4
    assert found[f"silhouette_euclidean_{first}", "hmws"]["each"] == pytest.approx([-0.3] * 3)


def test_figures_of_another_choice_are_refused(project: Path) -> None:
    keep(1, "one", [0]).with_suffix(".figures.json").write_text(json.dumps({"key": "another"}))
    with pytest.raises(HiwlError, match="belongs to another choice than"):
        runs()


def test_every_claim_is_about_cells_that_two_studies_of_the_repository_have() -> None:
    conf = Path(__file__).parents[2] / "conf"
    cells = {path.stem: set(yaml.safe_load(path.read_text())["cells"]) for path in conf.glob("study/*.yaml")}
    named = {cell for claim in read_claims(conf / "claims.yaml") for cell in (claim.above, claim.below)}
    assert {name for name, own in cells.items() if own >= named} == {"ablations", "paper"}
    with pytest.raises(ValueError, match="below"):
        Claim.model_validate({"text": "t", "measure": "m", "above": "a"})
    assert set(CELLS) == {"two", "one"}
