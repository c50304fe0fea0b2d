"""Contracts: a good table passes with the same bytes each time, a bad one is stopped and told of in full."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiwl.core.layout import ID
from hiwl.survey import votes
from hiwl.survey.contracts import ContractError, enforce
from hiwl.survey.contracts.expectations import HAS_IMAGE, survey_expectations, votes_expectations

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
    return pd.DataFrame({ID: np.arange(galaxies) * 7 + 100008, **fractions, HAS_IMAGE: True})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)


def failure(frame: pd.DataFrame, kind: str) -> str:
    """What breaking the expectations of this kind, of all on votes, is answered with."""
    every = [*survey_expectations(), *votes_expectations()]
    of_kind = [each for each in every if each.expectation_type == kind]
    with pytest.raises(ContractError) as caught:
        enforce("votes", frame, of_kind, OUT)
    assert not OUT.exists()
    assert {path.name for path in FAILED.iterdir()} == {"suite.json", "validation.json", "validation.html"}
    message = str(caught.value)
    assert str(FAILED / "validation.html") in message
    return message


def part_about(message: str, expectation: str, about: str) -> list[str]:
    """The lines on one failed expectation: itself, then the offending rows."""
    blocks = [block.splitlines() for block in message.split("\n- ")[1:]]
    return next(lines for lines in blocks if lines[0].startswith(f"{expectation} ({about}"))


@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40), st.integers(0, 2**32))
def test_a_table_made_down_the_tree_passes(galaxies: int, seed: int) -> None:
    enforce("votes", table(galaxies, seed), votes_expectations(), OUT)
    content = json.loads((OUT / "validation.json").read_text())
    assert content["passed"] and content["rows"] == galaxies
    assert len(content["expectations"]) == len(votes_expectations())
    assert not Path(".work").exists()


@pytest.mark.process
def test_the_same_table_gives_the_same_bytes_in_another_process() -> None:
    frame = table(20, 1)
    enforce("votes", frame, votes_expectations(), OUT)
    frame.to_csv("votes.csv", index=False)
    code = """
import sys
import pandas as pd
from pathlib import Path
from hiwl.survey.contracts import enforce
assert "great_expectations" not in sys.modules  # importing a stage is cheap
from hiwl.survey.contracts.expectations import votes_expectations
enforce("votes", pd.read_csv("votes.csv"), votes_expectations(), Path("again"))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in ("suite.json", "validation.json", "validation.html"):
        assert (OUT / name).read_bytes() == Path("again", name).read_bytes()


def test_the_page_needs_nothing_else_and_escapes_what_it_shows() -> None:
    frame = table(5, 2)
    failure(frame.assign(**{ID: "<script>"}), "expect_column_values_to_be_unique")
    page = (FAILED / "validation.html").read_text()
    assert "&lt;script&gt;" in page
    for outside in ("<script", "<link", "src=", "href=", "http", "@import"):
        assert outside not in page


def test_fractions_out_of_range_are_named() -> None:
    frame = table(10, 3)
    frame.loc[[2, 4, 5], "Class6.1"] = [-0.000001, 1.000001, float("inf")]
    lines = part_about(
        failure(frame, "expect_column_values_to_be_between"),
        "expect_column_values_to_be_between",
        "Class6.1; min value 0.0; max value 1.0",
    )
    assert lines[0].endswith("3 of 10 rows against it")
    assert [line.strip() for line in lines[1:]] == [
        "GalaxyID 100022, Class6.1 -1e-06",
        "GalaxyID 100036, Class6.1 1.000001",
        "GalaxyID 100043, Class6.1 inf",
    ]


def test_missing_values_are_named() -> None:
    frame = table(10, 4).astype({ID: "object"})
    for row, column in enumerate([ID, "Class1.2"]):
        frame.loc[row, column] = None
    message = failure(frame, "expect_column_values_to_not_be_null")
    for column, told in (
        (ID, "GalaxyID None"),
        ("Class1.2", "GalaxyID 100015, Class1.2 nan"),
    ):
        lines = part_about(message, "expect_column_values_to_not_be_null", column)
        assert lines[0].endswith("1 of 10 rows against it")
        assert lines[1].strip() == told


