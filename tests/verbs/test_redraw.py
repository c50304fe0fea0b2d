import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from crowds import RULES, table
from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256
from hiwl.core.layout import RAW_MANIFEST, RAW_TABLE
from hiwl.survey.votes import TASKS
from hiwl.verbs import redraw

FILES = {"kind": "files", "table": "votes", "images_sha256": "a" * 64, "table_sha256": "b" * 64}
SIMULATED = {"kind": "simulated", "galaxies": 300, "seed": 1, "volunteers": 44}


@pytest.fixture
def votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """A few galaxies of each kind, in a project's folder; ten repeats."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(redraw, "REPEATS", 10)
    smooth, disk = [0.9, 0.05, 0.05], [0.05, 0.9, 0.05]
    kinds: list[dict[int, list[float]]] = [
        {1: smooth, 7: shares} for shares in ([7.0, 2.0, 1.0], [2.0, 7.0, 1.0], [1.0, 2.0, 7.0])
    ]
    kinds += [
        {1: disk, 2: [8.0, 2.0]},
        {1: disk, 2: [0.5, 9.5], 4: [8.0, 2.0]},
        {1: [5.0, 4.0, 1.0], 7: [1.0, 1.0, 1.0]},
    ]
    return table(kinds * 4)


def bring_in(
    votes: pd.DataFrame, committed: dict[str, Any], source: dict[str, Any], kind: str = "votes", survey: str = "mine"
) -> None:
    RAW_TABLE.parent.mkdir(parents=True, exist_ok=True)
    votes.to_csv(RAW_TABLE, index=False)
    RAW_MANIFEST.write_text(json.dumps({"survey": survey, "table": kind}))
    sections = {"raw": {"survey": "mine", "source": source}, "select": committed["select"] | {"rules": RULES}}
    Path("params.yaml").write_text(yaml.safe_dump(committed | sections, sort_keys=False))


def test_real_galaxies_leave_their_figures_in_results(
    votes: pd.DataFrame, committed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    bring_in(votes, committed, FILES)
    redraw.main()
    content = json.loads(Path("results/mine/redraw.json").read_text())
    assert content["table_sha256"] == sha256(RAW_TABLE)
    assert (content["survey"], content["rules"], content["repeats"]) == ("mine", RULES, 10)
    assert [crowd["volunteers"] for crowd in content["crowds"]] == [20, 40, 44, 60]
    for crowd in content["crowds"]:
        assert {name: kept["galaxies"] for name, kept in crowd["classes"].items()} == dict.fromkeys(RULES, 4)
        assert crowd["rejected"]["galaxies"] == 4
        for kept in [*crowd["classes"].values(), crowd["selected"]]:
            stayed = sum(kept["drawn_as"].values()) / (10 * kept["galaxies"])
            assert kept["stayed"]["share"] == pytest.approx(stayed)
            assert kept["left"]["share"] == pytest.approx(1 - stayed)
    assert "44 volunteers: of 20 selected galaxies" in capsys.readouterr().out
    of_galaxies = pd.read_csv("results/mine/redraw.csv.gz")
    like_the_first = content["crowds"][2]
    assert of_galaxies["class"].value_counts().to_dict() == dict.fromkeys(RULES, 4)
    assert of_galaxies["left"].mean() == pytest.approx(like_the_first["selected"]["left"]["share"], abs=1e-3)
    stayed = (1 - of_galaxies["left"]).sum()
    assert of_galaxies["changed"].sum() == pytest.approx(
        stayed * like_the_first["selected"]["changed"]["share"], abs=0.01
    )


def test_simulated_galaxies_leave_nothing_in_results(
    votes: pd.DataFrame, committed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    bring_in(votes, committed, SIMULATED)
    redraw.main()
    assert "44 volunteers" in capsys.readouterr().out
    assert not Path("results").exists()


def test_labels_cannot_be_drawn_again(votes: pd.DataFrame, committed: dict[str, Any]) -> None:
    bring_in(votes, committed, FILES | {"table": "labels"}, kind="labels")
    with pytest.raises(HiwlError, match=r"manifest\.json.*labels.*dvc exp run -S survey=votes select"):
        redraw.main()
    assert not Path("results").exists()


def test_another_surveys_votes_are_not_taken_for_this_ones(votes: pd.DataFrame, committed: dict[str, Any]) -> None:
    bring_in(votes, committed, FILES, survey="simulated")
    with pytest.raises(HiwlError, match=r"holds the survey simulated, params\.yaml names mine"):
        redraw.main()
    assert not Path("results").exists()


def test_the_selection_is_the_surveys_own(votes: pd.DataFrame, committed: dict[str, Any]) -> None:
    few = [5 if row % 2 else 50 for row in range(len(votes))]
    bring_in(votes.assign(**{f"volunteers_{task}": few for task in TASKS}), committed, FILES)
    redraw.main()
    content = json.loads(Path("results/mine/redraw.json").read_text())
    assert {crowd["selected"]["galaxies"] for crowd in content["crowds"]} == {12}
    assert {crowd["rejected"]["entered"]["share"] for crowd in content["crowds"]} == {0}

    bring_in(votes, committed | {"select": committed["select"] | {"by": "commonest"}}, FILES)
    with pytest.raises(HiwlError, match=r"select\.by: commonest: only a selection by rules"):
        redraw.main()
