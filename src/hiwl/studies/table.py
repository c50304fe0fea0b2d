"""Every run on record as a row of one tidy table: what it was, what it measured, what it cost.

A run that several studies share has a row for each. Shares are between 0 and 1; a value that was not measured is
missing. Columns:

- `study`, `cell`, `title`, `seed`, `fold`, `definition`, `file` (below ``results``);
- `survey`, `tree`, `backbone`, `input`, `crop`, `recipe`, `started_from`; galaxies: `training`, `validation`, `test`;
  `rarest` (class);
- `validation_accuracy`, `validation_mean_recall`, `validation_ece`, `validation_recall_<class>`,
  `validation_map_at_r` and the like;
- `test_accuracy`, `test_mean_recall`, `test_mean_precision`, `test_mean_f1`, `test_ece`; of each class
  `test_recall_<class>`, `test_precision_<class>`, `test_f1_<class>`;
- what `hiwl figures` measured: `silhouette_<metric>_<classes>`, `gradcam_<layer>`;
- `epochs` of each node, `passes` (images that training looked at), `hours`, `machine`, `precision`, `commit`.
"""

import itertools
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hiwl.core.errors import HiwlError
from hiwl.core.files import write_text
from hiwl.core.layout import ID
from hiwl.core.record import Kept, Record, results
from hiwl.measure.metrics import measure
from hiwl.model.calibration import calibration_error
from hiwl.model.preprocess import shown
from hiwl.model.tree import Tree
from hiwl.studies.plan import Planned, Study, definition_of, on_record
from hiwl.survey.splits import SplitParams, counts
from hiwl.survey.tables import read_table
from hiwl.training.schedule import accuracies

GROUPS = ("CRS IBS SPI", "CSS EO")
"""Classes whose clusters the paper's Figure 6 shows together, where a tree has them."""


def runs_table(studies: dict[str, Study], planned: dict[str, list[Planned]], kept: list[Kept]) -> pd.DataFrame:
    """All runs of all `studies` that are on record, by study, then in the order in which they were `planned`."""
    rows = []
    for name, study in studies.items():
        records = on_record(study, kept)
        for run in planned[name]:
            if found := records.get(run.definition):
                title = study.cells[run.cell].title
                own = {"study": name, "cell": run.cell, "title": title, "seed": run.seed, "fold": run.fold}
                rows.append(own | describe(found, tested=study.until == "evaluate"))
    return pd.DataFrame(rows).astype({"fold": "Int64"}) if rows else pd.DataFrame(columns=["study", "cell"])


def describe(kept: Kept, tested: bool) -> dict[str, Any]:
    """One run as a row of the table."""
    choice, nodes = kept.choice, kept.nodes
    pack, columns = choice.parameters["pack"], choice.columns
    row: dict[str, Any] = {name: columns[name] for name in ("survey", "tree", "backbone", "input")}
    row["crop"] = round(pack["crop"] * shown(int(columns["input"]), pack["side"]))  # survey pixels that it sees
    row |= {name: columns[name] for name in ("recipe", "started_from")}
    row |= choice.data["counts"] | {"rarest": _rarest(kept)}
    row |= {
        name.replace("calibration_error", "ece"): value
        for name, value in choice.metrics.items()
        if name.startswith("validation_")
    }
    if tested:
        row |= _tested(kept)
    row |= _figures(kept)
    return row | {
        "epochs": " + ".join(str(len(node.history)) for node in nodes.values()),
        "passes": sum(len(node.history) * node.data["counts"]["training"] for node in nodes.values()),
        "hours": sum(_seconds(node) for node in nodes.values()) / 3600,
        "machine": f"{choice.environment['machine']} ({choice.environment['device']})",
        # The earliest records, which do not say it, are of single precision.
        "precision": " and ".join(sorted({node.environment.get("precision", "32-true") for node in nodes.values()})),
        "commit": choice.environment["commit"][:8],
        "definition": definition_of(kept),
        "file": str(kept.path.relative_to(results())),
    }


@cache
def answers_of(file: str) -> pd.DataFrame:
    """By GalaxyID, of the run in `file` of ``results``: `label`, `answer` and `p_<class>` of every test galaxy."""
    path = (results() / file).with_suffix(".answers.csv.gz")
    table = read_table(path).rename(columns={"class": "label"}).set_index(ID)  # as the first records call it
    return table[["label", "answer", *(name for name in table if str(name).startswith("p_"))]]


def is_right(file: str) -> "pd.Series[bool]":
    """By GalaxyID: whether the run's answer is the label."""
    answers = answers_of(file)
    return answers["label"] == answers["answer"]


