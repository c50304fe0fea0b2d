"""`hiwl survey NAME IMAGES TABLE`: look at one's own pictures and table, and write them down as a survey.

Says how many pictures, rows and matches there are, and of which classes. Writes ``conf/survey/NAME.yaml`` with hashes
and counts and, where the classes are not those of the tree in ``conf/config.yaml``, a tree of one layer,
``conf/hierarchy/NAME.yaml``. Where this machine has the files is kept in ``.work/surveys``.
"""

import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from PIL import Image

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256, write_text
from hiwl.model.tree import NAME, ROOT, Tree
from hiwl.studies.plan import CONF, compose
from hiwl.survey.pictures import Pictures, content_of, look, slashed, without_suffix
from hiwl.survey.selection import SelectParams, labelled, select
from hiwl.survey.sources import Files
from hiwl.survey.sources.files import CLASS, Places, has_votes, note_places, read_survey
from hiwl.survey.text_table import read_text_table
from hiwl.survey.votes import BY_VOLUNTEERS

LABELS = (CLASS, "label", "type", "morphology", "category")  # what people call the column of the class
MOST_CLASSES = 100
LOOKED_AT = 100  # pictures whose sizes are told


def main(name: str, images: str, table: str, votes: str | None, id: str | None, label: str | None) -> None:
    """Look, tell, write.

    Raises:
        HiwlError: the files are no survey, by the first thing that they lack.
    """
    if not re.fullmatch("[a-z0-9-]+", name):
        raise HiwlError(f"{name}: a survey's name is of small letters, digits and '-'")
    path = CONF / "survey" / f"{name}.yaml"
    if path.exists() and yaml.safe_load(path.read_text())["raw"]["source"]["kind"] != "files":
        raise HiwlError(f"{path}: is no survey of files; take another name")
    places = Places(_absolute(images), _absolute(table), None if votes is None else _absolute(votes))
    if missing := [str(path) for path in places if path is not None and not path.exists()]:
        raise HiwlError(f"{', '.join(missing)}: not found")
    pictures, given = look(places.images), read_text_table(places.table)
    print(pictures.in_words())
    source = _source(given, pictures, places, id, label)
    survey = read_survey(source, places, pictures)
    print(f"{places.table}: {len(given):,} rows, {len(survey):,} of them with a picture (by the column {source.id})")
    defaults = compose(["survey=files"])
    expected = _count(survey, source, SelectParams.parse(defaults["select"], "select"), places)
    _tell_sizes(pictures, survey, defaults["pack"]["crop"])
    _write(name, source, expected, Tree(defaults["hierarchy"]["nodes"]).classes)
    note_places(name, places)
    print(f"next:\n  dvc exp run -S survey={name}")


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _source(given: pd.DataFrame, pictures: Pictures, places: Places, column: str | None, label: str | None) -> Files:
    """What `raw.source` is to say of these files."""
    if column is None:
        matches = {str(c): sum(map(pictures.knows, _names(given[c]))) for c in given}
        column = max(matches, key=lambda c: matches[c])
        if not matches[column]:
            raise HiwlError(
                f"{places.table}: no cell of any column ({', '.join(map(str, given.columns[:8]))}) names a picture of "
                f"{places.images} (such as {', '.join(pictures.galaxies()[:3])})"
            )
    elif column not in given:
        raise HiwlError(f"--id: {places.table} has no column {column}; there is {', '.join(map(str, given))}")
    is_labels = label is not None or not has_votes(given)
    if is_labels and label is None:
        label = next((str(each) for name in LABELS for each in given if str(each).lower() == name), None)
        if label is None:
            raise HiwlError(
                f"{places.table}: neither votes of Galaxy Zoo 2 nor a column called {', '.join(LABELS)}: name the "
                f"one of the class with --label ({', '.join(map(str, given.columns[:20]))})"
            )
    with_picture = sum(map(pictures.knows, _names(given[column])))
    return Files(
        kind="files",
        table="labels" if is_labels else "votes",
        id=column,
        label=label,
        galaxies=None if with_picture == len(given) else with_picture or None,
        images_sha256=content_of(pictures),
        table_sha256=sha256(places.table),
        votes_sha256=None if places.votes is None else sha256(places.votes),
    )


