import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from hiwl.core.errors import HiwlError
from hiwl.core.layout import CLEAN_TABLE, ID, RAW_MANIFEST, RAW_TABLE
from hiwl.stages import select
from hiwl.survey.contracts import ContractError
from hiwl.survey.selection import commonest, labelled
from hiwl.survey.selection import select as select_galaxies
from hiwl.survey.votes import COLUMNS, SUM_TOLERANCE, TASKS

PAPER = {"CRS": 8434, "IBS": 8069, "CSS": 578, "EO": 3903, "SPI": 7806}


def votes_row(task1: tuple[float, float], answers: dict[str, float]) -> dict[str, float]:
    """A valid row: each task's given answers, and the rest of what reached the task on its last answer."""
    row = dict.fromkeys(COLUMNS, 0.0)
    row |= {"Class1.1": task1[0], "Class1.2": task1[1], "Class1.3": 1 - sum(task1)}
    for number, task in list(TASKS.items())[1:]:
        reached = 1.0 if task.reached_by is None else row[task.reached_by]
        *first, last = task.columns(number)
        for column in first:
            row[column] = min(answers.get(column, 0.0), reached)
        row[last] = reached - sum(row[column] for column in first)
    return row


CLEAR = {
    "CRS": votes_row((0.9, 0.1), {"Class7.1": 0.6}),
    "IBS": votes_row((0.9, 0.1), {"Class7.2": 0.6}),
    "CSS": votes_row((0.9, 0.1), {"Class7.1": 0.1, "Class7.2": 0.1}),
    "EO": votes_row((0.1, 0.9), {"Class2.1": 0.7}),
    "SPI": votes_row((0.05, 0.95), {"Class2.1": 0.1, "Class4.1": 0.7}),
}
ON_A_THRESHOLD = {
    "Class7.1": votes_row((0.9, 0.1), {"Class7.1": 0.5}),
    "Class7.2": votes_row((0.9, 0.1), {"Class7.2": 0.5}),
    "Class7.3": votes_row((0.75, 0.25), {"Class7.1": 0.125, "Class7.2": 0.125}),
    "Class2.1": votes_row((0.1, 0.9), {"Class2.1": 0.602}),
    "Class2.2": votes_row((0.1, 0.85), {"Class2.1": 0.135, "Class4.1": 0.7}) | {"Class2.2": 0.715},
    "Class4.1": votes_row((0.05, 0.95), {"Class2.1": 0.1, "Class4.1": 0.619}),
}


