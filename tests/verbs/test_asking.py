from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from hiwl.verbs import asking, embed, odd
from hiwl.verbs.features import FeatureTable
from pictures import folder_of
from project import Project


@pytest.fixture
def search(evaluated: Project, tmp_path: Path) -> odd.Search:
    folder_of(tmp_path / "pictures", 25)
    features = tmp_path / "features.parquet"
    embed.main([str(tmp_path / "pictures")], str(features), "models/choice", "root", None)
    return odd.Search(FeatureTable(features), tmp_path / "answers.csv")


def test_the_page_asks_keeps_takes_back_and_shows_what_is_expected(search: odd.Search) -> None:
    page = TestClient(asking.create(search))
    assert "How interesting" in page.get("/").text
    asked = []
    for number in range(25):
        state = page.get("/state").json()
        assert state["answered"] == number
        assert state["picture"].startswith("data:image/jpeg")
        asked.append(state["row"])
        assert page.post("/answer", json={"row": state["row"], "answer": 1 + number % 5}).status_code == 200
    assert sorted(asked) == np.flatnonzero(search.table.given["error"].isna()).tolist()
    assert page.get("/state").json()["row"] is None
    assert page.post("/undo").json()["row"] == asked[-1]
    assert len(pd.read_csv(search.kept)) == 24
    assert len(page.get("/top").json()) == 24


@pytest.mark.parametrize("said", [{"row": 10**6, "answer": 3}, {"row": 0, "answer": 6}])
def test_what_is_no_answer_is_not_kept(said: dict[str, int], search: odd.Search) -> None:
    answer = TestClient(asking.create(search)).post("/answer", json=said)
    assert answer.status_code == 400
    assert "answers are 1 to 5" in answer.json()["message"]
    assert not search.answers
