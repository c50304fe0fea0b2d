"""``SHA256SUMS``: what each file of a model's folder contains."""

from pathlib import Path

from hiwl.core.errors import HiwlError
from hiwl.core.files import digest, sha256, write_text

SUMS = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` of every file in `folder` but a card, which may name them."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    listed = [name for name in names if name not in (SUMS, "README.md")]
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in listed))


def read_sums(folder: Path) -> dict[str, str]:
    """By file: its SHA-256, as ``SHA256SUMS`` has it.

    Raises:
        HiwlError: there is no such file.
    """
    try:
        lines = (folder / SUMS).read_text().splitlines()
    except FileNotFoundError:
        raise HiwlError(f"{folder / SUMS}: not found; `dvc repro` makes a model, `dvc pull` brings it") from None
    return {name: content for content, name in (line.split("  ", 1) for line in lines)}


def digest_of_sums(folder: Path) -> str:
    """By what the model in a folder is known, wherever it lies: 16 hex digits.

    Raises:
        HiwlError: there is no ``SHA256SUMS``.
    """
    return digest(read_sums(folder))[:16]


def check_sums(folder: Path, needed: str) -> None:
    """See to it that every file in `folder` is what ``SHA256SUMS`` there says, and that `needed` is among them.

    Raises:
        HiwlError: naming those that are missing or not.
    """
    expected = read_sums(folder)
    wrong = [name for name, content in expected.items() if not _is(folder / name, content)]
    if wrong or needed not in expected:
        names = ", ".join(wrong or [needed])
        raise HiwlError(f"{folder}: {names}: missing, or not as in {SUMS}; get the folder anew from where it came")


def _is(path: Path, content: str) -> bool:
    return path.exists() and sha256(path) == content
