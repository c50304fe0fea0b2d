"""The report's text: Markdown from the numbers that `hiwl report` gathered."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import fisher_exact

from hiwl import redraw
from hiwl.markdown import between, gaps, percent, spread, table
from hiwl.paper import (
    ABLATIONS,
    CHECKPOINTS,
    CLASSES,
    CONFUSION,
    OTHERS,
    SPLITS,
    VALIDATION_ACCURACY,
    paper_metrics,
    passes,
)
from hiwl.study_part import ON_VALIDATION, checkpoints, confusion, details, hours, idle_nodes, setting_of, study_part

INTRODUCTION = """\
# Results

Written by `hiwl report` from the records in `results/`; the same figures are in `results.json`, and `report.html` has
the pictures. Shares are per cent; `±` is the standard deviation over runs (seeds, or folds); ranges are 95 %
intervals: Wilson's of one share, bootstrap over galaxies of differences and of means over runs, Student's t over pairs
of runs that differ by their seed (folds share most of their training galaxies, so that their pairs do not stand for
others). McNemar's test is exact, on the same galaxies.

Classes: smooth galaxies that are completely round (CRS), in between (IBS) or cigar-shaped (CSS); edge-on (EO) and
spiral (SPI) ones. Ways to tell them apart: the paper's method, two layers with weighted sampling in the second and
label smoothing (HIWL); the same without smoothing (HMWS); one layer for all classes with weighted sampling and
smoothing (SLWSLM), with smoothing alone, or plain. `CSS` in a table is the recall of cigars, `ECE` the expected
calibration error.

What stands beside the paper's figures was trained as its study says, and started from what is said there
(`tf_efficientnet_lite0.safetensors` and `tf_efficientnet_lite1.safetensors` hold ImageNet weights). The paper's
precision and F1 are computed from its confusion matrix, which its printed precision of cigars (78.55) does not follow
from.

| of the paper | here |
| --- | --- |
| thresholds (Table 1) | `conf/config.yaml`, `select.rules` |
| counts of each class (Table 2) | Splits |
| best epochs of each layer | appendix, checkpoints |
| the nine pairs of these | left out: records keep the best pair (`models/choice/combinations.csv` has all) |
| recall, precision and F1 of each class; confusion | with each study; appendix |
| ablations | study `ablations` |
| ten backbones (Table 7) | study `backbones`, short and without VGG16 and ViT; `backbones-paper`, all ten, for a GPU |
| what others report (Table 8) | What others report |
| per class, against three others (Tables 9 to 11) | left out: they were not at hand |
| learning curves (Figure 5) | `report.html` |
| t-SNE (Figure 6) | Figures 6 and 7, as measurements; `report.html` has pictures of the claims' first seed |
| Grad-CAM (Figure 7) | there too; `report.html` has pictures of the run that `hiwl explain` explained here last |
"""
FIGURES = """\
## Figures 6 and 7, as measurements

