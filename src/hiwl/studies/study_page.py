"""What the page of one study says, from the table of runs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hiwl.core.layout import PRETRAINED
from hiwl.core.pages import fill
from hiwl.core.record import Kept
from hiwl.core.sums import SUMS, read_sums
from hiwl.measure.intervals import over_galaxies, wilson
from hiwl.model.tree import ROOT, Tree
from hiwl.studies import paper
from hiwl.studies.compare import read_claims, weigh
from hiwl.studies.plan import Planned, Study
from hiwl.studies.table import answers_of, hours, is_right, measured, traded
from hiwl.studies.words import FORMATS, between, percent, signed

UNKNOWN = "(not measured)"
TIMES = (1, 2, 4, 8)
"""What the probability of the rarest class is multiplied by."""


class Report(NamedTuple):
    """What the pages are made from."""

    studies: dict[str, Study]
    planned: dict[str, list[Planned]]
    runs: pd.DataFrame
    nodes: pd.DataFrame
    kept: dict[str, Kept]
    noise: dict[str, tuple[dict[str, Any], pd.DataFrame]]
    """By survey, what `hiwl redraw` found: of all galaxies, and of each."""
    compared: dict[str, list[dict[str, Any]]]
    """By study, its cells against each other (:func:`hiwl.studies.compare.compare`)."""

    def of(self, study: str, cell: str | None = None) -> pd.DataFrame:
        """The runs of a study, or of one of its cells."""
        found = self.runs[self.runs["study"] == study]
        return found if cell is None else found[found["cell"] == cell]

    def current(self) -> list[str]:
        """The studies that have runs and are not superseded, those that were tested first."""
        names = [name for name, study in self.studies.items() if not study.superseded and len(self.of(name))]
        return sorted(names, key=lambda name: (self.studies[name].until == "choose", name))


def study_page(report: Report, name: str) -> dict[str, Any]:
    """What ``docs/results/<study>.md`` says."""
    study, runs = report.studies[name], report.of(name)
    is_tested = study.until == "evaluate"
    cells = {cell: rows for cell in study.cells if len(rows := report.of(name, cell))}
    claims = [one for one in weigh(read_claims(), runs) if one["each"]]
    nodes = report.nodes[report.nodes["file"].isin(runs["file"])]
    return {
        "name": name,
        "study": study,
        "finding": finding(report, name),
        "runs": runs,
        "planned": len(report.planned[name]),
        "hours": f"{hours(report.kept, runs['file']):.1f}",
        "cells": cells,
        "compared": report.compared[name],
        "gains": {
            one["cell"]: _gap(one["validation_map_at_r"])
            for one in report.compared[name]
            if one.get("validation_map_at_r", {}).get("over_pairs")
        },
        "classes": _per_class(study, cells) if is_tested else [],
        "averaged": _averaged(study, cells) if is_tested else [],
        "layers": _layers(report, cells) if is_tested else [],
        "times": TIMES,
        "traded": {cell: traded(rows, TIMES) for cell, rows in cells.items()} if is_tested else {},
        "recalls": {} if is_tested else _recalls(study, cells, _classes_of(runs, "validation")),
        "claims": claims,
        "idle": _idle(runs.merge(nodes, on="file")),
        "tested": {cell: right_share(_counted_once(rows, study)) for cell, rows in cells.items()} if is_tested else {},
        "ACCURACY": paper.ACCURACY,
        "ROOT": ROOT,
        "started_from": started_from,
        "silhouettes": [column for column in runs.filter(regex="^silhouette_") if runs[column].notna().any()],
    }


def finding(report: Report, name: str) -> str:
    """The study's own sentence, with its numbers: `mean(cell, column)`, `gap(cell)`, what a cell's seeds gain when they
    are `averaged(cell)`, and `trade(cell, times, "accuracy" or "recall")`, in per cent; of how many cells `compared`
    the test accuracy is `better` and `worse`, by the interval over galaxies. Empty until all that it names has been
    measured."""
    study, runs, compared = report.studies[name], report.of(name), report.compared[name]
    by_cell = {one["cell"]: one for one in compared}

    def mean(cell: str, column: str) -> str:
        return percent(runs.loc[runs["cell"] == cell, column].mean() if column in runs else None) or UNKNOWN

    def gap(cell: str, of: str = "test") -> str:
        one = by_cell.get(cell, {}).get(of)
        return UNKNOWN if one is None else _gap(one)

    def averaged(cell: str) -> str:
        rows = _averaged(study, {cell: report.of(name, cell)})
        return _gap(rows[0]) if rows else UNKNOWN

    def trade(cell: str, times: int, value: str) -> str:
        rows = report.of(name, cell)
        return percent(traded(rows, [times]).loc[times, value]) if len(rows) else UNKNOWN

    over = [one["test"]["over_galaxies"] for one in compared if one.get("test", {}).get("over_galaxies")]
    numbers = {
        "compared": len(over),
        "better": sum(low > 0 for low, _ in over),
        "worse": sum(high < 0 for _, high in over),
    }
    measured = {"mean": mean, "gap": gap, "averaged": averaged, "trade": trade, "runs": runs}
    text = fill(study.finding, measured | numbers, FORMATS)
    return "" if UNKNOWN in text else text


def started_from(said: str) -> str:
    """What a run started from, of what its record says: published weights by their name, nodes of its own by theirs,
    others by their file."""
    published = {
        digest[:12]: f"`pretrained/{sums.parent.name}`"
        for sums in sorted(PRETRAINED.glob(f"*/{SUMS}"))
        for digest in read_sums(sums.parent).values()
    }
    found = []
    for part in said.split("; "):
        node, _, of_node = part.partition(": ")
        name = next((name for digest, name in published.items() if digest in part), None)
        found.append(name or (f"its own `{node}`" if of_node else part.split(" (")[0].removesuffix(".safetensors")))
    return " and ".join(dict.fromkeys(found))


def _gap(one: dict[str, Any]) -> str:
    """A difference and its interval, over galaxies where it is known."""
    interval = one.get("over_galaxies") or one.get("over_pairs")
    return signed(one["mean"]) + (f" ({between(interval, with_sign=True)})" if interval else "")


def _counted_once(runs: pd.DataFrame, study: Study) -> list[str]:
    """Of folds those of the first seed, in which every galaxy is tested once; else all runs."""
    first = runs[runs["seed"] == study.seeds[0]] if study.folds else runs
    return list(first["file"])


def _classes_of(runs: pd.DataFrame, split: str) -> list[str]:
    """The classes whose recall on this split is known, in the order of the table of runs."""
    recalls = runs.filter(regex=f"^{split}_recall_").dropna(axis="columns", how="all")
    return [str(column).removeprefix(f"{split}_recall_") for column in recalls]


def _recalls(study: Study, cells: dict[str, pd.DataFrame], classes: Sequence[str]) -> dict[str, dict[str, pd.Series]]:
    """Of each run on validation, by cell and class, or by class and cell where a row of many classes would be too
    wide to read."""
    of = {cell: {name: rows[f"validation_recall_{name}"] for name in classes} for cell, rows in cells.items()}
    if len(classes) > len(cells):
        return {name: {study.cells[cell].title: row[name] for cell, row in of.items()} for name in classes}
    return {study.cells[cell].title: row for cell, row in of.items()} if classes else {}


def _per_class(study: Study, cells: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """A row a cell and class: recall, precision and F1, over folds of all galaxies together."""
    rows = []
    for cell, runs in cells.items():
        files = _counted_once(runs, study)
        table = measured(pd.concat(map(answers_of, files)))[1] if len(files) == 1 or study.folds else None
        for of_class in _classes_of(runs, "test"):
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


def _averaged(study: Study, cells: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """What a cell's seeds answer on the test set as one model, the most probable class by the mean of their
    probabilities, and what that gains over one of them that answers likewise (`mean`): a row a cell. Folds, which test
    other galaxies each, are not averaged."""
    found = []
    for cell, rows in cells.items() if not study.folds else ():
        answers = pd.concat(map(answers_of, rows["file"]))
        probabilities = answers.filter(like="p_")
        together = probabilities.groupby(level=0).mean()
        if len(rows) < 2 or len(answers) != len(rows) * len(together):
            continue
        answers["answer"], together["answer"] = _most_probable(probabilities), _most_probable(together)
        together["label"] = answers["label"].groupby(level=0).first()
        metrics, of_classes = measured(together)
        right = [(of["label"] == of["answer"]).astype(float).groupby(level=0).mean() for of in (answers, together)]
        gain = np.array(right[1] - right[0], np.float64)
        found.append(
            metrics
            | {"cell": cell, "seeds": len(rows), "mean": gain.mean(), "over_galaxies": over_galaxies(gain)}
            | {"recalls": dict(zip(of_classes["class"], of_classes["recall"], strict=True))}
        )
    return found


def _most_probable(probabilities: pd.DataFrame) -> "pd.Series[str]":
    return probabilities.idxmax(axis=1).astype(str).str.removeprefix("p_")


def _layers(report: Report, cells: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """How often each question of a study's tree is answered rightly on the test set, a row a cell and node: of the
    galaxies that belong to the node and reached it, how many, the share `right`, and the mean of the shares
    of each of the node's children, of every run. A cell of one layer answers the same questions by the class that it
    gives. Empty where no cell has several layers."""
    trees = [Tree(report.kept[rows["file"].iloc[0]].choice.parameters["hierarchy"]["nodes"]) for rows in cells.values()]
    tree = next((tree for tree in trees if len(tree.nodes) > 1), None)
    if tree is None:
        return []
    found: list[dict[str, Any]] = []
    for cell, rows in cells.items():
        answers = [answers_of(file)[["label", "answer"]] for file in rows["file"]]
        for node in tree.nodes:
            of_runs = []
            for said in answers:
                asked = said.map(tree.labels(node).get).dropna()
                right = asked["label"] == asked["answer"]
                of_runs.append((len(asked), right.mean(), right.groupby(asked["label"]).mean().mean()))
            table = pd.DataFrame(of_runs, columns=["galaxies", "right", "mean_recall"])
            found.append({"cell": cell, "node": node} | {str(name): column for name, column in table.items()})
    return found


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


def right_share(files: Sequence[str], of_class: str | None = None) -> dict[str, Any]:
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
