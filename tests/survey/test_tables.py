from pathlib import Path

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from hiwl.core.layout import ID
from hiwl.survey.tables import in_order, read_table


def test_ids_and_classes_are_text_and_only_an_empty_cell_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("GalaxyID,class,Class1.1\n587722981742084097,1,0\nNA,NA,\n007,nan,0.5\n")
    table = read_table(path)
    assert table[ID].tolist() == ["587722981742084097", "NA", "007"]
    assert table["class"].tolist() == ["1", "NA", "nan"]
    assert table["Class1.1"].fillna(-1).tolist() == [0, -1, 0.5]
    assert list(read_table(path, ["class"])) == ["class"]


def test_numbers_that_differ_in_zeros_alone_stand_the_same_whatever_the_rows(tmp_path: Path) -> None:
    for ids in (["7", "007", "10"], ["10", "007", "7"]):
        assert in_order(pd.DataFrame({ID: ids}))[ID].tolist() == ["007", "7", "10"]


@given(st.sets(st.integers(0, 10**18), min_size=1))
def test_numbers_stand_in_their_order_however_long(ids: set[int]) -> None:
    assert in_order(pd.DataFrame({ID: [str(one) for one in ids]}))[ID].tolist() == [str(one) for one in sorted(ids)]


def test_text_stands_in_its_order() -> None:
    assert in_order(pd.DataFrame({ID: ["galaxy_2", "J09+1", "10"]}))[ID].tolist() == ["10", "J09+1", "galaxy_2"]
