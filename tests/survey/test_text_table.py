"""Tables in the encodings and shapes that people have: taken as they are, or refused in a line."""

import bz2
import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiwl.core.errors import HiwlError
from hiwl.survey.text_table import read_text_table

PLAIN = "GalaxyID,class,observer\n587722981742084097,SPI,Müller\n007,CRS,\n"
ROWS = {
    "GalaxyID": ["587722981742084097", "007"],
    "class": ["SPI", "CRS"],
    "observer": ["Müller", ""],
}


def zipped(text: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("__MACOSX/._t.csv", b"\0")
        file.writestr("t.csv", text)
    return stream.getvalue()


def read(folder: Path, content: bytes) -> dict[str, list[str]]:
    (folder / "t.csv").write_bytes(content)
    return read_text_table(folder / "t.csv").to_dict("list")  # type: ignore[return-value]


FORMS: dict[str, Callable[[str], bytes]] = {
    "utf-8": str.encode,
    "utf-8 with its mark": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16 without its mark": lambda text: text.encode("utf-16-le"),
    "latin-1": lambda text: text.encode("latin-1"),
    "windows": lambda text: text.replace("\n", "\r\n").encode("cp1252"),
    "old mac": lambda text: text.replace("\n", "\r").encode(),
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "bars": lambda text: text.replace(",", "|").encode(),
    "gzip": lambda text: gzip.compress(text.encode()),
    "bzip2": lambda text: bz2.compress(text.encode()),
    "zip": zipped,
    "an index": lambda text: "".join(f"{n - 1 if n else ''},{line}\n" for n, line in enumerate(text.split())).encode(),
    "rows named by R": lambda text: "".join(
        f"{f'r{n},' if n else ''}{s}\n" for n, s in enumerate(text.split())
    ).encode(),
    "comments": lambda text: ("#Table1\n# made by hand\n" + text).encode(),
    "a header after #": lambda text: ("# " + text).encode(),
    "blank lines": lambda text: text.replace("\n", "\n\n").encode() + b",,\n",
    "a comment with as many commas": lambda text: ("# galaxies, from, SDSS\n\n" + text).encode(),
    "Excel's first line": lambda text: ("sep=;\n" + text.replace(",", ";")).encode(),
    "a second mark": lambda text: ("\ufeff\ufeff" + text).encode(),
    "ECSV": lambda text: ("# %ECSV 1.0\n# ---\n# - {name: a, x: 1, y: 2}\n" + text).encode(),
    "quotes": lambda text: text.replace("SPI", '"SPI"').replace("Müller", '" Müller "').encode(),
    "no end of line": lambda text: text.rstrip("\n").encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_read_whatever_its_form(form: str, tmp_path: Path) -> None:
    assert read(tmp_path, FORMS[form](PLAIN)) == ROWS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"GalaxyID,class\n", r"a header \(GalaxyID, class\) and no rows"),
        (b"a,b\n1,2\n3\n", "row 2 has 1 cells and the header 2"),
        (b"n,GalaxyID,class\n1,101,S,\n", "row 1 has 4 cells and the header 3"),
        (b"a,b\n1,2\n3,4,5\n", "row 2 has 3 cells and the header 2"),
        (b'a,b\n1,"2\n3,4\n', "quote"),
        (b"a,b,a\n1,2,3\n", "column a appears twice"),
        (b'id,note,class\n1,"odd,A\n2,x,B\n3,"odd,A\n', "a quote is opened and not closed"),
        (b"GalaxyID,class", "no rows"),
        (b"\0", "neither UTF-8"),
        (b'"' + b"x" * 200_000 + b",b\n1,2\n", "header cannot be read"),
        (b"PAR1....", "a Parquet file"),
        (b"SIMPLE  =     T", "a FITS file"),
        (b'<?xml version="1.0"?>', "XML"),
        (b"\xff\xd8\xff\xe0", "a picture"),
        (b"PK\x03\x04", "damaged"),
        (b"\x1f\x8b\x08", "damaged"),
        (b"\x01\x02\x03", "neither UTF-8, UTF-16 nor Latin-1"),
    ],
)
def test_what_is_no_table_is_told_in_a_line(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(HiwlError, match=said) as told:
        read(tmp_path, content)
    assert str(tmp_path / "t.csv") in str(told.value)
    assert "\n" not in str(told.value)


def test_rows_are_numbered_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n,\n3,4\n")
    assert read_text_table(tmp_path / "t.csv").index.tolist() == [1, 3]


def test_a_folder_is_not_a_table(tmp_path: Path) -> None:
    with pytest.raises(HiwlError, match="a folder; give the table in it"):
        read_text_table(tmp_path)


@given(
    st.lists(st.lists(st.text(st.characters(codec="latin-1", exclude_categories=["C", "Z"])), min_size=2, max_size=2)),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cells_come_back_as_text(tmp_path: Path, cells: list[list[str]], separator: str, encoding: str) -> None:
    frame = pd.DataFrame([["1", "x"], *cells], columns=["GalaxyID", "note"])
    content = frame.to_csv(index=False, sep=separator).encode(encoding)
    wanted = frame[(frame != "").any(axis=1)]
    if encoding == "latin-1" and any(0x80 <= ord(letter) < 0xA0 for cell in cells for letter in "".join(cell)):
        return
    try:
        content.decode("utf-8")
        ambiguous = encoding == "latin-1"
    except UnicodeDecodeError:
        ambiguous = False
    if not ambiguous or content.isascii():
        assert read(tmp_path, content) == wanted.to_dict("list")


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_raise_anything_else(tmp_path: Path, content: bytes) -> None:
    for start in (
        b"",
        b"GalaxyID,class\n",
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"\xff\xfe",
        b"#",
        b"# x\n\n",
        b"PK,a\n",
        b"par1,x\n",
    ):
        try:
            read(tmp_path, start + content)
        except HiwlError as error:
            assert "t.csv" in str(error)
