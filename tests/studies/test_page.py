from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hiwl.studies import page, paper
from hiwl.studies.plan import Study
from hiwl.studies.study_page import Report
from hiwl.studies.summary import best_cell
from hiwl.verbs import report
from runs import ABLATIONS, STUDY, keep, plan_study

GOLDEN = Path(__file__).with_name("golden.md")


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test is not about pictures, none is drawn for report.html."""
    if "loads_nothing" not in request.node.name:
        monkeypatch.setattr(page, "study_pictures", lambda report, name: {})


def test_a_studys_page_says_its_finding_first_and_is_as_it_was(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = (
        "HIWL reaches {{ mean('hiwl', 'test_accuracy') }} %, plain {{ gap('plain') }} points; {{ better }} better."
    )
    cells = {name: ABLATIONS[name] for name in ("hiwl", "plain")}
    plan_study(STUDY | {"finding": finding, "seeds": [1, 2, 3], "cells": cells, "against": "hiwl"})
    for seed in (1, 2, 3):
        keep(seed, "hiwl", [0, 7], accuracy=0.3)
        keep(seed, "plain", [0, 1, 2, 3, 9 + seed])
    report.main()
    text = Path("docs/results/trees.md").read_text()
    machine = next(line for line in text.splitlines() if "runs are on record" in line)
    text = text.replace(machine, "6 of 6 runs are on record.")  # names the machine
    assert text.split("\n\n")[1].startswith("**HIWL reaches 90.00 %")
    assert text == GOLDEN.read_text()
    assert Path("docs/results/trees.svg").stat().st_size > 5_000


def test_a_finding_is_not_told_before_its_numbers_are_there(project: Path) -> None:
    plan_study(STUDY | {"finding": "Two: {{ mean('two', 'test_accuracy') }}, one: {{ gap('one') }}."})
    keep(1, "two", [0])
    report.main()
    written = Path("docs/results/trees.md")
    assert "Two:" not in written.read_text()
    keep(1, "one", [0, 1])
    report.main()
    assert "**Two: 95.00, one: -5.00" in written.read_text()


def test_no_table_of_any_page_has_more_than_eight_columns(project: Path) -> None:
    plan_study(STUDY | {"cells": ABLATIONS, "against": "hiwl"})
    for cell in ABLATIONS:
        keep(1, cell, [0])
    report.main()
    pages = [Path("docs/results.md"), *Path("docs/results").glob("*.md")]
    assert len(pages) >= 4
    for written in pages:
        for line in written.read_text().splitlines():
            assert line.count("|") <= 9, f"{written}: {line}"


def test_a_node_that_only_knows_the_commonest_class_is_told(project: Path) -> None:
    for seed, accuracy in ((1, 0.3), (2, 0.32)):  # of the validation set 843 in 2878 are CRS
        keep(seed, "one", [0], accuracy=accuracy)
    report.main()
    said = "- one layer: node `root`, in 1 of 2 runs (that answer: 29.29 %)"
    assert said in Path("docs/results/trees.md").read_text()


def test_a_study_that_is_half_run_has_its_page(project: Path) -> None:
    keep(1, "two", [0])
    for seed in (1, 2):
        keep(seed, "one", [0])
    report.main()
    text = Path("docs/results/trees.md").read_text()
    assert "| two layers | CRS | 75.00 | 30.06 to 95.44 |" in text
    assert "| one layer | CRS | 75.00 ± 0.00 |  |" in text


def test_seeds_are_averaged_into_one_model(project: Path) -> None:
    plan_study(STUDY | {"seeds": [1, 2, 3]})
    for seed in (1, 2, 3):
        keep(seed, "one", [0, seed])  # all are wrong in the first, one alone in each of three others
    keep(1, "two", [0])
    report.main()
    averaged = Path("docs/results/trees.md").read_text().split("Seeds averaged")[1].split("Accuracy given up")[0]
    assert "| one layer | 3 | 95.00 | 76.39 to 99.11 | +5.00 | +0.00 to +10.00 | 100.00 |" in averaged
    assert "two layers" not in averaged


def test_recalls_on_validation_are_told_the_shorter_way_across(project: Path) -> None:
    plan_study(STUDY | {"until": "choose"})
    few: dict[str, Any] = {f"validation_recall_{name}": 0.5 for name in ("E", "S")}
    for cell in ("two", "one"):
        keep(1, cell, None, **few)
    report.main()
    written = Path("docs/results/trees.md")
    assert "| | E | S |\n| --- | --- | --- |\n| two layers | 50.00 | 50.00 |" in written.read_text()
    for cell in ("two", "one"):
        keep(2, cell, None, **few, validation_recall_DK=0.25)
    report.main()
    assert "| | two layers | one layer |\n| --- | --- | --- |\n| E | 50.00 ± 0.00 |" in written.read_text()


def test_how_much_better_like_finds_like_is_told_beside_map_at_r(project: Path) -> None:
    plan_study(STUDY | {"until": "choose", "seeds": [1, 2, 3]})
    names = ("precision_at_1", "r_precision", "map", "silhouette")
    others: dict[str, Any] = {f"validation_{name}": 0.5 for name in names}
    for seed, gain in ((1, 0.1), (2, 0.2), (3, 0.15)):
        keep(seed, "two", None, **others, validation_map_at_r=0.5)
        keep(seed, "one", None, **others, validation_map_at_r=0.5 + gain)
    report.main()
    assert (
        "| 65.00 ± 5.00 | +15.00 (+2.58 to +27.42) | 50.00 ± 0.00 | 0.50 ± 0.00 |"
        in Path("docs/results/trees.md").read_text()
    )


def report_of(cells: dict[str, dict[str, Any]], until: str = "evaluate") -> Report:
    rows = [{"study": "s", "cell": cell} | row | {"fold": row.get("fold")} for cell, row in cells.items()]
    study = Study.model_validate(
        {"question": "q", "until": until, "seeds": [1], "common": []}
        | {"cells": {cell: {"title": cell, "choices": []} for cell in cells}}
    )
    table = pd.DataFrame(rows).astype({"fold": "Int64"})
    return Report({"s": study}, {"s": []}, table, pd.DataFrame(), {}, {}, {})


def test_the_best_cell_is_that_of_the_papers_split_by_validation() -> None:
    sizes = {part: sum(paper.SPLITS[part]) for part in ("validation", "test")}

    def row(accuracy: float, definition: str, **changes: Any) -> dict[str, Any]:
        measured = {"validation_accuracy": accuracy, "test_accuracy": 0.5, "definition": definition}
        return sizes | measured | changes

    cells = {"behind": row(0.95, "a"), "ahead": row(0.96, "b")}
    cells |= {"another split": row(0.98, "c", test=629), "over folds": row(0.97, "d", fold=1)}
    assert best_cell(report_of(cells)) == ("s", "ahead")
    assert best_cell(report_of({"untested": row(0.99, "e", test_accuracy=None)})) is None
    # A cell whose runs are some of another's does not stand for what did best.
    rows = [row(0.97, "f") | {"study": "s", "cell": "luckiest", "fold": None}]
    rows += [row(0.97 - 0.01 * n, d) | {"study": "s", "cell": "seeds", "fold": None} for n, d in enumerate("fgh")]
    both = report_of(cells)._replace(runs=pd.DataFrame(rows).astype({"fold": "Int64"}))
    assert best_cell(both) == ("s", "seeds")
