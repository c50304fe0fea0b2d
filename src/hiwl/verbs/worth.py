"""`hiwl worth NAME=FEATURES...`: what features are worth, judged by the votes on galaxies outside the training set.

Each of `hiwl embed`'s tables, of pictures named after their galaxies, leaves a record ``results/features/<name>.json``;
NAME=FILE+FILE joins two, and GROUP/NAME=FILE is told in a table of its group. With `--train`, the networks that made
the features go on learning from few labels instead (:mod:`hiwl.verbs.taught`). Renews ``docs/results/features.md`` and
its picture from all records.
"""

import io
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256, write_json, write_text
from hiwl.core.layout import ID
from hiwl.core.pages import Helpers, page
from hiwl.core.registry import weights_folder
from hiwl.measure import worth
from hiwl.measure.plots import headless_pyplot, save
from hiwl.model.components import Features, directions
from hiwl.model.tree import ROOT
from hiwl.survey.pictures import shown_by
from hiwl.survey.tables import read_table
from hiwl.survey.votes import COLUMNS
from hiwl.verbs.embed import How
from hiwl.verbs.features import FeatureTable
from hiwl.verbs.taught import DATA, Taught, read_record
from hiwl.verbs.taught import RECORDS as TAUGHT

RECORDS = Path("results/features")
PAGE, PICTURE = Path("docs/results/features.md"), Path("docs/results/features.svg")
TEMPLATE = Path(__file__).with_name("worth.md.jinja")
PIXELS = "pixels"
"""The record of what the pictures themselves are worth, 16 x 16 of them."""
LEARNED = ("ring", "bar", "merger", "tight arms")


def main(features: list[str], votes: str | None, mixture: str | None, splits: str, train: str | None) -> None:
    """Measure, and renew the page.

    Raises:
        HiwlError: a table is missing, or holds no galaxy that can be judged.
    """
    if features and not (votes and mixture):
        raise HiwlError("--votes and --mixture: the tables of votes that features are judged by are needed")
    if not features and (votes or mixture or train):
        raise HiwlError("--votes, --mixture and --train are for features: name some, as NAME=FILE")
    if missing := [given for given in (votes, mixture) if given and not Path(given).is_file()]:
        raise HiwlError(f"{missing[0]}: not found")
    for given in features:
        assert votes and mixture
        name, equals, paths = given.partition("=")
        if not equals or name.startswith(f"{TAUGHT.name}/"):
            raise HiwlError(f"{given}: expected NAME=FILE or GROUP/NAME=FILE, of any group but {TAUGHT.name}")
        tables = [FeatureTable(Path(path)) for path in paths.split("+")]
        judged = _judged(tables, Path(votes), Path(mixture), Path(splits))
        data = {of: sha256(Path(path)) for of, path in zip(DATA, (votes, mixture, splits), strict=True)}
        said = {"features": [_without_place(table.how) for table in tables], "data": data, "galaxies": len(judged)}
        _check_record(said, [PIXELS, *(one.partition("=")[0] for one in features)])
        _tell_of_other_splits(tables, splits, data["splits"])
        if train:
            _teach(given, tables, judged, train, said)
            continue
        _measure(name, _joined(tables, judged), judged, said)
        if not _is_of(data, RECORDS / f"{PIXELS}.json"):
            _measure(PIXELS, _pixels(tables[0], judged), judged, said | {"features": []})
    write_page()
    print(f"worth: {PAGE}")


def _check_record(said: dict[str, Any], renewed: list[str]) -> None:
    """Before anything is measured that the page cannot set beside the other records.

    Raises:
        HiwlError: these are of other galaxies or tables.
    """
    for name, one in _all(_read(RECORDS), _groups()).items():
        if name not in renewed and not _alike(said, one):
            raise HiwlError(
                f"{RECORDS / name}.json: of other galaxies or tables than those given, and one page tells of both; "
                f"move it out of {RECORDS}, and whatever else is there, to measure others"
            )


def _tell_of_other_splits(tables: list[FeatureTable], splits: str, of_splits: str) -> None:
    for table in tables:
        try:
            record = weights_folder(table.how.weights) / "record.json"
        except HiwlError:  # they have been moved since
            continue
        if record.exists() and json.loads(record.read_text())["data"]["sources"]["splits.csv"] != of_splits:
            print(
                f"worth: {table.how.weights} was trained on another split than {splits}; its training galaxies may be "
                "among those that it is judged by, unless they are of this one's training set too (--splits)"
            )


