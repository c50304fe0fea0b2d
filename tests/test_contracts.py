"""Contracts: a good table passes with the same bytes each time, a bad one is stopped and told of in full."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiwl import votes
from hiwl.contracts import ContractError, enforce
from hiwl.expectations import HAS_IMAGE, votes_expectations

OUT = Path("out")
FAILED = Path(".work/contracts/votes")


def table(galaxies: int, seed: int) -> pd.DataFrame:
    """Random votes down the tree, rounded as in the published table."""
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {}
    for number, task in votes.TASKS.items():
        reached = columns[task.reached_by] if task.reached_by else np.ones(galaxies)
        # A small concentration makes answers that nobody gave.
        answers = rng.dirichlet(np.full(task.answers, 0.3), galaxies) * reached[:, None]
        columns |= dict(zip(task.columns(number), answers.T, strict=True))
    fractions = {name: columns[name].round(6) for name in votes.COLUMNS}
    return pd.DataFrame({votes.ID: np.arange(galaxies) * 7 + 100008, **fractions, HAS_IMAGE: True})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)


def failure(frame: pd.DataFrame) -> str:
    with pytest.raises(ContractError) as caught:
        enforce("votes", frame, votes_expectations(), OUT)
    assert not OUT.exists()
    assert {path.name for path in FAILED.iterdir()} == {"validation.json", "validation.html"}
    message = str(caught.value)
    assert str(FAILED / "validation.html") in message
    return message


def part_about(message: str, expectation: str, about: str) -> list[str]:
    """The lines on one failed expectation: itself, then the offending rows."""
    blocks = [block.splitlines() for block in message.split("\n- ")[1:]]
    return next(lines for lines in blocks if lines[0].startswith(f"{expectation} ({about}"))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40), st.integers(0, 2**32))
def test_a_table_made_down_the_tree_passes(galaxies: int, seed: int) -> None:
    enforce("votes", table(galaxies, seed), votes_expectations(), OUT)
    content = json.loads((OUT / "validation.json").read_text())
    assert content["passed"] and content["rows"] == galaxies
    assert len(content["expectations"]) == len(votes_expectations())
    assert not Path(".work").exists()


def test_the_same_table_gives_the_same_bytes_in_another_process() -> None:
    frame = table(20, 1)
    enforce("votes", frame, votes_expectations(), OUT)
    frame.to_csv("votes.csv", index=False)
    code = """
import pandas as pd
from pathlib import Path
from hiwl.contracts import enforce
from hiwl.expectations import votes_expectations
enforce("votes", pd.read_csv("votes.csv"), votes_expectations(), Path("again"))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in ("validation.json", "validation.html"):
        assert (OUT / name).read_bytes() == Path("again", name).read_bytes()


def test_the_page_needs_nothing_else_and_escapes_what_it_shows() -> None:
    frame = table(5, 2)
    frame["<script>"] = 1
    failure(frame)
    page = (FAILED / "validation.html").read_text()
    assert "&lt;script&gt;" in page
    for outside in ("<script", "<link", "src=", "href=", "http", "@import"):
        assert outside not in page


@pytest.mark.parametrize("value", [-0.000001, 1.000001, float("inf")])
def test_a_fraction_out_of_range_is_named(value: float) -> None:
    frame = table(10, 3)
    frame.loc[4, "Class6.1"] = value
    lines = part_about(
        failure(frame), "expect_column_values_to_be_between", "Class6.1; min value 0.0; max value 1.0"
    )
    assert lines[0].endswith("1 of 10 rows against it")
    assert lines[1].strip() == f"GalaxyID 100036, Class6.1 {value}"


@pytest.mark.parametrize("column", [votes.ID, "Class9.2", HAS_IMAGE])
def test_a_missing_value_is_named(column: str) -> None:
    frame = table(10, 4)
    frame[column] = frame[column].astype(object)
    frame.loc[4, column] = None
    lines = part_about(failure(frame), "expect_column_values_to_not_be_null", column)
    assert lines[0].endswith("1 of 10 rows against it")
    assert column == votes.ID or lines[1].strip().startswith("GalaxyID 100036")


