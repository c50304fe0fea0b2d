"""Stage `raw`: bring the survey in, as two files kept whole, and say where they came from.

Writes to ``data/raw``: ``images.zip``, ``table.csv`` (votes, or GalaxyID,class), ``manifest.json``, and the
contract's results.
"""

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field
from tqdm import tqdm

from hiwl import contracts, votes
from hiwl.errors import HiwlError
from hiwl.files import replacing, sha256, write_json
from hiwl.images import SUFFIXES, members
from hiwl.layout import RAW, RAW_IMAGES, RAW_MANIFEST, RAW_TABLE
from hiwl.params import Section, read_section
from hiwl.settings import settings
from hiwl.simulated import SimulatedParams


class Simulated(SimulatedParams):
    """A survey drawn on the spot."""

    kind: Literal["simulated"]


class Files(Section):
    """A user's own pictures and table; where they are, the settings say."""

    kind: Literal["files"]
    table: Literal["votes", "labels"]
    """Whether the table holds the 37 vote fractions or `GalaxyID,class`."""
    images_sha256: str | None
    table_sha256: str | None
    """What the files contain (of a folder: the archive that the stage makes of it). Where it is null or another, the
    stage stops and says what it found."""
    votes_sha256: str | None
    """To a table of labels, the votes on those of its galaxies that a second table (HIWL_VOTES) knows; null: none."""


class Kaggle(Section):
    """The competition itself."""

    kind: Literal["kaggle"]
    rows: int = Field(gt=0)
    """How many galaxies it has."""


class RawParams(Section):
    """Section `raw`."""

    survey: str = Field(pattern=r"^[a-z0-9-]+$")
    """The name that runs, records and results carry."""
    source: Annotated[Simulated | Files | Kaggle, Field(discriminator="kind")]


def main() -> None:
    """Bring the survey in and hold its table to the contract."""
    params = RawParams.parse(read_section("raw"), "raw")
    RAW.mkdir(parents=True, exist_ok=True)
    match params.source:
        case Simulated():
            _simulated(params.source)
        case Files():
            _files(params.source, params.survey)
        case Kaggle():
            _kaggle(params.source)
    table = pd.read_csv(RAW_TABLE)
    pictures = members(RAW_IMAGES)
    kind = "labels" if isinstance(params.source, Files) and params.source.table == "labels" else "votes"
    _check(table, kind, set(pictures))
    write_json(
        RAW_MANIFEST,
        {
            "survey": params.survey,
            "source": params.source.kind,
            "table": kind,
            "galaxies": len(table),
            "images": len(pictures),
            "files": {
                path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in (RAW_IMAGES, RAW_TABLE)
            },
        },
    )
    print(f"raw: {len(table)} galaxies, {len(pictures)} images ({params.survey})")


@contextmanager
def _scratch() -> Iterator[Path]:
    """An empty folder on the file system of the outputs; what a killed run left of it is removed."""
    folder = RAW / ".competition.part"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _simulated(source: Simulated) -> None:
    from hiwl.simulated import write_survey

    with _scratch() as folder:
        write_survey(SimulatedParams(**source.model_dump(exclude={"kind"})), folder, settings().workers)
        _take_competition_files(folder)


def _kaggle(source: Kaggle) -> None:
    from hiwl import kaggle

    here = settings()
    credentials = None
    if here.kaggle_username and here.kaggle_key:
        credentials = kaggle.Credentials(username=here.kaggle_username, key=here.kaggle_key)
    with _scratch() as folder:
        kaggle.download(folder, credentials, by_hand=here.kaggle_folder)
        kaggle.verify(folder / votes.IMAGES_ARCHIVE, folder / votes.VOTES_ARCHIVE, source.rows)
        _take_competition_files(folder)


