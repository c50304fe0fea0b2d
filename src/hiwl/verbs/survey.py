"""`hiwl survey NAME IMAGES TABLE`: look at one's own pictures and table, and write them down as a survey.

Says how many pictures, rows and matches there are, and of which classes. Writes ``conf/survey/NAME.yaml`` with hashes
and counts and, where the classes are not those of the tree in ``conf/config.yaml``, a tree of one layer,
``conf/hierarchy/NAME.yaml``. Where this machine has the files is kept in ``.work/surveys``.
"""

import io
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from PIL import Image

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256, write_text
from hiwl.core.layout import ID
from hiwl.model.tree import NAME, ROOT, Tree
from hiwl.studies.plan import CONF, compose
from hiwl.survey.pictures import Pictures, content_of, look
from hiwl.survey.selection import SelectParams, clean_selection
from hiwl.survey.sources import Files
from hiwl.survey.sources.files import (
    MARK,
    Places,
    as_survey,
    few,
    has_votes,
    ids_of,
    is_written_by_survey,
    note_places,
    survey_file,
)
from hiwl.survey.text_table import read_text_table
from hiwl.survey.votes import BY_VOLUNTEERS
from hiwl.training.params import PRETRAINED
from hiwl.verbs.labels import MOST_CLASSES, NAMES

LOOKED_AT = 100  # pictures whose sizes are told


def main(name: str, images: str, table: str, votes: str | None, id: str | None, label: str | None) -> None:
    """Look, tell, write; of what an earlier call wrote, the user's edits stay.

    Raises:
        HiwlError: the files are not a survey, by the first thing that they lack.
    """
    if not re.fullmatch("[a-z][a-z0-9-]*", name) or yaml.safe_load(name) != name or name in ("nan", "inf"):
        raise HiwlError(
            f"{name}: a survey's name is of lower-case letters, digits and '-', a letter first, unlike `null`"
        )
    earlier = _earlier(name)
    places = Places(_absolute(images), _absolute(table), None if votes is None else _absolute(votes))
    if missing := [str(path) for path in places if path is not None and not path.exists()]:
        raise HiwlError(f"{', '.join(missing)}: not found")
    pictures, given = look(places.images), read_text_table(places.table)
    print(pictures.in_words())
    known = earlier.get("raw", {}).get("source", {})
    is_same = label in (None, known.get("label"))  # steps are for one column
    known["steps"] = _steps(known.get("steps") or {}, survey_file(name)) if is_same else {}
    source = _source(given, pictures, places, known | _named(id=id, label=label))
    survey = as_survey(given, source, places, pictures)
    print(f"{places.table}: {len(given):,} rows, {len(survey):,} of them with a picture (by the column {source.id})")
    params = _parameters(name if earlier else "files")
    expected = _count(survey, source, SelectParams.parse(params["select"], "select"), places)
    _tell_sizes(pictures, survey, params["pack"]["crop"])
    _write(name, earlier or _new(name, expected), source, expected, Tree(params["hierarchy"]["nodes"]).classes)
    note_places(name, places)
    print(f"next:\n  dvc exp run -S survey={name}")


def _parameters(survey: str) -> dict[str, Any]:
    """The parameters with this survey."""
    try:
        params: dict[str, Any] = compose([f"survey={survey}"])
        Tree(params["hierarchy"]["nodes"])
    except Exception as error:  # Hydra's and OmegaConf's own, and what an edited file lacks
        where = f"{survey_file(survey)}, {CONF / 'hierarchy' / survey}.yaml"
        raise HiwlError(f"{where}: cannot be composed ({error}); mend what was edited, or delete both") from None
    return params


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _named(**options: str | None) -> dict[str, str]:
    return {name: value for name, value in options.items() if value is not None}


def _earlier(name: str) -> dict[str, Any]:
    """What an earlier call wrote; nothing where there was none.

    Raises:
        HiwlError: a survey of that name is there, and no call wrote it.
    """
    path = survey_file(name)
    if not path.exists():
        return {}
    if not is_written_by_survey(name):
        raise HiwlError(f"{path}: was not written by `hiwl survey`; take another name")
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text())
        content["raw"]["source"], content["select"]
    except (yaml.YAMLError, TypeError, KeyError):
        raise HiwlError(f"{path}: has lost what `hiwl survey` wrote; delete it, or bring it back from git") from None
    return content


def _source(given: pd.DataFrame, pictures: Pictures, places: Places, known: dict[str, Any]) -> Files:
    """What `raw.source` is to say of these files; what is `known` of them stays, where the table has it."""
    column, label = known.get("id") or _id_column(given, pictures, places), known.get("label")
    is_labels = label is not None or not has_votes(given)
    if is_labels and label is None:
        label = next((str(each) for name in NAMES for each in given if str(each).lower() == name), None)
        if label is None:
            raise HiwlError(
                f"{places.table}: neither votes of Galaxy Zoo 2 nor a column called {', '.join(NAMES)}: name the "
                f"column of the class with --label ({few(given)})"
            )
    with_picture = sum(map(pictures.knows, ids_of(given, column, places.table)))
    if not with_picture:
        raise HiwlError(f"{places.table}: {column} names no picture of {places.images}; name the right one with --id")
    return Files(
        kind="files",
        table="labels" if is_labels else "votes",
        id=column,
        label=label,
        steps=known["steps"],
        fractions=known.get("fractions", "debiased"),
        galaxies=None if with_picture == len(given) else with_picture,
        images_sha256=content_of(pictures),
        table_sha256=sha256(places.table),
        votes_sha256=None if places.votes is None else sha256(places.votes),
    )