def test_a_duplicate_is_named() -> None:
    frame = table(10, 5)
    frame.loc[9, votes.ID] = 100008
    lines = part_about(failure(frame), "expect_column_values_to_be_unique", votes.ID)
    assert lines[0].endswith("2 of 10 rows against it")
    assert [line.strip() for line in lines[1:]] == ["GalaxyID 100008", "GalaxyID 100008"]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(votes.TASKS)), st.integers(0, 9), st.sampled_from([-1e-5, 1e-5]), st.data())
def test_a_sum_off_by_a_hundred_thousandth_is_named(
    number: int, row: int, error: float, data: st.DataObject
) -> None:
    frame = table(10, 6)
    task = votes.TASKS[number]
    column = data.draw(st.sampled_from(task.columns(number)))
    frame.loc[row, column] += error
    about = ", ".join(task.columns(number) + ([task.reached_by] if task.reached_by else []))
    lines = part_about(failure(frame), "expect_answers_sum_to_what_reached_the_task", about)
    assert "tolerance 5e-06" in lines[0] and lines[0].endswith("1 of 10 rows against it")
    assert lines[1].strip().startswith(f"GalaxyID {100008 + 7 * row}, {task.columns(number)[0]} ")


def test_a_missing_column_is_named() -> None:
    message = failure(table(10, 7).drop(columns="Class5.4"))
    assert part_about(message, "expect_table_columns_to_match_set", "39 columns")[0].endswith(
        "missing: Class5.4"
    )


def test_columns_in_another_order_are_named() -> None:
    frame = table(10, 7)
    message = failure(frame[[HAS_IMAGE, votes.ID, *votes.COLUMNS]])
    assert (
        "has_image, GalaxyID, Class1.1"
        in part_about(message, "expect_table_columns_to_match_ordered_list", "39 columns")[0]
    )


@pytest.mark.parametrize(
    ("column", "kind", "expected"), [(votes.ID, "float64", "int64"), ("Class1.1", "str", "float64")]
)
def test_a_wrong_type_is_named(column: str, kind: str, expected: str) -> None:
    frame = table(10, 8)
    frame[column] = frame[column].astype(kind)
    lines = part_about(failure(frame), "expect_column_values_to_be_of_type", f"{column}; type {expected}")
    assert lines[0].endswith(f": {kind}")


def test_galaxies_without_image_are_named_ten_of_them_and_counted() -> None:
    frame = table(100, 9)
    frame.loc[20:59, HAS_IMAGE] = False
    lines = part_about(failure(frame), "expect_column_values_to_be_in_set", "has_image; value set [True]")
    assert lines[0].endswith("40 of 100 rows against it")
    assert [line.strip() for line in lines[1:]] == [
        f"GalaxyID {100008 + 7 * row}, has_image False" for row in range(20, 30)
    ]


@pytest.mark.parametrize("reindex", [lambda frame: frame[::-1], lambda frame: frame.set_axis([3] * 10)])
def test_rows_are_found_whatever_the_index(reindex: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    frame = table(10, 10)
    frame.loc[frame[votes.ID] == 100029, HAS_IMAGE] = False
    lines = part_about(failure(reindex(frame)), "expect_column_values_to_be_in_set", HAS_IMAGE)
    assert [line.strip() for line in lines[1:]] == ["GalaxyID 100029, has_image False"]


def test_a_failure_leaves_earlier_results_alone_and_success_clears_it() -> None:
    enforce("votes", table(10, 11), votes_expectations(), OUT)
    before = {path.name: path.read_bytes() for path in OUT.iterdir()}
    with pytest.raises(ContractError):
        enforce("votes", table(10, 11).assign(has_image=False), votes_expectations(), OUT)
    assert before == {path.name: path.read_bytes() for path in OUT.iterdir()}
    enforce("votes", table(10, 11), votes_expectations(), OUT)
    assert not FAILED.exists()


def test_importing_contracts_leaves_great_expectations_alone() -> None:
    code = "import sys, hiwl.contracts; assert 'great_expectations' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
