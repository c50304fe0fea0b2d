import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiwl.core.errors import HiwlError
from hiwl.core.layout import ID, PARTS
from hiwl.studies.paper import SPLITS
from hiwl.survey.splits import SplitParams, counts, split

TABLE_2 = dict(zip(SPLITS["clean"], zip(*(SPLITS[name] for name in PARTS), strict=True), strict=True))


def params(**changes: float | None) -> SplitParams:
    return SplitParams.parse({"seed": 3, "held_out": 0.2, "fold": None, "training": None} | changes, "split")


@pytest.mark.parametrize("galaxies", TABLE_2)
def test_the_rule_gives_the_papers_table_2(galaxies: int) -> None:
    assert tuple(counts(galaxies, params())[name] for name in PARTS) == TABLE_2[galaxies]


def clean_table(sizes: dict[str, int]) -> pd.DataFrame:
    classes = [name for name, size in sizes.items() for _ in range(size)]
    return pd.DataFrame({ID: [str(100 + number) for number in range(len(classes))], "class": classes})


@given(
    st.dictionaries(st.sampled_from(["CRS", "IBS", "CSS", "EO", "SPI"]), st.integers(1, 60), min_size=1),
    st.integers(0, 2**31),
    st.floats(0.05, 0.9),
)
def test_splits_are_disjoint_complete_and_as_large_as_the_rule_says(
    sizes: dict[str, int], seed: int, held_out: float
) -> None:
    clean = clean_table(sizes)
    drawn = params(seed=seed, held_out=held_out)
    splits = split(clean, drawn)
    assert splits[[ID, "class"]].equals(clean)
    found = splits.groupby(["class", "split"]).size()
    for name, size in sizes.items():
        for part, number in counts(size, drawn).items():
            assert found.get((name, part), 0) == number


def test_a_class_is_split_the_same_whatever_the_order_and_the_other_classes() -> None:
    clean = clean_table({"CRS": 50, "EO": 40})
    whole = split(clean, params())
    assert split(clean.sample(frac=1, random_state=1), params()).equals(whole)
    alone = split(clean[clean["class"] == "EO"], params())
    assert alone.equals(whole[whole["class"] == "EO"].reset_index(drop=True))
    assert not split(clean, params(seed=4)).equals(whole)


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(["CRS", "CSS", "EO"]), st.integers(1, 60), min_size=1), st.integers(0, 99))
def test_over_the_folds_every_galaxy_is_tested_once_and_validates_the_fold_before(
    sizes: dict[str, int], seed: int
) -> None:
    clean = clean_table(sizes)
    folds = [split(clean, params(seed=seed, fold=fold)) for fold in range(10)]
    assert params().folds == 10
    tested = [set(fold.loc[fold["split"] == "test", ID]) for fold in folds]
    validated = [set(fold.loc[fold["split"] == "validation", ID]) for fold in folds]
    assert sorted(galaxy for fold in tested for galaxy in fold) == clean[ID].tolist()
    assert validated == tested[1:] + tested[:1]
    for number, fold in enumerate(folds):
        for name, size in sizes.items():
            found = fold.loc[fold["class"] == name, "split"].value_counts()
            for part, expected in counts(size, params(fold=number)).items():
                assert found.get(part, 0) == expected


def test_thinned_training_keeps_the_classes_in_proportion_and_the_other_sets_as_they_are() -> None:
    clean = clean_table({"CRS": 500, "CSS": 100})
    whole, thin = split(clean, params()), split(clean, params(training=120))
    held = whole["split"] != "training"
    assert thin[thin["split"] != "training"].reset_index(drop=True).equals(whole[held].reset_index(drop=True))
    training = thin[thin["split"] == "training"]
    assert training["class"].value_counts().to_dict() == {"CRS": 100, "CSS": 20}
    assert set(training[ID]) <= set(whole.loc[~held, ID])
    with pytest.raises(HiwlError, match=r"split\.training is 500, but only 480"):
        split(clean, params(training=500))
    with pytest.raises(HiwlError, match=r"split\.training is 479 of 480 galaxies"):
        split(clean, params(training=479))


def test_a_fold_that_does_not_exist_is_refused() -> None:
    with pytest.raises(HiwlError, match="folds 0 to 9"):
        params(fold=10)
