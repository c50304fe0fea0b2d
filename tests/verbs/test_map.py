import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hiwl.core.errors import HiwlError
from hiwl.verbs import map as page
from hiwl.verbs import odd


def content_of(path: Path) -> dict[str, list]:  # type: ignore[type-arg]
    text = path.read_text().split('type="application/json">')[1].split("</script>")[0]
    content: dict[str, list] = json.loads(text)  # type: ignore[type-arg]
    return content


def test_a_map_holds_every_galaxy_its_picture_and_what_is_said_of_it(features: Path, tmp_path: Path) -> None:
    odd.main(str(features), None, str(tmp_path / "odd.csv"), ask=False, port=0)
    page.main(str(features), str(tmp_path / "odd.csv"), str(tmp_path / "map.html"))
    content = content_of(tmp_path / "map.html")
    places = np.array(content["places"])
    assert places.shape == (40, 2)
    assert places.min() == 0
    assert places.max() == 9999
    assert len(content["sheets"]) == 1
    columns = {column["name"]: column for column in content["columns"]}
    apart = pd.read_csv(tmp_path / "odd.csv").set_index("path")["apart"]
    paths = columns["path"]["values"]
    assert columns["apart"]["kind"] == "number"
    assert columns["apart"]["values"] == pytest.approx([apart[path] for path in paths], rel=1e-3)
    assert columns["path"]["kind"] == "text"


def test_an_id_goes_before_a_rank_that_is_unique_too(features: Path, tmp_path: Path) -> None:
    given = pd.DataFrame({"rank": range(3), "objID": [7, 8, 9]})
    pd.DataFrame({"rank": range(3), "objID": [8, 9, 10], "score": [1, 2, 3]}).to_csv(tmp_path / "t.csv", index=False)
    told = page._with(given, tmp_path / "t.csv", features)
    assert told["score"].fillna(0).tolist() == [0, 1, 2]
    pd.DataFrame({"objID": [8, 8], "score": [1, 2]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(HiwlError, match="objID 8 appears twice; keep one row of it"):
        page._with(given, tmp_path / "t.csv", features)


def test_a_table_may_name_galaxies_by_the_ids_that_their_files_have(features: Path, tmp_path: Path) -> None:
    given = pd.DataFrame({"path": ["survey.zip/a/100.jpg", "survey.zip/a/101.jpg"]})
    pd.DataFrame({"GalaxyID": [101, 7], "class": ["SPI", "EO"], "row": [1, 2]}).to_csv(tmp_path / "t.csv", index=False)
    told = page._with(given, tmp_path / "t.csv", features)
    assert list(told) == ["path", "class"]
    assert told["class"].fillna("").tolist() == ["", "SPI"]
    same = pd.DataFrame({"path": ["a/100.jpg", "b/100.png"]})  # two galaxies of one name: which is meant?
    pd.DataFrame({"GalaxyID": [100], "class": ["SPI"]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(HiwlError, match="or by an ID after which their files are named"):
        page._with(same, tmp_path / "t.csv", features)


def test_what_cannot_be_a_map_is_told(features: Path, tmp_path: Path) -> None:
    pd.DataFrame({"name": ["a"], "score": [1]}).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(HiwlError, match="no column tells galaxies as one of"):
        page.main(str(features), str(tmp_path / "other.csv"), str(tmp_path / "map.html"))
    assert not (tmp_path / "map.html").exists()


@pytest.mark.elsewhere
def test_a_person_points_at_galaxies_colours_and_comes_nearer(features: Path, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    odd.main(str(features), None, str(tmp_path / "odd.csv"), ask=False, port=0)
    page.main(str(features), str(tmp_path / "odd.csv"), str(tmp_path / "map.html"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        wrong: list[str] = []
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.goto((tmp_path / "map.html").as_uri())
        tab.select_option("#by", label="apart")
        assert tab.locator("#keys .key").count() == 2
        x, y = tab.evaluate(
            "[data.places[7][0] * view.scale + view.x, data.places[7][1] * view.scale + view.y]"
            ".map(at => at / devicePixelRatio)"
        )
        top = tab.evaluate("canvas.getBoundingClientRect().top")
        tab.mouse.move(x, y + top)
        told = content_of(tmp_path / "map.html")["columns"][0]["values"]
        assert told[7] in tab.locator("#told").inner_text()
        before = tab.evaluate("view.scale")
        tab.mouse.wheel(0, -400)
        tab.wait_for_function(f"view.scale > {before}")
        tab.dblclick("#map")
        assert tab.evaluate("view.scale") == pytest.approx(before)
        assert not wrong
