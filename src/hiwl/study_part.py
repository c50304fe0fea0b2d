"""One study's part of the report, in Markdown."""

from collections.abc import Sequence
from typing import Any

from hiwl.evaluate import wilson
from hiwl.markdown import between, gaps, percent, spread, table
from hiwl.paper import (
    ABLATIONS,
    BACKBONES,
    CHECKPOINTS,
    CLASSES,
    EPOCH_SECONDS,
    EPOCHS,
    VALIDATION_ACCURACY,
    paper_metrics,
    papers_accuracy,
    passes,
)

ON_VALIDATION = ("accuracy", "mean_recall", "recall_CSS", "calibration_error")
BETTER = {"holds": "yes", "contradicted": "worse"}
WHAT_IS_BETTER = """\
`better?` goes by validation accuracy and its interval over pairs of seeds alone. The differences of mean recall, recall
of CSS and ECE (less is better), all on validation, stand beside it: something may be meant for these. Pairs share seed,
fold and precision. Each row stands alone: of twenty that change nothing one is expected to be called better or worse.
"""
WHAT_IS_WHAT = """\
`epochs` of each node and `passes`, the images that training looked at: of the first run; `s`: training and validation,
wall clock, on machines that did other work beside. The epoch is chosen on validation, and where a temperature was
fitted, it was on validation too; the earliest records have no ECE of validation."""


def study_part(name: str, study: dict[str, Any]) -> str:
    """What it asks, what its runs reached, against each other and beside the paper, and what they were."""
    cells = {title: cell for title, cell in study["cells"].items() if cell["runs"]}
    done = sum(len(cell["runs"]) for cell in cells.values())
    parts = [f"## Study `{name}`\n", f"{study['question']}\n", f"{done} of {study['planned']} runs are on record.\n"]
    parts.append("Common to all: " + ", ".join(f"`{choice}`" for choice in study["common"]) + ".\n")
    evaluated = study["until"] == "evaluate"
    parts += [_overview(cells, evaluated), WHAT_IS_WHAT + "\n"]
    if any(title.partition(", ")[0] in BACKBONES for title in cells):
        parts.append(_gains(study))
    elif study["comparisons"]:
        parts.append(_comparisons(study, evaluated))
    if evaluated:
        parts.append(_per_class(cells))
    parts += [*filter(None, [idle_nodes(cells).lstrip()]), _choices(cells), _costs(cells, study["folds"])]
    return "\n".join(parts)


def details(name: str, study: dict[str, Any]) -> str:
    """What few will look up."""
    cells = {title: cell for title, cell in study["cells"].items() if cell["runs"]}
    said = "Test confusion (rows true, columns said), all runs of a row together:\n"
    confusions = [confusion(title, cell["confusion"]) for title, cell in cells.items()]
    best = [
        (f"{title}, {node}", best)
        for title, cell in cells.items()
        for node, best in cell["runs"][0]["checkpoints"].items()
    ]
    return "\n".join([f"## Test confusion and checkpoints of `{name}`\n", said, *confusions, checkpoints(best)])


def setting_of(cell: dict[str, Any]) -> str:
    """What the first of a cell's runs was."""
    setting = cell["setting"]
    epochs = " + ".join(str(number) for number in cell["runs"][0]["epochs"].values())
    return (
        f"`{setting['backbone']}` at {setting['input']} px of the central {setting['crop']}, "
        f"recipe `{setting['recipe']}`, {epochs} epochs, started from {setting['started_from']}"
    )


def _overview(cells: dict[str, Any], evaluated: bool) -> str:
    header = ["", "runs", *(f"validation {value}" for value in ("accuracy", "mean recall", "CSS", "ECE"))]
    if evaluated:
        header += ["test accuracy", "95 %", *(f"test {value}" for value in ("mean recall", "CSS", "ECE"))]
        header += ["paper"]
    header += ["epochs", "passes", "s"]
    rows = []
    for title, cell in cells.items():
        over, first = cell["over_runs"], cell["runs"][0]
        row = [title, f"{len(cell['runs'])} of {cell['planned']}"]
        row += [spread(over.get(f"validation_{name}")) for name in ("accuracy", "mean_recall", "recall_CSS")]
        row += [spread(over.get("validation_calibration_error"))]
        if evaluated:
            row += [spread(over["accuracy"]), between(cell.get("pooled", cell)["accuracy_interval"])]
            row += [spread(over["mean_recall"]), spread(cell["per_class"]["CSS"]["recall"])]
            papers = papers_accuracy(title)
            row += [spread(over["calibration_error"]), percent(papers) if papers else ""]
        row += [" + ".join(str(n) for n in first["epochs"].values()), str(first["passes"])]
        rows.append([*row, f"{over['cost_seconds']['mean']:.0f}"])
    if evaluated:
        rows.append(_paper_row(len(header)))
    return table(header, rows)