def traded(runs: pd.DataFrame, times: Sequence[float]) -> pd.DataFrame:
    """By `times`, the means over runs of `accuracy` and the `recall` of the rarest class on the test set, where the
    probability of that class is multiplied and the most probable class is the answer: how one can be traded for the
    other without training (Menon et al. 2021, post-hoc logit adjustment)."""
    rows = []
    for file, rare in zip(runs["file"], runs["rarest"], strict=True):
        answers = answers_of(file)
        probabilities = answers.filter(like="p_")
        classes = np.array([str(name).removeprefix("p_") for name in probabilities])
        label = answers["label"].to_numpy()
        for factor in times:
            weighed = (probabilities * np.where(classes == rare, factor, 1)).to_numpy()
            right = classes[weighed.argmax(axis=1)] == label
            rows.append({"times": factor, "accuracy": right.mean(), "recall": right[label == rare].mean()})
    return pd.DataFrame(rows).groupby("times").mean()


def _rarest(kept: Kept) -> str:
    """The class with the fewest galaxies: cigars, in Galaxy Zoo 2."""
    numbers = kept.choice.parameters["select"]["expected"]
    if not numbers and kept.answers.exists():
        numbers = answers_of(str(kept.path.relative_to(results())))["label"].value_counts().to_dict()
    return min(numbers, key=lambda name: (numbers[name], name)) if numbers else ""


