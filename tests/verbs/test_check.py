from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiwl.core.errors import HiwlError
from hiwl.model.trust import PERCENTILES
from hiwl.verbs import check
from hiwl.verbs.check import Compared, distance_between, judge
from pictures import encode, jpeg, noise
from project import Project


@given(st.integers(0, 50))
def test_samples_of_one_distribution_are_near_and_shifted_ones_as_far_as_they_are_shifted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known = np.percentile(rng.uniform(size=5000), PERCENTILES)
    assert distance_between(rng.uniform(size=1000), known) < 0.07
    assert distance_between(rng.uniform(size=1000) + 0.4, known) == pytest.approx(0.4, abs=0.07)
    assert distance_between(rng.uniform(size=1000) - 2, known) == pytest.approx(1, abs=0.01)


def test_values_that_are_all_equal_are_no_shift() -> None:
    assert distance_between(np.zeros(500), np.percentile(np.zeros(1000), PERCENTILES)) == pytest.approx(0, abs=0.01)


def compared(distance: float) -> list[Compared]:
    return [Compared("size", "", np.zeros(1), np.zeros(1), distance)]


def test_the_verdict_follows_from_how_many_are_unlike_and_from_what_has_shifted() -> None:
    fine = np.arange(1000) < 12
    assert judge(fine, compared(0.05))[0].startswith("The scores of these pictures can be trusted")
    assert judge(fine, compared(0.4))[0].startswith("Trust the scores of these pictures only after a look")
    assert judge(np.arange(1000) < 120, compared(0.05))[0].startswith("Trust the scores of these pictures only after")
    assert judge(np.arange(1000) < 400, compared(0.05))[0].startswith("Do not trust")
    few, why = judge(np.arange(20) < 0, compared(0.05))
    assert few.startswith("Nothing speaks against these pictures, but")
    assert why == ["Of 100 pictures or more this page says whether their scores can be trusted; these are 20."]
    assert judge(fine, compared(0.4))[1] == ["size is distributed otherwise (by 0.40 of 1)"]


def test_a_page_says_first_what_to_make_of_the_scores(evaluated: Project, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.png").write_bytes(encode(noise(256 + number, 256)))
    (folder / "<i>broken.jpg").write_bytes(jpeg(1)[:300])
    check.main([str(folder)], "models/choice", str(tmp_path / "check.html"))
    page = (tmp_path / "check.html").read_text()
    first = page.split("<h1>")[1].split("</h1>")[0]
    assert first.endswith(("scores of these pictures.", "look at some of them."))
    assert "<h2>Not answered</h2>" in page
    assert "sharpness" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    (folder / "only").mkdir()
    (folder / "only/broken.jpg").write_bytes(b"x")
    with pytest.raises(HiwlError, match="none of 1 pictures can be read, such as: not a JPEG"):
        check.main([str(folder / "only")], "models/choice", str(tmp_path / "none.html"))
    assert not (tmp_path / "none.html").exists()
