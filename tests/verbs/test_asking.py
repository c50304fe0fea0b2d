import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from hiwl.verbs import asking, embed
from hiwl.verbs.features import FeatureTable
from hiwl.verbs.search import Search
from pictures import folder_of
from project import Project, environment, free_port, wait_for


@pytest.fixture
def search(evaluated: Project, tmp_path: Path) -> Search:
    folder_of(tmp_path / "pictures", 25)
    features = tmp_path / "features.parquet"
    embed.main([str(tmp_path / "pictures")], str(features), weights="models/choice", node="root", components=None)
    return Search(FeatureTable(features), tmp_path / "answers.csv")


def test_the_page_asks_keeps_takes_back_and_shows_what_is_expected(search: Search) -> None:
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
    assert page.post("/undo", json={}).json()["row"] == asked[-1]
    assert page.post("/undo", content="").status_code == 422  # as another address's page can
    assert len(pd.read_csv(search.kept)) == 24
    assert len(page.get("/top").json()) == 24


@pytest.mark.parametrize("said", [{"row": 10**6, "answer": 3}, {"row": 0, "answer": 6}])
def test_what_is_no_answer_is_not_kept(said: dict[str, int], search: Search) -> None:
    answer = TestClient(asking.create(search)).post("/answer", json=said)
    assert answer.status_code == 400
    assert "answers are 1 to 5" in answer.json()["message"]
    assert not search.answers


@pytest.mark.elsewhere
def test_a_person_answers_by_keys_and_by_mouse_takes_one_back_and_finds_the_ranking(
    search: Search, tmp_path: Path
) -> None:
    from playwright.sync_api import sync_playwright

    port, ranking = free_port(), tmp_path / "odd.csv"
    command = ["hiwl", "odd", "--in", str(search.table.path), "--answers", str(search.kept), "--ask"]
    command += ["--port", str(port), "-o", str(ranking)]
    process = subprocess.Popen(command, env=environment(), start_new_session=True)
    wait_for(process, f"http://127.0.0.1:{port}/state")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_function("state !== null && !busy")
        for number, press in enumerate(("5", "1", "3", "u", "4"), 1):
            with page.expect_response(lambda response: response.url.endswith(("/answer", "/undo"))):
                page.keyboard.press(press)
            page.wait_for_function("!busy")
            assert len(pd.read_csv(search.kept)) == (1, 2, 3, 2, 3)[number - 1]
        with page.expect_response(lambda response: response.url.endswith("/answer")):
            page.get_by_role("button", name="5 fascinating").click()
        page.wait_for_function("!busy")
        page.get_by_role("button", name="renew").click()
        page.wait_for_function("document.querySelectorAll('#top img').length > 3")
        assert not wrong
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert pd.read_csv(search.kept)["answer"].tolist() == [5, 1, 4, 5]
    assert pd.read_csv(ranking)["answer"].notna().sum() == 4
