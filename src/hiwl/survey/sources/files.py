"""A user's own pictures and table, whose names and forms are the user's; what comes of them has the project's.

``data/raw/table.csv`` begins with `GalaxyID`; then come `class` or the 37 columns of votes; then how many volunteers
answered each task, where that is known; then whatever else the user's table has, as it is.
"""

import json
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing, sha256, write_json
from hiwl.core.layout import ID, RAW_IMAGES, RAW_TABLE, WORK
from hiwl.core.settings import project_root, settings
from hiwl.survey import published, votes
from hiwl.survey.pictures import Pictures, archive_folder, content_of, look, slashed, without_suffix
from hiwl.survey.sources import Files
from hiwl.survey.text_table import read_text_table

CLASS = "class"
MARK = "Written by `hiwl survey`"  # in a description of a survey: it may be written anew
SHOWN = 5  # names or rows in a message


class Places(NamedTuple):
    """Where a user's files are."""

    images: Path
    table: Path
    votes: Path | None


def bring(source: Files, survey: str) -> None:
    """Copy the user's files to ``data/raw``, if they contain what the parameters say."""
    places = _places(survey)
    pictures = look(places.images)
    _check_content(source, survey, places, pictures)
    table = as_survey(read_text_table(places.table), source, places, pictures)
    with replacing(RAW_IMAGES) as new_images, replacing(RAW_TABLE) as new_table:
        if places.images.is_dir():
            archive_folder(pictures, new_images)
        else:
            shutil.copyfile(places.images, new_images)
        table.to_csv(new_table, index=False)
    print(pictures.in_words())


def as_survey(given: pd.DataFrame, source: Files, places: Places, pictures: Pictures) -> pd.DataFrame:
    """The user's table in the project's form, every cell as text; of its rows those that have a picture.

    Raises:
        HiwlError: a column is missing, a cell is not what its column needs, a galaxy's pictures differ, or the rows
            with a picture are not as many as `source` says.
    """
    table = in_our_form(given, source, places.table)
    if source.votes_sha256 is not None:
        table = _with_votes(table, source, places.votes)
    shown = table[ID].map(pictures.of)
    if (again := shown.notna() & shown.duplicated(keep=False)).any():
        raise HiwlError(
            f"{places.table}: {few(table[ID][again])} name one picture, {shown[again].iloc[0]}; keep one row"
        )
    has_picture = shown.notna()
    wanted = len(table) if source.galaxies is None else source.galaxies
    if has_picture.sum() != wanted:
        raise HiwlError(
            f"{places.table}: {has_picture.sum()} of {len(table)} rows have a picture in {places.images}, and "
            f"{wanted} are to have one (raw.source.galaxies). Without one: {few(table[ID][~has_picture])}. "
            "`hiwl survey` counts them anew"
        )
    table = table[has_picture]
    if source.table == "labels" and (rows := _rows(table[CLASS] == "")):
        raise HiwlError(f"{places.table}: no {source.label or CLASS} in row {rows}: give it a class, or drop it")
    return table


def in_our_form(table: pd.DataFrame, source: Files, path: Path) -> pd.DataFrame:
    """A user's `table` (from `path`) with the project's columns in front.

    Votes beside labels are another table's (`raw.source.votes_sha256`): those in the same one are left out.
    """
    ids = ids_of(table, source.id or ID, path)
    others = table.drop(columns=source.id or ID)
    parts: list[pd.DataFrame | pd.Series[str]] = [ids]
    if source.table == "labels":
        label = source.label or CLASS
        if label not in others:
            raise HiwlError(f"{path}: no column {label} (raw.source.label); there is {few(others)}")
        labels = others.pop(label).rename(CLASS)
        parts.append(_by_steps(labels, source, path) if source.steps else labels)
    else:
        parts += _votes(others, source, path)
    if (twice := ids.duplicated()).any():
        raise HiwlError(f"{path}: galaxy {few(ids[twice].unique())} appears twice; keep one row of each")
    others = others[[c for c in others if c not in votes.BY_VOLUNTEERS and not published.is_of_catalogue(str(c))]]
    taken = {str(name) for part in parts for name in (part if isinstance(part, pd.DataFrame) else [part.name])}
    return pd.concat([*parts, others.rename(columns={name: f"given_{name}" for name in taken})], axis=1)


