"""`hiwl report`: every study beside the paper, from the records in ``results`` alone; nothing is measured anew.

Writes ``docs/results.md`` and ``docs/results.json`` (git's), and ``report.html`` (not git's): the same page in one
file, with curves, confusion matrices and, where `hiwl explain` has run here, its pictures.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from hiwl import reading
from hiwl.calibration import calibration_error
from hiwl.claims import CLAIMING, verdict, weigh
from hiwl.comparison import Bools, Run, mcnemar, on_test, over_galaxies, over_pairs, pairs
from hiwl.drawings import draw_page
from hiwl.errors import HiwlError
from hiwl.evaluate import measure
from hiwl.files import write_json, write_text
from hiwl.hierarchy import Ints, Tree
from hiwl.pages import page
from hiwl.paper import BACKBONES, CLASSES
from hiwl.recipe import best_epochs
from hiwl.record import Kept, Record, definition, read_results, results
from hiwl.split import NAMES, SplitParams, counts
from hiwl.study import Cell, Study, cells, on_record, read_study, study_names
from hiwl.study_part import ON_VALIDATION
from hiwl.votes import ID

MARKDOWN, NUMBERS, PAGE = Path("docs/results.md"), Path("docs/results.json"), Path("report.html")


def main() -> None:
    """Write all three files."""
    kept = read_results()
    if not kept:
        raise HiwlError(f"{results()}: no records of evaluated runs. Runs on real galaxies leave them there.")
    studies = {name: read_study(name) for name in study_names()}
    # What has taken another's place comes before it, and what was tested before what was not.
    studies = dict(sorted(studies.items(), key=lambda one: (one[1].superseded, one[1].until == "choose", one[0])))
    planned = {name: cells(study) for name, study in studies.items()}
    runs = {name: find_runs(study, planned[name], kept) for name, study in studies.items()}
    redrawn = read_redrawn()
    numbers = {name: summarise(study, planned[name], runs[name]) for name, study in studies.items()}
    claims = {name: weigh(found) for name, found in runs.items() if studies[name].cells.keys() >= CLAIMING}
    titles: dict[str, str] = {}  # of every run by its choice's key: the same run may be in several studies
    every: dict[str, tuple[str, Run]] = {}  # likewise, with the first study that has it
    for name, found in runs.items():
        for run in found:
            key, title = run.kept.choice.key, f"{name}: {run.cell.name}, {which_run(run.cell)}"
            titles[key] = "; ".join(filter(None, (titles.get(key), title)))
            every.setdefault(key, (name, run))
    own = {name: [run for first, run in every.values() if first == name] for name in studies}
    errors = {name: second_look(own[name], redrawn) for name, study in studies.items() if study.until == "evaluate"}
    explained = {
        titles[key]: {"study": name} | run.explained for key, (name, run) in every.items() if run.explained is not None
    }
    labels = {path.parent.name: json.loads(path.read_text()) for path in sorted(results().glob("*/redraw.json"))}
    text = page(numbers, claims, errors, explained, labels)
    everything = {"studies": numbers, "claims": claims, "errors": errors, "explained": explained, "labels": labels}
    write_json(NUMBERS, everything)
    write_text(MARKDOWN, text)
    write_text(PAGE, draw_page(text, numbers, runs, titles))
    told = {run.kept.path for _, run in every.values()}
    of_studies = {cell.definition for cells_of in planned.values() for cell in cells_of}
    for lone in [one for one in kept if one.path not in told]:
        why = "not evaluated yet" if definition(lone.choice.parameters) in of_studies else "no run of any study"
        print(f"report: {lone.path.relative_to(results())} is left out: {why}")
    print(f"report: {MARKDOWN}, {NUMBERS} and {PAGE}, {len(told)} runs in {len(studies)} studies")


def read_redrawn() -> pd.DataFrame:
    """What `hiwl redraw` measured of each galaxy whose votes are known.

    Raises:
        HiwlError: two surveys have redrawn one galaxy.
    """
    tables = [pd.read_csv(path) for path in sorted(results().glob("*/redraw.csv.gz"))]
    redrawn = pd.concat(tables) if tables else pd.DataFrame(columns=[ID, "left", "changed", "volunteers"])
    if twice := redrawn.loc[redrawn[ID].duplicated(), ID].tolist():
        raise HiwlError(f"{results()}/*/redraw.csv.gz: galaxy {twice[0]} is in two of them; delete one")
    return redrawn


def second_look(runs: list[Run], redrawn: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Of each cell: what second crowds say of its errors, and, where a run's were read, what readings say of these.

    Of several seeds the first stands for all in the former: each galaxy is to count once.
    """
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        assert run.answers is not None
        cell = found.setdefault(run.cell.name, {"tested": [], "seed": run.cell.seed, "readings": {}})
        answered = run.answers.reset_index()
        if run.cell.seed == cell["seed"]:
            cell["tested"].append(answered)
        files = sorted(run.kept.path.parent.glob(f"{run.kept.path.stem}.reading-*.csv"))
        readings = {path.stem.rpartition(".reading-")[2]: reading.read(path, answered, CLASSES) for path in files}
        if len(readings) > 1:
            readings[f"all {len(readings)} alike"] = reading.agreed(list(readings.values()))
        if readings:
            counts = {name: reading.count(answered, said) for name, said in readings.items()}
            cell["readings"][which_run(run.cell)] = counts
    return {
        name: {"doubts": reading.doubts(pd.concat(cell["tested"]), redrawn), "readings": cell["readings"]}
        for name, cell in found.items()
    }


