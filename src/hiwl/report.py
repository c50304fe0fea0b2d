"""`hiwl report`: docs/results.md and docs/results.json from the records in ``results``, beside the paper's figures.

Nothing here is measured anew: a run's answers and its history are all that is read.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from hiwl.errors import HiwlError
from hiwl.evaluate import measure
from hiwl.files import digest, write_json, write_text
from hiwl.hierarchy import Ints
from hiwl.record import Record
from hiwl.settings import project_root

CLASSES = ["CRS", "IBS", "CSS", "EO", "SPI"]
# The paper's test confusion of HIWL with EfficientNet-B1 (its Table 4), rows true, in the order of CLASSES.
PAPER = np.array([[813, 26, 0, 0, 5], [25, 777, 0, 0, 5], [0, 6, 41, 11, 0], [0, 1, 11, 376, 3], [2, 8, 0, 3, 768]])
NOTES = {
    "labels": "28,793 Galaxy Zoo 2 galaxies by label. Their collectors selected with >= where the paper has >: two CRS "
    "and one CSS more than its 28,790 (training 6749, 6455, 463, 3122, 6245; validation and test as in its Table 2).",
    "votes": "6,281 galaxies that the paper's thresholds select from the 6,978 whose votes are known. Twelve cigars in "
    "the test set: this shows that the path from votes works and carries no claim about cigars.",
}


class Run(NamedTuple):
    """One evaluated choice, from a record and its answers."""

    choice: Record
    nodes: dict[str, Record]
    answers: pd.DataFrame
    """By GalaxyID: `class` and `answer` of every test galaxy."""

    @property
    def definition(self) -> str:
        """Digest of everything that defines the run but its seed."""
        trainings = {
            name: {key: value for key, value in run.parameters["train"].items() if key != "seed"}
            for name, run in self.nodes.items()
        }
        return digest([self.choice.parameters["hierarchy"], trainings, self.choice.data["sources"]])

    @property
    def labels(self) -> Ints:
        """True classes as indices into CLASSES."""
        return self.answers["class"].map(CLASSES.index).to_numpy(np.int64)

    @property
    def said(self) -> Ints:
        """Answers as indices into CLASSES."""
        return self.answers["answer"].map(CLASSES.index).to_numpy(np.int64)

    @property
    def passes(self) -> int:
        """Images that training looked at, over all nodes and epochs."""
        return sum(len(run.history) * run.data["counts"]["training"] for run in self.nodes.values())


def main() -> None:
    """Write both files."""
    results = project_root() / "results"
    runs = read_runs(results)
    if not runs:
        raise HiwlError(f"{results}: no records of evaluated runs. Runs on real galaxies leave them there.")
    studies = {study: summarise(group) for study, group in runs.items()}
    write_json(Path("docs/results.json"), {"paper": _paper(), "studies": studies})
    text = ["# Results", "", "Written by `hiwl report` from the records in `results/`; the same figures are in"]
    text += ["`results.json`. Intervals are Wilson's, 95 %; spreads are standard deviations over seeds.", ""]
    for study, summary in studies.items():
        text += _page(study, summary)
    write_text(Path("docs/results.md"), "\n".join(text))
    print(f"report: docs/results.md, {sum(map(len, runs.values()))} runs in {len(runs)} studies")


def read_runs(results: Path) -> dict[str, list[Run]]:
    """The evaluated runs of each study, by name."""
    found: dict[str, list[Run]] = {}
    for path in sorted(results.glob("*/*.json")):
        answers = path.with_suffix(".answers.csv.gz")
        if answers.exists():
            content = json.loads(path.read_text())
            nodes = {name: Record.model_validate(part) for name, part in content["nodes"].items()}
            run = Run(Record.model_validate(content["choice"]), nodes, pd.read_csv(answers, index_col="GalaxyID"))
            if set(run.answers["class"]) != set(CLASSES):
                print(f"report: {path} is passed over: its classes are not the paper's five")
                continue
            found.setdefault(path.parent.name, []).append(run)
    return found


def summarise(runs: list[Run]) -> dict[str, Any]:
    """Everything that a study's page says: each run, each kind of run over its seeds, and paired comparisons."""
    kinds = _kinds(runs)
    return {
        "survey": runs[0].choice.columns["survey"],
        "galaxies": runs[0].choice.data["counts"] | {"test": len(runs[0].answers)},
        "split_sha256": runs[0].choice.data["sources"]["splits.csv"],
        "runs": [_describe(run) for run in runs],
        "recipes": {
            name: {node: run.parameters["train"]["recipe"] for node, run in group[0].nodes.items()}
            for name, group in kinds.items()
        },
        "kinds": {name: _over_seeds(group) for name, group in kinds.items()},
        "comparisons": _compare_kinds(kinds),
    }