def _by_steps(labels: "pd.Series[str]", source: Files, path: Path) -> "pd.Series[str]":
    """The class of every number."""
    values = numbers(labels.to_frame(), [CLASS], path)[0][CLASS]
    found = pd.Series("", index=labels.index, name=CLASS)
    for name, (least, most) in source.steps.items():
        found[values.between(least, most)] = name
    if (lost := (found == "") & values.notna()).any():
        raise HiwlError(
            f"{path}: row {_rows(lost)}: {source.label} is {labels[lost].iloc[0]}, which is in none of "
            "raw.source.steps; widen one, or drop the row"
        )
    return found


def ids_of(table: pd.DataFrame, column: str, path: Path) -> "pd.Series[str]":
    """The galaxies' IDs, exactly as the table has them, but for a picture's suffix.

    Raises:
        HiwlError: there is no such column, a row has no ID, or IDs have been through floating-point numbers, which keep
            15 digits.
    """
    if column not in table:
        raise HiwlError(
            f"{path}: no column {column} (raw.source.id); there is {few(table)}. `hiwl survey` finds the one that "
            "names pictures"
        )
    ids = table[column].map(lambda name: without_suffix(slashed(name)))
    if rows := _rows(ids == ""):
        raise HiwlError(f"{path}: no {column} in row {rows}")
    rounded = ids.str.fullmatch(r"[0-9]+\.0|[0-9](\.[0-9]+)?[eE]\+?[0-9]+")
    if rounded.all():
        if (ids.str.len() > len(".0") + 15).any() or ids.str.contains("[eE]").any():
            raise HiwlError(
                f"{path}: {column} holds {ids.iloc[0]}: these IDs were rounded by whatever wrote them as numbers "
                "with a decimal point; write the table anew with the IDs as text"
            )
        ids = ids.str.removesuffix(".0")
    return ids.rename(ID)


def has_votes(columns: Iterable[object]) -> bool:
    """Whether a table with these columns holds votes of Galaxy Zoo 2, in the competition's form or the catalogue's."""
    names = set(map(str, columns))
    return set(votes.COLUMNS) <= names or any(set(published.columns(1, kind)) <= names for kind in published.KINDS)


def _votes(table: pd.DataFrame, source: Files, path: Path) -> list[pd.DataFrame]:
    """The 37 columns, and how many volunteers answered each task where the table counts them."""
    if set(votes.COLUMNS) <= set(table):
        return [numbers(table, votes.COLUMNS, path)[1]]
    if not has_votes(table):
        missing = [column for column in votes.COLUMNS if column not in table]
        raise HiwlError(
            f"{path}: neither the competition's 37 vote columns nor those of Galaxy Zoo 2's catalogue; of the former "
            f"{len(missing)} are missing ({few(missing)})"
        )
    wanted = [column for task in votes.TASKS for column in published.columns(task, source.fractions)]
    if missing := [column for column in wanted if column not in table]:
        raise HiwlError(f"{path}: no column {few(missing)}; raw.source.fractions ({source.fractions}) asks for it")
    fractions = published.votes_of(numbers(table, wanted, path)[0], source.fractions)
    counts = [c for task in votes.TASKS for c in published.columns(task, "count") if c in table]
    volunteers = published.volunteers_of(numbers(table, counts, path)[0].fillna(0))
    return [fractions.map("{:g}".format).replace("nan", ""), volunteers]