def which_run(cell: Cell) -> str:
    """Which of a cell's runs."""
    return f"seed {cell.seed}" + ("" if cell.fold is None else f", fold {cell.fold}")


def find_runs(study: Study, planned: list[Cell], kept: list[Kept]) -> list[Run]:
    """Those of the study's `planned` runs that are on record, in that order.

    Raises:
        HiwlError: two records of one run.
    """
    records = on_record(study, kept)
    return [
        Run(cell, found, _answers(study, found), _explained(found))
        for cell in planned
        if (found := records.get(cell.definition))
    ]


def summarise(study: Study, planned: list[Cell], runs: list[Run]) -> dict[str, Any]:
    """Everything that a study's part of the page says."""
    of_cell = {name: [run for run in runs if run.cell.name == name] for name in study.cells}
    compared = {name: (name, base) for name in study.cells if (base := _base(name, study))}
    compared |= {f"{name}, against {other}": (name, other) for name, other in study.against.items()}
    return {
        "question": study.question,
        "until": study.until,
        "common": study.common,
        "superseded": study.superseded,
        "folds": study.folds,
        "planned": len(planned),
        "cells": {
            name: {"choices": study.cells[name], "planned": max(1, len(study.folds)) * len(study.seeds)}
            | (_summarise_cell(study, found) if found else {"runs": []})
            for name, found in of_cell.items()
        },
        "comparisons": {
            title: _compare(of_cell[name], of_cell[base])
            for title, (name, base) in compared.items()
            if of_cell[name] and of_cell[base]
        },
    }


def _base(cell: str, study: Study) -> str | None:
    """What a cell is set against: the study's first, but with the paper's method its backbone's plain model."""
    backbone, _, kind = cell.partition(", ")
    if backbone in BACKBONES:
        return f"{backbone}, plain" if kind == "method" else None
    first = next(iter(study.cells))
    return None if cell == first else first


def _answers(study: Study, kept: Kept) -> pd.DataFrame | None:
    if study.until == "choose":
        return None
    answers = pd.read_csv(kept.answers, index_col=ID)
    if set(answers["class"]) != set(CLASSES):
        raise HiwlError(f"{kept.answers}: its classes are not the paper's five, which this page compares with")
    return answers