def _paper_row(length: int) -> list[str]:
    paper = paper_metrics()
    row = ["paper (B1, 240 px)", "1", percent(VALIDATION_ACCURACY), "", "", "", percent(paper["accuracy"])]
    row += [between(paper["accuracy_interval"]), percent(paper["mean_recall"])]
    seconds = sum(EPOCHS[node] * EPOCH_SECONDS[node] for node in EPOCHS)
    row += [percent(paper["per_class"]["CSS"]["recall"]), "", "", " + ".join(map(str, EPOCHS.values()))]
    row += [str(passes("training")), str(seconds)]
    return row + [""] * (length - len(row))


def _comparisons(study: dict[str, Any], evaluated: bool) -> str:
    first = next(iter(study["cells"]))
    header = ["against " + first, "pairs", "validation accuracy", "95 % over pairs", "better?"]
    header += ["mean recall", "CSS", "ECE"]
    if evaluated:
        header += ["test accuracy", "95 % over pairs", "over galaxies", "test CSS", "over galaxies"]
        header += ["McNemar: only this right, only the other, p"]
    rows = []
    for title, found in study["comparisons"].items():
        accuracy, *others = (found["validation"].get(name) for name in ON_VALIDATION)
        row = [title, str(found["pairs"]), spread(accuracy, signed=True)]
        row.append(gaps((accuracy or {}).get("over_pairs") or [], "share"))
        said = (accuracy or {}).get("verdict", "")
        row.append(BETTER.get(said, said))
        row += [spread(other, signed=True) for other in others]
        if "test" in found:
            test = found["test"]
            differences = [[test["difference"]], test["over_pairs"] or [], test["over_galaxies"]]
            of_cigars = found["test_CSS"]
            differences += [[of_cigars["difference"]], of_cigars["over_galaxies"]]
            row += [gaps(values, "share") for values in differences]
            row.append(_mcnemar(found))
        rows.append(row)
    return table(header, rows) + "\n" + WHAT_IS_BETTER


def _mcnemar(compared: dict[str, Any]) -> str:
    """Of each pair; of folds, whose test sets share no galaxy, of all together."""
    found = [compared["mcnemar_of_all"]] if "mcnemar_of_all" in compared else compared["mcnemar"]
    return "; ".join(f"{one['only_this_right']}, {one['only_first_right']}, {one['p']:.2g}" for one in found)


def _gains(study: dict[str, Any]) -> str:
    """The paper's Table 7: each backbone plain and with the method, beside the paper's two."""
    kinds = ["plain", "method"]
    if any(title.endswith(", plain from scratch") for title in study["cells"]):
        kinds.insert(0, "plain from scratch")
    header = ["test accuracy (Table 7)", *kinds, "gain over plain", "over galaxies"]
    header += ["McNemar: only the method right, only the plain, p", "paper: plain", "paper: method", "paper: gain"]
    rows, intervals = [], []
    for backbone, papers in BACKBONES.items():
        row = [backbone]
        for kind in kinds:
            cell = study["cells"].get(f"{backbone}, {kind}", {"runs": []})
            row.append(spread(cell["over_runs"]["accuracy"]) if cell["runs"] else "")
        test = study["comparisons"].get(f"{backbone}, method", {}).get("test")
        if test:
            intervals.append(test["over_galaxies"])
            row += [gaps(values, "share") for values in ([test["difference"]], test["over_galaxies"])]
            row.append(_mcnemar(study["comparisons"][f"{backbone}, method"]))
        else:
            row += [""] * 3
        rows.append([*row, *map(percent, papers), gaps([papers[1] - papers[0]], "share")])
    gains, losses = sum(low > 0 for low, _ in intervals), sum(high < 0 for _, high in intervals)
    said = f"Of {len(intervals)} backbones the method gains with {gains} and loses with {losses}, by the interval over "
    said += "galaxies, which leaves out the noise between trainings; in the paper it gains with all ten.\n"
    return table(header, rows) + "\n" + said


