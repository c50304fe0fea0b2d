"""What a table of votes must be, said as Great Expectations (GX).

GX's own expectations cover columns, types, ranges and uniqueness; the sums down the decision tree need one of
ours. Stages import this module when they run, since it takes seconds.
"""

import pandas as pd
from great_expectations import expectations as gxe
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import Expectation, MulticolumnMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import (
    MulticolumnMapMetricProvider,
    multicolumn_condition_partial,
)

from hiwl.core.layout import ID
from hiwl.survey import votes

HAS_IMAGE = "has_image"


class AnswersSumToWhatReachedTheTask(MulticolumnMapMetricProvider):  # type: ignore[misc]  # GX is untyped here
    """Row by row: do the answers sum to the fraction that reached their task? GX finds this by its name."""

    condition_metric_name = "multicolumn_values.answers_sum_to_what_reached_the_task"
    condition_domain_keys = (
        "batch_id",
        "table",
        "column_list",
        "row_condition",
        "condition_parser",
        "ignore_row_if",
    )
    condition_value_keys = ("reached_by", "tolerance")

    @multicolumn_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(
        cls,  # the decorator makes it a class method
        column_list: pd.DataFrame,
        reached_by: str | None,
        tolerance: float,
        **_: object,
    ) -> "pd.Series[bool]":
        answers = column_list.drop(columns=reached_by or [])
        reached = 1 if reached_by is None else column_list[reached_by]
        fits: pd.Series[bool] = (answers.sum(axis=1, skipna=False) - reached).abs() <= tolerance
        return fits | answers.isna().all(axis=1)


class ExpectAnswersSumToWhatReachedTheTask(MulticolumnMapExpectation):  # type: ignore[misc]
    """Expect a task's answers to sum to the fraction of votes that reached the task, or all of them to be unknown.

    `column_list` holds the answers' columns and the one that reaches the task; `reached_by` names the latter
    (None: everyone reached the task, the sum is 1); `tolerance` is the largest difference allowed.
    """

    reached_by: str | None
    tolerance: float

    map_metric = AnswersSumToWhatReachedTheTask.condition_metric_name
    success_keys = ("mostly", "reached_by", "tolerance")


def survey_expectations() -> list[Expectation]:
    """What the raw table of any survey must be: each galaxy once, with an ID and a picture."""
    return [
        gxe.ExpectColumnToExist(column=ID),
        gxe.ExpectColumnValuesToNotBeNull(column=ID),
        gxe.ExpectColumnValuesToBeUnique(column=ID),
        gxe.ExpectColumnValuesToBeInSet(column=HAS_IMAGE, value_set=[True]),
    ]


def labels_expectations() -> list[Expectation]:
    """Of a survey by label: each galaxy has a class."""
    return [gxe.ExpectColumnToExist(column="class"), gxe.ExpectColumnValuesToNotBeNull(column="class")]


def votes_expectations(some: bool = False) -> list[Expectation]:
    """What votes must be, whatever table brings them: the competition's columns, of numbers, whole or not.

    The first task's answers are known, of `some` galaxies at least; fractions lie in [0, 1]; every task's answers sum
    to what reached the task within `votes.SUM_TOLERANCE`, or all of them are unknown.
    """
    first = [] if some else votes.TASKS[1].columns(1)
    return [
        gxe.ExpectTableColumnsToMatchSet(column_set=votes.COLUMNS, exact_match=False),
        *(
            gxe.ExpectColumnValuesToBeInTypeList(column=column, type_list=["float64", "int64"])
            for column in votes.COLUMNS
        ),
        *(gxe.ExpectColumnValuesToNotBeNull(column=column) for column in first),
        *(gxe.ExpectColumnValuesToBeBetween(column=column, min_value=0, max_value=1) for column in votes.COLUMNS),
        *(
            ExpectAnswersSumToWhatReachedTheTask(
                column_list=task.columns(number) + ([task.reached_by] if task.reached_by else []),
                reached_by=task.reached_by,
                tolerance=votes.SUM_TOLERANCE,
            )
            for number, task in votes.TASKS.items()
        ),
    ]
