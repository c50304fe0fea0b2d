"""The competition Galaxy Zoo, through Kaggle's own package, or from files that were downloaded by hand."""

import os
import shutil
import zipfile
import zlib
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import alone, replacing, scratch_folder
from hiwl.core.layout import ID, RAW, RAW_IMAGES, RAW_TABLE, WORK
from hiwl.core.settings import project_root, settings
from hiwl.survey.pictures import look
from hiwl.survey.sources import Kaggle
from hiwl.survey.text_table import read_text_table

COMPETITION = "galaxy-zoo-the-galaxy-challenge"
PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
IMAGES_ARCHIVE = "images_training_rev1.zip"
VOTES_ARCHIVE = "training_solutions_rev1.zip"
ARCHIVES = (IMAGES_ARCHIVE, VOTES_ARCHIVE)
BY_HAND = (
    f"Or download them in a browser from {PAGE}/data and put {' and '.join(ARCHIVES)} into the folder "
    "named by HIWL_KAGGLE_FOLDER."
)
CREDENTIALS = (
    "Kaggle needs credentials: set KAGGLE_API_TOKEN to the token that your account settings there make, or "
    "KAGGLE_USERNAME and KAGGLE_KEY to the `username` and `key` of a kaggle.json."
)
REFUSED = {
    401: "These credentials are unknown: check KAGGLE_API_TOKEN (or KAGGLE_USERNAME and KAGGLE_KEY), or make new ones.",
    403: f"Kaggle asks you to accept the competition's rules first: do so at {PAGE}/rules and run again.",
    404: f"Kaggle no longer has this file there: see {PAGE}.",
}


def bring(source: Kaggle) -> None:
    """Download the competition's files, or take those downloaded by hand, into ``data/raw``."""
    with scratch_folder(RAW / "competition") as folder:
        if (by_hand := settings().kaggle_folder) is not None:
            _copy(by_hand, folder)
        else:
            _download(folder)
        table = verify(folder / IMAGES_ARCHIVE, folder / VOTES_ARCHIVE, source.rows)
        with replacing(RAW_TABLE) as beside:
            table.to_csv(beside, index=False)
        (folder / IMAGES_ARCHIVE).replace(RAW_IMAGES)


def verify(images: Path, votes: Path, rows: int) -> pd.DataFrame:
    """Check that the archives of images and of votes hold `rows` galaxies each, and the same ones; give the votes.

    Raises:
        HiwlError: with the counts found, or the first galaxies that one of them lacks.
    """
    pictures, table = look(images), read_text_table(votes)
    if ID not in table:
        raise HiwlError(f"{votes}: its table has no column {ID}")
    voted = set(table[ID])
    problems = []
    if len(pictures) != rows or len(table) != rows:
        problems.append(f"expected {rows:,} galaxies, found {len(pictures):,} images and {len(table):,} rows")
    bare = sorted(galaxy for galaxy in voted if pictures.of(galaxy) is None)
    unknown = sorted(set(pictures.galaxies()) - voted)
    for what, galaxies in (("image", bare), ("row of votes", unknown)):
        if galaxies:
            problems.append(f"{len(galaxies):,} galaxies have no {what}, the first: {', '.join(galaxies[:10])}")
    if problems:
        raise HiwlError(f"{images.name} and {votes.name} are not the competition's: {'; '.join(problems)}")
    return table


def _download(folder: Path) -> None:
    """Bring both archives; what has arrived stays in ``.work/kaggle`` of the project's root, whatever comes after.

    Raises:
        HiwlError: what stood in the way (credentials, the network, Kaggle, a damaged file), and what to do.
    """
    here, cache = settings(), project_root() / WORK / "kaggle"
    given = {
        "KAGGLE_API_TOKEN": here.kaggle_api_token,
        "KAGGLE_USERNAME": here.kaggle_username,
        "KAGGLE_KEY": here.kaggle_key,
    }
    for name, value in given.items():  # where Kaggle's package looks, before its own files in the home folder
        if value is not None:
            os.environ[name] = value if isinstance(value, str) else value.get_secret_value()
    os.environ["KAGGLEHUB_CACHE"] = str(cache)
    with alone(cache / "lock", "downloads from Kaggle"):
        for name in ARCHIVES:
            path = _fetch(name)
            if damage := _damage(path, name):
                path.unlink()
                raise HiwlError(f"{name}: Kaggle sent a damaged file ({damage}). Run again to start it anew.")
            shutil.copyfile(path, folder / name)  # Kaggle's package writes through its own file


def _fetch(name: str) -> Path:
    import kagglehub
    import requests
    from kagglehub.exceptions import DataCorruptionError, UnauthenticatedError

    try:
        return Path(kagglehub.competition_download(COMPETITION, name))
    except UnauthenticatedError:
        raise HiwlError(f"{CREDENTIALS} {BY_HAND}") from None
    except (requests.RequestException, DataCorruptionError) as error:
        response = getattr(error, "response", None)
        if response is not None:
            status = response.status_code
            raise HiwlError(f"{name}: {status} {response.reason}. {REFUSED.get(status, '')} {BY_HAND}") from None
        # The reason alone: the whole message may hold the signed address.
        reason = getattr(error.args[0], "reason", type(error).__name__) if error.args else type(error).__name__
        raise HiwlError(
            f"{name}: {reason}. Check the network and run again: what has arrived is kept. {BY_HAND}"
        ) from None


def _copy(by_hand: Path, folder: Path) -> None:
    for name in ARCHIVES:
        given = by_hand / name
        if not given.is_file():
            raise HiwlError(f"HIWL_KAGGLE_FOLDER: {given}: not found. Both {' and '.join(ARCHIVES)} are needed.")
        shutil.copyfile(given, folder / name)
        if damage := _damage(folder / name, name):
            raise HiwlError(f"HIWL_KAGGLE_FOLDER: {given}: damaged ({damage}). Download it again.")


def _damage(archive: Path, name: str) -> str | None:
    """Read everything in a zip, which checks it: what is wrong, or None."""
    try:
        with zipfile.ZipFile(archive) as file:
            for member in tqdm(file.infolist(), desc=f"checking {name}", unit="file"):
                file.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        return str(error)
    return None
