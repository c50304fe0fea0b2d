"""Which file of a folder or an archive shows which galaxy, as people have them.

A picture is named after its galaxy, in whatever folder. What is no picture is passed over and counted: hidden files,
what operating systems leave, links that lead nowhere, files of other kinds.
"""

import hashlib
import os
import posixpath
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".fits", ".fit", ".fits.gz", ".fits.fz")
READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
SHOWN = 3  # names in a message
PassedOver = dict[str, list[str]]


@dataclass
class Pictures:
    """The pictures of a zip archive or a folder."""

    source: Path
    files: dict[str, object] = field(default_factory=dict)
    """By name, with its folders: what two files of the same content share."""
    passed_over: PassedOver = field(default_factory=dict)
    """Why, and which names."""

    def __post_init__(self) -> None:
        self._by_tail: dict[str, list[str]] = {}
        for name in self.files:
            tail = without_suffix(slashed(name))
            self._by_tail.setdefault(tail, []).append(name)
            while "/" in tail:
                tail = tail.split("/", 1)[1]
                self._by_tail.setdefault(tail, []).append(name)

    def of(self, galaxy: str) -> str | None:
        """The file that shows `galaxy`, None where there is none.

        A galaxy may be named with folders (`train/101`), which then have to be the file's.

        Raises:
            HiwlError: several files show it, and differ.
        """
        named = self._by_tail.get(galaxy, [])
        if len({self.files[name] for name in named}) > 1:
            tails = [without_suffix(slashed(name)) for name in named]
            apart = next((f", or let the table name the folder too, as in {tail}" for tail in tails if "/" in tail), "")
            raise HiwlError(
                f"{self.source}: galaxy {galaxy} has {len(named)} different pictures: {', '.join(named[:SHOWN])}. Keep "
                f"one of them{apart}"
            )
        return named[0] if named else None

    def spellings(self) -> set[str]:
        """What a table may call a galaxy that is pictured: with or without folders and suffix."""
        names = {slashed(name) for name in self.files}
        return self._by_tail.keys() | names | {posixpath.basename(name) for name in names}

    def knows(self, galaxy: str) -> bool:
        """Whether a file shows `galaxy`."""
        return galaxy in self._by_tail

    def read(self, names: list[str]) -> Iterator[bytes]:
        """The content of each of the files `names`; nothing of one that an archive holds damaged."""
        if self.source.is_dir():
            yield from ((self.source / name).read_bytes() for name in names)
            return
        with zipfile.ZipFile(self.source) as archive:
            for name in names:
                try:
                    yield archive.read(name)
                except (zipfile.BadZipFile, zlib.error, EOFError, OSError):
                    yield b""

    def galaxies(self) -> list[str]:
        """What the pictures are called, without folders and suffixes."""
        return [shown_by(name) for name in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def in_words(self) -> str:
        """What was found and what was passed over, with a few names."""
        told = [f"{self.source}: {len(self.files):,} pictures"]
        for why, names in self.passed_over.items():
            shown = ", ".join(names[:SHOWN]).encode(errors="replace").decode()
            told.append(f"  passed over, {why}: {len(names):,} ({shown})")
        return "\n".join(told)


def look(source: Path) -> Pictures:
    """The pictures of a folder or of a zip archive.

    Raises:
        HiwlError: neither, one without pictures, or an archive that is damaged, encrypted or packed in a way that
            Python does not read.
    """
    pictures = _look_into_folder(source) if source.is_dir() else _look_into_archive(source)
    if not pictures.files:
        raise HiwlError(f"{pictures.in_words()}\nPictures end in {', '.join(SUFFIXES)}")
    return pictures


def _look_into_archive(archive: Path) -> Pictures:
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not slashed(member.filename).endswith("/")]
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        raise HiwlError(
            f"{archive}: not a zip archive, or a truncated one. If it is an archive of another kind, unpack it and "
            "give the folder"
        ) from None
    taken, passed_over = _sort_out([member.filename for member in members])
    files: dict[str, object] = {}
    for member in members:
        if member.filename not in taken:
            continue
        content = (member.CRC, member.file_size)
        if files.get(member.filename, content) != content:
            raise HiwlError(f"{archive}: holds two different files {member.filename}; pack it anew")
        if member.flag_bits & 1:
            raise HiwlError(f"{archive}: {member.filename} is encrypted; unpack it with its password, give the folder")
        if member.compress_type not in READABLE:
            raise HiwlError(
                f"{archive}: {member.filename} is packed by a method that Python does not read (number "
                f"{member.compress_type}); unpack it and give the folder"
            )
        files[member.filename] = content
    return Pictures(archive, files, passed_over)


