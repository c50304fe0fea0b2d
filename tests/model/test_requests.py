import base64
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiwl.core.errors import HiwlError
from hiwl.model import requests
from hiwl.model.answer import Model
from hiwl.model.requests import MOST_ROWS, Server, to_table
from pictures import encode, jpeg
from project import Project


def test_every_form_of_mlflow_becomes_the_same_table() -> None:
    for given_ in (
        pd.DataFrame({"image": ["a", "b"]}),
        {"image": ["a", "b"]},
        {"image": np.array(["a", "b"])},
        ["a", "b"],
        np.array(["a", "b"]),
        pd.DataFrame({"0": ["a", "b"]}),
    ):
        assert to_table(given_)["image"].tolist() == ["a", "b"]
    of_mlflow = np.array([np.array("a"), np.array(None, object)], object)
    assert to_table({"image": of_mlflow})["image"].tolist() == ["a", None]
    assert to_table({"image": "a", "id": "x"}).to_dict("records") == [{"image": "a", "id": "x"}]
    with pytest.raises(HiwlError, match="a column 'image' of pictures is needed; none of the 1"):
        to_table({"picture": ["a"]})
    with pytest.raises(HiwlError, match="columns of one length are needed; found 2, 1"):
        to_table({"image": ["a", "b"], "id": ["x"]})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def model(evaluated_once: Project) -> Model:
    return Model.load(evaluated_once.folder / "models/choice")


@given(cells=st.lists(anything, max_size=6))
def test_whatever_the_cells_hold_as_many_rows_come_back_as_were_asked(cells: list[Any], model: Model) -> None:
    answers = model.answer(to_table({"image": cells}))
    assert len(answers) == len(cells)
    assert answers["error"].notna().all()


@given(
    damage=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 3000),
    seed=st.integers(0, 9),
)
def test_damaged_pictures_are_answered_or_say_what_is_wrong(
    damage: list[tuple[int, int]], cut: int, seed: int, model: Model
) -> None:
    content = bytearray(jpeg(seed, side=40) if seed % 2 else encode(np.full((40, 40, 3), seed, np.uint8)))
    for place, value in damage:
        content[place % len(content)] = value
    (answer,) = model([bytes(content[: max(1, len(content) - cut % 200)])]).to_dict("records")
    assert (answer["answer"] is None) == (answer["error"] is not None)


def test_a_request_that_asks_for_too_much_is_told_so_before_any_work(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_rate", lambda model: 2.0)
    server = Server(model, seconds=20)
    assert server.most == 20
    server.check(pd.DataFrame({"image": [None] * 5000 + [b"x"] * 20}))
    with pytest.raises(HiwlError, match="21 pictures; this server answers about 20 in half of its time limit of 20 s"):
        server.check(pd.DataFrame({"image": [b"x"] * 21}))
    with pytest.raises(HiwlError, match=f"{MOST_ROWS + 1} rows; a request may hold {MOST_ROWS}"):
        server.check(pd.DataFrame({"image": [None] * (MOST_ROWS + 1)}))
    flat = encode(np.zeros((4096, 4096, 3), np.uint8))
    for picture in (flat, base64.b64encode(flat).decode()):
        server.check(pd.DataFrame({"image": [picture] * 16}))
        with pytest.raises(HiwlError, match="pixels in all; a request may hold"):
            server.check(pd.DataFrame({"image": [picture] * 17}))


def test_the_rate_is_measured(model: Model) -> None:
    assert Server(model, seconds=60).most > 1