By `hiwl explain`. Silhouettes of the test galaxies in the space of each node's penultimate features (1: classes
apart, 0: mixed, below 0: nearer to the other class than to the own), all classes of the node and two at a time, by
Euclidean distance (t-SNE's) and by angle. Their spread is that between seeds. Grad-CAM for the true class at the node
above it: the share of the map's weight that lies on the galaxy (what is above the sky and connected to the centre), at
the last layer that has a map and at the last one with 7 x 7 cells or more, beside an even map's.
"""
EARLIER_FIGURES = """\
## Figures 6 and 7 of superseded studies
"""
GOALS = {"accuracy": 0.98, "CSS": 0.85}
REACHED = """\
## How far it got

What did best on validation, by accuracy and by mean recall (in which the few cigars count as much as any class), of
all that was evaluated on a split of the paper's sizes. The paper published no list of its galaxies, so the split is
this repository's and most of the test galaxies are others; `p`: Fisher's exact test of the same share in both (not over
folds, which test the paper's galaxies too). A goal is `reached` or `missed` where the whole interval is; both goals are
meant for one model, and many cigars found say little where few of those called cigars are some (their precision). The
epoch is chosen on validation, so that what stands there is a little too high, and each study says what else its choices
had seen. Over folds, where every galaxy is tested once, a shorter training was affordable (its study says which); their
interval is that of other galaxies, and what another training would do to it shows in the spread between folds there.
"""
CLAIMS = """\
Each claim as a difference between runs of the same seed, per cent or silhouette. It `holds` (or is `contradicted`)
where the 95 % intervals over pairs (Student's t: other seeds) and, of accuracies, over test galaxies both lie on one
side of zero; else it is `open`. Less than three pairs settle nothing, and each interval stands alone: of twenty claims
about nothing one is expected to be settled. The paper's gain over a plain layer is from its Table 7, which gives an
average accuracy, does not say over what, and counts transfer learning into the gain; here both start from the same
weights.
"""
ERRORS = """\
## The errors under a second look
"""
KINDS = {"errors": "errors", "right": "right answers"}
READINGS = """\
Pictures of errors among right answers, each with two classes to choose between (`hiwl explain`, `hiwl.reading`). An
error is asked beside a right answer that was offered the same two classes and that the model set as nearly as far
apart as could be had, where one is left; readers saw the sheets alone. `label`: found for the label, `other`: for the
other class offered, `unsure`: for none, or not all alike. Partners were offered the errors' pairs of classes, but their
labels are mixed otherwise, and a reader may favour one: the last column weighs the partners to the errors' labels.

A reader who sides with the labels of the errors in about half of them, and with those of their partners in most,
cannot tell what the errors show; that is short of showing that their labels are wrong. Readings named `vision-model`
are by one vision-language model, each in a conversation of its own: one reader again and again, and not a person.
"""
DOUBTS = """\
Where the votes are known: how often second crowds (`hiwl redraw`) would drop a galaxy from the clean set, which names
no class and happens near the thresholds, and how often they would rename it, of all times. Means over galaxies that the
votes select, ± standard errors; of what did best on validation, and of what was read.
"""
OTHERS_SAID = """\
## What others report (the paper's Table 8)

Each on galaxies and classes of its own, so that none can be set above another. Since the paper, CvT (Cao et al. 2024,
A&A 683, A42) reports more than 98 % of accuracy, precision, recall and F1 on five classes; its protocol was not at
hand.
"""


def page(
    studies: dict[str, dict[str, Any]],
    claims: dict[str, list[dict[str, Any]]],
    errors: dict[str, dict[str, dict[str, Any]]],
    explained: dict[str, dict[str, Any]],
    labels: dict[str, dict[str, Any]],
) -> str:
    """The whole page."""
    done = {name: study for name, study in studies.items() if any(cell["runs"] for cell in study["cells"].values())}
    parts = [INTRODUCTION, *_not_the_papers(done), _cost(done), _reached(studies), *_claims(claims, studies)]
    parts += [study_part(name, study) for name, study in done.items() if not study["superseded"]]
    current, earlier = (
        {title: found for title, found in explained.items() if studies[found["study"]]["superseded"] is superseded}
        for superseded in (False, True)
    )
    parts += [*_errors(errors, best_cell(studies)), *_explained(FIGURES, current)]
    parts += [*_labels(labels), _splits(studies)]
    parts += [_others(studies), _left_out(studies)]
    parts += ["# Appendix\n", *(study_part(name, study) for name, study in done.items() if study["superseded"])]
    parts += _explained(EARLIER_FIGURES, earlier)
    parts += [details(name, study) for name, study in done.items() if study["until"] == "evaluate"]
    parts += ["## Test confusion and checkpoints of the paper\n", confusion("paper", CONFUSION.tolist())]
    parts.append(checkpoints([(node, best) for node, best in CHECKPOINTS.items()]))
    return "\n".join(parts)


def _not_the_papers(done: dict[str, dict[str, Any]]) -> list[str]:
    """What is to be known before anything here is compared with the paper, as long as it is so."""
    if "paper" in done:
        return []
    return ["Nothing here was trained by the paper's whole recipe (study `paper`, which wants a GPU).\n"]


def _cost(done: dict[str, dict[str, Any]]) -> str:
    runs = [run for study in done.values() for cell in study["cells"].values() for run in cell["runs"]]
    number = len({run["definition"] for run in runs})
    return f"On record: {number} runs, {hours(runs):.0f} h of training, often two side by side.\n"


def _splits(studies: dict[str, dict[str, Any]]) -> str:
    splits = {"the paper": SPLITS}
    for study in studies.values():
        for cell in study["cells"].values():
            if cell["runs"] and cell["classes"]:
                splits[f"survey `{cell['survey']}`"] = cell["classes"]
    rows = [[whose, part, *numbers, sum(numbers)] for whose, parts in splits.items() for part, numbers in parts.items()]
    said = "The collectors of `labels` selected with >= where the paper has >, which leaves a few more to train on.\n"
    return "## Splits (the paper's Table 2)\n\n" + table(["", "", *CLASSES, "total"], rows) + "\n" + said


def best_cell(studies: dict[str, dict[str, Any]], by: str = "accuracy") -> tuple[str, dict[str, Any]] | None:
    """What did best on validation, of all evaluated on a split of the paper's sizes; its title and numbers.

    A cell whose runs are some of another's is left to that one, lest the luckiest of several seeds stands for all.
    """
    sizes = {part: sum(SPLITS[part]) for part in ("validation", "test")}
    evaluated = [
        (f"{name}: {title}", cell)
        for name, study in studies.items()
        if study["until"] == "evaluate"
        for title, cell in study["cells"].items()
        if cell["runs"] and "pooled" not in cell and cell["galaxies"].items() >= sizes.items()
    ]
    runs_of = {title: {run["definition"] for run in cell["runs"]} for title, cell in evaluated}
    whole = [one for one in evaluated if not any(runs_of[one[0]] < runs for runs in runs_of.values())]
    return max(whole, key=lambda one: float(one[1]["over_runs"][f"validation_{by}"]["mean"]), default=None)


def _reached(studies: dict[str, Any]) -> str:
    header = ["", "validation accuracy", "validation mean recall", "validation recall of CSS"]
    for name, goal in zip(("test accuracy", "recall of CSS"), GOALS.values(), strict=True):
        header += [name, "95 %", "p", f"goal of {100 * goal:.0f}"]
    header.append("precision of CSS")
    paper = paper_metrics()
    papers = {"accuracy": paper, "CSS": paper["per_class"]["CSS"]}
    row = ["the paper (B1, 240 px)", percent(VALIDATION_ACCURACY), "", ""]
    for of_paper in papers.values():
        share, interval, _ = _tested(of_paper)
        row += [percent(share), between(interval), "", ""]
    rows = [[*row, percent(papers["CSS"]["precision"])]]
    # Title, on validation, what was tested, and whether on other galaxies than the paper's.
    reached: list[tuple[str, list[float | None], dict[str, Any], bool]] = []
    best = dict(filter(None, (best_cell(studies, by) for by in ("accuracy", "mean_recall"))))
    for title, cell in best.items():
        reached += [
            (f"{title}, seed {run['seed']}", [run.get(f"validation_{share}") for share in ON_VALIDATION[:3]], run, True)
            for run in cell["runs"]
        ]
    reached += [
        (
            f"{name}: {title}, {len({run['fold'] for run in cell['runs']})} of {len(study['folds'])} folds",
            [cell["over_runs"].get(f"validation_{share}", {}).get("mean") for share in ON_VALIDATION[:3]],
            cell["pooled"],
            False,
        )
        for name, study in studies.items()
        for title, cell in study["cells"].items()
        if "pooled" in cell
    ]
    for title, on_validation, tested, is_independent in reached:
        row = [title, *("" if share is None else percent(share) for share in on_validation)]
        for name, ours in {"accuracy": tested, "CSS": tested["per_class"]["CSS"]}.items():
            share, interval, counts = _tested(ours)
            p = fisher_exact(np.array([counts, _tested(papers[name])[2]])).pvalue
            row += [percent(share), between(interval), f"{p:.2g}" if is_independent else ""]
            row.append(_goal(interval, GOALS[name]))
        rows.append([*row, percent(tested["per_class"]["CSS"]["precision"])])
    return REACHED + "\n" + table(header, rows)


def _tested(of: dict[str, Any]) -> tuple[float, Sequence[float], tuple[int, int]]:
    """An accuracy, or a class's recall: the share, its interval, and how many were right and wrong."""
    share = of["accuracy"] if "accuracy" in of else of["recall"]
    right = round(share * of["galaxies"])
    interval = of["accuracy_interval"] if "accuracy" in of else (of["recall_low"], of["recall_high"])
    return share, interval, (right, of["galaxies"] - right)


def _goal(interval: Sequence[float], goal: float) -> str:
    if interval[0] >= goal:
        return "reached"
    return "missed" if interval[1] < goal else "open"


def _claims(claims: dict[str, list[dict[str, Any]]], studies: dict[str, dict[str, Any]]) -> list[str]:
    parts = []
    for name, found in claims.items():
        if not any(claim["each"] for claim in found):
            continue
        header = ["claim", "holds?", "paper", "here", "each pair", "95 % over pairs", "over galaxies", "measured by"]
        rows: dict[bool, list[list[str]]] = {True: [], False: []}
        for claim in found:
            differences = [[claim["paper"]], [claim.get("difference")], claim["each"]]
            differences += [claim.get("over_pairs") or [], claim.get("over_galaxies") or []]
            row = [claim["text"], claim["verdict"], *(gaps(values, claim["unit"]) for values in differences)]
            if claim["over_galaxies"]:
                row[-1] += f" (n = {claim['galaxies']})"
            rows[claim["is_papers"]].append([*row, f"{claim['measure']}: {claim['better']} above {claim['worse']}"])
        method = next(cell for cell in (studies[name]["cells"][way] for way in ABLATIONS) if cell["runs"])
        share = method["runs"][0]["passes"] / passes("training")
        told = f"By runs like this one: {setting_of(method)}, {share:.1%} of the passes that the paper made.\n"
        told += idle_nodes(studies[name]["cells"])
        parts.append(f"## The paper's claims, by study `{name}`\n\n{CLAIMS}\n{told}\n{table(header, rows[True])}")
        parts.append(f"What the paper does not claim, asked the same way:\n\n{table(header, rows[False])}")
    return parts


def _labels(labels: dict[str, dict[str, Any]]) -> list[str]:
    return [
        f"## What the labels allow\n\nSurvey `{survey}`, by `hiwl redraw`.\n\n" + "\n".join(redraw.lines(found)) + "\n"
        for survey, found in labels.items()
    ]


def _errors(errors: dict[str, dict[str, dict[str, Any]]], best: tuple[str, dict[str, Any]] | None) -> list[str]:
    """What is to be said against the labels of the galaxies that runs had wrong."""
    read, doubted = [], []
    for name, cells in errors.items():
        for cell, found in cells.items():
            for run, readings in found["readings"].items():
                for reader, counts in readings.items():
                    for kind, count in counts.items():
                        row = [f"{count['galaxies']} of {count['of']}" if "of" in count else f"{count['galaxies']}"]
                        row += [f"{count[who]}" for who in ("label", "other", "another", "unsure")]
                        share = count["label"] / max(1, count["label"] + count["other"])
                        row += [f"{percent(share)} ({between(count['interval'])})"]
                        row += ["" if count.get("weighted") is None else percent(count["weighted"])]
                        read.append([f"{name}: {cell}, {run}", reader, KINDS[kind], *row])
            is_told = found["readings"] or (best and best[0] == f"{name}: {cell}")
            for kind, doubt in found["doubts"].items():
                if is_told and "left" in doubt:
                    row = [f"{name}: {cell}", KINDS[kind], str(doubt["galaxies"]), doubt["volunteers"]]
                    for share in ("left", "changed"):
                        row.append(f"{percent(doubt[share]['mean'])} ± {percent(doubt[share]['standard_error'])}")
                    doubted.append(row)
    parts = [ERRORS] if read or doubted else []
    if read:
        header = [
            "read",
            "reading",
            "of",
            "galaxies",
            "label",
            "other",
            "another",
            "unsure",
            "label, per cent of the two",
            "weighed",
        ]
        parts += [READINGS, table(header, read)]
    if doubted:
        header = ["first seed of", "of", "galaxies", "volunteers", "dropped, per cent", "renamed, per cent"]
        parts += [DOUBTS, table(header, doubted)]
    return parts


def _explained(heading: str, told: dict[str, dict[str, Any]]) -> list[str]:
    """Figures 6 and 7 as `hiwl explain` measured them."""
    if not told:
        return []
    apart, looking = [], []
    for title, content in told.items():
        for node, by_distance in content["silhouette"].items():
            for distance, found in by_distance.items():
                values = (found["all"], *(found["pairs"].get(pair) for pair in ("CRS IBS", "CSS EO")))
                apart.append([title, node, distance, *("" if value is None else f"{value:.3f}" for value in values)])
        for layer in ("last", "fine"):
            seen = content["gradcam"][layer]
            shares = [seen[who]["share"] for who in ("all", *CLASSES)]
            looking.append([title, layer, *(_bounded(value) for value in [*shares, seen["all"]["uniform"]])])
    header = ["share on the galaxy, per cent", "layer", "all", *CLASSES, "of an even map"]
    return [
        heading,
        table(["silhouette", "node", "distance", "all", "CRS, IBS", "CSS, EO"], apart),
        table(header, looking),
    ]


def _bounded(share: dict[str, Any]) -> str:
    """A mean share in per cent, with its interval, as `hiwl.comparison.mean_with_interval` gives them."""
    if share["mean"] is None:
        return ""
    ends = " ({:.1f} to {:.1f})".format(*(100 * end for end in share["interval"])) if share["interval"] else ""
    return f"{100 * share['mean']:.1f}{ends}"


def _others(studies: dict[str, Any]) -> str:
    rows = [[title, percent(value), classes] for title, value, classes in OTHERS]
    if best := best_cell(studies):
        title, cell = best
        ours = f"{spread(cell['over_runs']['accuracy'])} ({between(cell['accuracy_interval'])})"
        rows.append([f"this repository, {title}, {len(cell['runs'])} of {cell['planned']} seeds", ours, 5])
    return OTHERS_SAID + "\n" + table(["", "accuracy", "classes"], rows)


def _left_out(studies: dict[str, Any]) -> str:
    missing = []
    for name, study in studies.items():
        left = [
            f"{title} ({cell['planned'] - len(cell['runs'])} of {cell['planned']})"
            for title, cell in study["cells"].items()
            if len(cell["runs"]) < cell["planned"]
        ]
        begun = any(cell["runs"] for cell in study["cells"].values())
        question = "" if begun else f" {study['question']}"  # one that has begun has told it above
        if left:
            missing.append(f"- `{name}`:{question} {'; '.join(left)}")
    return "\n".join(["## Not run yet", "", *(missing or ["Nothing: every run of every study is on record."]), ""])
