"""The pages that people read, from the table of runs: prose stands in the templates beside this file."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sklearn.metrics import confusion_matrix

from hiwl.core.files import write_text
from hiwl.core.layout import FIGURES
from hiwl.core.record import Kept
from hiwl.measure import tsne
from hiwl.measure.intervals import over_galaxies, wilson
from hiwl.measure.label_noise import doubts
from hiwl.measure.plots import draw_confusion, draw_history, headless_pyplot, save
from hiwl.studies import paper
from hiwl.studies.compare import compare, read_claims, weigh
from hiwl.studies.plan import Planned, Study
from hiwl.studies.table import answers_of, class_counts, is_right, measured

DOCS = Path("docs")
GOALS = {"accuracy": 0.98, "recall": 0.85}
"""Of test accuracy, and of the recall of the rarest class, in one model."""


class Report(NamedTuple):
    """What the pages are made from."""

    studies: dict[str, Study]
    planned: dict[str, list[Planned]]
    runs: pd.DataFrame
    nodes: pd.DataFrame
    kept: dict[str, Kept]
    noise: dict[str, tuple[dict[str, Any], pd.DataFrame]]
    """By survey, what `hiwl redraw` found: of all galaxies, and of each."""

    def of(self, study: str, cell: str | None = None) -> pd.DataFrame:
        """The runs of a study, or of one of its cells."""
        found = self.runs[self.runs["study"] == study]
        return found if cell is None else found[found["cell"] == cell]

    def current(self) -> list[str]:
        """The studies that have runs and are not superseded, those that were tested first."""
        names = [name for name, study in self.studies.items() if not study.superseded and len(self.of(name))]
        return sorted(names, key=lambda name: (self.studies[name].until == "choose", name))


def write_pages(report: Report) -> list[Path]:
    """Write ``docs/results.md``, ``docs/results/*`` and ``report.html``; gives what was written."""
    folder = DOCS / "results"
    pages = {DOCS / "results.md": _render("summary", **summary(report))}
    charts: dict[Path, Any] = {}
    if (best := best_cell(report)) is not None:
        charts[DOCS / "results.svg"] = _summary_chart(_columns(report, best))
    for name in report.current():
        pages[folder / f"{name}.md"] = _render("study", **study_page(report, name))
        charts[folder / f"{name}.svg"] = _study_chart(report, name)
    if report.noise:
        pages[folder / "label-noise.md"] = _render("label_noise", **noise_page(report, best))
    pages[folder / "paper.md"] = _render("paper", splits=splits_of(report))
    pages[folder / "earlier.md"] = _render("earlier", **earlier_page(report))
    for path, figure in charts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        save(figure, path)
    for path, text in pages.items():
        write_text(path, text)
    for stale in {*folder.glob("*.md"), *folder.glob("*.svg")} - {*pages, *charts}:
        stale.unlink()
    write_text(Path("report.html"), _html(report, pages))
    return [*pages, *charts, Path("report.html")]


def summary(report: Report) -> dict[str, Any]:
    """What ``docs/results.md`` says."""
    best, budget = best_cell(report), _budget(report)
    return {
        "report": report,
        "best": best,
        "budget": budget,
        "columns": _columns(report, best) if best else [],
        "claims": weigh(read_claims(), report.of(budget)) if budget else [],
        "findings": {
            name: _finding(report.studies[name], report.of(name), compare(report.studies[name], report.of(name)))
            for name in report.current()
        },
        "missing": {name: len(runs) - len(report.of(name)) for name, runs in report.planned.items()},
        "runs": report.runs["file"].nunique(),
        "hours": f"{report.runs.drop_duplicates('file')['hours'].sum():.0f}",
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


def _budget(report: Report) -> str | None:
    """The study in which the method stands beside a plain layer at equal passes."""
    for name in ("paper", *report.current()):
        if all(len(report.of(name, cell)) for cell in ("hiwl", "plain")):
            return name
    return None


def _columns(report: Report, best: tuple[str, str]) -> list[dict[str, Any]]:
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
            "recall": {
                "mean": cigars["recall"],
                "sd": None,
                "interval": (cigars["recall_low"], cigars["recall_high"]),
            },
            "precision": cigars["precision"],
            "mean_recall": papers["mean_recall"],
            "validation": paper.VALIDATION_ACCURACY,
            "passes": paper.passes("training"),
        }
    ]
    cells = [("our best", *best)]
    if budget := _budget(report):
        cells += [("the method, same budget", budget, "hiwl"), ("a plain layer, same budget", budget, "plain")]
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
                "accuracy": _right(files),
                "recall": _right(files, rare),
                "precision": float(rows[f"test_precision_{rare}"].mean()),
                "mean_recall": float(rows["test_mean_recall"].mean()),
                "validation": float(rows["validation_accuracy"].mean()),
                "passes": int(rows["passes"].iloc[0]),
                "rarest": rare,
            }
        )
    return found


def _right(files: list[str], of_class: str | None = None) -> dict[str, Any]:
    """Accuracy (or recall of a class) of several runs: mean, standard deviation, and the interval over galaxies:
    Wilson's of a single run or of folds together, else by bootstrap of each galaxy's share of right answers."""
    right = []
    for file in files:
        label = answers_of(file)["label"]
        right.append(is_right(file)[label == of_class if of_class else label.notna()].astype(float))
    shares = [float(one.mean()) for one in right]
    together = pd.concat(right)
    if together.index.is_unique:
        interval: Any = wilson(int(together.sum()), len(together))
        mean = float(together.mean())
    else:
        interval, mean = over_galaxies(np.array(together.groupby(level=0).mean(), np.float64)), float(np.mean(shares))
    sd = float(np.std(shares, ddof=1)) if len(shares) > 1 else None
    return {"mean": mean, "sd": sd, "interval": interval, "galaxies": int(together.index.nunique())}


def study_page(report: Report, name: str) -> dict[str, Any]:
    """What ``docs/results/<study>.md`` says."""
    study, runs = report.studies[name], report.of(name)
    compared = compare(study, runs)
    classes = _per_class(report, name) if study.until == "evaluate" else []
    claims = [one for one in weigh(read_claims(), runs) if one["each"]]
    nodes = report.nodes[report.nodes["file"].isin(runs["file"])]
    values = {
        "name": name,
        "study": study,
        "runs": runs,
        "planned": len(report.planned[name]),
        "cells": {cell: report.of(name, cell) for cell in study.cells if len(report.of(name, cell))},
        "compared": compared,
        "classes": classes,
        "claims": claims,
        "idle": _idle(runs.merge(nodes, on="file")),
        "tested": {
            cell: _right(_counted_once(report.of(name, cell), study))
            for cell in study.cells
            if len(report.of(name, cell))
        }
        if study.until == "evaluate"
        else {},
        "ACCURACY": paper.ACCURACY,
        "silhouettes": [column for column in runs.filter(regex="^silhouette_") if runs[column].notna().any()],
    }
    return values | {"finding": _finding(study, runs, compared)}


def _counted_once(runs: pd.DataFrame, study: Study) -> list[str]:
    """Of folds those of the first seed, in which every galaxy is tested once; else all runs."""
    first = runs[runs["seed"] == study.seeds[0]] if study.folds else runs
    return list(first["file"])


def _finding(study: Study, runs: pd.DataFrame, compared: list[dict[str, Any]]) -> str:
    """The study's own sentence, with its numbers: `mean(cell, column)` and `gap(cell)` in per cent; of how many cells
    `compared` the test accuracy is `better` and `worse`, by the interval over galaxies."""
    by_cell = {one["cell"]: one for one in compared}

    def mean(cell: str, column: str) -> str:
        return _percent(runs.loc[runs["cell"] == cell, column].mean())

    def gap(cell: str, of: str = "test") -> str:
        one = by_cell[cell][of]
        interval = one.get("over_galaxies") or one.get("over_pairs")
        return _signed(one["mean"]) + (f" ({_signed(interval[0])} to {_signed(interval[1])})" if interval else "")

    over = [one["test"]["over_galaxies"] for one in compared if "test" in one]
    numbers = {
        "compared": len(over),
        "better": sum(low > 0 for low, _ in over),
        "worse": sum(high < 0 for _, high in over),
    }
    return _environment().from_string(study.finding).render(mean=mean, gap=gap, runs=runs, **numbers)


def _per_class(report: Report, name: str) -> list[dict[str, Any]]:
    """A row a cell and class: recall, precision and F1, over folds of all galaxies together."""
    study, rows = report.studies[name], []
    for cell in study.cells:
        runs = report.of(name, cell)
        if not len(runs):
            continue
        files = _counted_once(runs, study)
        table = measured(files)[1] if len(files) == 1 or study.folds else None
        for of_class in [str(column).removeprefix("test_recall_") for column in runs.filter(regex="^test_recall_")]:
            row: dict[str, Any] = {"cell": cell, "class": of_class}
            if table is not None:
                only = table.set_index("class").loc[of_class]
                row |= {value: {"mean": only[value], "sd": None} for value in ("recall", "precision", "f1")}
                row["recall"]["interval"] = (only["recall_low"], only["recall_high"])
            else:
                for value in ("recall", "precision", "f1"):
                    found = runs[f"test_{value}_{of_class}"]
                    row[value] = {"mean": found.mean(), "sd": found.std(ddof=1)}
            papers = paper.ABLATIONS.get(study.cells[cell].paper or "")
            row["paper"] = papers and dict(zip(paper.CLASSES, papers[1], strict=True)).get(of_class)
            rows.append(row)
    return rows


def _idle(nodes: pd.DataFrame) -> list[dict[str, Any]]:
    """Nodes that are not shown to be better on validation than an answer that never changes: Wilson's interval of
    their best checkpoint is not above that answer's share. The checkpoint is the best of many, so that a node which has
    learned nothing passes more often than in one of forty."""
    known = nodes[nodes["commonest"].notna()]
    found = []
    for (cell, node), rows in known.groupby(["cell", "node"], sort=False):
        idle = [
            row["commonest"]
            for row in rows.to_dict("records")
            if wilson(round(row["best_accuracy"] * row["galaxies"]), int(row["galaxies"]))[0] <= row["commonest"]
        ]
        if idle:
            found.append({"cell": cell, "node": node, "runs": len(idle), "of": len(rows), "share": idle[0]})
    return found


def noise_page(report: Report, best: tuple[str, str] | None) -> dict[str, Any]:
    """What ``docs/results/label-noise.md`` says: second crowds on all galaxies, and on the best model's errors."""
    errors = {}
    if best is not None:
        answers = answers_of(report.of(*best)["file"].iloc[0]).reset_index()
        known = pd.concat([of_each for _, of_each in report.noise.values()])
        errors = doubts(answers, known)
    return {"noise": {survey: found for survey, (found, _) in report.noise.items()}, "best": best, "errors": errors}


def earlier_page(report: Report) -> dict[str, Any]:
    """What ``docs/results/earlier.md`` says: superseded studies, and records of runs that no study has."""
    superseded = {name: study for name, study in report.studies.items() if study.superseded and len(report.of(name))}
    return {"report": report, "superseded": superseded}


def splits_of(report: Report) -> dict[str, dict[str, dict[str, int]]]:
    """By survey: the galaxies of each class in each part of the paper's one split (its Table 2), of this repository's
    runs that trained on all of it."""
    found = {}
    for row in report.runs.drop_duplicates("survey").to_dict("records"):
        choice = report.kept[row["file"]].choice
        if choice.parameters["split"]["fold"] is None and (counted := class_counts(choice)):
            found[str(row["survey"])] = counted
    return found


# ---- words and numbers


def _percent(share: Any, digits: int = 2) -> str:
    return "" if share is None or pd.isna(share) else f"{100 * share:.{digits}f}"


def _signed(share: Any, unit: float = 100, digits: int = 2) -> str:
    return "" if share is None or pd.isna(share) else f"{round(unit * share, digits) + 0.0:+.{digits}f}"  # no "-0.00"


def _spread(of: Any, signed: bool = False) -> str:
    """Mean and standard deviation, in per cent, of ``{"mean", "sd"}`` or of a column of several runs."""
    if of is None:
        return ""
    if isinstance(of, pd.Series):
        of = {"mean": of.mean(), "sd": of.std(ddof=1) if len(of) > 1 else None}
    text = _signed(of["mean"]) if signed else _percent(of["mean"])
    return text if not text or of["sd"] is None or pd.isna(of["sd"]) else f"{text} ± {_percent(of['sd'])}"


def _between(interval: Any, signed: bool = False, unit: float = 100, digits: int = 2) -> str:
    sign = "+" if signed else ""
    return "" if not interval else " to ".join(f"{unit * end:{sign}.{digits}f}" for end in interval)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "percent": _percent,
        "signed": _signed,
        "spread": _spread,
        "between": _between,
    }
    environment.filters.update(filters)
    return environment


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(f"{template}.md.jinja").render(values, paper=paper)


# ---- pictures


def _summary_chart(columns: list[dict[str, Any]]) -> Any:
    """Test accuracy and recall of the rarest class, with their intervals. Gives the figure."""
    figure, panels = headless_pyplot().subplots(1, 2, figsize=(9, 2.2), sharey=True, layout="constrained")
    rare = columns[-1].get("rarest", "CSS")
    for panel, value, title in zip(panels, ("accuracy", "recall"), ("test accuracy", f"recall of {rare}"), strict=True):
        for row, column in enumerate(reversed(columns)):
            low, high = column[value]["interval"]
            panel.plot([100 * low, 100 * high], [row, row], color=f"C{row}", linewidth=3, alpha=0.4)
            panel.plot(100 * column[value]["mean"], row, "o", color=f"C{row}")
        panel.axvline(100 * GOALS[value], color="grey", linestyle=":", label="goal")
        panel.set(xlabel=f"{title}, per cent (95 %)", ylim=(-0.6, len(columns) - 0.4))
    panels[0].set_yticks(range(len(columns)), [column["title"] for column in reversed(columns)])
    panels[0].legend(fontsize=8)
    return figure


def _study_chart(report: Report, name: str) -> Any:
    """Accuracy of every run (dots) and mean (line) of each cell, with the paper's. Gives the figure."""
    study = report.studies[name]
    cells = [cell for cell in study.cells if len(report.of(name, cell))]
    value = "test_accuracy" if study.until == "evaluate" else "validation_accuracy"
    figure, axes = headless_pyplot().subplots(figsize=(8.5, 0.9 + 0.3 * len(cells)), layout="constrained")
    for row, cell in enumerate(reversed(cells)):
        found = 100 * report.of(name, cell)[value].to_numpy(float)
        axes.plot(found, [row] * len(found), "o", color="tab:blue", alpha=0.6)
        axes.plot([found.mean()] * 2, [row - 0.3, row + 0.3], color="black")
        if (reported := paper.ACCURACY.get(study.cells[cell].paper or "")) and value == "test_accuracy":
            axes.plot(100 * reported, row, "D", color="tab:red", markersize=5)
    axes.set_yticks(range(len(cells)), [study.cells[cell].title for cell in reversed(cells)])
    red = "; red: the paper's" if value == "test_accuracy" else ""
    axes.set_xlabel(f"{value.replace('_', ' ')} of every run, per cent (line: mean{red})")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _html(report: Report, pages: dict[Path, str]) -> str:
    """All pages in one file that loads nothing, each study's pictures beside its text."""
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark").enable("table")
    sections = []
    for path, text in pages.items():
        chart = path.with_suffix(".svg")
        body = markdown.render(text)
        for link in (chart.name, f"results/{chart.name}"):
            body = body.replace(
                f'src="{link}"', f'src="{_uri(chart.read_bytes(), "svg+xml")}"' if chart.exists() else ""
            )
        pictures = _pictures(report, path.stem) if path.parent.name == "results" else []
        sections.append(
            {"id": path.stem, "title": text.split("\n", 1)[0].lstrip("# "), "body": body, "pictures": pictures}
        )
    return _environment().get_template("report.html.jinja").render(sections=sections)


def _pictures(report: Report, name: str) -> list[dict[str, str]]:
    """Learning curves, confusion matrices, t-SNE and what `hiwl figures` last drew, of a study."""
    if name not in report.studies or not len(report.of(name)):
        return []
    study, found = report.studies[name], []
    cells = {cell: report.of(name, cell) for cell in study.cells if len(report.of(name, cell))}
    first = {cell: report.kept[runs["file"].iloc[0]] for cell, runs in cells.items()}
    curves = {f"{cell}, {node}": run.history for cell, kept in first.items() for node, run in kept.nodes.items()}
    found.append(("Learning curves of each cell's first run", draw_history(curves)))
    for cell, runs in cells.items() if study.until == "evaluate" else ():
        answers = pd.concat([answers_of(file) for file in runs["file"]])
        classes = sorted(set(answers["label"]))
        counts = confusion_matrix(answers["label"], answers["answer"], labels=classes)
        found.append(
            (f"Test confusion: {study.cells[cell].title}", draw_confusion(counts, classes, f"{len(runs)} runs"))
        )
    for cell, kept in first.items():
        if (numbers := kept.beside(".figures.json")).exists() and (places := kept.beside(".tsne.csv.gz")).exists():
            content = json.loads(numbers.read_text())
            embedded = pd.read_csv(places)
            embedded["class"] = embedded["class"].map(dict(enumerate(content["classes"])))
            figure = tsne.draw(embedded, content["classes"], content["silhouette"])
            found.append((f"t-SNE (Figure 6): {study.cells[cell].title}, first seed", figure))
    drawn = [{"title": title, "uri": _uri(_svg(figure), "svg+xml")} for title, figure in found]
    last = FIGURES / "figures.json"
    keys = {kept.choice.key for kept in first.values()}
    if last.exists() and json.loads(last.read_text())["key"] in keys:
        for path in sorted(FIGURES.glob("*.png")):
            drawn.append({"title": f"`hiwl figures`: {path.stem}", "uri": _uri(path.read_bytes(), "png")})
    return drawn


def _svg(figure: Any) -> bytes:
    memory = io.BytesIO()
    save(figure, memory)
    return memory.getvalue()


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