def _teach(given: str, tables: list[FeatureTable], judged: pd.DataFrame, train: str, said: dict[str, Any]) -> None:
    """Measure the network that made the features `given`, once these have been."""
    name, how = given.partition("=")[0], tables[0].how
    if len(tables) > 1 or how.node != ROOT or how.components or "/" in name:
        raise HiwlError(f"{given}: --train teaches one network: give NAME=FILE, of all features of a root")
    record = RECORDS / f"{name}.json"
    if not record.exists() or any(read_record(record)[key] != value for key, value in said.items()):
        raise HiwlError(f"{record}: not of these features; measure them first, without --train")
    pictures = tables[0].given["path"].iloc[judged["row_0"].to_numpy(int)].tolist()
    tags = worth.tags_of(judged[COLUMNS], judged["class"])
    Taught(name, how.weights, train, said).measure(pictures, {tag: tags[tag] for tag in LEARNED})


def _judged(tables: list[FeatureTable], votes: Path, mixture: Path, splits: Path) -> pd.DataFrame:
    """By galaxy, of those that every table has and that are not of the training set: votes, class, row in each table,
    and whether it is of the natural `mixture`."""
    every, natural = (_by_galaxy(path) for path in (votes, mixture))
    told = pd.concat([every, natural[~natural.index.isin(every.index)]]).reindex(columns=COLUMNS)
    split = _by_galaxy(splits)
    told["class"] = split["class"].reindex(told.index)
    told["is_natural"] = told.index.isin(natural.index)
    told = told[~told.index.isin(split.index[split["split"] == "training"])]
    for number, table in enumerate(tables):
        if "path" not in table.given:
            raise HiwlError(f"{table.path}: no paths, by which galaxies are known; `hiwl embed` a folder or archive")
        given = table.given[table.given["error"].isna()]
        names = given["path"].map(shown_by)
        row = pd.Series(given.index, index=names)
        told[f"row_{number}"] = row[~row.index.duplicated()].reindex(told.index)
    told = told.dropna(subset=[f"row_{number}" for number in range(len(tables))])
    least = math.ceil((worth.ANSWERS[-1] + 10) / worth.SHARE)
    if (number := int(told["is_natural"].sum())) < least:
        raise HiwlError(
            f"{tables[0].path}: {number} galaxies of {mixture} that are not of the training set; {least} are needed"
        )
    for tag, of_tag in worth.tags_of(told[COLUMNS], told["class"]).items():
        has, known = int((of_tag.has & of_tag.known).sum()), int(of_tag.known.sum())
        if min(has, known - has) <= worth.NEAREST:
            raise HiwlError(f"{tables[0].path}: {tag}: {has} of {known} galaxies have it, too few to measure by")
    return told.sort_index()


def _by_galaxy(path: Path) -> pd.DataFrame:
    table = read_table(path)
    if ID not in table:
        raise HiwlError(f"{path}: no column {ID!r}; found {', '.join(map(str, table.columns[:8]))}")
    return table.set_index(ID)


def _without_place(how: How) -> dict[str, Any]:
    """How features were made, but for where this machine has the weights; options that were not given are left out."""
    given = {name: value for name, value in how._asdict().items() if how._field_defaults.get(name, ...) != value}
    return given | {"weights": Path(how.weights).name}


def _joined(tables: list[FeatureTable], judged: pd.DataFrame) -> Features:
    """(n, width): one table's features, or several's side by side, each of unit length."""
    parts = [table.features()[judged[f"row_{number}"].to_numpy(int)] for number, table in enumerate(tables)]
    if len(parts) == 1:
        return np.asarray(parts[0], np.float32)
    return np.concatenate([directions(part) for part in parts], axis=1)


def _pixels(table: FeatureTable, judged: pd.DataFrame) -> Features:
    """(n, 768) from the small pictures in a table."""
    jpegs = table.pictures(judged["row_0"].to_numpy(np.int64))
    pictures = [Image.open(io.BytesIO(jpeg or b"")).resize((16, 16), Image.Resampling.BOX) for jpeg in jpegs]
    return np.stack([np.asarray(picture, np.float32).ravel() for picture in pictures])


def _measure(name: str, features: Features, judged: pd.DataFrame, said: dict[str, Any]) -> None:
    tags = worth.tags_of(judged[COLUMNS], judged["class"])
    natural = judged["is_natural"].to_numpy(bool)
    oddness, of_natural = judged[worth.ODD].to_numpy(np.float64)[natural], features[natural]
    record = {
        **said,
        "width": features.shape[1],
        "tags": {tag: of_tag.words for tag, of_tag in tags.items()},
        "similar": {tag: worth.similar(features, of_tag) for tag, of_tag in tags.items()},
        "without_answers": worth.without_answers(of_natural, oddness),
        "odd": worth.odd(of_natural, oddness, name),
        "odd_by_chance": worth.odd(of_natural, oddness, f"{name}, by chance", is_active=False),
        "learning": {tag: worth.learning(features, tags[tag], f"{name}, {tag}") for tag in LEARNED},
    }
    write_json(RECORDS / f"{name}.json", record)
    print(f"worth: {name}: {len(judged):,} galaxies")


def _is_of(data: dict[str, str], record: Path) -> bool:
    return record.exists() and bool(read_record(record)["data"] == data)


