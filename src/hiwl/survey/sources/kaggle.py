"""The competition Galaxy Zoo, through Kaggle's HTTP API.

A file comes from ``GET <server>/competitions/data/download/<competition>/<file>``, the address that Kaggle's
SDK names for it (kagglesdk 0.1.38, under kaggle 2.2.4), with the user's token, or name and key as basic authentication.
The answer is a redirect to a signed address at a storage host. The package itself is not used: it
authenticates when imported, and this one request is all that is needed of it.
"""

import shutil
import time
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import requests
from pydantic import SecretStr
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import alone, replacing, scratch_folder
from hiwl.core.layout import ID, RAW, RAW_IMAGES, RAW_TABLE, WORK
from hiwl.core.settings import project_root, settings
from hiwl.survey.archives import members
from hiwl.survey.sources import Kaggle

COMPETITION = "galaxy-zoo-the-galaxy-challenge"
PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
IMAGES_ARCHIVE = "images_training_rev1.zip"
VOTES_ARCHIVE = "training_solutions_rev1.zip"
ARCHIVES = (IMAGES_ARCHIVE, VOTES_ARCHIVE)
BY_HAND = (
    f"Or download them in a browser from {PAGE}/data and put {' and '.join(ARCHIVES)} into the folder "
    "named by HIWL_KAGGLE_FOLDER."
)
REFUSED = {
    401: "These credentials are unknown: check KAGGLE_API_TOKEN (or KAGGLE_USERNAME and KAGGLE_KEY), or make new ones.",
    403: f"Kaggle asks you to accept the competition's rules first: do so at {PAGE}/rules and run again.",
    404: f"Kaggle no longer has this file there: see {PAGE}.",
}
ATTEMPTS = 5
BACKOFF = 1.0  # seconds before the second attempt; twice as long before each further one
TIMEOUT = (15, 60)  # seconds to connect; seconds without a byte
CHUNK = 1 << 20  # bytes


class Credentials(NamedTuple):
    """A user's token at Kaggle or, with a name, API key; it does not show when printed."""

    username: str | None
    key: SecretStr


def bring(source: Kaggle) -> None:
    """Download the competition's files, or take those downloaded by hand, into ``data/raw``."""
    here = settings()
    credentials = None
    if here.kaggle_api_token:
        credentials = Credentials(username=None, key=here.kaggle_api_token)
    elif here.kaggle_username and here.kaggle_key:
        credentials = Credentials(username=here.kaggle_username, key=here.kaggle_key)
    with scratch_folder(RAW / "competition") as folder:
        download(folder, credentials, by_hand=here.kaggle_folder)
        verify(folder / IMAGES_ARCHIVE, folder / VOTES_ARCHIVE, source.rows)
        with zipfile.ZipFile(folder / VOTES_ARCHIVE) as archive, replacing(RAW_TABLE) as table:
            table.write_bytes(archive.read(table_in(archive)))
        (folder / IMAGES_ARCHIVE).replace(RAW_IMAGES)


