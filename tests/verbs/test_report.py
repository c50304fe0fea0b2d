from pathlib import Path

import pandas as pd
import pytest

from hiwl.core.errors import HiwlError
from hiwl.studies import page
from hiwl.verbs import report
from runs import ABLATIONS, STUDY, keep, plan_study


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test is not about pictures, none is drawn for report.html."""
    if "loads_nothing" not in request.node.name:
        monkeypatch.setattr(page, "study_pictures", lambda report, name: {})


def test_the_report_stands_on_records_alone_and_loads_nothing(project: Path) -> None:
    for seed in (1, 2):
        keep(seed, "one", [0, 1, 2])
        keep(seed, "two", [0, 7])
    report.main()
    text = Path("docs/results/trees.md").read_text()
    assert "4 of 4 runs are on record" in text
    assert "85.00 ± 0.00" in text
    whole = Path("report.html").read_text()
    assert "data:image/svg+xml;base64," in whole
    assert "<nav" in whole
    assert 'src="http' not in whole and 'href="http' not in whole
    assert Path("results/mine/runs.csv").exists()


def test_the_report_says_what_was_not_run_and_what_it_leaves_out(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(1, "one", [0])
    keep(2, "two", [0])
    report.main()
    assert "- `trees`: 2 of 4 runs are missing" in Path("docs/results.md").read_text()
    plan_study(STUDY | {"cells": {"one": STUDY["cells"]["one"]}, "against": None})
    keep(2, "one", None)
    capsys.readouterr()
    report.main()
    said = capsys.readouterr().out
    assert "two-seed2-two-2-hi.json is left out: not a run of any study" in said
    assert "one-seed2-one-2-hi.json is left out: not evaluated yet" in said


def test_a_superseded_study_is_told_among_the_earlier_ones(project: Path) -> None:
    plan_study(STUDY | {"superseded": True}, "old")
    plan_study(STUDY | {"cells": ABLATIONS, "against": "hiwl"})
    keep(1, "one", [0])
    report.main()
    assert "## Study `old` (superseded)" in Path("docs/results/earlier.md").read_text()
    assert not Path("docs/results/old.md").exists()


def test_second_crowds_stand_beside_the_errors(project: Path) -> None:
    keep(1, "one", [0, 5])
    redrawn = pd.DataFrame({"GalaxyID": range(20), "class": "CRS", "left": 0.25, "changed": 0.01, "volunteers": 44})
    redrawn.to_csv("results/mine/redraw.csv.gz", index=False)
    share = {"share": 0.5, "standard_error": 0.1}
    crowd = {"galaxies": 9, "stayed": share, "changed": share, "left": share, "entered": None}
    content = {"crowds": [{"volunteers": 44, "selected": crowd, "classes": {}, "rejected": crowd}], "repeats": 2}
    Path("results/mine/redraw.json").write_text(pd.Series(content).to_json())
    report.main()
    text = Path("docs/results/label-noise.md").read_text()
    assert "| 44 | 50.00 ± 10.00 | 50.00 ± 10.00 | 50.00 ± 10.00 |  |  |  | 25.0 to 75.0 |" in text
    again = Path("results/again")
    again.mkdir()
    for name in ("redraw.json", "redraw.csv.gz"):
        (again / name).write_bytes(Path("results/mine", name).read_bytes())
    with pytest.raises(HiwlError, match="galaxy 0 is in two of them"):
        report.main()


def test_records_of_no_study_are_an_error_that_says_so(project: Path) -> None:
    keep(9, "one", [0])
    with pytest.raises(HiwlError, match="none of the 1 records"):
        report.main()


def test_without_records_the_report_says_where_they_come_from(project: Path) -> None:
    with pytest.raises(HiwlError, match="no records of runs"):
        report.main()