def mcnemar(first: Run, second: Run) -> dict[str, Any]:
    """Exact McNemar test of two runs on the same test galaxies, which must be the same."""
    if not first.answers.index.equals(second.answers.index):
        raise HiwlError(f"{first.choice.name} and {second.choice.name} were tested on different galaxies")
    a, b = first.said == first.labels, second.said == second.labels
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    differing = only_first + only_second
    p = binomtest(only_first, differing).pvalue if differing else 1.0
    return {"only_first_right": only_first, "only_second_right": only_second, "p": float(p)}


def _kinds(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs that differ by nothing but their seed, under the name of their tree (numbered where several share it)."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.definition, []).append(run)
    named: dict[str, list[Run]] = {}
    for group in found.values():
        seeds = [run.choice.columns["seed"] for run in group]
        if len(set(seeds)) < len(seeds):
            keys = ", ".join(run.choice.key for run in group)
            raise HiwlError(f"results: two records of one seed ({keys}): delete what an older version of the code left")
        tree = str(group[0].choice.columns["tree"])
        number = sum(name.split(" ")[0] == tree for name in named)
        named[tree if number == 0 else f"{tree} ({number + 1})"] = group
    return named


def _describe(run: Run) -> dict[str, Any]:
    metrics, table = measure(run.labels, run.said, CLASSES)
    return {
        **run.choice.columns,
        "passes": run.passes,
        "epochs": {name: len(node.history) for name, node in run.nodes.items()},
        "validation_accuracy": run.choice.metrics["validation_accuracy"],
        **metrics,
        "per_class": table.set_index("class").to_dict("index"),
        "confusion": confusion_matrix(run.labels, run.said, labels=range(len(CLASSES))).tolist(),
        "cost_seconds": run.choice.metrics["cost_seconds"],
        "hardware": run.choice.environment["machine"],
    }


def _over_seeds(runs: list[Run]) -> dict[str, Any]:
    described = [_describe(run) for run in runs]
    tables = {name: [run["per_class"][name] for run in described] for name in CLASSES}
    return {
        "seeds": [run["seed"] for run in described],
        "validation_accuracy": _mean([run["validation_accuracy"] for run in described]),
        "accuracy": _mean([run["accuracy"] for run in described]),
        "mean_recall": _mean([run["mean_recall"] for run in described]),
        "per_class": {
            name: {value: _mean([row[value] for row in rows]) for value in ("recall", "precision", "f1")}
            for name, rows in tables.items()
        },
        "confusion": np.sum([run["confusion"] for run in described], axis=0).tolist(),
    }


def _compare_kinds(kinds: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """Every two kinds of run, seed by seed."""
    found = []
    names = list(kinds)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            by_seed = {run.choice.columns["seed"]: run for run in kinds[second]}
            for run in kinds[first]:
                if (other := by_seed.get(run.choice.columns["seed"])) is not None:
                    pair = {"first": first, "second": second, "seed": run.choice.columns["seed"]}
                    found.append(pair | mcnemar(run, other))
    return found


def _mean(values: list[float]) -> dict[str, float | None]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def _paper() -> dict[str, Any]:
    labels, said = np.array([cell for cell in np.ndindex(PAPER.shape) for _ in range(PAPER[cell])]).T
    metrics, table = measure(labels, said, CLASSES)
    return metrics | {"per_class": table.set_index("class").to_dict("index"), "confusion": PAPER.tolist()}


def _page(study: str, summary: dict[str, Any]) -> list[str]:
    counts, runs = summary["galaxies"], summary["runs"]
    paper = _paper()
    lines = [
        f"## {study}",
        "",
        NOTES.get(summary["survey"], f"Survey `{summary['survey']}`."),
        f"{counts['training']} galaxies trained, {counts['validation']} validated, {counts['test']} tested; split "
        f"`{summary['split_sha256'][:12]}`. `root` is the flat tree, `root-narrow` the paper's.",
        "",
        *_table(
            [
                "tree",
                "backbone",
                "input",
                "recipe",
                "seed",
                "epochs",
                "passes",
                "validation",
                "test",
                "95 %",
                "CSS",
                "s",
            ],
            [
                [
                    run["tree"],
                    run["backbone"],
                    f"{run['input']} px",
                    run["recipe"],
                    run["seed"],
                    " + ".join(str(n) for n in run["epochs"].values()),
                    run["passes"],
                    _percent(run["validation_accuracy"]),
                    _percent(run["accuracy"]),
                    " to ".join(_percent(end) for end in run["accuracy_interval"]),
                    _percent(run["per_class"]["CSS"]["recall"]),
                    f"{run['cost_seconds']:.0f}",
                ]
                for run in runs
            ],
        ),
        "",
        "`epochs` by node; `passes`, images that training looked at; `CSS`, recall of cigars; `s`, training and",
        f"validation, wall clock, on {', '.join(sorted({run['hardware'] for run in runs}))}.",
        "",
        "Recipes, a node each:",
        "",
        *(
            f"- `{name}`, `{node}`: {_in_words(recipe)}"
            for name, recipes in summary["recipes"].items()
            for node, recipe in recipes.items()
        ),
        "",
        "### Over seeds, beside the paper",
        "",
        *_table(
            ["", "seeds", "validation", "test", "mean recall", *(f"recall {name}" for name in CLASSES)],
            [
                *(
                    [
                        name,
                        len(kind["seeds"]),
                        _spread(kind["validation_accuracy"]),
                        _spread(kind["accuracy"]),
                        _spread(kind["mean_recall"]),
                        *(_spread(kind["per_class"][c]["recall"]) for c in CLASSES),
                    ]
                    for name, kind in summary["kinds"].items()
                ),
                [
                    "paper (B1, 240 px)",
                    1,
                    "97.22",
                    _percent(paper["accuracy"]),
                    _percent(paper["mean_recall"]),
                    *(_percent(paper["per_class"][c]["recall"]) for c in CLASSES),
                ],
            ],
        ),
        "",
        *_table(
            ["", *(f"precision {name}" for name in CLASSES), *(f"F1 {name}" for name in CLASSES)],
            [
                *(
                    [name, *(_spread(kind["per_class"][c][v]) for v in ("precision", "f1") for c in CLASSES)]
                    for name, kind in summary["kinds"].items()
                ),
                ["paper", *(_percent(paper["per_class"][c][v]) for v in ("precision", "f1") for c in CLASSES)],
            ],
        ),
        "",
    ]
    for name, kind in summary["kinds"].items():
        lines += [f"Test confusion of `{name}`, all {len(kind['seeds'])} seeds together (rows true):", ""]
        lines += [*_table(["", *CLASSES], [[CLASSES[i], *row] for i, row in enumerate(kind["confusion"])]), ""]
    if summary["comparisons"]:
        lines += ["### Paired comparison", "", "Exact McNemar test on the same test galaxies, seed by seed.", ""]
        header = ["first", "second", "seed", "only first right", "only second right", "p"]
        rows = [
            [c["first"], c["second"], c["seed"], c["only_first_right"], c["only_second_right"], f"{c['p']:.2g}"]
            for c in summary["comparisons"]
        ]
        lines += [*_table(header, rows), ""]
    return lines


def _table(header: list[str], rows: list[list[Any]]) -> list[str]:
    return [
        "| " + " | ".join(header) + " |",
        "|" + " --- |" * len(header),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
    ]


def _in_words(recipe: dict[str, Any]) -> str:
    flat = {key: value for key, value in recipe.items() if key not in ("augment", "name")} | recipe["augment"]
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in flat.items())


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _spread(value: dict[str, float | None]) -> str:
    mean, sd = value["mean"], value["sd"]
    assert mean is not None
    return _percent(mean) + ("" if sd is None else f" ± {100 * sd:.2f}")