def download(
    folder: Path,
    credentials: Credentials | None,
    server: str = "https://www.kaggle.com/api/v1",
    by_hand: Path | None = None,
) -> None:
    """Put the competition's two archives into `folder`, each complete and intact.

    From `by_hand`, where given, they are copied, and nothing is asked of the network. Else they are
    downloaded to `.work/kaggle` in the project's root, where the next call goes on with what an interrupted
    one left; they stay there too.

    Raises:
        HiwlError: what stood in the way (credentials, the network, Kaggle, a damaged file), and what to do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if by_hand is not None:
        _copy(by_hand, folder)
        return
    if credentials is None:
        raise HiwlError(
            "Kaggle needs credentials: set KAGGLE_API_TOKEN to the token that your account settings there make, or "
            f"KAGGLE_USERNAME and KAGGLE_KEY to the `username` and `key` of a kaggle.json. {BY_HAND}"
        )
    cache = project_root() / WORK / "kaggle"
    cache.mkdir(parents=True, exist_ok=True)
    with alone(cache / "lock", "downloads from Kaggle"), requests.Session() as session:
        secret = credentials.key.get_secret_value()
        if credentials.username is None:
            session.headers["Authorization"] = f"Bearer {secret}"
        else:
            session.auth = (credentials.username, secret)
        for name in ARCHIVES:
            part = cache / f"{name}.part"
            if not (cache / name).exists():
                _fetch(session, f"{server}/competitions/data/download/{COMPETITION}/{name}", part)
                if damage := _damage(part, name):
                    part.unlink()
                    raise HiwlError(f"{name}: Kaggle sent a damaged file ({damage}). Run again to start it anew.")
                part.replace(cache / name)
    # They stay in the cache too: what comes after may fail, and two gigabytes are not fetched twice.
    for name in ARCHIVES:
        try:
            (folder / name).hardlink_to(cache / name)
        except OSError:
            shutil.copyfile(cache / name, folder / name)


def verify(images: Path, votes: Path, rows: int) -> None:
    """Check that the archives of images and of votes hold `rows` galaxies each, and the same ones.

    Raises:
        HiwlError: with the counts found, or the first galaxies that one of them lacks.
    """
    pictured = set(members(images))
    with zipfile.ZipFile(votes) as archive:
        name = table_in(archive)
        with archive.open(name) as table:
            listed = pd.read_csv(table)
    if ID not in listed:
        raise HiwlError(f"{votes}: {name}: has no column {ID}")
    voted = set(listed[ID].tolist())
    problems = []
    if len(pictured) != rows or len(listed) != rows:
        problems.append(f"expected {rows:,} galaxies, found {len(pictured):,} images and {len(listed):,} rows")
    for what, galaxies in (("image", voted - pictured), ("row of votes", pictured - voted)):
        if galaxies:
            first = ", ".join(map(str, sorted(galaxies)[:10]))
            problems.append(f"{len(galaxies):,} galaxies have no {what}, the first: {first}")
    if problems:
        raise HiwlError(f"{images.name} and {votes.name} are not the competition's: {'; '.join(problems)}")


def table_in(archive: zipfile.ZipFile) -> str:
    """The name of the table in an archive of votes; what macOS adds to archives is none.

    Raises:
        HiwlError: there is none.
    """
    tables = [name for name in archive.namelist() if name.endswith(".csv") and "__MACOSX" not in name]
    if not tables:
        raise HiwlError(f"{archive.filename}: holds no .csv")
    return tables[0]


def _copy(by_hand: Path, folder: Path) -> None:
    for name in ARCHIVES:
        given = by_hand / name
        if not given.is_file():
            raise HiwlError(f"HIWL_KAGGLE_FOLDER: {given}: not found. Both {' and '.join(ARCHIVES)} are needed.")
        with replacing(folder / name) as beside:
            shutil.copyfile(given, beside)
            if damage := _damage(beside, name):
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


def _fetch(session: requests.Session, url: str, part: Path) -> None:
    """Complete `part`, in a few attempts."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        try:
            _fetch_rest(session, url, part)
            return
        except requests.RequestException as error:
            # The reason alone: the whole message may hold the signed address.
            reason = getattr(error.args[0], "reason", error) if error.args else error
            tqdm.write(f"{part.stem}: attempt {attempt + 1} of {ATTEMPTS}: {reason}")
    raise HiwlError(
        f"{url}: {reason}, after {ATTEMPTS} attempts. Check the network and run again: what has arrived is "
        f"kept. {BY_HAND}"
    )


def _fetch_rest(session: requests.Session, url: str, part: Path) -> None:
    """Append to `part` what it lacks; start anew where the file on the server is another by now."""
    version_file = part.with_name(f"{part.name}.version")  # the ETag or date of what `part` is a part of
    version = version_file.read_text() if part.exists() and version_file.exists() else ""
    have = part.stat().st_size if version else 0
    headers = {"Accept-Encoding": "identity"}  # so that Content-Length counts the file's own bytes
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        status = response.status_code
        current = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        if status == 416 and response.headers.get("Content-Range") == f"bytes */{have}":
            return  # an earlier call was killed when all was there
        if status == 416 or (status == 206 and current != version):  # not every server knows If-Range
            version_file.unlink(missing_ok=True)
            raise requests.ConnectionError("the file on the server has changed")
        if status in (408, 429) or status >= 500:
            raise requests.HTTPError(f"{status} {response.reason}")
        if status not in (200, 206):
            said = response.text[:200].strip()
            raise HiwlError(f"{url}: {status} {said}\n{REFUSED.get(status, '')} {BY_HAND}")
        if "Content-Length" not in response.headers:
            raise HiwlError(f"{url}: the answer does not tell its length. {BY_HAND}")
        if status == 200:
            have = 0
            part.unlink(missing_ok=True)  # first, so that no old part ever stands beside a new version
            version_file.write_text(current)
        length = have + int(response.headers["Content-Length"])
        with (
            part.open("ab") as file,
            tqdm(desc=part.stem, total=length, initial=have, unit="B", unit_scale=True) as progress,
        ):
            for chunk in response.iter_content(CHUNK):
                progress.update(file.write(chunk))
    if part.stat().st_size != length:
        raise requests.ConnectionError(f"{part.stat().st_size:,} of {length:,} bytes came")
