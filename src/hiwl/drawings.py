"""The report as one file: its text, and pictures drawn from the same numbers."""

import base64
import io
import json
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment

from hiwl.figures import draw_confusion, headless_pyplot
from hiwl.layout import EXPLAINED
from hiwl.paper import CLASSES, papers_accuracy
from hiwl.record import Kept

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


def draw_page(
    text: str, studies: dict[str, dict[str, Any]], kept: dict[str, list[Kept]], titles: dict[str, str]
) -> str:
    """HTML without anything to load: the Markdown `text`, every study's pictures, those of `hiwl explain`.

    The last only where they are of one of the runs told, whose `titles` are known by their choices' keys.
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
        pictures.append((f"Study {name}: learning curves of every run, by node", _curves(kept[name])))
        if study["until"] == "evaluate":
            pictures.append((f"Study {name}: test confusion, all runs of a kind together", _confusions(cells)))
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
        axes.legend(handles[:1], labels[:1])
    return _png(figure)


def _curves(kept: list[Kept]) -> bytes:
    pyplot = headless_pyplot()
    nodes = list(dict.fromkeys(name for one in kept for name in one.nodes))
    figure, axes = pyplot.subplots(len(nodes), 2, figsize=(10, 3.2 * len(nodes)), layout="constrained", squeeze=False)
    drawn = set()
    for one in kept:
        for name, run in one.nodes.items():
            if run.key in drawn:  # shared between choices
                continue
            drawn.add(run.key)
            history = pd.DataFrame(run.history)
            losses, accuracies = axes[nodes.index(name)]
            losses.plot(history["epoch"], history["training_loss"], color="tab:blue", alpha=0.4)
            losses.plot(history["epoch"], history["validation_loss"], color="tab:orange", alpha=0.4)
            accuracies.plot(history["epoch"], 100 * history["validation_accuracy"], color="tab:green", alpha=0.4)
    for name, (losses, accuracies) in zip(nodes, axes, strict=True):
        losses.set(title=f"{name}: loss, training (blue) and validation (orange)", xlabel="epoch")
        accuracies.set(title=f"{name}: validation accuracy of the node, per cent", xlabel="epoch")
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
