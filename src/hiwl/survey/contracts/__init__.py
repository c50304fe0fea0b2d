"""Data contracts between stages: Great Expectations suites that stop the pipeline when a table breaks them.

What comes of a validation is three files, the same bytes for the same table: `suite.json`, the expectations as Great
Expectations keeps them; `validation.json`; and `validation.html`, one page to look at that needs nothing else. They
hold no time and no identifier of a run, so DVC sees a change only where the data changed. ``data/contracts.html`` shows
all pages.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hiwl.core import files
from hiwl.core.errors import HiwlError
from hiwl.core.layout import ID, WORK
from hiwl.core.pages import page
from hiwl.core.settings import project_root

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # GX reads it when it makes a context

ROWS_SHOWN = 10


class ContractError(HiwlError):
    """A table is not what the next stage relies on."""


def enforce(name: str, frame: pd.DataFrame, expectations: "Sequence[Expectation]", folder: Path) -> None:
    """Check `frame` against `expectations` and write what comes of it into `folder`.

    Raises:
        ContractError: where an expectation fails, naming it, its columns, what was observed and the first
            offending rows. The files are then in `.work/contracts/<name>` of the project's root instead.
    """
    checks, suite = _validate(name, frame.reset_index(drop=True), expectations)
    failed = [check for check in checks if not check["passed"]]
    content = {"contract": name, "passed": not failed, "rows": len(frame), "expectations": checks}
    failures = project_root() / WORK / "contracts" / name
    shutil.rmtree(failures, ignore_errors=True)  # an earlier failure is over, or told anew
    target = failures if failed else folder
    files.write_json(target / "suite.json", suite)
    files.write_json(target / "validation.json", content)
    files.write_text(target / "validation.html", _page(content))
    if failed:
        raise ContractError(
            f"{name}: {len(failed)} of {len(checks)} expectations failed; see {target / 'validation.html'}\n"
            + "\n".join(_explain(check) for check in failed)
        )


def _validate(
    name: str, frame: pd.DataFrame, expectations: "Sequence[Expectation]"
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What came of each expectation, in their order; and the suite, as Great Expectations keeps it."""
    import great_expectations as gx  # takes seconds
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
    # Results come in an order that changes from run to run: each carries its number, to be put back by.
    numbered = [each.copy(update={"meta": {"number": number}}) for number, each in enumerate(expectations)]
    suite = gx.ExpectationSuite(name=name, expectations=numbered)
    # Offending rows come by their place: GX could name them by GalaxyID, but needs minutes if all rows fail.
    result_format = {"result_format": "SUMMARY", "partial_unexpected_count": ROWS_SHOWN}
    results = [result.to_json_dict() for result in batch.validate(suite, result_format=result_format).results]
    results.sort(key=lambda result: result["expectation_config"]["meta"]["number"])
    kept = suite.to_json_dict()
    for expectation in kept["expectations"]:
        expectation.pop("id", None)  # drawn anew each time
    return [_summary(result, frame) for result in results], {key: kept[key] for key in ("name", "expectations", "meta")}


def _summary(result: dict[str, Any], frame: pd.DataFrame) -> dict[str, Any]:
    """What is worth keeping of one of GX's results, with the first rows that it is against."""
    rule = dict(result["expectation_config"]["kwargs"])
    rule.pop("batch_id", None)
    if condition := rule.pop("row_condition", None):
        rule["where"] = f"{condition['column']['name']} {condition['operator']} {condition['parameter']}"
    columns = [rule.pop("column")] if "column" in rule else rule.pop("column_list", rule.pop("column_set", []))
    places = result["result"].get("partial_unexpected_index_list") or []
    names = list(dict.fromkeys(name for name in (ID, *columns) if name in frame.columns))
    return {
        "expectation": result["expectation_config"]["type"],
        "columns": columns,
        "rule": "; ".join(f"{key.strip('_').replace('_', ' ')} {value}" for key, value in rule.items()),
        "passed": result["success"],
        "observed": _observed(result),
        "first_rows": frame.iloc[places][names].map(str).to_dict("records") if places else [],
    }


def _observed(result: dict[str, Any]) -> str:
    # Where a metric raised, this is one dictionary per metric; else it is one flat dictionary.
    raised = {info["exception_message"] for info in result["exception_info"].values() if isinstance(info, dict)}
    if raised:
        return "not checked: " + "; ".join(sorted(raised))
    found = result["result"]
    if "unexpected_count" in found:
        return f"{found['unexpected_count']:,} of {found['element_count']:,} rows against it"
    mismatched = found.get("details", {}).get("mismatched")
    if isinstance(mismatched, dict):  # a set of columns: which are missing, which unexpected
        return "; ".join(f"{kind}: {', '.join(sorted(names))}" for kind, names in sorted(mismatched.items()))
    value = found.get("observed_value")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _explain(check: dict[str, Any]) -> str:
    columns = check["columns"]
    about = ", ".join(columns) if len(columns) <= 8 else f"{len(columns)} columns"
    said = "; ".join(part for part in (about, check["rule"]) if part)
    rows = ("\n    " + ", ".join(f"{key} {value}" for key, value in row.items()) for row in check["first_rows"])
    return f"- {check['expectation']} ({said}): {check['observed']}" + "".join(rows)


def _page(content: dict[str, Any]) -> str:
    failed, passed = ([c for c in content["expectations"] if c["passed"] is is_passed] for is_passed in (False, True))
    values = content | {"failed_checks": failed, "passed_checks": passed}
    return page(Path(__file__).with_name("page.html.jinja"), values)


def counts(column: str, expected: dict[str, int]) -> "list[Expectation]":
    """Expectations that `column` holds each value exactly so many times."""
    import great_expectations.expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    return [
        gxe.ExpectTableRowCountToEqual(value=number, row_condition=Column(column) == value)
        for value, number in expected.items()
    ]