def _explained(kept: Kept) -> dict[str, Any] | None:
    path = kept.path.with_suffix(".explained.json")
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    if content["key"] != kept.choice.key:
        raise HiwlError(f"{path}: of another choice than {kept.path}; `hiwl explain` writes it anew")
    return content


def _summarise_cell(study: Study, runs: list[Run]) -> dict[str, Any]:
    described = [_describe(run) for run in runs]
    found: dict[str, Any] = {
        "runs": described,
        "galaxies": runs[0].kept.choice.data["counts"]
        | ({"test": described[0]["galaxies"]} if study.until == "evaluate" else {}),
        "survey": runs[0].kept.choice.columns["survey"],
        "classes": _of_classes(runs[0].kept.choice),
        "split_sha256": runs[0].kept.choice.data["sources"]["splits.csv"],
        "setting": _setting(runs[0]),
        "over_runs": {
            name: _mean([run[name] for run in described])
            for name, value in described[0].items()
            if isinstance(value, float)
        },
    }
    if study.until == "evaluate":
        tables = [run["per_class"] for run in described]
        found["per_class"] = {
            name: {value: _mean([table[name][value] for table in tables]) for value in ("recall", "precision", "f1")}
            for name in CLASSES
        }
        found["confusion"] = np.sum([run["confusion"] for run in described], axis=0).tolist()
        right = pd.concat([run.is_right.astype(float) for run in runs]).groupby(level=0).mean()
        found["accuracy_interval"] = (
            described[0]["accuracy_interval"] if len(runs) == 1 else over_galaxies(np.array(right, np.float64))
        )
        if study.folds:
            found["pooled"] = _pooled([run for run in runs if run.cell.seed == study.seeds[0]])
    return found


def _counted(choice: Record) -> dict[str, dict[str, int]]:
    """By class: its galaxies in each part of the split, before training is thinned; empty where the survey's classes
    were not counted beforehand (`select.expected`).

    As the split's own rule has them, which `hiwl split` held the split to.
    """
    params = SplitParams.parse(choice.parameters["split"], "split")
    expected: dict[str, int] = choice.parameters["select"]["expected"] or {}
    return {name: counts(number, params) for name, number in expected.items()}


def _of_classes(choice: Record) -> dict[str, list[int]] | None:
    """Of the paper's one split: the galaxies of each class in each part of it; None of folds and thinned training."""
    counted, split = _counted(choice), choice.parameters["split"]
    if set(counted) != set(CLASSES) or split["fold"] is not None or split["training"] is not None:
        return None
    parts = {part: [counted[name][part] for name in CLASSES] for part in NAMES}
    return {"clean": [sum(of_class) for of_class in zip(*parts.values(), strict=True)]} | parts


def _commonest(choice: Record) -> dict[str, tuple[int, int]]:
    """By node: on validation, the galaxies of its commonest child and all; empty where nothing was counted."""
    counted, tree = _counted(choice), Tree(choice.parameters["hierarchy"])
    found = {}
    for node, children in tree.nodes.items() if counted else ():
        of_child = [sum(counted[leaf]["validation"] for leaf in tree.leaves(child)) for child in children]
        found[node] = max(of_child), sum(of_child)
    return found


def _setting(run: Run) -> dict[str, Any]:
    """What a run was, by the names that people compare runs by; `crop`: the pixels of a picture that it sees."""
    columns, pack = run.kept.choice.columns, run.kept.choice.parameters["pack"]
    crop = round(pack["crop"] * run.kept.choice.parameters["train"]["input"] / pack["side"])
    return {name: columns[name] for name in ("backbone", "input", "recipe", "started_from")} | {"crop": crop}


