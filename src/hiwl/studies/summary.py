"""What ``docs/results.md`` and the README's headline say: the best here, and the method, beside the paper."""

from typing import Any

from hiwl.studies import paper
from hiwl.studies.compare import read_claims, weigh
from hiwl.studies.study_page import Report, finding, right_share, started_from
from hiwl.studies.table import hours

GOALS = {"accuracy": 0.98, "recall": 0.85}
"""Of test accuracy, and of the recall of the rarest class, in one model."""


def summary(report: Report) -> dict[str, Any]:
    """What ``docs/results.md`` says."""
    best, equal_cost = best_cell(report), budget(report)
    return {
        "report": report,
        "best": best,
        "budget": equal_cost,
        "columns": columns(report, best) if best else [],
        "claims": weigh(read_claims(), report.of(equal_cost)) if equal_cost else [],
        "findings": {name: finding(report, name) for name in report.current()},
        "missing": {name: len(runs) - len(report.of(name)) for name, runs in report.planned.items()},
        "runs": report.runs["file"].nunique(),
        "hours": f"{hours(report.kept, report.runs['file']):.0f}",
        "has_paper": len(report.of("paper")) > 0,
        "goals": GOALS,
    }


def best_cell(report: Report) -> tuple[str, str] | None:
    """Study and cell that did best on validation, of all that were tested on a split of the paper's sizes.

    A cell whose runs are some of another's is left to that one, lest the luckiest of several seeds stands for all.
    """
    sizes = {part: sum(paper.SPLITS[part]) for part in ("validation", "test")}
    runs = report.runs
    if "test_accuracy" not in runs:
        return None
    tested = runs[runs["test_accuracy"].notna() & runs["fold"].isna()]
    tested = tested[(tested["validation"] == sizes["validation"]) & (tested["test"] == sizes["test"])]
    of_cell = {key: set(rows["definition"]) for key, rows in tested.groupby(["study", "cell"])}
    whole = [key for key, own in of_cell.items() if not any(own < other for other in of_cell.values())]
    mean: dict[Any, float] = tested.groupby(["study", "cell"])["validation_accuracy"].mean().to_dict()
    best: Any = max(whole, key=lambda key: mean[key], default=None)
    return None if best is None else (str(best[0]), str(best[1]))


def budget(report: Report) -> str | None:
    """The study in which the method stands beside a plain layer at equal passes."""
    for name in ("paper", *report.current()):
        if all(len(report.of(name, cell)) for cell in ("hiwl", "plain")):
            return name
    return None


def columns(report: Report, best: tuple[str, str]) -> list[dict[str, Any]]:
    """The four columns of the summary: the paper, the best here, the method at this budget, a plain layer at it."""
    papers = paper.paper_metrics()
    rare = report.of(*best)["rarest"].iloc[0]
    cigars = papers["per_class"].get(rare, papers["per_class"]["CSS"])
    found = [
        {
            "title": "the paper",
            "network": "EfficientNet-B1, 240 px",
            "runs": 1,
            "galaxies": papers["galaxies"],
            "accuracy": {"mean": papers["accuracy"], "sd": None, "interval": papers["accuracy_interval"]},
            "recall": {"mean": cigars["recall"], "sd": None, "interval": (cigars["recall_low"], cigars["recall_high"])},
            "precision": cigars["precision"],
            "mean_recall": papers["mean_recall"],
            "validation": paper.VALIDATION_ACCURACY,
            "start": "ImageNet",
            "passes": paper.passes("training"),
        }
    ]
    cells = [("our best", *best)]
    if equal_cost := budget(report):
        cells += [("the method, same budget", equal_cost, "hiwl"), ("a plain layer, same budget", equal_cost, "plain")]
    for title, study, cell in cells:
        rows = report.of(study, cell)
        files = rows["file"].tolist()
        found.append(
            {
                "title": title,
                "study": study,
                "network": f"{rows['backbone'].iloc[0]}, {rows['input'].iloc[0]} px",
                "runs": len(rows),
                "galaxies": int(rows["test"].iloc[0]),
                "accuracy": right_share(files),
                "recall": right_share(files, rare),
                "precision": float(rows[f"test_precision_{rare}"].mean()),
                "mean_recall": float(rows["test_mean_recall"].mean()),
                "validation": float(rows["validation_accuracy"].mean()),
                "start": started_from(str(rows["started_from"].iloc[0])),
                "passes": int(rows["passes"].iloc[0]),
                "rarest": rare,
            }
        )
    return found
