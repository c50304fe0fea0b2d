"""Other models' answers as targets."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256
from hiwl.core.settings import settings
from hiwl.training.teachers import read_teachers

CLASSES = ["CSS", "EO"]


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Two teachers; one could not read galaxy 3, the other did not see galaxy 2."""
    first = {"path": ["a.zip/1.jpg", "a.zip/2.jpg", "a.zip/3.jpg"], "p_CSS": [0.2, 0.6, None], "p_EO": [0.8, 0.4, None]}
    second = {"path": ["b/3.png", "b/1.png"], "p_CSS": [0.5, 0.4], "p_EO": [0.5, 0.6]}
    for name, table in (("first", first), ("second", second)):
        pd.DataFrame(table).to_parquet(tmp_path / f"{name}.parquet")
    monkeypatch.setenv("HIWL_TEACHERS", str(tmp_path))
    settings.cache_clear()
    yield [sha256(tmp_path / f"{name}.parquet") for name in ("first", "second")]
    settings.cache_clear()


def test_teachers_answer_by_their_mean_as_far_as_they_answer(tables: list[str]) -> None:
    said = read_teachers(tables, CLASSES)
    assert list(said) == CLASSES
    assert list(said.index) == ["1", "2", "3"]
    assert said["CSS"].to_numpy() == pytest.approx([0.3, 0.6, 0.5])
    assert said["EO"].to_numpy() == pytest.approx([0.7, 0.4, 0.5])


def test_a_teacher_that_is_not_there_or_knows_other_classes_is_told(tables: list[str]) -> None:
    with pytest.raises(HiwlError, match="names none"):
        read_teachers([], CLASSES)
    with pytest.raises(HiwlError, match="holds no Parquet table whose SHA-256 is 00"):
        read_teachers([tables[0], "00"], CLASSES)
    with pytest.raises(HiwlError, match=r"first\.parquet: no column p_SPI"):
        read_teachers(tables, [*CLASSES, "SPI"])
