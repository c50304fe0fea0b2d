from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from usearch.index import Index

from hiwl.core.errors import HiwlError
from hiwl.measure.worth import apart_of
from hiwl.verbs import odd
from hiwl.verbs.features import FeatureTable
from hiwl.verbs.search import Search, from_neighbours


def test_answers_lead_to_galaxies_like_those_that_were_found_interesting(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd.main(str(features), None, str(tmp_path / "odd.csv"), ask=False, port=0)
    before = pd.read_csv(tmp_path / "odd.csv")
    assert len(before) == 40
    assert before["apart"].is_monotonic_decreasing
    assert "40 galaxies" in capsys.readouterr().out
    search = Search(FeatureTable(features), tmp_path / "answers.csv")
    first = search.current()
    for _ in range(12):
        row = search.current()
        assert row is not None
        search.answer(row, 5 if row % 2 else 1)
    assert len(pd.read_csv(tmp_path / "answers.csv")) == 12
    search.undo()
    assert len(pd.read_csv(tmp_path / "answers.csv")) == 11
    again = Search(FeatureTable(features), tmp_path / "answers.csv")
    assert again.answers == search.answers
    assert next(iter(again.answers)) == first
    ranking = again.ranking()
    of_answered = ranking.dropna(subset="answer")
    assert of_answered.loc[of_answered["answer"] == 5, "expected"].min() > 3
    assert of_answered.loc[of_answered["answer"] == 1, "expected"].max() < 3
    odd.main(str(features), str(tmp_path / "answers.csv"), str(tmp_path / "odd.csv"), ask=False, port=0)
    assert "by 11 answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,answer\n{path},7\n", "answer '7'; answers are 1 .dull. to 5"),
        ("path,answer\nnone.jpg,3\n", "none.jpg: no galaxy of"),
        ("name,answer\nx,3\n", "a column 'answer' and one that tells galaxies"),
        ("path,answer\n{path},3\n{path},4\n", "answered 3 and 4; keep one of the lines"),
    ],
)
def test_answers_that_cannot_be_meant_are_refused(table: str, message: str, features: Path, tmp_path: Path) -> None:
    path = FeatureTable(features).given["path"][0]
    (tmp_path / "answers.csv").write_text(table.format(path=path))
    with pytest.raises(HiwlError, match=message):
        Search(FeatureTable(features), tmp_path / "answers.csv")


def test_answers_are_kept_by_a_column_that_tells_galaxies_apart(features: Path, tmp_path: Path) -> None:
    table = pq.read_table(features)
    table = table.set_column(0, "path", [["same.jpg"] * len(table)]).append_column("id", [[*range(len(table))]])
    pq.write_table(table, features)
    search = Search(FeatureTable(features), tmp_path / "answers.csv")
    row = search.current()
    assert row is not None
    search.answer(row, 4)
    assert (tmp_path / "answers.csv").read_text() == f"id,answer\n{row},4\n"
    assert Search(FeatureTable(features), tmp_path / "answers.csv").answers == {row: 4}


def test_a_table_of_ones_own_keeps_whatever_else_it_says(features: Path, tmp_path: Path) -> None:
    path = FeatureTable(features).given["path"]
    own = pd.DataFrame(
        {"path": [path[3], path[1], "elsewhere.jpg"], "note": ["a, b", "", "c"], "answer": ["4.0", "", ""]}
    )
    own.to_csv(tmp_path / "own.csv", index=False)
    search = Search(FeatureTable(features), tmp_path / "own.csv")
    assert search.answers == {3: 4}
    search.answer(1, 2)
    search.answer(0, 5)
    search.undo()
    search.answer(2, 1)
    kept = pd.read_csv(tmp_path / "own.csv", dtype=str, keep_default_na=False)
    assert kept.to_numpy().tolist() == [
        [path[3], "a, b", "4"],
        [path[1], "", "2"],
        ["elsewhere.jpg", "c", ""],
        [path[2], "", "1"],
    ]


def test_answers_may_name_galaxies_by_the_ids_that_their_files_have(features: Path, tmp_path: Path) -> None:
    table = FeatureTable(features)
    row = table.row("07")
    assert row is not None
    (tmp_path / "own.csv").write_text("GalaxyID,answer\n07,4\n08,\n")
    search = Search(table, tmp_path / "own.csv")
    assert search.answers == {row: 4}
    search.answer(table.row("08") or 0, 2)
    search.answer(table.row("09") or 0, 1)
    assert (tmp_path / "own.csv").read_text() == "GalaxyID,answer\n07,4\n08,2\n09,1\n"


def test_only_this_sessions_answers_are_taken_back(features: Path, tmp_path: Path) -> None:
    first = Search(FeatureTable(features), tmp_path / "answers.csv")
    first.answer(3, 4)
    again = Search(FeatureTable(features), tmp_path / "answers.csv")
    again.answer(3, 1)
    for _ in range(2):
        again.undo()
        assert again.answers == Search(FeatureTable(features), tmp_path / "answers.csv").answers == {3: 4}


@pytest.mark.parametrize(
    "lost", ["# mine\npath,answer\n{path},3\n", "path;answer\n{path};3\n", ",path,answer\n0,{path},3\n"]
)
def test_a_table_that_would_lose_by_being_written_again_is_refused(lost: str, features: Path, tmp_path: Path) -> None:
    table = FeatureTable(features)
    (tmp_path / "own.csv").write_text(lost.format(path=table.given["path"][0]))
    with pytest.raises(HiwlError, match=r"own\.csv: answers are written as plain CSV"):
        Search(table, tmp_path / "own.csv").check_kept()
    (tmp_path / "own.csv").write_text(f"\ufeffpath,answer\n{table.given['path'][0]},3\n")
    Search(table, tmp_path / "own.csv").check_kept()


def test_neighbours_of_any_number_of_galaxies_are_found() -> None:
    index = Index(ndim=8, metric="cos", dtype="f16")
    features = np.random.default_rng(1).normal(size=(1001, 8)).astype(np.float32)
    index.add(np.arange(1001), features)
    table: Any = SimpleNamespace(index=lambda: index)
    apart = from_neighbours(table, features)  # asks for 1,000 at once, and for the one that is left
    assert (abs(apart - apart_of(features)) < 0.005).mean() > 0.95  # the index finds nearly all


def test_a_ranking_can_be_given_as_answers_and_one_that_is_not_there_is_told(features: Path, tmp_path: Path) -> None:
    ranking = tmp_path / "odd.csv"
    odd.main(str(features), None, str(ranking), ask=False, port=0)
    told = pd.read_csv(ranking, dtype={"answer": object})
    told.loc[0, "answer"] = "5"
    told.to_csv(tmp_path / "told.csv", index=False)
    assert Search(FeatureTable(features), tmp_path / "told.csv").answers == {int(told["row"][0]): 5}
    with pytest.raises(HiwlError, match=r"no\.csv: not found; with --ask it is begun"):
        odd.main(str(features), str(tmp_path / "no.csv"), str(ranking), ask=False, port=0)
