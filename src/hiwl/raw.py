"""Stage `raw`: bring the survey in, as two files kept whole, and say where they came from.

Writes to ``data/raw``: ``images.zip``, ``table.csv`` (votes, or GalaxyID,class), ``manifest.json``, and the
contract's results.
"""

import shutil
import tempfile
import zipfile
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
    images_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    table_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of a folder of pictures: of the archive that the stage makes of it (the stage says it)."""


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
            _files(params.source)
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


def _simulated(source: Simulated) -> None:
    from hiwl.simulated import write_survey

    with tempfile.TemporaryDirectory(dir=RAW) as folder:
        write_survey(SimulatedParams(**source.model_dump(exclude={"kind"})), Path(folder), settings().workers)
        _take_competition_files(Path(folder))


def _kaggle(source: Kaggle) -> None:
    from hiwl import kaggle

    here = settings()
    credentials = None
    if here.kaggle_username and here.kaggle_key:
        credentials = kaggle.Credentials(username=here.kaggle_username, key=here.kaggle_key)
    with tempfile.TemporaryDirectory(dir=RAW) as folder:
        kaggle.download(Path(folder), credentials, here.kaggle_server, here.kaggle_folder)
        kaggle.verify(Path(folder, votes.IMAGES_ARCHIVE), Path(folder, votes.VOTES_ARCHIVE), source.rows)
        _take_competition_files(Path(folder))


def _take_competition_files(folder: Path) -> None:
    with zipfile.ZipFile(folder / votes.VOTES_ARCHIVE) as archive, replacing(RAW_TABLE) as table:
        name = next(name for name in archive.namelist() if name.endswith(".csv"))
        table.write_bytes(archive.read(name))
    (folder / votes.IMAGES_ARCHIVE).replace(RAW_IMAGES)


def _files(source: Files) -> None:
    images, table = settings().images, settings().table
    for variable, path in (("HIWL_IMAGES", images), ("HIWL_TABLE", table)):
        if path is None:
            raise HiwlError(f"{variable} is not set: the survey `files` reads your pictures and table from there")
        if not path.exists():
            raise HiwlError(f"{variable}: {path}: not there")
    assert images is not None and table is not None
    with replacing(RAW_IMAGES) as beside:
        if images.is_dir():
            _archive_folder(images, beside)
        else:
            shutil.copyfile(images, beside)
        _require_sha256("images", images, beside, source.images_sha256)
    with replacing(RAW_TABLE) as beside:
        shutil.copyfile(table, beside)
        _require_sha256("table", table, beside, source.table_sha256)


def _archive_folder(folder: Path, archive: Path) -> None:
    """Store a folder's pictures in one zip whose bytes depend on their names and contents alone."""
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in tqdm(pictures, desc="archiving", unit="picture"):
            file.writestr(zipfile.ZipInfo(path.name), path.read_bytes())


def _require_sha256(name: str, given: Path, content: Path, expected: str) -> None:
    found = sha256(content)
    if found != expected:
        raise HiwlError(
            f"{given}: its SHA-256 is {found}, but raw.source.{name}_sha256 in params.yaml is {expected!r}. "
            f"If these are the files you mean: dvc exp run -S raw.source.{name}_sha256={found}"
        )


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
            gxe.ExpectTableColumnsToMatchSet(column_set=[votes.ID, "class", "has_image"]),
            gxe.ExpectColumnValuesToBeOfType(column=votes.ID, type_="int64"),
            gxe.ExpectColumnValuesToBeUnique(column=votes.ID),
            gxe.ExpectColumnValuesToNotBeNull(column="class"),
            gxe.ExpectColumnValuesToBeInSet(column="has_image", value_set=[True]),
        ],
        RAW / "validation",
    )