def measured(answers: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """:func:`hiwl.measure.metrics.measure` of answers as :func:`answers_of` gives them, such as all folds of a seed."""
    classes = sorted(str(name).removeprefix("p_") for name in answers if str(name).startswith("p_"))
    label, answer = (answers[name].map(classes.index).to_numpy(np.int64) for name in ("label", "answer"))
    return measure(label, answer, classes)


def nodes_table(kept: dict[str, Kept]) -> pd.DataFrame:
    """A row a node of each run (by its `file`): `best_accuracy` on validation, its `epoch`, and the share of the
    node's `commonest` child among its validation `galaxies` (missing where the survey's classes were not counted)."""
    rows = []
    for file, one in kept.items():
        common = _commonest(one.choice)
        for node, run in one.nodes.items():
            found = accuracies(run.history)
            right, galaxies = common.get(node, (0, 0))
            row = {"file": file, "node": node, "best_accuracy": max(found), "epoch": int(np.argmax(found)) + 1}
            rows.append(row | {"commonest": right / galaxies if galaxies else None, "galaxies": galaxies})
    return pd.DataFrame(rows)


def readings_of(kept: Kept) -> dict[str, Any] | None:
    """What readers of a run's errors, asked among right answers, say alike (``*.reading-*.csv``); None where none read.

    `errors` and `right`: for how many the readings agree on the `label`, of how many they agree on one of two classes.
    """
    paths = sorted(kept.path.parent.glob(f"{kept.path.stem}.reading-*.csv"))
    if not paths:
        return None
    tables = [read_table(path).set_index(ID) for path in paths]
    asked = tables[0].join(answers_of(str(kept.path.relative_to(results())))[["label", "answer"]])
    alike = np.logical_and.reduce([table["says"] == asked["says"] for table in tables])
    settled = asked[alike & ((asked["says"] == asked["first"]) | (asked["says"] == asked["second"]))]
    is_error = settled["label"] != settled["answer"]
    found: dict[str, Any] = {"readings": len(paths)}
    for kind, part in (("errors", settled[is_error]), ("right", settled[~is_error])):
        found[kind] = {"label": int((part["says"] == part["label"]).sum()), "of": len(part)}
    return found


def write_indexes(table: pd.DataFrame, kept: list[Kept]) -> None:
    """Write ``results/<survey>/runs.csv``: a line a record, with the study and cell that it is part of.

    `also` names further studies and cells; `ece` and `recall_of_rarest` are the test set's where there was a test, else
    validation's.
    """
    plain = table.drop_duplicates(["study", "cell", "file"])
    cells = {file: list(of_file["study"] + "/" + of_file["cell"]) for file, of_file in plain.groupby("file")}
    for survey in sorted({one.path.parents[1] for one in kept}):
        rows = []
        for one in kept:
            if one.path.parents[1] == survey:
                row = describe(one, tested=one.answers.exists())
                first, *others = cells.get(row["file"], ["/"])
                study, _, cell = first.partition("/")
                recall = row.get(f"test_recall_{row['rarest']}", row.get(f"validation_recall_{row['rarest']}"))
                rows.append(
                    {"study": study, "cell": cell, "also": "; ".join(others), "seed": one.choice.columns["seed"]}
                    | {"fold": one.choice.parameters["split"]["fold"]}
                    | {name: row[name] for name in ("tree", "backbone", "input", "recipe")}
                    | {name: row.get(name) for name in ("validation_accuracy", "test_accuracy")}
                    | {"rarest": row["rarest"], "recall_of_rarest": recall}
                    | {"ece": row.get("test_ece", row.get("validation_ece"))}
                    | {name: row[name] for name in ("hours", "commit")}
                    | {"file": f"runs/{one.path.name}"}
                )
        index = pd.DataFrame(rows).astype({"fold": "Int64"}).sort_values(["study", "cell", "seed", "fold", "file"])
        write_text(survey / "runs.csv", index.to_csv(index=False, float_format="%.4f"))


def _tested(kept: Kept) -> dict[str, Any]:
    file = str(kept.path.relative_to(results()))
    answers, classes = answers_of(file), Tree(kept.choice.parameters["hierarchy"]["nodes"]).classes
    if unknown := set(answers["label"]) - set(classes):
        raise HiwlError(f"{kept.answers}: labels that the run's tree does not have: {', '.join(sorted(unknown))}")
    metrics, per_class = measured(answers_of(file))
    columns = sorted(classes)
    label, answer = (answers[name].map(columns.index).to_numpy(np.int64) for name in ("label", "answer"))
    found = {f"test_{name}": value for name, value in metrics.items() if isinstance(value, float)}
    found |= {"test": len(answers)}
    found["test_ece"] = calibration_error(answers[[f"p_{name}" for name in columns]].to_numpy(), answer, label)
    for row in per_class.to_dict("records"):
        found |= {f"test_{value}_{row['class']}": row[value] for value in ("recall", "precision", "f1")}
    return found


def _figures(kept: Kept) -> dict[str, float]:
    """What `hiwl figures` measured of the run, where it did: mean silhouettes of two classes at a time at the node
    above them, and the mean share of the Grad-CAM maps' weight on the galaxy."""
    path = kept.beside(".figures.json")
    if not path.exists():
        return {}
    content = json.loads(path.read_text())
    if content["key"] != kept.choice.key:
        raise HiwlError(f"{path}: belongs to another choice than {kept.path}; run `hiwl figures` again")
    found = {}
    for group in GROUPS:
        names = group.split()
        if not set(names) <= content["nodes"].keys():
            continue
        for metric, of_metric in content["silhouette"].get(content["nodes"][names[0]], {}).items():
            pairs = [of_metric["pairs"].get(" ".join(pair)) for pair in itertools.combinations(names, 2)]
            if None not in pairs:
                found[f"silhouette_{metric}_{'_'.join(names)}"] = float(np.mean(pairs))
    for layer in ("last", "fine"):
        found[f"gradcam_{layer}"] = content["gradcam"][layer]["all"]["share"]["mean"]
    return found


def _seconds(node: Record) -> float:
    return sum(row["seconds"] + row.get("validation_seconds", 0) for row in node.history)


def class_counts(choice: Record) -> dict[str, dict[str, int]]:
    """By class: its galaxies in each part of the split, before training is thinned; empty where the survey's classes
    were not counted beforehand (`select.expected`). As the split's own rule has them, to which `hiwl split` holds it.
    """
    params = SplitParams.parse(choice.parameters["split"], "split")
    expected: dict[str, int] = choice.parameters["select"]["expected"] or {}
    return {name: counts(number, params) for name, number in expected.items()}


def _commonest(choice: Record) -> dict[str, tuple[int, int]]:
    """By node: on validation, the galaxies of its commonest child and all; empty where nothing was counted."""
    counted, tree = class_counts(choice), Tree(choice.parameters["hierarchy"]["nodes"])
    found = {}
    for node, children in tree.nodes.items() if counted else ():
        of_child = [sum(counted[leaf]["validation"] for leaf in tree.leaves(child)) for child in children]
        found[node] = max(of_child), sum(of_child)
    return found


def hours(kept: dict[str, Kept], files: "pd.Series[str]") -> float:
    """What the trainings of the runs in `files` took, those that several runs share once."""
    seconds = {node.key: _seconds(node) for file in set(files) for node in kept[file].nodes.values()}
    return sum(seconds.values()) / 3600


def read_files(kept: list[Kept]) -> dict[str, Kept]:
    """The records by their `file` in the table."""
    return {str(Path(one.path).relative_to(results())): one for one in kept}
