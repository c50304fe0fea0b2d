"""Reading and writing files so that nothing is ever half written.

Every output is written beside its place and renamed into it: a killed stage leaves the old file or the new one, and
a file that DVC shares with its cache by a hard link is replaced, never written through. A folder takes two renames;
killed between them, it lies whole beside its place, and the next call puts it back.

What is written beside carries its process in its name (``.<name>.<host>.<pid>.part``), so that two processes never
meet; what killed processes of this host left in a folder is removed by whoever writes there next.
"""

import hashlib
import json
import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hiwl.core.errors import HiwlError

MASK = os.umask(0)  # can only be read by setting it
os.umask(MASK)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; move it into place when the block ends well, else remove it."""
    beside = _beside(path)
    try:
        yield beside
        _share(beside)
        os.replace(beside, path)
    except OSError as error:  # whoever was writing may not have said where
        error.filename = error.filename or str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`; it becomes `path` when the block ends well, else it is removed."""
    old = path.with_name(f".{path.name}.old")
    if old.exists():
        if path.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, path)
    with scratch_folder(path) as beside:
        yield beside
        for file in beside.rglob("*"):
            _share(file)
        if path.exists():
            os.replace(path, old)
        os.replace(beside, path)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`, removed when the block ends."""
    beside = _beside(path)
    beside.mkdir()
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def make_folder_of(path: Path) -> None:
    """Make the folder that `path` is to lie in.

    Raises:
        HiwlError: a file lies where it would be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise HiwlError(f"{path}: {error.filename}: {error.strerror}; name another place") from None


def _share(path: Path) -> None:
    """Let others read a file that its library (safetensors) made for its owner alone, as they may any new file."""
    if path.is_file() and stat.S_IMODE(path.stat().st_mode) == 0o600:
        path.chmod(0o666 & ~MASK)


def _beside(path: Path) -> Path:
    """A free place beside `path`, after removing what killed processes left in its folder."""
    make_folder_of(path)
    host = platform.node().replace(".", "-")
    beside = path.with_name(f".{path.name}.{host}.{os.getpid()}.part")
    for left in path.parent.glob(f".*.{host}.*.part"):
        process = left.suffixes[-2].removeprefix(".")
        if left == beside or not (process.isdecimal() and _is_alive(int(process))):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    return beside


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Hold the file `lock` meanwhile; where another process holds it, say `what` it is doing, and wait."""
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0.5)
    except Timeout:
        print(f"another process {what}; waiting for it", file=sys.stderr, flush=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON in one step; NaN and infinity are refused, since JSON has none."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: Any) -> str:
    """SHA-256, in hexadecimal, of anything JSON can hold; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
