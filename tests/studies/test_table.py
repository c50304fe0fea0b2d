from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hiwl.core.record import read_results
from hiwl.studies.plan import plan, read_study
from hiwl.studies.table import (
    answers_of,
    hours,
    measured,
    nodes_table,
    read_files,
    readings_of,
    runs_table,
    traded,
    write_indexes,
)
from runs import STUDY, keep, plan_study


def table() -> pd.DataFrame:
    study = read_study("trees")
    return runs_table({"trees": study}, {"trees": plan(study)}, read_results())


def test_a_run_is_a_row_with_what_it_was_and_what_it_measured(project: Path) -> None:
    for seed in (1, 2):
        keep(seed, "one", [0, 1, 2])
        keep(seed, "two", [0, 7])
    found = table()
    assert found[["cell", "seed"]].to_numpy().tolist() == [["two", 1], ["one", 1], ["two", 2], ["one", 2]]
    mean = found.groupby("cell")["test_accuracy"].mean()
    assert mean.to_dict() == pytest.approx({"one": 0.85, "two": 0.9})
    assert found["passes"].tolist() == [120] * 4
    assert found["rarest"].tolist() == ["CSS"] * 4
    assert found["crop"].tolist() == [256] * 4
    two = found.iloc[0]
    assert two["test_recall_CRS"] == 0.75  # one of four was answered otherwise
    assert two["test_ece"] == pytest.approx(0.9 - 0.6)
    assert (two["hours"], two["epochs"], two["test"]) == (pytest.approx(6 / 3600), "3", 20)


def test_answers_of_the_first_records_are_read_by_todays_names(project: Path) -> None:
    path = keep(1, "one", [0, 1, 2]).with_suffix(".answers.csv.gz")
    pd.read_csv(path).rename(columns={"label": "class"}).to_csv(path, index=False)
    assert table()["test_accuracy"].tolist() == pytest.approx([0.85])


def test_a_class_that_counts_more_is_found_more_often(project: Path) -> None:
    keep(1, "one", [2, 3])  # a cigar and an edge-on galaxy: both to the next class, .6 to .1
    found = traded(table(), [1, 5, 7])
    assert found.index.tolist() == [1, 5, 7]
    assert found["accuracy"].tolist() == pytest.approx([0.9, 0.9, 0.2])
    assert found["recall"].tolist() == [0.75, 0.75, 1]


def test_folds_are_measured_together(project: Path) -> None:
    plan_study(STUDY | {"seeds": [1], "folds": [0, 1]})
    for fold in (0, 1):
        keep(1, "one", [fold], first=20 * fold, choices=[f"split.fold={fold}"])
    metrics, per_class = measured(pd.concat(map(answers_of, table()["file"])))
    assert (metrics["galaxies"], metrics["accuracy"]) == (40, 0.95)
    first = per_class.set_index("class").loc["CRS"]
    assert (first["galaxies"], first["recall"]) == (8, 0.875)
    assert [first["recall_low"], first["recall_high"]] == pytest.approx([0.5291, 0.9776], abs=1e-4)


def test_a_training_that_two_runs_share_is_counted_once(project: Path) -> None:
    keep(1, "one", [0])
    keep(1, "two", [0])  # both have the same root
    kept = read_files(read_results())
    assert hours(kept, table()["file"]) == pytest.approx(6 / 3600)


def test_a_node_is_a_row_with_its_best_epoch_and_the_share_of_its_commonest_class(project: Path) -> None:
    keep(1, "one", [0], accuracy=0.3)
    row = nodes_table(read_files(read_results())).iloc[0]
    assert (row["node"], row["best_accuracy"], row["epoch"]) == ("root", 0.3, 1)
    assert (row["galaxies"], row["commonest"]) == (2878, pytest.approx(843 / 2878))  # CRS, on validation


def test_readings_count_where_they_agree_on_one_of_the_two_classes_asked(project: Path) -> None:
    path = keep(1, "one", [0, 5])  # two CRS answered as SPI
    kept = read_results()[0]
    assert readings_of(kept) is None
    asked = pd.DataFrame({"GalaxyID": [0, 5, 10, 15], "first": "CRS", "second": "SPI"})
    for reader, says in (("ann", ["CRS", "SPI", "CRS", "?"]), ("bob", ["CRS", "CRS", "CRS", "?"])):
        asked.assign(says=says).to_csv(path.with_suffix(f".reading-{reader}.csv"), index=False)
    found = {"readings": 2, "errors": {"label": 1, "of": 1}, "right": {"label": 1, "of": 1}}
    assert readings_of(kept) == found


def test_the_index_lists_every_record_with_its_study(project: Path) -> None:
    keep(1, "one", [0])
    keep(2, "two", None)  # not as far as the study
    keep(3, "one", [1])  # of no study
    write_indexes(table(), read_results())
    index = pd.read_csv("results/mine/runs.csv")
    assert set(index["file"]) == {f"runs/{path.name}" for path in Path("results/mine/runs").glob("*.json")}
    tested, untested, lone = index.sort_values("seed").to_dict("records")
    assert [tested[name] for name in ("study", "cell", "test_accuracy", "rarest")] == ["trees", "one", 0.95, "CSS"]
    assert np.isnan(untested["test_accuracy"])
    assert (str(untested["study"]), str(lone["study"])) == ("nan", "nan")
