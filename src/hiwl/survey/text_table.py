"""A user's table, in whatever form it comes: every cell as text, so that an ID is never read as a number."""

import bz2
import csv
import gzip
import io
import re
import unicodedata
import zipfile
import zlib
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from hiwl.core.errors import HiwlError
from hiwl.survey.pictures import slashed

SEPARATORS = (",", ";", "\t", "|")
SUFFIXES = (".csv", ".tsv", ".txt", ".dat")
LINE = re.compile(r"([^\r\n]*)(\r\n|\r|\n|$)")
AS_CSV = "save it as CSV"
KINDS = {  # first bytes of what is no text
    b"PAR1": "a Parquet file",
    b"SIMPLE  =": "a FITS file",
    b"<?xml": "an XML file (a VOTable?)",
    b"<VOTABLE": "a VOTable",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"%PDF": "a PDF file",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x89HDF": "an HDF5 file",
    b"\xff\xd8\xff": "a picture",
    b"\x89PNG": "a picture",
}


def read_text_table(path: Path) -> pd.DataFrame:
    """The table in a text file, plain or in gzip, bzip2 or zip: a row a line, every cell as text, stripped of blanks.

    Taken are UTF-8 (with its mark or without), UTF-16 and Latin-1; commas, semicolons, tabs and bars; quotes; any line
    ends; lines above the header that begin with `#`; columns without a name, which are left out, as an index is. Rows
    without any content are left out. Rows are numbered from 1, by the index.

    Raises:
        HiwlError: not such a table, no rows, a column twice, or a row with more or fewer cells than the header.
    """
    try:
        separator, text = _separated(_text(path).lstrip("\r\n\ufeff"))
        lines = filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=separator))
        header, first = ([*islice(lines, 2), [], []])[:2]
    except csv.Error as error:
        raise HiwlError(f"{path}: its header cannot be read ({error})") from None
    names = [name.strip() for name in header]
    if len(first) == len(names) + 1 and "" not in (names[-1], first[-1]):
        names = ["", *names]  # R writes the names of rows without a name for their column
    named = [name for name in names if name]
    if twice := {name for name in named if named.count(name) > 1}:
        raise HiwlError(f"{path}: column {', '.join(sorted(twice))} appears twice; rename one")
    if not first:
        raise HiwlError(f"{path}: a header ({', '.join(named[:5])}) and no rows")
    columns = [name or f"\0{number}" for number, name in enumerate(names)]
    table = _parse(path, text, separator, columns).drop(columns=[c for c in columns if c.startswith("\0")])
    for name in table:
        table[name] = table[name].str.strip().str.replace("\r\n?", "\n", regex=True)
    table.index += 1
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise HiwlError(f"{path}: a header ({', '.join(named[:5])}) and no rows")
    return table


def _separated(text: str) -> tuple[str, str]:
    """What separates cells, and the table from its header on."""
    line, rest = _first_line(text)
    if told := re.fullmatch("sep=(.)", line):  # as Excel writes it
        return told[1], rest
    text = _without_comments(text)
    return _separator(_first_line(text)[0]), text


def _separator(line: str) -> str:
    """What separates the cells of a header."""
    return max(SEPARATORS, key=lambda separator: len(_cells(line, separator)))


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator), [])


def _without_comments(text: str) -> str:
    """From the header on, which may itself begin with `#`, if what follows it is no header."""
    is_ecsv = text.startswith("# %ECSV")
    while text.startswith("#"):
        line, rest = _first_line(text)
        rest = rest.lstrip("\r\n")
        following, _ = _first_line(rest)
        separator = _separator(following)
        cells, first = _cells(line, separator), _cells(following, separator)
        if len(cells) == len(first) > 1 and not is_ecsv and any(cell[:1].isdigit() for cell in first):
            return text.lstrip("# ")
        if not rest:
            break
        text = rest
    return text


def _first_line(text: str) -> tuple[str, str]:
    """It, and what follows it."""
    line = LINE.match(text)
    assert line is not None
    return line[1], text[line.end() :]


def _parse(path: Path, text: str, separator: str, columns: list[str]) -> pd.DataFrame:
    ragged: list[str] = []

    def tell(row: pa.csv.InvalidRow) -> str:
        ragged.append(f"row {row.number - 1} has {row.actual_columns} cells and the header {row.expected_columns}")
        return "error"

    try:
        table = pa.csv.read_csv(
            io.BytesIO(text.encode()),
            pa.csv.ReadOptions(use_threads=False, column_names=columns, skip_rows_after_names=1),
            pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=tell),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        why = f"{ragged[0]} ({separator!r} between them)" if ragged else f"{error}; is a quote left open?"
        raise HiwlError(f"{path}: {why}") from None
    frame: pd.DataFrame = table.to_pandas()
    has_breaks = any(frame[column].str.contains("[\r\n]").any() for column in columns)
    if has_breaks:  # within cells; where a quote is not closed, lines have run together
        try:
            for _ in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
                pass
        except csv.Error as error:
            raise HiwlError(f"{path}: a quote is opened and not closed ({error})") from None
    return frame


def _text(path: Path) -> str:
    content = _unpacked(path)
    for start, kind in KINDS.items():
        begin = content.lstrip()[: len(start)]
        if begin == start or (start.startswith(b"<") and begin.lower() == start.lower()):
            raise HiwlError(f"{path}: {kind} and not a table of text; {AS_CSV}")
    if not content.strip():
        raise HiwlError(f"{path}: empty")
    for encoding in _encodings(content):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not any(unicodedata.category(one) == "Cc" and not one.isspace() for one in text[:1000]):
            return text
    raise HiwlError(f"{path}: neither UTF-8, UTF-16 nor Latin-1 text; {AS_CSV} in UTF-8")


def _encodings(content: bytes) -> list[str]:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return ["utf-16"]
    if len(content) > 1 and 0 in content[:2]:  # without its mark
        return ["utf-16-le" if content[1] == 0 else "utf-16-be"]
    return ["utf-8-sig", "cp1252", "latin-1"]  # what Windows makes of Latin-1 first


def _unpacked(path: Path) -> bytes:
    if path.is_dir():
        raise HiwlError(f"{path}: a folder; give the table in it")
    content = path.read_bytes()
    try:
        if content.startswith(b"\x1f\x8b"):
            return gzip.decompress(content)
        if content.startswith(b"BZh") and content[4:10] == b"1AY&SY":
            return bz2.decompress(content)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise HiwlError(f"{path}: damaged ({error}); get it anew") from None
    return _only_table_in(path, content) if content.startswith(b"PK\x03\x04") else content


def _only_table_in(path: Path, content: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if any(name.startswith(("xl/", "content.xml")) for name in names):
                raise HiwlError(f"{path}: a workbook and not a table of text; {AS_CSV}")
            tables = [
                name
                for name in names
                if name.lower().endswith(SUFFIXES) and not any(p[:1] in (".", "_") for p in slashed(name).split("/"))
            ]
            if len(tables) != 1:
                listed = ", ".join(tables or names)[:100]
                raise HiwlError(f"{path}: holds {len(tables)} tables ({listed}); give the one that is meant")
            return archive.read(tables[0])
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, ValueError, zlib.error, EOFError) as error:
        raise HiwlError(f"{path}: damaged or encrypted ({error}); unpack it and give the table in it") from None