def _take_competition_files(folder: Path) -> None:
    from hiwl.kaggle import table_in

    with zipfile.ZipFile(folder / votes.VOTES_ARCHIVE) as archive, replacing(RAW_TABLE) as table:
        table.write_bytes(archive.read(table_in(archive)))
    (folder / votes.IMAGES_ARCHIVE).replace(RAW_IMAGES)


def _files(source: Files, survey: str) -> None:
    images, table = settings().images, settings().table
    for variable, path in (("HIWL_IMAGES", images), ("HIWL_TABLE", table)):
        if path is None:
            raise HiwlError(f"{variable} is not set: the survey `files` reads your pictures and table from there")
        if not path.exists():
            raise HiwlError(f"{variable}: {path}: not there")
    assert images is not None and table is not None
    with replacing(RAW_IMAGES) as new_images, replacing(RAW_TABLE) as new_table:
        if images.is_dir():
            _archive_folder(images, new_images)
        else:
            shutil.copyfile(images, new_images)
        shutil.copyfile(table, new_table)
        found = {"images_sha256": sha256(new_images), "table_sha256": sha256(new_table)}
        if found != {"images_sha256": source.images_sha256, "table_sha256": source.table_sha256}:
            choices = " ".join(f"-S raw.source.{name}={value}" for name, value in found.items())
            choices += f" -S raw.source.table={source.table}"
            if (known := settings().votes) is not None:
                choices += f" -S raw.source.votes_sha256={sha256(known)}"
            raise HiwlError(
                f"{images} and {table} do not contain what raw.source in params.yaml says "
                f"({source.images_sha256}, {source.table_sha256}). "
                f"If these are the files you mean:\n  dvc exp run -S survey={survey} {choices}"
            )
        if source.votes_sha256 is not None:
            _add_votes(new_table, source)


def _add_votes(labels: Path, source: Files) -> None:
    """Write the known votes beside the labels; where they are not known, the 37 columns stay empty."""
    path = settings().votes
    if source.table != "labels":
        raise HiwlError("raw.source.votes_sha256: a table of votes needs no second one; leave it null")
    if path is None or not path.exists():
        raise HiwlError(f"HIWL_VOTES: {path}: not there, but raw.source.votes_sha256 asks for a table of votes")
    if (found := sha256(path)) != source.votes_sha256:
        raise HiwlError(f"{path}: its SHA-256 is {found}, but raw.source.votes_sha256 is {source.votes_sha256}")
    known = pd.read_csv(path)
    if problems := set(map(str, known)) ^ {votes.ID, *votes.COLUMNS}:
        raise HiwlError(f"{path}: no table of the 37 vote fractions; look at {', '.join(sorted(problems)[:3])}")
    pd.read_csv(labels).merge(known, on=votes.ID, how="left", validate="one_to_one").to_csv(labels, index=False)


def _archive_folder(folder: Path, archive: Path) -> None:
    """Store a folder's pictures in one zip whose bytes depend on their names and contents alone."""
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in tqdm(pictures, desc="archiving", unit="picture"):
            file.writestr(zipfile.ZipInfo(path.name), path.read_bytes())


def _check(table: pd.DataFrame, kind: str, pictures: set[int]) -> None:
    import great_expectations.expectations as gxe

    from hiwl.expectations import votes_expectations

    if votes.ID in table:
        table = table.assign(has_image=table[votes.ID].isin(pictures))
    contracts.enforce(
        "raw",
        table,
        votes_expectations()
        if kind == "votes"
        else [
            gxe.ExpectTableColumnsToMatchSet(
                column_set=[votes.ID, "class", "has_image", *(c for c in votes.COLUMNS if c in table)]
            ),
            gxe.ExpectColumnValuesToBeOfType(column=votes.ID, type_="int64"),
            gxe.ExpectColumnValuesToBeUnique(column=votes.ID),
            gxe.ExpectColumnValuesToNotBeNull(column="class"),
            gxe.ExpectColumnValuesToBeInSet(column="has_image", value_set=[True]),
        ],
        RAW / "validation",
    )