def numbers(table: pd.DataFrame, columns: list[str], path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Columns of text as numbers, NaN where a cell is empty; and their text, decimal commas made points.

    Raises:
        HiwlError: naming the first cell that is not a number.
    """
    text = table[columns].apply(lambda column: column.str.replace(",", ".", regex=False))
    values = text.apply(pd.to_numeric, errors="coerce")
    is_empty = text.apply(lambda column: column.str.lower()).isin(["", "nan"])
    wrong = (values.isna() & ~is_empty) | np.isinf(values)
    for column in columns:
        if rows := _rows(wrong[column]):
            raise HiwlError(f"{path}: row {rows}: {column} is {table[column][wrong[column]].iloc[0]!r}, not a number")
    return values, text.mask(values.isna(), "")


def _with_votes(labels: pd.DataFrame, source: Files, path: Path | None) -> pd.DataFrame:
    """The known votes beside the labels; where they are not known, the 37 columns stay empty."""
    if source.table != "labels":
        raise HiwlError("raw.source.votes_sha256: a table of votes needs no second one; leave it null")
    if path is None or not path.exists():
        raise HiwlError(f"HIWL_VOTES: {path}: not found, but raw.source.votes_sha256 asks for a table of votes")
    given = read_text_table(path)
    ours = set(labels[ID])
    shared = {str(name): given[name].map(without_suffix).isin(ours).sum() for name in given}
    column = max(shared, key=lambda name: (shared[name], name in (source.id, ID)))
    known = in_our_form(given, Files(kind="files", table="votes", id=column, fractions=source.fractions), path)
    if not known[ID].isin(labels[ID]).any():
        raise HiwlError(
            f"{path}: none of its galaxies ({few(known[ID])}) is in the table of labels ({few(labels[ID])})"
        )
    beside = known[[column for column in known if column in (ID, *votes.BY_VOLUNTEERS)]]
    return labels.merge(beside, on=ID, how="left").fillna("").set_axis(labels.index)


def _check_content(source: Files, survey: str, places: Places, pictures: Pictures) -> None:
    """See to it that the files contain what the parameters say.

    Raises:
        HiwlError: they do not; with what they contain, and the command that writes it down.
    """
    found = {"images_sha256": content_of(pictures), "table_sha256": sha256(places.table)}
    if source.votes_sha256 is not None and places.votes is not None and places.votes.exists():
        found["votes_sha256"] = sha256(places.votes)
    if all(getattr(source, name) == value for name, value in found.items()):
        return
    said = "nothing yet" if source.table_sha256 is None else "something else"
    told = (
        f"{places.images} and {places.table} contain {' '.join(f'{k}={v}' for k, v in found.items())}, and raw.source "
        f"in params.yaml says {said}. If these are the files you mean, "
    )
    if (
        source.steps and survey != "files" and not is_written_by_survey(survey)
    ):  # a catalogue, whose tree is there already
        chosen = " ".join(f"-S raw.source.{k}={v}" for k, v in found.items())
        raise HiwlError(f"{told}run\n  dvc exp run -S survey={survey} {chosen}")
    name = survey if is_written_by_survey(survey) else "mine"
    options = {"--id": source.id, "--label": source.label, "--votes": places.votes if source.votes_sha256 else None}
    command = ["hiwl", "survey", name, str(places.images), str(places.table)]
    command += [word for option, value in options.items() if value is not None for word in (option, str(value))]
    raise HiwlError(f"{told}run\n  {shlex.join(command)}\nand then this command again, with survey={name}")


def survey_file(name: str) -> Path:
    """Where the survey `name` is described."""
    return Path("conf/survey") / f"{name}.yaml"


def is_written_by_survey(name: str) -> bool:
    """Whether `hiwl survey` wrote that description."""
    path = survey_file(name)
    return path.exists() and MARK in path.read_text()


def note_places(survey: str, places: Places) -> None:
    """Remember where this machine has the files of `survey`."""
    write_json(_note(survey), {name: path and str(path) for name, path in places._asdict().items()})


def _places(survey: str) -> Places:
    """Where `hiwl survey` has found this survey's files, if they are still there; else where the settings say."""
    note, here = _note(survey), settings()
    noted = json.loads(note.read_text()) if note.exists() else {}
    found = [Path(noted[name]) if noted.get(name) else None for name in Places._fields]
    images, table, known = (
        path if path is not None and path.exists() else getattr(here, name)
        for name, path in zip(Places._fields, found, strict=True)
    )
    for variable, path in (("HIWL_IMAGES", images), ("HIWL_TABLE", table)):
        if path is None and (lost := [str(place) for place in found if place is not None and not place.exists()]):
            raise HiwlError(
                f"{', '.join(lost)}: not found, where `hiwl survey` had seen it; run it again, or set {variable}"
            )
        if path is None:
            raise HiwlError(
                f"{variable} is not set: a survey of files reads your pictures and table from where it says, or "
                "from where `hiwl survey` found them"
            )
        if not path.exists():
            raise HiwlError(f"{variable}: {path}: not found")
    assert images is not None and table is not None
    return Places(images, table, known)


def _note(survey: str) -> Path:
    return project_root() / WORK / "surveys" / f"{survey}.json"


def _rows(wrong: "pd.Series[bool]") -> str:
    """The first rows at which something is wrong."""
    return few(wrong.index[wrong])


def few(names: Iterable[object]) -> str:
    """The first of `names`, and how many more there are."""
    listed = list(map(str, names))
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")