def write_page() -> None:
    """Renew the page and its picture from the records."""
    found, groups = _read(RECORDS), _groups()
    if not found:
        raise HiwlError(f"{RECORDS}: no record; give features as NAME=FILE")
    first = next(iter(found.values()))
    if other := [name for name, one in _all(found, groups).items() if not _alike(one, first)]:
        raise HiwlError(
            f"{RECORDS / other[0]}.json: of other galaxies than the first record; measure it anew, or delete it"
        )
    values = {
        "LEARNED": LEARNED,
        "LABELS": worth.LABELS,
        "ANSWERS": worth.ANSWERS,
        "sets": found,
        "groups": groups,
        "first": first,
        "thresholds": worth.THRESHOLDS,
        "taught": [one for path in sorted(TAUGHT.glob("*.json")) if _is_probed(one := read_record(path), found)],
    }
    helpers: Helpers = {
        "spread": _spread,
        "order": _order,
        "of_draws": _of_draws,
        "in_order": _in_order,
        "having": worth.having,
    }
    write_text(PAGE, page(TEMPLATE, values, helpers))
    save(_draw(found), PICTURE)


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    """The records in a folder, by name; their tags in today's words."""
    found = {path.stem: read_record(path) for path in sorted(folder.glob("*.json"))}
    return {name: one | {"tags": one["tags"] | worth.WORDS} for name, one in found.items()}


def _groups() -> dict[str, dict[str, dict[str, Any]]]:
    return {path.name: _read(path) for path in sorted(RECORDS.glob("*/")) if path != TAUGHT}


def _all(found: dict[str, Any], groups: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return found | {f"{group}/{name}": one for group, of in groups.items() for name, one in of.items()}


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two records are of the same galaxies."""
    return bool(one["data"] == other["data"] and one["galaxies"] == other["galaxies"])


def _is_probed(taught: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether the features of a network that was taught are on record, of the same galaxies."""
    probed = found.get(taught["name"])
    return probed is not None and _alike(taught, probed) and taught["features"] == probed["features"]


def _of_draws(taught: dict[str, Any], probes: dict[str, Any], tag: str, number: str) -> dict[str, Any] | None:
    """AUROC of networks taught and of probes on the same draws of labels, as far as the networks are there."""
    by_seed = taught["learning"].get(tag, {}).get(number, {})
    if not by_seed:
        return None
    seeds = sorted(map(int, by_seed))
    probed = probes["learning"][tag][number]["auroc"]
    return {
        "taught": [by_seed[str(seed)]["auroc"] for seed in seeds],
        "probed": [probed[worth.SEEDS.index(seed)] for seed in seeds],
    }


def _spread(values: list[float], digits: int = 3) -> str:
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def _order(sets: dict[str, Any], tag: str, better: str, worse: str) -> list[str]:
    """By number of labels: in how many of the seeds `better` is above `worse`, by AUROC on the same labels."""
    of_both = [sets[name]["learning"][tag] for name in (better, worse)]
    return [
        f"{sum(a > b for a, b in zip(*(one[number]['auroc'] for one in of_both), strict=True))} of {len(worth.SEEDS)}"
        for number in of_both[0]
    ]


def _in_order(sets: dict[str, Any], tag: str, names: tuple[str, ...]) -> list[str]:
    """With how many labels the mean AUROC falls from each of the features `names` to the next."""
    curves = [sets[name]["learning"][tag] for name in names]
    means = {number: [np.mean(curve[number]["auroc"]) for curve in curves] for number in curves[0]}
    return [number for number, of in means.items() if all(a > b for a, b in itertools.pairwise(of))]


def _draw(found: dict[str, Any]) -> Any:
    """AUROC against labels, a panel a tag; and odd galaxies among the first hundred against answers."""
    plt = headless_pyplot()
    figure, panels = plt.subplots(1, len(LEARNED) + 1, figsize=(16, 3.6), constrained_layout=True)
    for panel, tag in zip(panels, LEARNED, strict=False):
        for name, record in found.items():
            curve = record["learning"][tag]
            _line(panel, [int(number) for number in curve], [of["auroc"] for of in curve.values()], name)
        panel.set(title=tag, xlabel="labels", xscale="log", ylabel="AUROC" if tag == LEARNED[0] else None)
    for name, record in found.items():
        curve = record["odd"]["found"]
        _line(panels[-1], list(worth.ANSWERS), [of["0.5"] for of in curve.values()], name)
    panels[-1].set(title="odd among the first 100", xlabel="galaxies rated")
    panels[-1].legend(fontsize=8)
    return figure


def _line(panel: Any, at: list[int], values: list[list[float]], name: str) -> None:
    mean, sd = np.mean(values, axis=1), np.std(values, axis=1, ddof=1)
    (line,) = panel.plot(at, mean, marker="o", markersize=3, label=name)
    panel.fill_between(at, mean - sd, mean + sd, alpha=0.15, color=line.get_color(), linewidth=0)
