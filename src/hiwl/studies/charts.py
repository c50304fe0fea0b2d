"""Pictures made from the table of runs and from records."""

import io
import json
from typing import Any

import pandas as pd
from sklearn.metrics import confusion_matrix

from hiwl.core.layout import FIGURES
from hiwl.measure import tsne
from hiwl.measure.plots import draw_confusion, draw_history, headless_pyplot, save
from hiwl.studies import paper
from hiwl.studies.study_page import Report
from hiwl.studies.summary import GOALS
from hiwl.studies.table import answers_of, traded

COLOURS = [f"C{number}" for number in range(10)]
ALONG = [2 ** (step / 2) for step in range(-4, 11)]
"""What the probability of the rarest class is multiplied by, along a line."""


def summary_chart(columns: list[dict[str, Any]]) -> Any:
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


def study_chart(report: Report, name: str) -> Any:
    """Accuracy of every run (dots) and mean (line) of each cell, with the paper's; and, where ten or fewer were tested,
    what each trades between accuracy and recall of the rarest class. Gives the figure."""
    study = report.studies[name]
    cells = [cell for cell in study.cells if len(report.of(name, cell))]
    value = "test_accuracy" if study.until == "evaluate" else "validation_accuracy"
    red = ""
    has_trade = value == "test_accuracy" and len(cells) <= len(COLOURS)
    pyplot, height = headless_pyplot(), 0.9 + 0.3 * len(cells)
    if has_trade:
        figure, (axes, trade) = pyplot.subplots(
            2, 1, figsize=(8.5, height + 3), height_ratios=(height, 3), layout="constrained"
        )
        _draw_trade(trade, {cell: report.of(name, cell) for cell in reversed(cells)})
    else:
        figure, axes = pyplot.subplots(figsize=(8.5, height), layout="constrained")
    for row, cell in enumerate(reversed(cells)):
        found = 100 * report.of(name, cell)[value].to_numpy(float)
        axes.plot(found, [row] * len(found), "o", color=COLOURS[row] if has_trade else "tab:blue", alpha=0.6)
        axes.plot([found.mean()] * 2, [row - 0.3, row + 0.3], color="black")
        if (reported := paper.ACCURACY.get(study.cells[cell].paper or "")) and value == "test_accuracy":
            axes.plot(100 * reported, row, "D", color="tab:red", markersize=5)
            red = "; red: the paper's"
    axes.set_yticks(range(len(cells)), [study.cells[cell].title.replace("`", "") for cell in reversed(cells)])
    axes.set_xlabel(f"{value.replace('_', ' ')}, per cent\n(dot: a run; line: mean{red})")
    axes.set_xlim(right=min(100, axes.get_xlim()[1]))
    axes.grid(axis="x", alpha=0.3)
    return figure


def _draw_trade(axes: Any, cells: dict[str, pd.DataFrame]) -> None:
    """A line a cell, of the means over its runs; on the dot the class's probability is as it is."""
    for colour, rows in zip(COLOURS, cells.values(), strict=False):
        rare = rows["rarest"].iloc[0]
        line = 100 * traded(rows, ALONG)
        axes.plot(line["recall"], line["accuracy"], color=colour)
        axes.plot(line.loc[1, "recall"], line.loc[1, "accuracy"], "o", color=colour)
        axes.set(
            xlabel=f"recall of {rare}, per cent, as its probability is multiplied (dot: by 1)",
            ylabel="test accuracy, per cent",
        )
    axes.set_xlim(right=min(100, axes.get_xlim()[1]))
    axes.grid(alpha=0.3)


def study_pictures(report: Report, name: str) -> dict[str, tuple[str, bytes]]:
    """By title, kind and content: learning curves, confusion matrices, t-SNE, and what `hiwl figures` last drew."""
    study = report.studies[name]
    cells = {cell: rows for cell in study.cells if len(rows := report.of(name, cell))}
    first = {cell: report.kept[rows["file"].iloc[0]] for cell, rows in cells.items()}
    curves = {f"{cell}, {node}": run.history for cell, kept in first.items() for node, run in kept.nodes.items()}
    figures = {"Learning curves of each cell's first run (Figure 5)": draw_history(curves)}
    if study.until == "evaluate":
        figures["Test confusion, all runs of a cell together"] = _confusions(study.cells, cells)
    for cell, kept in first.items():
        if (numbers := kept.beside(".figures.json")).exists() and (places := kept.beside(".tsne.csv.gz")).exists():
            content, embedded = json.loads(numbers.read_text()), pd.read_csv(places)
            embedded["class"] = embedded["class"].map(dict(enumerate(content["classes"])))
            figure = tsne.draw(embedded, content["classes"], content["silhouette"])
            figures[f"t-SNE (Figure 6): {study.cells[cell].title}, first seed"] = figure
    found = {title: ("svg+xml", _svg(figure)) for title, figure in figures.items()}
    last = FIGURES / "figures.json"
    if last.exists() and json.loads(last.read_text())["key"] in {kept.choice.key for kept in first.values()}:
        found |= {f"`hiwl figures`: {path.stem}": ("png", path.read_bytes()) for path in sorted(FIGURES.glob("*.png"))}
    return found


def _confusions(named: dict[str, Any], cells: dict[str, pd.DataFrame]) -> Any:
    columns = min(3, len(cells))
    lines = -(-len(cells) // columns)
    size = (4.4 * columns, 4.3 * lines)
    figure, panels = headless_pyplot().subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for panel in panels.flat[len(cells) :]:
        panel.set_axis_off()
    for panel, (cell, rows) in zip(panels.flat, cells.items(), strict=False):
        answers = pd.concat([answers_of(file) for file in rows["file"]])
        classes = sorted(set(answers["label"]))
        counts = confusion_matrix(answers["label"], answers["answer"], labels=classes)
        draw_confusion(counts, classes, f"{named[cell].title} ({len(rows)} runs)", panel)
    return figure


def _svg(figure: Any) -> bytes:
    memory = io.BytesIO()
    save(figure, memory)
    return memory.getvalue()