def _per_class(cells: dict[str, Any]) -> str:
    """Recall, precision and F1 of each class: over folds of all galaxies together, else the mean over runs.

    Recall of one share, a single run's or that of all folds together, has Wilson's interval.
    """
    parts = []
    paper = paper_metrics()["per_class"]
    for value in ("recall", "precision", "f1"):
        rows = [[title, *(_of_class(cell, name, value) for name in CLASSES)] for title, cell in cells.items()]
        for name, (_, recalls) in ABLATIONS.items():
            if value == "recall" and name in cells:
                rows.append([f"paper, {name}", *map(percent, recalls)])
        if value != "recall" or "HIWL" not in cells:
            rows.append(["paper, HIWL", *(percent(paper[name][value]) for name in CLASSES)])
        parts.append(table([value, *CLASSES], rows))
    return "\n".join(parts)


def _of_class(cell: dict[str, Any], name: str, value: str) -> str:
    if "pooled" in cell or len(cell["runs"]) == 1:
        found = cell.get("pooled", cell["runs"][0])["per_class"][name]
        interval = f" ({between((found['recall_low'], found['recall_high']))})" if value == "recall" else ""
        return percent(found[value]) + interval
    return spread(cell["per_class"][name][value])


def idle_nodes(cells: dict[str, Any]) -> str:
    """Which nodes are not shown to be better than an answer that never changes, by their best checkpoint.

    Wilson's interval is to be above that answer's share. The checkpoint is the best of many, so that a node which has
    learned nothing passes more often than in one of forty.
    """
    told = []
    for title, cell in cells.items():
        for node in cell["runs"][0]["checkpoints"] if cell["runs"] else []:
            found = [_idle(run, node) for run in cell["runs"] if node in run["commonest"]]
            if shares := sorted({percent(share) for share in found if share is not None}):
                number = len(found) - found.count(None)
                told.append(f"`{node}` of {title} in {number} of {len(cell['runs'])} runs ({', '.join(shares)})")
    if not told:
        return ""
    return (
        "\nNot shown to be better on validation than always answering the commonest class: "
        f"{'; '.join(told)}. Weighted sampling gives up some of that accuracy for the rarer class, but the paper's "
        f"second layer reaches {percent(max(CHECKPOINTS['narrow'])[0])}: what these rows say of two layers is said of "
        "second layers that have learned less than the paper's.\n"
    )


def _idle(run: dict[str, Any], node: str) -> float | None:
    """The accuracy of always answering the node's commonest class, if its best checkpoint is not shown to be better."""
    commonest, galaxies = run["commonest"][node]
    right = round(run["checkpoints"][node][0][0] * galaxies)
    return commonest / galaxies if wilson(right, galaxies)[0] <= commonest / galaxies else None


def _choices(cells: dict[str, Any]) -> str:
    lines = [
        f"- {title}: {setting_of(cell)}" + "".join(f", `{choice}`" for choice in cell["choices"])
        for title, cell in cells.items()
    ]
    return "\n".join(["What each row was, and what it chose beyond the common:", "", *lines, ""])


def _costs(cells: dict[str, Any], folds: list[int]) -> str:
    runs = [run for cell in cells.values() for run in cell["runs"]]
    machines = ", ".join(sorted({f"{run['hardware']} ({run['device']}, {run['precision']})" for run in runs}))
    counts = next(iter(cells.values()))["galaxies"]
    galaxies = ", ".join(f"{number} {name}" for name, number in counts.items())
    splits = {cell["split_sha256"][:12] for cell in cells.values()}
    split = "in the first fold" if folds else ", ".join(f"split `{name}`" for name in sorted(splits))
    return f"Galaxies: {galaxies}; {split}. {hours(runs):.1f} h on {machines}.\n"


def hours(runs: list[dict[str, Any]]) -> float:
    """What all their trainings took, those that runs share once."""
    trainings = {key: seconds for run in runs for key, seconds in run["trainings"].items()}
    return float(sum(trainings.values())) / 3600


def checkpoints(of_nodes: Sequence[tuple[str, Sequence[Sequence[float]]]]) -> str:
    """The three best validation accuracies of each node, and their epochs."""
    rows = [
        [title, ", ".join(f"{percent(accuracy)} ({epoch:.0f})" for accuracy, epoch in best)] for title, best in of_nodes
    ]
    return table(["node, first run", "best validation accuracies (epoch)"], rows)


def confusion(title: str, counts: list[list[int]]) -> str:
    """(classes, classes) counts, rows true."""
    return table([title, *CLASSES], [[CLASSES[i], *row] for i, row in enumerate(counts)])