def test_nothing_selected_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: dict[str, Any]) -> None:
    monkeypatch.chdir(tmp_path)
    for path, text in (
        (Path("params.yaml"), yaml.safe_dump(committed)),
        (RAW_MANIFEST, json.dumps({"table": "votes"})),
        (RAW_TABLE, pd.DataFrame([{ID: "a"} | ON_A_THRESHOLD["Class7.1"]]).to_csv(index=False)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with pytest.raises(HiwlError, match="none of 1 galaxies is selected"):
        select.main()
    assert not CLEAN_TABLE.exists()


def competition() -> pd.DataFrame:
    """A made-up valid table with the competition's number of rows and the paper's number of each class."""
    rows = [CLEAR[name] for name, number in PAPER.items() for _ in range(number)]
    rows += [row for row in ON_A_THRESHOLD.values() for _ in range(100)]
    unclear = votes_row((0.5, 0.4), {"Class7.1": 0.25, "Class7.2": 0.25})
    rows += [unclear] * (61578 - len(rows))
    table = pd.DataFrame(rows)
    table.insert(0, ID, np.random.default_rng(0).permutation(900_000)[: len(table)] + 100_000)
    return table


def write_raw(votes: pd.DataFrame, expected: dict[str, int] | None, committed: dict[str, Any]) -> None:
    RAW_TABLE.parent.mkdir(parents=True, exist_ok=True)
    votes.to_csv(RAW_TABLE, index=False)
    RAW_MANIFEST.write_text(json.dumps({"table": "votes"}))
    section = committed["select"] | {"expected": expected}
    Path("params.yaml").write_text(yaml.safe_dump(committed | {"select": section}))


def test_the_made_up_rows_are_valid_votes_and_lie_on_the_thresholds() -> None:
    for row in [*CLEAR.values(), *ON_A_THRESHOLD.values()]:
        for number, task in TASKS.items():
            reached = 1.0 if task.reached_by is None else row[task.reached_by]
            assert sum(row[column] for column in task.columns(number)) == pytest.approx(reached, abs=SUM_TOLERANCE)
    for column, value in {"Class7.1": 0.5, "Class7.3": 0.5, "Class2.2": 0.715, "Class4.1": 0.619}.items():
        assert ON_A_THRESHOLD[column][column] == value


def test_the_papers_counts_come_out_of_a_table_like_the_competitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_raw(competition(), PAPER, committed)
    select.main()
    clean = pd.read_csv(CLEAN_TABLE)
    assert len(clean) == 28790
    assert clean["class"].value_counts().to_dict() == PAPER
    assert clean[ID].is_monotonic_increasing
    assert {"Class1.1", "Class7.3", "Class4.1"} <= set(clean.columns)


def test_one_galaxy_too_many_fails_and_leaves_no_clean_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    votes = competition()
    last = votes.index[-1]
    votes.loc[last, COLUMNS] = [CLEAR["CSS"][column] for column in COLUMNS]
    write_raw(votes, PAPER, committed)
    with pytest.raises(ContractError, match="579"):
        select.main()
    assert not CLEAN_TABLE.exists()


@pytest.mark.parametrize("column", ON_A_THRESHOLD)
def test_a_galaxy_on_a_threshold_is_rejected_and_just_above_it_taken(column: str, committed: dict[str, Any]) -> None:
    rules = committed["select"]["rules"]
    on = pd.DataFrame([{ID: 1, **ON_A_THRESHOLD[column]}])
    above = on.assign(**{column: np.nextafter(on[column], 1)})
    assert len(select_galaxies(on, rules)) == 0
    assert len(select_galaxies(above, rules)) == 1


@pytest.mark.parametrize(("column", "threshold"), [("Class1.1", 0.469), ("Class1.2", 0.430)])
def test_the_thresholds_on_the_first_question_are_strict_too(
    column: str, threshold: float, committed: dict[str, Any]
) -> None:
    # No valid table lets them decide, so the rule is tried on one that is not.
    row = CLEAR["CRS" if column == "Class1.1" else "EO"] | {column: threshold}
    rules = committed["select"]["rules"]
    assert len(select_galaxies(pd.DataFrame([{ID: 1, **row}]), rules)) == 0
    assert len(select_galaxies(pd.DataFrame([{ID: 1, **row, column: threshold + 1e-9}]), rules)) == 1


def test_rules_that_overlap_name_the_galaxies() -> None:
    votes = pd.DataFrame([{ID: 7, **CLEAR["CRS"]}, {ID: 8, **CLEAR["EO"]}])
    with pytest.raises(HiwlError, match=r"7 \(A and B\)"):
        select_galaxies(votes, {"A": {"Class7.1": 0.1}, "B": {"Class1.1": 0.2}})


def test_a_rule_on_an_unknown_column_is_named() -> None:
    with pytest.raises(HiwlError, match=r"Class12\.1"):
        select_galaxies(pd.DataFrame([{ID: 7, **CLEAR["CRS"]}]), {"A": {"Class12.1": 0.1}})


def test_the_class_votes_are_how_many_described_the_galaxy_so(committed: dict[str, Any]) -> None:
    clean = select_galaxies(competition(), committed["select"]["rules"])
    for name, column in {"CRS": "Class7.1", "CSS": "Class7.3", "EO": "Class2.1", "SPI": "Class4.1"}.items():
        assert clean[f"votes_{name}"].equals(clean[column].rename(f"votes_{name}"))
    total = clean[[f"votes_{name}" for name in PAPER]].sum(axis=1)
    assert total.between(0, 1 + SUM_TOLERANCE).all()


def test_votes_beside_labels_are_kept_and_must_agree_with_them(committed: dict[str, Any]) -> None:
    rules = committed["select"]["rules"]
    table = pd.DataFrame([{ID: 1, "class": "CRS", **CLEAR["CRS"]}, {ID: 2, "class": "EO", **CLEAR["EO"]}])
    table = pd.concat([table, pd.DataFrame([{ID: 3, "class": "SPI"}])], ignore_index=True)
    clean = labelled(table, rules)
    assert clean["class"].tolist() == ["CRS", "EO", "SPI"]
    assert clean["votes_EO"].isna().tolist() == [False, False, True]
    with pytest.raises(HiwlError, match=r"another class than the table of labels, or none: 2$"):
        labelled(table.assign(**{"class": ["CRS", "SPI", "SPI"]}), rules)
    assert list(labelled(table[[ID, "class"]], rules)) == [ID, "class"]
    with pytest.raises(HiwlError, match="another class than the table of labels"):
        labelled(table.assign(**{"class": ["CRS", "SPI", "Ring"]}), rules)
    own = table.assign(**{"class": ["early", "late", "late"]})  # classes that no rule knows
    assert labelled(own, rules)["class"].tolist() == ["early", "late", "late"]


def test_the_commonest_answers_lead_to_the_catalogues_codes() -> None:
    bar, plain = {"Class3.1": 0.7}, {"Class3.2": 0.9}
    face_on = {"Class2.1": 0.1}
    rows = {
        "Er": CLEAR["CRS"],
        "Ec": CLEAR["CSS"],
        "Ser": votes_row((0.1, 0.9), {"Class2.1": 0.7, "Class9.1": 0.6}),
        "Sc": votes_row((0.1, 0.9), face_on | plain | {"Class5.2": 0.6}),
        "SBb": votes_row((0.1, 0.9), face_on | bar | {"Class5.3": 0.6}),
        "Sd": votes_row((0.3, 0.7), face_on | {"Class3.1": 0.1, "Class5.1": 0.5}),
        "SBa": votes_row((0.1, 0.9), face_on | bar | {"Class5.1": 0.1}),
        "star": votes_row((0.2, 0.2), {}),
    }
    votes = pd.DataFrame([{ID: name} | row for name, row in rows.items()])
    found = commonest(votes, {"SBa": "SBb"}).set_index(ID)["class"].to_dict()
    assert found == {name: name for name in rows if name not in ("star", "SBa")} | {"SBa": "SBb"}