def _describe(run: Run) -> dict[str, Any]:
    """One run in numbers: floats are averaged over runs, the rest stands for itself."""
    choice = run.kept.choice
    found: dict[str, Any] = {
        **choice.columns,
        "fold": run.cell.fold,
        "definition": run.cell.definition,
        "passes": run.passes,
        "epochs": {name: len(node.history) for name, node in run.kept.nodes.items()},
        "checkpoints": {
            name: [
                (node.history[epoch]["validation_accuracy"], epoch + 1)
                for epoch in best_epochs([row["validation_accuracy"] for row in node.history], 3)
            ]
            for name, node in run.kept.nodes.items()
        },
        "commonest": _commonest(choice),
        **{name: value for name, value in choice.metrics.items() if name.startswith("validation_")},
        "trainings": {node.key: _cost(node) for node in run.kept.nodes.values()},
        "cost_seconds": float(choice.metrics["cost_seconds"]),
        "hardware": choice.environment["machine"],
        "device": choice.environment["device"],
        "precision": " and ".join(sorted(run.precisions)),
        "commit": choice.environment["commit"][:8],
    }
    if run.answers is not None:
        labels, said = _numbers(run.answers["class"]), _numbers(run.answers["answer"])
        metrics, table = measure(labels, said, CLASSES)
        probabilities = run.answers[[f"p_{name}" for name in CLASSES]].to_numpy()
        found |= metrics | {"calibration_error": calibration_error(probabilities, said, labels)}
        found["per_class"] = table.set_index("class").to_dict("index")
        found["confusion"] = confusion_matrix(labels, said, labels=range(len(CLASSES))).tolist()
    return found


def _cost(node: Record) -> float:
    return sum(row["seconds"] + row.get("validation_seconds", 0) for row in node.history)


def _pooled(runs: list[Run]) -> dict[str, Any]:
    """All folds of one seed together: every galaxy tested once."""
    answers = pd.concat([run.answers for run in runs if run.answers is not None])
    metrics, table = measure(_numbers(answers["class"]), _numbers(answers["answer"]), CLASSES)
    return metrics | {"per_class": table.set_index("class").to_dict("index")}


def _compare(runs: list[Run], base: list[Run]) -> dict[str, Any]:
    """Runs of a cell against those of the cell that it is set against."""
    paired = pairs(runs, base)
    if not paired:
        return {"pairs": 0, "validation": {}}
    found: dict[str, Any] = {"pairs": len(paired), "validation": {}}
    for name in ON_VALIDATION:
        sides = [[one.kept.choice.metrics.get(f"validation_{name}") for one in pair] for pair in paired]
        gaps = [mine - theirs for mine, theirs in sides if mine is not None and theirs is not None]
        if len(gaps) == len(paired):
            interval = over_pairs(paired, gaps)
            found["validation"][name] = _mean(gaps) | {"over_pairs": interval}
            if not any(run.cell.fold is not None for run, _ in paired):  # folds have no such interval
                found["validation"][name]["verdict"] = verdict(len(gaps), interval, None)
    if runs[0].answers is not None:
        found["test"], found["test_CSS"] = on_test(paired), on_test(paired, "CSS")
        tested = [
            (run.is_right.to_numpy(), first.is_right.reindex(run.is_right.index).to_numpy()) for run, first in paired
        ]
        found["mcnemar"] = [
            {"seed": run.cell.seed, "fold": run.cell.fold} | _mcnemar(*both)
            for (run, _), both in zip(paired, tested, strict=True)
        ]
        if {run.cell.fold for run, _ in paired} != {None} and len({run.cell.seed for run, _ in paired}) == 1:
            mine, theirs = (np.concatenate(side) for side in zip(*tested, strict=True))
            found["mcnemar_of_all"] = _mcnemar(mine, theirs)  # no galaxy is in two folds' test sets
    return found


def _mcnemar(mine: Bools, theirs: Bools) -> dict[str, Any]:
    a, b, p = mcnemar(mine, theirs)
    return {"only_this_right": a, "only_first_right": b, "p": p}


def _numbers(names: "pd.Series[str]") -> Ints:
    return names.map(CLASSES.index).to_numpy(np.int64)


def _mean(values: list[float]) -> dict[str, float | None]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}