def _look_into_folder(folder: Path) -> Pictures:
    passed_over: PassedOver = {}
    taken, more = _sort_out([path.relative_to(folder).as_posix() for path in _walk(folder, passed_over)])
    found = Pictures(folder, dict.fromkeys(sorted(taken)), passed_over | more)
    # Files of one name are told apart by what they contain.
    often = Counter(found.galaxies())
    for name, galaxy in zip(list(found.files), found.galaxies(), strict=True):
        if often[galaxy] > 1:
            found.files[name] = sha256(folder / name)
    return found


def _walk(folder: Path, passed_over: PassedOver) -> Iterator[Path]:
    """Every file, also behind links to folders, each folder once."""
    seen: set[str] = set()
    for above, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable):
        if (real := os.path.realpath(above)) in seen:
            passed_over.setdefault("folders reached again through a link", []).append(os.path.relpath(above, folder))
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(files):
            path = Path(above, name)
            if path.is_file():
                yield path
            else:
                passed_over.setdefault("links that lead nowhere", []).append(str(path.relative_to(folder)))


def _unreadable(error: OSError) -> None:
    raise error


def _sort_out(names: Iterable[str]) -> tuple[set[str], PassedOver]:
    """The names of pictures, and the others by why they are none."""
    taken: set[str] = set()
    passed_over: PassedOver = {}
    for name in names:
        parts = slashed(name).split("/")
        if any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in parts):
            why = "hidden"
        elif ".." in parts or parts[0] == "" or parts[0].endswith(":"):
            why = "names that leave the archive"
        elif not _is_text(name):
            why = "names that are not UTF-8"
        elif not parts[-1].lower().endswith(SUFFIXES):
            why = "files of other kinds"
        else:
            taken.add(name)
            continue
        passed_over.setdefault(why, []).append(name)
    return taken, passed_over


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def slashed(name: str) -> str:
    """A file's name with the slashes of paths and zips (Windows has others) and composed accents (macOS parts them)."""
    return unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./")


def shown_by(path: str) -> str:
    """The galaxy that the picture at `path` shows: the file's name without folders and suffix."""
    return without_suffix(posixpath.basename(slashed(path)))


def without_suffix(name: str) -> str:
    """`name` without the suffix of a picture, if it has one."""
    lower = name.lower()
    ends = [suffix for suffix in SUFFIXES if lower.endswith(suffix)]
    return name[: -max(map(len, ends))] if ends else name


def content_of(pictures: Pictures) -> str:
    """SHA-256 of what the source contains: of an archive's bytes; of a folder, of the list that `sha256sum` gives."""
    source = pictures.source
    if not source.is_dir():
        return sha256(source)
    listed = hashlib.sha256()
    for name in tqdm(sorted(pictures.files), desc="reading", unit="picture", delay=1):
        listed.update(f"{sha256(source / name)}  {name}\n".encode())
    return listed.hexdigest()


def archive_folder(pictures: Pictures, archive: Path) -> None:
    """Store a folder's pictures in one zip whose bytes depend on their names and contents alone."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name in tqdm(sorted(pictures.files), desc="archiving", unit="picture"):
            file.writestr(zipfile.ZipInfo(name), (pictures.source / name).read_bytes())
