"""The report as one file: its text, and pictures drawn from the same numbers."""

import base64
import io
import json
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment

from hiwl.claims import CLAIMING, PLAIN
from hiwl.comparison import Run
from hiwl.figures import draw_confusion, headless_pyplot
from hiwl.hierarchy import Tree
from hiwl.layout import EXPLAINED
from hiwl.paper import CLASSES, papers_accuracy
from hiwl.record import Record

TEMPLATE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>hiwl: results</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #1c1e21 }
h1, h2, h3 { line-height: 1.2 } h2 { margin-top: 3rem; border-top: 1px solid #d5d9de; padding-top: 1rem }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #e3e6ea; padding: .2rem .6rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { background: #f4f6f8 }
code { background: #f4f6f8; padding: 0 .2em } img { max-width: 100% }
figcaption { color: #555 } figure { margin: 1.5rem 0 }
</style>
{{ text }}
{% for picture in pictures %}
{% if loop.first %}<h2>Pictures</h2>{% endif %}
<figure><img alt="{{ picture.title }}" src="data:image/png;base64,{{ picture.content }}">
<figcaption>{{ picture.title }}</figcaption></figure>
{% endfor %}
</html>
"""


def draw_page(text: str, studies: dict[str, dict[str, Any]], runs: dict[str, list[Run]], titles: dict[str, str]) -> str:
    """HTML without anything to load: the Markdown `text`, every study's pictures, those of `hiwl explain`.

    The last only where they are of one of the runs told, whose `titles` are known by their choices' keys; Figure 6 from
    the records, of the ways that the paper compares.
    """
    from markdown_it import MarkdownIt

    html = MarkdownIt("commonmark").enable("table").render(text)
    html = html.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    pictures = []
    for name, study in studies.items():
        cells = {title: cell for title, cell in study["cells"].items() if cell["runs"]}
        if not cells:
            continue
        pictures.append((f"Study {name}: accuracy of every run (dots) and mean (line)", _accuracies(study, cells)))
        pictures.append((f"Study {name}: learning curves of every run, by node", _curves(runs[name])))
        if study["until"] == "evaluate":
            pictures.append((f"Study {name}: test confusion, all runs of a kind together", _confusions(cells)))
        if study["cells"].keys() >= CLAIMING and not study["superseded"]:
            pictures += _clusters(name, runs[name])
    numbers = EXPLAINED / "explained.json"
    explained = titles.get(json.loads(numbers.read_text())["key"]) if numbers.exists() else None
    shown = {
        "tsne": "t-SNE of penultimate features",
        "gradcam": "Grad-CAM",
        "errors": "The errors, most confident first",
    }
    for stem, title in shown.items() if explained else []:
        for path in sorted(EXPLAINED.glob(f"{stem}*.png")):
            pictures.append((f"{title} (hiwl explain of {explained})", path.read_bytes()))
    encoded = [{"title": title, "content": base64.b64encode(png).decode()} for title, png in pictures]
    return Environment(autoescape=False).from_string(TEMPLATE).render(text=html, pictures=encoded)


def _accuracies(study: dict[str, Any], cells: dict[str, Any]) -> bytes:
    pyplot = headless_pyplot()
    evaluated = study["until"] == "evaluate"
    value = "accuracy" if evaluated else "validation_accuracy"
    figure, axes = pyplot.subplots(figsize=(9, 0.8 + 0.33 * len(cells)), layout="constrained")
    for row, (title, cell) in enumerate(cells.items()):
        found = [100 * run[value] for run in cell["runs"]]
        axes.plot(found, [row] * len(found), "o", color="tab:blue", alpha=0.6)
        axes.plot([np.mean(found)] * 2, [row - 0.3, row + 0.3], color="black")
        if evaluated and (papers := papers_accuracy(title)):
            axes.plot(100 * papers, row, "D", color="tab:red", label="the paper's")
    axes.set_yticks(range(len(cells)), list(cells))
    axes.invert_yaxis()
    axes.set_xlabel(("test" if evaluated else "validation") + " accuracy, per cent")
    axes.grid(axis="x", alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles[:1], labels[:1], loc="outside upper right")
    return _png(figure)


def _clusters(name: str, runs: list[Run]) -> list[tuple[str, bytes]]:
    """Figure 6, of the first run that was explained of each way: title and picture."""
    from hiwl import clusters

    pictures = []
    for way in ("HIWL", "HMWS", PLAIN):
        for run in [run for run in runs if run.cell.name == way and run.explained][:1]:
            assert run.explained is not None
            classes = run.explained["classes"]
            embedded = pd.read_csv(run.kept.path.with_suffix(".tsne.csv.gz"))
            embedded["class"] = embedded["class"].map(dict(enumerate(classes)))
            file = io.BytesIO()
            clusters.draw(embedded, classes, run.explained["silhouette"], file)
            pictures.append((f"Study {name}: Figure 6, {way}, seed {run.cell.seed}", file.getvalue()))
    return pictures


def _curves(runs: list[Run]) -> bytes:
    """A colour a cell; of each node, and of each number of classes that it has, panels of their own."""
    pyplot = headless_pyplot()
    cells = list(dict.fromkeys(run.cell.name for run in runs))
    colours = dict(zip(cells, pyplot.get_cmap("turbo")(np.linspace(0.05, 0.95, len(cells))), strict=True))
    # By node and number of classes, and there by key: a training that several choices share is drawn once.
    panels: dict[tuple[str, int], dict[str, tuple[str, Record]]] = {}
    for run in runs:
        tree = Tree(run.kept.choice.parameters["hierarchy"])
        for node, record in run.kept.nodes.items():
            panels.setdefault((node, len(tree.nodes[node])), {}).setdefault(record.key, (run.cell.name, record))
    figure, axes = pyplot.subplots(
        len(panels), 2, figsize=(12, max(3.4 * len(panels), 0.24 * len(cells))), layout="constrained", squeeze=False
    )
    for ((node, classes), records), (losses, accuracies) in zip(panels.items(), axes, strict=True):
        for cell, record in records.values():
            history, look = pd.DataFrame(record.history), {"color": colours[cell], "alpha": 0.6}
            losses.plot(history["epoch"], history["training_loss"], "--", **look)
            losses.plot(history["epoch"], history["validation_loss"], **look)
            accuracies.plot(history["epoch"], 100 * history["validation_accuracy"], **look)
        losses.set_title(f"{node}, {classes} classes: loss, training (dashed) and validation", fontsize=9)
        accuracies.set_title(f"{node}, {classes} classes: validation accuracy of the node, per cent", fontsize=9)
        losses.set_yscale("log")  # an epoch that goes astray would hide all others
        for panel in (losses, accuracies):
            panel.set_xlabel("epoch")
            panel.xaxis.get_major_locator().set_params(integer=True)
    drawn = dict.fromkeys(cell for records in panels.values() for cell, _ in records.values())
    lines = [pyplot.Line2D([], [], color=colours[cell], label=cell) for cell in drawn]
    figure.legend(handles=lines, loc="outside right upper", fontsize=8)
    return _png(figure)


def _confusions(cells: dict[str, Any]) -> bytes:
    pyplot = headless_pyplot()
    columns = min(3, len(cells))
    rows = -(-len(cells) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4 * columns, 3.8 * rows), layout="constrained", squeeze=False
    )
    for place in axes.flat[len(cells) :]:
        place.axis("off")
    for place, (title, cell) in zip(axes.flat, cells.items(), strict=False):
        draw_confusion(place, np.array(cell["confusion"]), CLASSES, size=7)
        place.set(title=title)
    return _png(figure)


def _png(figure: Any) -> bytes:
    from matplotlib import pyplot

    file = io.BytesIO()
    figure.savefig(file, dpi=90)
    pyplot.close(figure)
    return file.getvalue()
