"""Archives of pictures: which member shows which galaxy."""

import zipfile
from pathlib import Path, PurePosixPath

from hiwl.core.errors import HiwlError

SUFFIXES = (".jpg", ".jpeg", ".png")


def members(archive: Path) -> dict[int, str]:
    """GalaxyID to member name, of every picture in a zip archive.

    Raises:
        HiwlError: not a zip archive, a picture whose name is not a number, or two pictures of one galaxy.
    """
    found: dict[int, str] = {}
    try:
        with zipfile.ZipFile(archive) as file:
            names = file.namelist()
    except zipfile.BadZipFile:
        raise HiwlError(f"{archive}: not a zip archive, or a truncated one") from None
    for name in names:
        path = PurePosixPath(name)
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if not path.stem.isdecimal():
            raise HiwlError(f"{archive}: {name}: pictures are named GalaxyID.jpg, with a whole number")
        if int(path.stem) in found:
            raise HiwlError(f"{archive}: galaxy {path.stem} has two pictures: {found[int(path.stem)]}, {name}")
        found[int(path.stem)] = name
    return found
