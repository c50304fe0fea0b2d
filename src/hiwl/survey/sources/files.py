"""A user's own pictures and table."""

import shutil
import zipfile
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing, sha256
from hiwl.core.layout import ID, RAW_IMAGES, RAW_TABLE
from hiwl.core.settings import settings
from hiwl.survey import votes
from hiwl.survey.archives import SUFFIXES
from hiwl.survey.sources import Files


def bring(source: Files, survey: str) -> None:
    """Copy the user's files to ``data/raw``, if they contain what the parameters say."""
    images, table = settings().images, settings().table
    for variable, path in (("HIWL_IMAGES", images), ("HIWL_TABLE", table)):
        if path is None:
            raise HiwlError(f"{variable} is not set: the survey `files` reads your pictures and table from there")
        if not path.exists():
            raise HiwlError(f"{variable}: {path}: not found")
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
        raise HiwlError(f"HIWL_VOTES: {path}: not found, but raw.source.votes_sha256 asks for a table of votes")
    if (found := sha256(path)) != source.votes_sha256:
        raise HiwlError(f"{path}: its SHA-256 is {found}, but raw.source.votes_sha256 is {source.votes_sha256}")
    known = pd.read_csv(path)
    if problems := set(map(str, known)) ^ {ID, *votes.COLUMNS}:
        raise HiwlError(f"{path}: not a table of the 37 vote fractions; look at {', '.join(sorted(problems)[:3])}")
    pd.read_csv(labels).merge(known, on=ID, how="left", validate="one_to_one").to_csv(labels, index=False)


def _archive_folder(folder: Path, archive: Path) -> None:
    """Store a folder's pictures in one zip whose bytes depend on their names and contents alone."""
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in tqdm(pictures, desc="archiving", unit="picture"):
            file.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
