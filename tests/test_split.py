import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiwl.split import NAMES, SplitParams, counts, split
from hiwl.votes import ID

TABLE_2 = {
    8434: (6747, 843, 844),
    8069: (6455, 807, 807),
    578: (462, 58, 58),
    3903: (3122, 390, 391),
    7806: (6245, 780, 781),
}


@pytest.mark.parametrize("galaxies", TABLE_2)
def test_the_rule_gives_the_papers_table_2(galaxies: int) -> None:
    assert tuple(counts(galaxies, 0.2)[name] for name in NAMES) == TABLE_2[galaxies]


def clean_table(sizes: dict[str, int]) -> pd.DataFrame:
    classes = [name for name, size in sizes.items() for _ in range(size)]
    return pd.DataFrame({ID: range(100, 100 + len(classes)), "class": classes})


@given(
    st.dictionaries(st.sampled_from(["CRS", "IBS", "CSS", "EO", "SPI"]), st.integers(1, 60), min_size=1),
    st.integers(0, 2**31),
    st.floats(0.05, 0.9),
)
def test_splits_are_disjoint_complete_and_as_large_as_the_rule_says(
    sizes: dict[str, int], seed: int, held_out: float
) -> None:
    clean = clean_table(sizes)
    splits = split(clean, SplitParams(seed=seed, held_out=held_out))
    assert splits[[ID, "class"]].equals(clean)
    found = splits.groupby(["class", "split"]).size()
    for name, size in sizes.items():
        for part, number in counts(size, held_out).items():
            assert found.get((name, part), 0) == number


def test_a_class_is_split_the_same_whatever_the_order_and_the_other_classes() -> None:
    params = SplitParams(seed=3, held_out=0.2)
    clean = clean_table({"CRS": 50, "EO": 40})
    whole = split(clean, params)
    assert split(clean.sample(frac=1, random_state=1), params).equals(whole)
    alone = split(clean[clean["class"] == "EO"], params)
    assert alone.equals(whole[whole["class"] == "EO"].reset_index(drop=True))
    assert not split(clean, SplitParams(seed=4, held_out=0.2)).equals(whole)