def test_a_duplicate_is_named() -> None:
    frame = table(10, 5)
    frame.loc[9, ID] = 100008
    lines = part_about(failure(frame, "expect_column_values_to_be_unique"), "expect_column_values_to_be_unique", ID)
    assert lines[0].endswith("2 of 10 rows against it")
    assert [line.strip() for line in lines[1:]] == ["GalaxyID 100008", "GalaxyID 100008"]


@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([-1e-5, 1e-5]), min_size=11, max_size=11), st.integers(0, 2**32))
def test_sums_off_by_a_hundred_thousandth_are_named(errors: list[float], seed: int) -> None:
    frame = table(12, seed)
    for row, (error, (number, task)) in enumerate(zip(errors, votes.TASKS.items(), strict=True)):
        frame[task.columns(number)[-1]] += np.where(frame.index == row, error, 0)
    message = failure(frame, "expect_answers_sum_to_what_reached_the_task")
    for row, (number, task) in enumerate(votes.TASKS.items()):
        about = ", ".join(task.columns(number) + ([task.reached_by] if task.reached_by else []))
        lines = part_about(message, "expect_answers_sum_to_what_reached_the_task", about)
        assert "tolerance 5e-06" in lines[0]
        assert any(line.strip().startswith(f"GalaxyID {100008 + 7 * row}, ") for line in lines[1:])
        assert not any("GalaxyID 100085" in line for line in lines)  # the twelfth, which is right


def test_a_missing_column_is_named() -> None:
    message = failure(table(10, 7).drop(columns="Class5.4"), "expect_table_columns_to_match_set")
    assert "missing: Class5.4" in part_about(message, "expect_table_columns_to_match_set", "37 columns")[0]


def test_what_a_value_means_counts_and_not_how_it_is_written() -> None:
    frame = table(10, 8)
    frame[votes.TASKS[8].columns(8)] = np.nan  # who answered a task is not known of anyone
    frame[["Class6.1", "Class6.2"]] = [0, 1]  # whole numbers
    enforce("votes", frame[[HAS_IMAGE, *votes.COLUMNS[::-1], ID]], [*survey_expectations(), *votes_expectations()], OUT)
    shutil.rmtree(OUT)
    frame.loc[3, "Class8.4"] = 0.0
    assert "GalaxyID 100029" in failure(frame, "expect_answers_sum_to_what_reached_the_task")


def test_text_in_place_of_numbers_is_named() -> None:
    message = failure(table(10, 8).astype({"Class1.1": "str"}), "expect_column_values_to_be_in_type_list")
    told = part_about(message, "expect_column_values_to_be_in_type_list", "Class1.1")[0]
    assert told.endswith(": str")


def test_galaxies_without_image_are_named_ten_of_them_and_counted() -> None:
    frame = table(100, 9)
    frame.loc[20:59, HAS_IMAGE] = False
    lines = part_about(
        failure(frame, "expect_column_values_to_be_in_set"),
        "expect_column_values_to_be_in_set",
        "has_image; value set [True]",
    )
    assert lines[0].endswith("40 of 100 rows against it")
    assert [line.strip() for line in lines[1:]] == [
        f"GalaxyID {100008 + 7 * row}, has_image False" for row in range(20, 30)
    ]


def test_rows_are_found_whatever_the_index() -> None:
    frame = table(10, 10).set_axis([3] * 10)
    frame[HAS_IMAGE] = frame[ID] != 100029
    lines = part_about(
        failure(frame, "expect_column_values_to_be_in_set"), "expect_column_values_to_be_in_set", HAS_IMAGE
    )
    assert [line.strip() for line in lines[1:]] == ["GalaxyID 100029, has_image False"]


def test_a_failure_leaves_earlier_results_alone_and_success_clears_it() -> None:
    import great_expectations.expectations as gxe

    unique, twice = pd.DataFrame({ID: [1, 2]}), pd.DataFrame({ID: [1, 1]})
    expected = [gxe.ExpectColumnValuesToBeUnique(column=ID)]
    enforce("votes", unique, expected, OUT)
    before = {path.name: path.read_bytes() for path in OUT.iterdir()}
    with pytest.raises(ContractError):
        enforce("votes", twice, expected, OUT)
    assert before == {path.name: path.read_bytes() for path in OUT.iterdir()}
    assert FAILED.exists()
    enforce("votes", unique, expected, OUT)
    assert not FAILED.exists()