def _names(column: "pd.Series[str]") -> list[str]:
    return [without_suffix(slashed(name)) for name in column]


def _count(survey: pd.DataFrame, source: Files, params: SelectParams, places: Places) -> dict[str, int]:
    """How many galaxies the survey has of each class, most first; of a survey of votes, by the rules."""
    known = survey.assign(**{c: pd.to_numeric(survey[c]) for c in survey if c in BY_VOLUNTEERS})
    chosen = (
        labelled(known, params.rules) if source.table == "labels" else select(known, params.rules, params.volunteers)
    )
    counted = {str(name): int(number) for name, number in chosen["class"].value_counts().items()}
    if len(counted) > MOST_CLASSES:
        raise HiwlError(f"{places.table}: {len(counted)} classes in the column {source.label}; --label names another")
    if len(counted) < 2:
        raise HiwlError(f"{places.table}: {len(survey)} galaxies give {counted or 'no class'}; two classes are needed")
    if odd := [name for name in counted if not NAME.fullmatch(name)]:
        raise HiwlError(
            f"{places.table}: the class {odd[0]!r} is not a name: it becomes one of files and metrics, so use letters, "
            "digits, '-' and '_'"
        )
    of = f"column {source.label}" if source.table == "labels" else "the rules of select, from the votes"
    print(f"classes ({of}): {', '.join(f'{name} {number:,}' for name, number in counted.items())}")
    return counted


def _tell_sizes(pictures: Pictures, survey: pd.DataFrame, crop: int) -> None:
    """How large the survey's pictures are, of some of them."""
    wanted = survey.iloc[:: max(1, len(survey) // LOOKED_AT), 0]
    names = [name for galaxy in wanted if (name := pictures.of(galaxy)) and ".fit" not in name.lower()]
    sizes: Counter[tuple[int, int]] = Counter()
    for content in pictures.read(names):
        try:
            with Image.open(io.BytesIO(content)) as picture:
                sizes[picture.size] += 1
        except Exception:  # `pack` names every picture that cannot be read
            continue
    told = ", ".join(f"{width} x {height} ({number})" for (width, height), number in sizes.most_common(3))
    print(f"sizes in pixels, of {len(names)} looked at: {told or 'not known'}")
    if small := sum(number for size, number in sizes.items() if min(size) < crop):
        print(f"  {small} are smaller than pack.crop ({crop}): they will be enlarged (pack.small), or lower pack.crop")


def _write(name: str, source: Files, expected: dict[str, int], usual: list[str]) -> None:
    share = max(expected.values()) / sum(expected.values())
    content: dict[str, Any] = {
        "raw": {"survey": name, "source": source.model_dump(exclude_none=True)},
        "select": {"expected": expected},
        "register": {"name": f"hiwl-{name}", "gate": {"test_accuracy": round(share, 3)}},
    }
    has_tree = set(expected) != set(usual)
    if has_tree:
        content = {"defaults": [{"override /hierarchy": name}], **content}
        tree = CONF / "hierarchy" / f"{name}.yaml"
        if tree.exists():
            there = yaml.safe_load(tree.read_text())["hierarchy"]["nodes"]
            Tree(there).check_classes(set(expected))
            print(f"{tree}: kept as it is")
        else:
            nodes = {"hierarchy": {"name": name, "nodes": {ROOT: list(expected)}}, "train": {"nodes": {ROOT: {}}}}
            _write_yaml(tree, nodes, "One layer; name further nodes among the children, with a line each, for more.")
    about = "Written by `hiwl survey`. The gate asks for more than always naming the commonest class."
    _write_yaml(CONF / "survey" / f"{name}.yaml", content, about)


def _write_yaml(path: Path, content: dict[str, Any], about: str) -> None:
    is_new = not path.exists()
    write_text(path, f"# @package _global_\n# {about}\n{yaml.safe_dump(content, sort_keys=False, width=120)}")
    print(f"{path}: {'written' if is_new else 'replaced'}")