def _steps(given: Any, path: Path) -> dict[str, tuple[float, float]]:
    try:
        return {name: (least, most) for name, (least, most) in given.items()}
    except (AttributeError, TypeError, ValueError):
        raise HiwlError(
            f"{path}: raw.source.steps is {given}; give each class its least and its most, as in E: [-6, -4]"
        ) from None


def _id_column(given: pd.DataFrame, pictures: Pictures, places: Places) -> str:
    """The column that names most of the pictures, each once.

    Raises:
        HiwlError: none does, or two do as well and say different things.
    """
    spellings = pictures.spellings()
    names = {str(name): given[name].drop_duplicates().str.removesuffix(".0") for name in given}
    matches = {name: int(values.isin(spellings).sum()) for name, values in names.items()}
    best = [name for name, number in matches.items() if number == max(matches.values())]
    if not max(matches.values()):
        raise HiwlError(
            f"{places.table}: no column ({few(given)}) names a picture of {places.images}, such as "
            f"{', '.join(pictures.galaxies()[:3])}"
        )
    if ID in best:
        return ID
    if any((given[name] != given[best[0]]).any() for name in best):
        raise HiwlError(
            f"{places.table}: {' and '.join(best)} name as many pictures ({max(matches.values())}): say with --id "
            "which of them is the galaxy's"
        )
    return best[0]


def _count(survey: pd.DataFrame, source: Files, params: SelectParams, places: Places) -> dict[str, int]:
    """How many galaxies the survey has of each class, most first."""
    known = survey.assign(**{c: pd.to_numeric(survey[c]) for c in survey if c in BY_VOLUNTEERS})
    clean = clean_selection(known, source.table, params)
    counted = {str(name): int(number) for name, number in clean["class"].value_counts().items()}
    if len(counted) > MOST_CLASSES:
        raise HiwlError(f"{places.table}: {len(counted)} classes in the column {source.label}; --label names another")
    if len(counted) < 2:
        raise HiwlError(f"{places.table}: {len(survey)} galaxies give {counted or 'no class'}; two classes are needed")
    if odd := [name for name in counted if not NAME.fullmatch(name) or name == ROOT or _is_like_a_number(name)]:
        raise HiwlError(
            f"{places.table}: the class {odd[0]!r} is not a name: it becomes one of files and metrics, so use letters, "
            f"digits, '-' and '_', and neither {ROOT!r} nor the likes of 1e5"
        )
    of = f"column {source.label}" if source.table == "labels" else f"the votes, by {params.by}"
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
        print(f"  {small} are smaller than pack.crop ({crop}): they will be enlarged, or as pack.small says")


def _new(name: str, expected: dict[str, int]) -> dict[str, Any]:
    """The file's content before anything of it is known but the classes."""
    share = max(expected.values()) / sum(expected.values())
    return {
        "raw": {"survey": name},
        "select": {},
        "register": {"name": f"hiwl-{name}", "gate": {"test_accuracy": math.floor(1000 * share + 1) / 1000}},
    }


def _write(name: str, content: dict[str, Any], source: Files, expected: dict[str, int], classes: list[str]) -> None:
    """Bring `content` up to date and write it, with a tree where that of `classes` does not fit."""
    files = {}
    tree = CONF / "hierarchy" / f"{name}.yaml"
    if set(expected) != set(classes) or ("defaults" in content and tree.exists()):
        if tree.exists():
            _check_tree(tree, set(expected))
        else:
            nodes = {
                "hierarchy": {"name": name, "nodes": {ROOT: list(expected)}},
                "train": {"nodes": {ROOT: {"start": PRETRAINED}}},
            }
            files[tree] = nodes, "One layer. For more, name a node among the children, and give it a line in both."
        content = {"defaults": [{"override /hierarchy": name}], **content}
    content["raw"]["source"] = source.model_dump(mode="json", exclude_none=True)
    content["select"]["expected"] = expected
    files[survey_file(name)] = content, f"{MARK}. The gate: better than always naming the commonest class."
    texts = {path: yaml.safe_dump(held, sort_keys=False, width=120) for path, (held, _) in files.items()}
    for path, text in texts.items():
        if _as_composed(text) != files[path][0]:
            raise HiwlError(f"{path}: cannot hold these names as they are; rename columns like 1e5 or ${{x}}:\n{text}")
    for path, text in texts.items():
        is_new = not path.exists()
        write_text(path, f"# @package _global_\n# {files[path][1]}\n{text}")
        print(f"{path}: {'written' if is_new else 'replaced'}")


def _check_tree(path: Path, classes: set[str]) -> None:
    try:
        content = yaml.safe_load(path.read_text())
        tree, nodes = Tree(content["hierarchy"]["nodes"]), content["train"]["nodes"]
        tree.check_classes(classes)
        if bare := [node for node in tree.nodes if "start" not in nodes[node]]:
            raise HiwlError(f"train.nodes.{bare[0]} does not say what it starts from: write {{start: {PRETRAINED}}}")
    except (HiwlError, yaml.YAMLError, TypeError, KeyError) as error:
        raise HiwlError(f"{path}: {error}; edit it, or delete it to have it written anew") from None


def _is_like_a_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return not name.isdecimal()


def _as_composed(text: str) -> Any:
    """What the composition of the parameters reads in a file of this text."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    except OmegaConfBaseException:
        return None
